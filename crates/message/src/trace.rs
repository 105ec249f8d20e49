//! Trace fields: `Received` (RFC 5321 §4.4), `Return-Path`, `Delivered-To`, and the loops that they reveal (RFC 5321 §6.3).

use std::net::IpAddr;

use pillarbox_smtp::{Mailbox, ReversePath};

use crate::date::{UnixMillis, push_rfc5322};
use crate::encode::one_line;
use crate::header;

/// What `with` says: the registry of RFC 3848, with RFC 6531 §4.3's names for transactions that used SMTPUTF8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO; the flags choose among ESMTP, ESMTPA, ESMTPS, ESMTPSA and their UTF8SMTP forms.
    Esmtp {
        /// TLS was on.
        tls: bool,
        /// The client had logged in.
        auth: bool,
        /// MAIL had SMTPUTF8.
        utf8: bool,
    },
    /// LHLO, with the same flags.
    Lmtp {
        /// TLS was on.
        tls: bool,
        /// The client had logged in.
        auth: bool,
        /// MAIL had SMTPUTF8.
        utf8: bool,
    },
    /// Not by the network: a program on this machine. `with` is left out.
    Local,
}

impl Protocol {
    /// The registered keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Smtp => "SMTP",
            Self::Esmtp { tls, auth, utf8 } => match (utf8, tls, auth) {
                (false, false, false) => "ESMTP",
                (false, false, true) => "ESMTPA",
                (false, true, false) => "ESMTPS",
                (false, true, true) => "ESMTPSA",
                (true, false, false) => "UTF8SMTP",
                (true, false, true) => "UTF8SMTPA",
                (true, true, false) => "UTF8SMTPS",
                (true, true, true) => "UTF8SMTPSA",
            },
            Self::Lmtp { tls, auth, utf8 } => match (utf8, tls, auth) {
                (false, false, false) => "LMTP",
                (false, false, true) => "LMTPA",
                (false, true, false) => "LMTPS",
                (false, true, true) => "LMTPSA",
                (true, false, false) => "UTF8LMTP",
                (true, false, true) => "UTF8LMTPA",
                (true, true, false) => "UTF8LMTPS",
                (true, true, true) => "UTF8LMTPSA",
            },
        }
    }

    /// Whether UTF-8 may stand in the field (RFC 6531 §3.7.3).
    fn utf8(self) -> bool {
        matches!(self, Self::Esmtp { utf8: true, .. } | Self::Lmtp { utf8: true, .. })
    }
}

/// What a `Received` field is made of.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// What the client called itself; empty for local programs.
    pub helo: &'a str,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The client's name by reverse look-up, where it was made and confirmed.
    pub client_name: Option<&'a str>,
    /// TLS version and cipher suite, such as `("TLSv1.3", "TLS13_AES_256_GCM_SHA384")`.
    pub tls: Option<(&'a str, &'a str)>,
    /// Who had logged in; named in a comment, so that abuse can be traced (RFC 5068 §3.1).
    pub user: Option<&'a Mailbox>,
    /// Our name.
    pub by: &'a str,
    /// How it came.
    pub with: Protocol,
    /// Our queue id.
    pub id: &'a str,
    /// The recipient, when there is exactly one: naming several would tell them of each other.
    pub recipient: Option<&'a Mailbox>,
    /// When.
    pub at: UnixMillis,
}

impl Received<'_> {
    /// The whole field with its CRLF. Each clause has its own line.
    pub fn field(&self) -> String {
        let mut out = String::with_capacity(320);
        out.push_str("Received: ");
        if self.with != Protocol::Local {
            out.push_str("from ");
            push_name(&mut out, self.helo);
            if let Some(ip) = self.client {
                out.push_str(" (");
                if let Some(name) = self.client_name {
                    push_name(&mut out, name);
                    out.push(' ');
                }
                push_literal(&mut out, ip);
                out.push(')');
            }
            if let Some((version, cipher)) = self.tls {
                out.push_str("\r\n\t(using ");
                push_comment(&mut out, version);
                out.push_str(" with cipher ");
                push_comment(&mut out, cipher);
                out.push(')');
            }
            if let Some(user) = self.user.filter(|u| u.is_ascii() || self.with.utf8()) {
                out.push_str("\r\n\t(authenticated as ");
                push_comment(&mut out, &user.to_string());
                out.push(')');
            }
            out.push_str("\r\n\t");
        }
        out.push_str("by ");
        push_name(&mut out, self.by);
        out.push_str(" (Pillarbox)");
        if self.with != Protocol::Local {
            out.push_str(" with ");
            out.push_str(self.with.keyword());
        }
        out.push_str(" id ");
        out.extend(self.id.chars().filter(char::is_ascii_alphanumeric));
        if let Some(recipient) = self.recipient.filter(|r| r.is_ascii() || self.with.utf8()) {
            out.push_str("\r\n\tfor <");
            out.push_str(&one_line(&recipient.to_string()));
            out.push('>');
        }
        out.push_str(";\r\n\t");
        push_rfc5322(&mut out, self.at);
        out.push_str("\r\n");
        out
    }
}

