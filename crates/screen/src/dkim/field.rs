//! Which header fields a signature covers, and how a signature field is folded.

use std::collections::HashMap;

use pillarbox_message::header::{Field, fields};

/// Signed, and once more than they occur, so that nobody can add another one (RFC 6376 §8.15). Present or not.
const ALWAYS: &[&str] = &["from", "reply-to", "subject", "date", "to", "cc"];
/// The same where they are present; absent ones may be added on the way by honest hops.
const WHERE_PRESENT: &[&str] = &[
    "sender",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "in-reply-to",
    "references",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "autocrypt",
];
/// Octets a line of a folded field may have.
const LINE: usize = 76;
/// Octets of base64 a line, as the published ARC vectors have them.
const BASE64_LINE: usize = 72;

/// The `h=` list, and the fields it names in the order in which they are hashed: for each name the last one first (RFC 6376 §5.4.2).
pub(crate) fn signed_fields(message: &[u8]) -> (Vec<&'static str>, Vec<Field<'_>>) {
    let mut present: HashMap<&'static str, Vec<Field<'_>>> = HashMap::new();
    for field in fields(message) {
        if let Some(name) = ALWAYS.iter().chain(WHERE_PRESENT).find(|name| field.is(name)) {
            present.entry(name).or_default().push(field);
        }
    }
    let (mut names, mut hashed) = (Vec::new(), Vec::new());
    for &name in ALWAYS.iter().chain(WHERE_PRESENT) {
        match present.remove(name) {
            Some(found) => {
                names.extend(std::iter::repeat_n(name, found.len() + 1));
                hashed.extend(found.into_iter().rev());
            }
            None if ALWAYS.contains(&name) => names.push(name),
            None => {}
        }
    }
    (names, hashed)
}

/// Appends base64 in lines of at most [`BASE64_LINE`] octets after their indent; `used` are those already on the line. White space may
/// stand anywhere in it.
pub(crate) fn fold_base64(text: &str, mut used: usize, out: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        let (line, later) = rest.split_at(BASE64_LINE.saturating_sub(used).min(rest.len()));
        out.push_str(line);
        rest = later;
        if !rest.is_empty() {
            out.push_str("\r\n\t");
            used = 0;
        }
    }
}

/// Appends a colon-separated list of names, folded after colons only: a name may not be broken.
pub(crate) fn fold_names(names: &[&str], mut used: usize, out: &mut String) {
    for (nth, name) in names.iter().enumerate() {
        if nth > 0 {
            out.push(':');
            used += 1;
            if used + name.len() >= LINE {
                out.push_str("\r\n\t ");
                used = 2;
            }
        }
        out.push_str(name);
        used += name.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn present_fields_are_listed_once_more_than_they_occur() {
        let (names, hashed) = signed_fields(b"From: a\r\nTo: b\r\nX: y\r\nTo: c\r\nMessage-ID: <i>\r\n\r\n");
        assert_eq!(names, ["from", "from", "reply-to", "subject", "date", "to", "to", "to", "cc", "message-id", "message-id"]);
        let values: Vec<_> = hashed.iter().map(|f| String::from_utf8_lossy(f.value).trim().to_owned()).collect();
        assert_eq!(values, ["a", "c", "b", "<i>"]);
    }

    #[test]
    fn long_values_are_folded() {
        let mut out = String::new();
        fold_base64(&"A".repeat(344), 10, &mut out);
        assert!(out.split("\r\n").all(|line| line.len() <= LINE));
        assert_eq!(out.replace("\r\n\t", "").len(), 344);

        let mut list = String::new();
        fold_names(&["content-transfer-encoding"; 8], 3, &mut list);
        assert!(list.split("\r\n").all(|line| line.len() <= LINE));
        assert_eq!(list.replace("\r\n\t ", ""), ["content-transfer-encoding"; 8].join(":"));
    }
}
