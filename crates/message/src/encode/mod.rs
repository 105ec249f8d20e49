//! Writing header fields and bodies that any reader understands: encoded words, parameters, ids, transfer encodings.
//!
//! Every function here takes text from anywhere and returns bytes that hold no line end but its own folding, no control
//! character and, where it says so, nothing but ASCII. Randomness is passed in.

mod transfer;
mod word;

use std::borrow::Cow;

use pillarbox_smtp::Mailbox;

use crate::date::UnixMillis;

pub use transfer::{base64_lines, quoted_printable};
pub use word::{phrase, unstructured};

/// The line length that RFC 5322 §2.1.1 recommends, without CRLF.
pub const LINE: usize = 78;
/// The line length that RFC 5322 §2.1.1 forbids to exceed, without CRLF.
pub const LONGEST_LINE: usize = 998;

/// The text with every control character, line and paragraph separators included, turned into a space.
pub fn one_line(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}';
    if text.chars().any(bad) { Cow::Owned(text.chars().map(|c| if bad(c) { ' ' } else { c }).collect()) } else { Cow::Borrowed(text) }
}

/// Appends `Name: text CRLF`, the text as encoded words where it is not plain ASCII (RFC 2047 §5 rule 1), folded.
pub fn push_unstructured(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(unstructured(text, name.len() + 2).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends `Name: value CRLF` for a value that is structured already; it is folded at spaces, and control characters become spaces.
///
/// The value's own characters are kept, UTF-8 included: the caller decides whether the message may need SMTPUTF8.
pub fn push_structured(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let mut column = name.len() + 1;
    let value = one_line(value);
    for word in value.split(' ').filter(|w| !w.is_empty()) {
        if column + 1 + word.len() > LINE && column > name.len() + 1 {
            out.extend_from_slice(b"\r\n");
            column = 0;
        }
        out.push(b' ');
        out.extend_from_slice(word.as_bytes());
        column += 1 + word.len();
    }
    out.extend_from_slice(b"\r\n");
}

/// `Display Name <local@domain>`, or the bare address when there is no name. Always one line.
pub fn address(name: &str, mailbox: &Mailbox) -> String {
    if name.trim().is_empty() { mailbox.to_string() } else { format!("{} <{mailbox}>", phrase(name).replace("\r\n", "")) }
}

/// A MIME parameter with its leading `; `: `name=token`, `name="quoted"`, or RFC 2231's `name*=utf-8''percent` with
/// numbered continuations when it is long.
pub fn parameter(name: &str, value: &str) -> String {
    let value = one_line(value);
    let is_token = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b);
    if value.is_ascii() && value.len() + name.len() < LINE - 6 {
        if !value.is_empty() && value.bytes().all(is_token) {
            return format!("; {name}={value}");
        }
        return format!("; {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let mut pieces = vec![String::from("utf-8''")];
    // A character is never split between two pieces: readers decode them one by one.
    for c in value.chars() {
        let unit = if c.is_ascii_alphanumeric() || "-._~!#$&+^`{|}".contains(c) {
            c.to_string()
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().map(|b| format!("%{b:02X}")).collect()
        };
        match pieces.last_mut() {
            Some(last) if last.len() + unit.len() + name.len() <= LINE - 10 => last.push_str(&unit),
            _ => pieces.push(unit),
        }
    }
    match pieces.as_slice() {
        [only] => format!("; {name}*={only}"),
        many => many.iter().enumerate().map(|(i, piece)| format!(";\r\n {name}*{i}*={piece}")).collect(),
    }
}

/// Appends the header of a plain text part, a blank line, and the text, which has CRLF line ends: as it is where it is ASCII, else quoted-printable.
pub fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let plain = text.is_ascii() && !text.contains(&0) && !crate::downgrade::has_long_line(text);
    if plain {
        out.extend_from_slice(b"Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n");
        out.extend_from_slice(text);
    } else {
        out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
        quoted_printable(text, out);
    }
    if !text.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
}

/// A Message-ID with its brackets, unique by time and `random` (RFC 5322 §3.6.4). `host` is a domain name.
pub fn message_id(now: UnixMillis, random: u64, host: &str) -> String {
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    let host = if host.is_empty() { "localhost" } else { &host };
    format!("<{}.{}@{host}>", base36(now), base36(random))
}

/// A MIME boundary of 30 characters. The `=_` in it never occurs in quoted-printable or base64 text (RFC 2045 §6.7),
/// and `random` keeps it from occurring in anything else.
pub fn boundary(random: u64) -> String {
    format!("=_pillarbox_{random:016x}_=")
}

/// Lower-case base 36.
fn base36(mut value: u64) -> String {
    let mut digits = Vec::with_capacity(13);
    loop {
        digits.push(*b"0123456789abcdefghijklmnopqrstuvwxyz".get((value % 36) as usize).unwrap_or(&b'0'));
        value /= 36;
        if value == 0 {
            break;
        }
    }
    digits.iter().rev().map(|&b| char::from(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_choose_the_plainest_form() {
        assert_eq!(parameter("charset", "utf-8"), "; charset=utf-8");
        assert_eq!(parameter("name", "a \"b\""), "; name=\"a \\\"b\\\"\"");
        assert_eq!(parameter("filename", "Grüße.txt"), "; filename*=utf-8''Gr%C3%BC%C3%9Fe.txt");
        assert_eq!(parameter("name", "a\r\nBcc: x"), "; name=\"a  Bcc: x\"");
    }

    #[test]
    fn ids_and_boundaries_are_plain() {
        assert_eq!(message_id(36, 37, "mail.example.org"), "<10.11@mail.example.org>");
        assert_eq!(message_id(0, 0, "\r\n>"), "<0.0@localhost>");
        assert_eq!(boundary(255).len(), 30);
    }

    #[test]
    fn structured_values_fold_at_spaces() {
        let mut out = Vec::new();
        push_structured(&mut out, "References", &"<0123456789012345678901234567890123456789@example.org> ".repeat(3));
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().skip(1).all(|l| l.starts_with(' ')));
    }

    proptest::proptest! {
        #[test]
        fn nothing_breaks_out_of_a_field(text in "\\PC{0,40}[\\r\\n\\x00]{0,3}\\PC{0,400}") {
            for built in [parameter("name", &text), unstructured(&text, 9), phrase(&text)] {
                proptest::prop_assert!(built.is_ascii());
                let unfolded = built.replace("\r\n ", "");
                proptest::prop_assert!(!unfolded.bytes().any(|b| b < 32 || b == 127), "{:?}", built);
                proptest::prop_assert!(built.split("\r\n").all(|l| l.len() <= LONGEST_LINE));
            }
        }

        #[test]
        fn another_parser_reads_parameters_back(text in "[ -~äöü€𝄞]{1,200}") {
            let message = format!("Content-Type: application/octet-stream{}\r\n\r\n", parameter("name", &text));
            let parsed = mail_parser::MessageParser::default().parse(message.as_bytes()).unwrap();
            let name = mail_parser::MimeHeaders::content_type(&parsed).unwrap().attribute("name").unwrap().to_owned();
            proptest::prop_assert_eq!(name.trim(), text.trim());
        }
    }
}