/// A domain or address literal from the network: what cannot stand in one becomes `?`, the rest is cut at 255.
fn push_name(out: &mut String, name: &str) {
    if name.is_empty() {
        out.push_str("unknown");
        return;
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    out.extend(name.chars().take(255).map(|c| if fits(c) { c } else { '?' }));
}

/// Text inside a comment: no parenthesis, backslash or control character.
fn push_comment(out: &mut String, text: &str) {
    out.extend(text.chars().take(320).map(|c| if c.is_control() || matches!(c, '(' | ')' | '\\') { '?' } else { c }));
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn push_literal(out: &mut String, ip: IpAddr) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = match ip.to_canonical() {
        IpAddr::V4(v4) => write!(out, "[{v4}]"),
        IpAddr::V6(v6) => write!(out, "[IPv6:{v6}]"),
    };
}

/// `Return-Path: <…> CRLF`, as final delivery adds it (RFC 5321 §4.4).
pub fn return_path(path: &ReversePath) -> String {
    format!("Return-Path: <{path}>\r\n")
}

/// `Delivered-To: … CRLF`: the mailbox that a delivery is for. Also how forwarding loops are found.
pub fn delivered_to(mailbox: &Mailbox) -> String {
    format!("Delivered-To: {mailbox}\r\n")
}

/// How many `Received` fields there are: RFC 5321 §6.3's hop count.
pub fn hops(message: &[u8]) -> usize {
    header::fields(message).filter(|f| f.is("Received")).count()
}

/// How many `Received` fields say that they were written by `hostname`.
pub fn own_hops(message: &[u8], hostname: &str) -> usize {
    header::fields(message).filter(|f| f.is("Received") && received_by(&f.unfolded(), hostname)).count()
}

/// Whether the `by` clause names `hostname`.
fn received_by(value: &[u8], hostname: &str) -> bool {
    let mut words = value.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
    let mut depth = 0usize;
    while let Some(word) = words.next() {
        if depth == 0 && word.eq_ignore_ascii_case(b"by") {
            return words.next().is_some_and(|name| name.strip_suffix(b";").unwrap_or(name).eq_ignore_ascii_case(hostname.as_bytes()));
        }
        for b in word {
            match b {
                b'(' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    false
}

/// Whether the message was delivered to this mailbox before: it is going round.
pub fn was_delivered_to(message: &[u8], mailbox: &Mailbox) -> bool {
    header::fields(message)
        .filter(|f| f.is("Delivered-To"))
        .any(|f| f.text().trim_matches(['<', '>', ' ']).parse::<Mailbox>().is_ok_and(|other| other.same_as(mailbox)))
}

/// Whether an `Authentication-Results` field claims to be ours, so that RFC 8601 §5 wants it removed from mail that came from outside.
///
/// Also true for one without a readable authserv-id, which some reader might take for ours.
pub fn claims_results_of(field: &header::Field<'_>, authserv_id: &str) -> bool {
    if !field.is("Authentication-Results") {
        return false;
    }
    let value = field.unfolded();
    let mut rest = value.as_ref();
    let mut depth = 0usize;
    // Comments may stand before the id, nested and with escapes.
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b'\\' if depth > 0 => {
                rest = after.get(1..).unwrap_or_default();
                continue;
            }
            b' ' | b'\t' => {}
            _ if depth > 0 => {}
            _ => break,
        }
        rest = after;
    }
    let id: Vec<u8> = if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut id = Vec::new();
        let mut bytes = quoted.iter();
        while let Some(&b) = bytes.next() {
            match b {
                b'"' => break,
                b'\\' => id.extend(bytes.next()),
                other => id.push(other),
            }
        }
        id
    } else {
        rest.iter().copied().take_while(|b| !b.is_ascii_whitespace() && !matches!(b, b';' | b'(')).collect()
    };
    let id = id.strip_suffix(b".").unwrap_or(&id);
    id.is_empty() || id.eq_ignore_ascii_case(authserv_id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        text.parse().unwrap()
    }

    fn received<'a>() -> Received<'a> {
        Received {
            helo: "client.example.com",
            client: Some("192.0.2.7".parse().unwrap()),
            client_name: None,
            tls: None,
            user: None,
            by: "mail.example.org",
            with: Protocol::Esmtp { tls: false, auth: false, utf8: false },
            id: "0123456789abc",
            recipient: None,
            at: 1_795_502_539_000,
        }
    }

    #[test]
    fn the_usual_field() {
        assert_eq!(
            received().field(),
            "Received: from client.example.com ([192.0.2.7])\r\n\tby mail.example.org (Pillarbox) with ESMTP id 0123456789abc;\r\n\tTue, 24 Nov 2026 06:42:19 +0000\r\n"
        );
    }

    #[test]
    fn everything_at_once_parses_elsewhere() {
        let (user, rcpt) = (mailbox("ada@example.org"), mailbox("bob@example.net"));
        let field = Received {
            client: Some("2001:db8::1".parse().unwrap()),
            client_name: Some("client.example.com"),
            tls: Some(("TLSv1.3", "TLS13_AES_256_GCM_SHA384")),
            user: Some(&user),
            recipient: Some(&rcpt),
            with: Protocol::Esmtp { tls: true, auth: true, utf8: false },
            ..received()
        }
        .field();
        assert!(field.split("\r\n").all(|l| l.len() <= 78), "{field}");
        let message = format!("{field}\r\n");
        let parsed = mail_parser::MessageParser::default().parse(message.as_bytes()).unwrap();
        let found = parsed.received().unwrap();
        assert_eq!(found.id(), Some("0123456789abc"));
        assert_eq!(found.for_(), Some("bob@example.net"));
        assert_eq!(found.with(), Some(mail_parser::Protocol::ESMTPSA));
        assert_eq!(found.date().unwrap().to_timestamp(), 1_795_502_539);
    }

    #[test]
    fn a_local_message_names_no_client() {
        let field = Received { with: Protocol::Local, client: None, helo: "", ..received() }.field();
        assert!(field.starts_with("Received: by mail.example.org (Pillarbox) id 0123456789abc;"), "{field}");
    }

    #[test]
    fn clients_cannot_inject() {
        let field =
            Received { helo: "x\r\nBcc: y (", client_name: Some(")\r\n"), tls: Some(("a)\r\n", "\x1b[2J")), id: "a\r\nb", ..received() }
                .field();
        assert_eq!(header::fields(field.as_bytes()).count(), 1);
        assert!(!field.contains('\x1b'));
        assert!(field.len() < 400);
    }

    #[test]
    fn loops_are_seen() {
        let message = b"Received: from a (helo by other)\r\n\tby Mail.example.org; date\r\nReceived: from x by y;z\r\nDelivered-To: Bob+x@EXAMPLE.net\r\n\r\n";
        assert_eq!(hops(message), 2);
        assert_eq!(own_hops(message, "mail.example.org"), 1);
        assert!(was_delivered_to(message, &mailbox("bob+X@example.net")));
        assert!(!was_delivered_to(message, &mailbox("bob@example.net")));
    }

    #[test]
    fn forged_results_are_recognised() {
        for (value, ours) in [
            ("mail.example.org; spf=pass", true),
            (" (a (b\\) c)) MAIL.example.org 1; none", true),
            ("\"mail.example.org\"; none", true),
            ("mail.example.org.; none", true),
            ("(c)", true),
            ("other.example.org; spf=pass", false),
            ("mail.example.org.evil.test; none", false),
        ] {
            let raw = format!("Authentication-Results:{value}\r\n\r\n");
            let field = header::fields(raw.as_bytes()).next().unwrap();
            assert_eq!(claims_results_of(&field, "mail.example.org"), ours, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn one_field_whatever_the_client_says(helo in "\\PC{0,300}", name in "[\\x00-\\x7f]{0,40}", user in "[a-z\\PC]{1,20}") {
            let user = pillarbox_smtp::LocalPart::new(&user).map(|l| Mailbox::new(l, "example.org".parse().unwrap()));
            let field = Received { helo: &helo, client_name: Some(&name), user: user.as_ref().ok(), recipient: user.as_ref().ok(), ..received() }.field();
            proptest::prop_assert_eq!(header::fields(field.as_bytes()).count(), 1);
            proptest::prop_assert!(field.is_ascii());
            proptest::prop_assert!(field.split("\r\n").all(|l| l.len() <= 998));
        }
    }
}
