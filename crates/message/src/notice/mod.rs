//! Mail that the system itself writes to people and to other systems: notices, TLS reports, DMARC reports.

mod aggregate;

use pillarbox_smtp::Mailbox;

use crate::date::{self, UnixMillis};
use crate::encode;
use crate::lines;

pub use aggregate::{DmarcReport, TlsReport, dmarc_report, tls_report};

/// What every notice is made of.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// Our name: the domain of From and Message-ID.
    pub hostname: &'a str,
    /// Who gets it.
    pub to: &'a Mailbox,
    /// When it is written.
    pub now: UnixMillis,
    /// Fresh random bits for Message-ID and boundaries.
    pub random: u64,
}

impl Letter<'_> {
    /// The fields that all have in common, up to `MIME-Version`.
    fn push_head(&self, out: &mut Vec<u8>, from_name: &str, from_local: &str, subject: &str) {
        encode::push_structured(out, "Date", &date::rfc5322(self.now));
        encode::push_structured(out, "From", &format!("{} <{from_local}@{}>", encode::phrase(from_name), self.hostname));
        encode::push_structured(out, "To", &format!("<{}>", self.to));
        encode::push_unstructured(out, "Subject", subject);
        encode::push_structured(out, "Message-ID", &encode::message_id(self.now, self.random, self.hostname));
        encode::push_structured(out, "Auto-Submitted", "auto-generated");
        encode::push_structured(out, "MIME-Version", "1.0");
    }
}

/// A notice in plain text from the mail system: a whole message with CRLF line ends, to be sent with a null reverse path.
pub fn notice(letter: &Letter<'_>, subject: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + text.len());
    letter.push_head(&mut out, "Mail System", "postmaster", subject);
    encode::push_text(&mut out, &lines::to_crlf(text.as_bytes()));
    out
}

/// Tells a user that the mailbox is nearly full. `used` and `quota` are octets.
pub fn quota_warning(letter: &Letter<'_>, used: u64, quota: u64) -> Vec<u8> {
    // Rounded down: a mailbox is not called full before it is.
    let percent = if quota == 0 { 100 } else { u128::from(used) * 100 / u128::from(quota) };
    let text = format!(
        "Your mailbox {} is {percent} % full: {} of {} are in use.\n\n\
         When it is full, new mail is turned away and its senders are told so. To make room,\n\
         delete mail that you no longer need and empty the trash folder; large attachments\n\
         are the quickest gain. Your administrator can also give you more space.\n",
        letter.to,
        size(used),
        size(quota)
    );
    notice(letter, &format!("Your mailbox is {percent} % full"), &text)
}

/// Tells the postmaster that a user ran into the sending limit, which may mean a stolen password. `window` is a phrase such as `an hour`.
pub fn rate_notice(letter: &Letter<'_>, user: &Mailbox, limit: u64, window: &str) -> Vec<u8> {
    let window = encode::one_line(window);
    let text = format!(
        "{user} has reached the limit of {limit} messages in {window}. Further messages are\n\
         refused until the limit allows them again; nothing that was accepted is lost.\n\n\
         If this user does not usually send that much, the password may have been stolen:\n\n\
         \x20 pillarbox queue list --from {user}\n\
         \x20 pillarbox user suspend {user}\n\n\
         If it is legitimate, raise rate_per_user under [submission] in the configuration.\n"
    );
    notice(letter, &format!("{user} reached the sending limit"), &text)
}

/// A size for people.
fn size(octets: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    match UNITS.iter().find(|(unit, _)| octets >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", octets / unit, octets % unit * 10 / unit),
        None => format!("{octets} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(to: &Mailbox) -> Letter<'_> {
        Letter { hostname: "mail.example.org", to, now: 1_795_502_539_000, random: 3 }
    }

    #[test]
    fn notices_are_mail() {
        let to: Mailbox = "ada@example.org".parse().unwrap();
        let warning = quota_warning(&letter(&to), 950 << 20, 1000 << 20);
        let parsed = mail_parser::MessageParser::default().parse(&warning).unwrap();
        assert_eq!(parsed.subject(), Some("Your mailbox is 95 % full"));
        assert!(parsed.body_text(0).unwrap().contains("950.0 MB of 1000.0 MB"));
        let notice = String::from_utf8(rate_notice(&letter(&to), &"bob@example.org".parse().unwrap(), 500, "an hour")).unwrap();
        assert!(notice.contains("  pillarbox user suspend bob@example.org\r\n"), "{notice}");
        assert!(!crate::downgrade::has_bare_cr_lf(notice.as_bytes()));
        assert!(quota_warning(&letter(&to), 1, 0).len() > 100);
    }
}
