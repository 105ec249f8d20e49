//! Header fields with raw octets above 127, rewritten in ASCII (RFC 2047, RFC 2231) for a hop without SMTPUTF8.

use std::borrow::Cow;

use super::Unconvertible;
use crate::address_list;
use crate::encode;
use crate::header::Field;
use crate::mime::Content;

/// Appends the field to `out` in ASCII. Fails when an address itself is not ASCII: nothing can stand for it (RFC 6531 §3.6).
pub(super) fn push_ascii(out: &mut Vec<u8>, field: &Field<'_>) -> Result<(), Unconvertible> {
    if field.raw.is_ascii() {
        out.extend_from_slice(field.raw);
        return Ok(());
    }
    let Ok(name) = std::str::from_utf8(field.name) else { return Ok(()) };
    if name.is_empty() {
        // A line that is no field means nothing to anybody.
        return Ok(());
    }
    let lower = name.to_ascii_lowercase();
    let value = field.unfolded();
    match lower.as_str() {
        "from"
        | "sender"
        | "reply-to"
        | "to"
        | "cc"
        | "bcc"
        | "resent-from"
        | "resent-sender"
        | "resent-to"
        | "resent-cc"
        | "resent-bcc"
        | "disposition-notification-to"
        | "return-receipt-to" => {
            encode::push_structured(out, name, &addresses(name, &value)?);
        }
        "content-type" | "content-disposition" => {
            let content = Content::parse(text(&value).as_bytes());
            let mut rebuilt = ascii(&content.kind);
            for (parameter, value) in &content.parameters {
                rebuilt.push_str(&encode::parameter(&ascii(parameter), value));
            }
            // Folds of long parameters are their own; the rest stays on one line, well under 998 octets each.
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(rebuilt.replace("; ", ";\r\n ").as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        // In trace and id fields only comments and the like can be meant; encoded words have no place there.
        "received"
        | "return-path"
        | "delivered-to"
        | "message-id"
        | "in-reply-to"
        | "references"
        | "resent-message-id"
        | "date"
        | "resent-date"
        | "mime-version"
        | "content-transfer-encoding"
        | "content-id"
        | "authentication-results"
        | "dkim-signature"
        | "arc-seal"
        | "arc-message-signature"
        | "arc-authentication-results"
        | "received-spf" => {
            encode::push_structured(out, name, &ascii(&text(&value)));
        }
        _ => push_words(out, name, &text(&value)),
    }
    Ok(())
}

/// The value as text: UTF-8, or else Latin-1, in which every octet means something.
fn text(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.iter().map(|&b| char::from(b)).collect()),
    }
}

fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

/// An address list with encoded display names.
fn addresses(name: &str, value: &[u8]) -> Result<String, Unconvertible> {
    let mut list = Vec::new();
    for entry in address_list::parse(text(value).as_bytes()) {
        let mailbox = entry.address.map_err(|_| Unconvertible::Address(name.to_owned()))?;
        if !mailbox.is_ascii() {
            return Err(Unconvertible::Address(name.to_owned()));
        }
        // A name in encoded words already stays as it is.
        if entry.name.is_ascii() && entry.name.contains("=?") {
            list.push(format!("{} <{mailbox}>", encode::one_line(&entry.name)));
        } else {
            list.push(encode::address(&entry.name, &mailbox));
        }
    }
    Ok(list.join(", "))
}

/// An unstructured field: as a whole, or, where it holds encoded words already, only the runs of words that need it.
fn push_words(out: &mut Vec<u8>, name: &str, value: &str) {
    if !value.contains("=?") {
        encode::push_unstructured(out, name, value);
        return;
    }
    let mut words: Vec<String> = Vec::new();
    let mut run = String::new();
    for word in value.split(' ').filter(|w| !w.is_empty()) {
        if word.is_ascii() {
            if !run.is_empty() {
                words.push(encode::unstructured(&std::mem::take(&mut run), 60).replace("\r\n", ""));
            }
            words.push(word.to_owned());
        } else {
            if !run.is_empty() {
                run.push(' ');
            }
            run.push_str(word);
        }
    }
    if !run.is_empty() {
        words.push(encode::unstructured(&run, 60).replace("\r\n", ""));
    }
    encode::push_structured(out, name, &words.join(" "));
}
