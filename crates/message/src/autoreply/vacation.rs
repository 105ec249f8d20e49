//! Writing a vacation reply (RFC 3834 §3, RFC 5230 §5).

use pillarbox_smtp::Mailbox;

use crate::date::{self, UnixMillis};
use crate::encode;
use crate::header;
use crate::lines;

/// What a reply is made of.
#[derive(Debug, Clone, Copy)]
pub struct Vacation<'a> {
    /// The user who is away.
    pub from: &'a Mailbox,
    /// The user's name; empty for none.
    pub from_name: &'a str,
    /// The envelope sender of the original (RFC 3834 §4: not Reply-To, not From).
    pub to: &'a Mailbox,
    /// The configured subject; empty: `Auto: ` and the original's.
    pub subject: &'a str,
    /// What the user has to say.
    pub text: &'a str,
    /// The original's header section (a body behind it is ignored).
    pub original: &'a [u8],
    /// Our name, for the Message-ID.
    pub hostname: &'a str,
    /// When the reply is written.
    pub now: UnixMillis,
    /// Fresh random bits for the Message-ID.
    pub random: u64,
}

/// Most octets of `References` that a reply repeats.
const REFERENCES_LIMIT: usize = 4000;

/// The reply: a whole message with CRLF line ends, to be sent with a null reverse path.
pub fn build(vacation: &Vacation<'_>) -> Vec<u8> {
    let text = lines::to_crlf(vacation.text.as_bytes());
    let mut out = Vec::with_capacity(1024 + text.len());
    encode::push_structured(&mut out, "Date", &date::rfc5322(vacation.now));
    encode::push_structured(&mut out, "From", &encode::address(vacation.from_name, vacation.from));
    encode::push_structured(&mut out, "To", &vacation.to.to_string());
    encode::push_unstructured(&mut out, "Subject", &subject(vacation));
    encode::push_structured(&mut out, "Message-ID", &encode::message_id(vacation.now, vacation.random, vacation.hostname));
    if let Some(id) = header::message_id(vacation.original) {
        encode::push_structured(&mut out, "In-Reply-To", &id);
        encode::push_structured(&mut out, "References", &references(vacation.original, &id));
    }
    encode::push_structured(&mut out, "Auto-Submitted", "auto-replied (vacation)");
    // Exchange looks at this and not at Auto-Submitted.
    encode::push_structured(&mut out, "X-Auto-Response-Suppress", "All");
    encode::push_structured(&mut out, "MIME-Version", "1.0");
    encode::push_text(&mut out, &text);
    out
}

fn subject(vacation: &Vacation<'_>) -> String {
    if !vacation.subject.trim().is_empty() {
        return vacation.subject.to_owned();
    }
    let original = header::decoded(vacation.original, "Subject").unwrap_or_default();
    let short: String = original.chars().take(200).collect();
    if short.is_empty() { "Auto: your message".to_owned() } else { format!("Auto: {short}") }
}

/// The original's references and its own id (RFC 5322 §3.6.4), as far as they are ids and not too many: the first and the last ones stay.
fn references(original: &[u8], id: &str) -> String {
    let source = header::first(original, "References").or_else(|| header::first(original, "In-Reply-To"));
    let text = source.map(|f| f.text().into_owned()).unwrap_or_default();
    let mut ids: Vec<&str> = text
        .split_whitespace()
        .filter(|w| w.len() <= 900 && w.starts_with('<') && w.ends_with('>') && w.bytes().all(|b| b.is_ascii_graphic()))
        .collect();
    ids.push(id);
    while ids.len() > 2 && ids.iter().map(|w| w.len() + 1).sum::<usize>() > REFERENCES_LIMIT {
        ids.remove(1);
    }
    ids.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(subject: &str, text: &str, original: &str) -> String {
        let (from, to) = ("ada@example.org".parse().unwrap(), "bob@example.net".parse().unwrap());
        let vacation = Vacation {
            from: &from,
            from_name: "Ada Lovelace",
            to: &to,
            subject,
            text,
            original: original.as_bytes(),
            hostname: "mail.example.org",
            now: 1_795_502_539_000,
            random: 5,
        };
        String::from_utf8(build(&vacation)).unwrap()
    }

    #[test]
    fn a_reply_refers_to_what_it_answers() {
        let text = reply(
            "",
            "I am away.\nWrite to Bob — he knows.",
            "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <2@x>\r\nReferences: <0@x>\r\n\t<1@x> junk\r\n\r\n",
        );
        assert!(text.contains("From: Ada Lovelace <ada@example.org>\r\nTo: bob@example.net\r\n"), "{text}");
        assert!(
            text.contains("In-Reply-To: <2@x>\r\nReferences: <0@x> <1@x> <2@x>\r\nAuto-Submitted: auto-replied (vacation)\r\n"),
            "{text}"
        );
        let parsed = mail_parser::MessageParser::default().parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.subject(), Some("Auto: Grüße"));
        assert_eq!(parsed.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), "I am away.\nWrite to Bob — he knows.");
    }

    #[test]
    fn hostile_originals_change_nothing() {
        let text = reply("a\r\nBcc: x@y", "t", "Message-ID: <a b>\r\nSubject: x\r\n\r\n");
        assert_eq!(header::fields(text.as_bytes()).filter(|f| f.is("Bcc") || f.is("In-Reply-To")).count(), 0);
        let many = format!("Message-ID: <2@x>\r\nReferences: {}\r\n\r\n", "<0123456789@x>\r\n ".repeat(5000));
        assert!(reply("", "t", &many).len() < 8000);
        assert_eq!(reply("", "t", "").matches("Subject: Auto: your message\r\n").count(), 1);
    }
}
