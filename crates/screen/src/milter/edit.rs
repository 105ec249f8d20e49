//! A message that filters may change: header fields in order, a body, and what else they asked for. Nothing is copied until it changes.

use std::ops::Range;

use bytes::Bytes;
use pillarbox_message::header::{Limits, fields_within, split};
use pillarbox_smtp::{Mailbox, ReversePath, printable};

use super::wire::{Edit, Failure};

/// Fields that are shown to filters and can be changed by them; a message with more is passed on with the rest untouched.
const LIMITS: Limits = Limits { octets: usize::MAX, fields: 10_000 };
/// Recipients that filters may add.
const RECIPIENTS: usize = 1_000;

/// One header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Empty for a line that is no field.
    pub(super) name: Bytes,
    /// After the colon, folds and leading space included, last line end not.
    pub(super) value: Bytes,
    /// All of it.
    raw: Bytes,
}

/// The message as the next filter sees it.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) lines: Vec<Line>,
    /// What stands after the lines in the header section when there are more than a filter is shown.
    rest: Bytes,
    pub(super) body: Bytes,
}

/// What filters changed besides the octets of the message.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The header section is another one.
    pub header: bool,
    /// The body is another one.
    pub body: bool,
    /// Recipients to add.
    pub add_recipients: Vec<Mailbox>,
    /// Recipients to remove.
    pub remove_recipients: Vec<Mailbox>,
    /// The new envelope sender.
    pub change_from: Option<ReversePath>,
    /// Why a filter wants the message set aside, printable: it goes to the junk folder.
    pub quarantine: Option<String>,
    /// A filter added a field that calls the message spam (`X-Spam: Yes`, `X-Spam-Flag: YES`, `X-Spam-Status: Yes, …`).
    pub spam: bool,
}

impl Message {
    /// A message with `prepend` before it and the ranges `remove` left out.
    pub fn new(prepend: &[u8], original: &Bytes, remove: &[Range<usize>]) -> Self {
        let prepend = Bytes::copy_from_slice(prepend);
        let mut message = Self { lines: Vec::new(), rest: Bytes::new(), body: Bytes::new() };
        message.take(&prepend, &[]);
        let end = message.take(original, remove);
        let at = split(original);
        message.rest = original.slice(end.min(at.header)..at.header);
        message.body = original.slice(at.body..);
        message
    }

    fn take(&mut self, octets: &Bytes, remove: &[Range<usize>]) -> usize {
        let mut fields = fields_within(octets, LIMITS);
        for field in fields.by_ref() {
            if remove.iter().any(|range| range.start <= field.range.start && field.range.end <= range.end) {
                continue;
            }
            self.lines.push(Line {
                name: octets.slice_ref(field.name),
                value: octets.slice_ref(field.value),
                raw: octets.slice(field.range),
            });
        }
        fields.offset()
    }

    /// The header section with its empty line.
    pub fn header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.lines.iter().map(|line| line.raw.len()).sum::<usize>() + self.rest.len() + 2);
        for line in &self.lines {
            out.extend_from_slice(&line.raw);
            if !line.raw.ends_with(b"\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(&self.rest);
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Makes a filter's changes. Fails on what no filter in its senses asks for; nothing is changed by a list that fails.
    pub(super) fn apply(&mut self, edits: Vec<Edit>, leading_space: bool, changes: &mut Changes) -> Result<(), Failure> {
        let (mut message, mut made) = (self.clone(), changes.clone());
        let mut body: Option<Vec<u8>> = None;
        for edit in edits {
            match edit {
                Edit::ReplaceBody(piece) => body.get_or_insert_default().extend_from_slice(&piece),
                edit => message.apply_one(edit, leading_space, &mut made)?,
            }
        }
        if let Some(body) = body {
            message.body = body.into();
            made.body = true;
        }
        (*self, *changes) = (message, made);
        Ok(())
    }

    fn apply_one(&mut self, edit: Edit, leading_space: bool, changes: &mut Changes) -> Result<(), Failure> {
        match edit {
            Edit::AddHeader { name, value } => {
                self.lines.push(changes.line(&name, &value, leading_space)?);
            }
            Edit::InsertHeader { index, name, value } => {
                let line = changes.line(&name, &value, leading_space)?;
                let at = usize::try_from(index).unwrap_or(usize::MAX).min(self.lines.len());
                self.lines.insert(at, line);
            }
            Edit::ChangeHeader { index, name, value } => {
                let nth = usize::try_from(index.max(1)).unwrap_or(usize::MAX);
                let at =
                    self.lines.iter().enumerate().filter(|(_, line)| line.name.eq_ignore_ascii_case(&name)).map(|(at, _)| at).nth(nth - 1);
                match (at, value.is_empty()) {
                    (Some(at), true) => {
                        self.lines.remove(at);
                        changes.header = true;
                    }
                    (Some(at), false) => {
                        let line = changes.line(&name, &value, leading_space)?;
                        if let Some(slot) = self.lines.get_mut(at) {
                            *slot = line;
                        }
                    }
                    (None, true) => {}
                    (None, false) => self.lines.push(changes.line(&name, &value, leading_space)?),
                }
            }
            Edit::ChangeFrom(path) => {
                let path = address(&path)?;
                changes.change_from = Some(path.parse().map_err(|_| Failure::Garbage("a malformed sender"))?);
            }
            Edit::AddRecipient(path) => {
                let mailbox = address(&path)?.parse().map_err(|_| Failure::Garbage("a malformed recipient"))?;
                if changes.add_recipients.len() >= RECIPIENTS {
                    return Err(Failure::Garbage("too many recipients added"));
                }
                changes.remove_recipients.retain(|other| !other.same_as(&mailbox));
                changes.add_recipients.push(mailbox);
            }
            Edit::RemoveRecipient(path) => {
                let mailbox: Mailbox = address(&path)?.parse().map_err(|_| Failure::Garbage("a malformed recipient"))?;
                changes.add_recipients.retain(|other| !other.same_as(&mailbox));
                if changes.remove_recipients.len() >= RECIPIENTS {
                    return Err(Failure::Garbage("too many recipients removed"));
                }
                changes.remove_recipients.push(mailbox);
            }
            Edit::Quarantine(reason) => changes.quarantine = Some(printable(&reason)),
            Edit::ReplaceBody(_) => {}
        }
        Ok(())
    }
}

impl Changes {
    /// A field from a filter, made safe: one field, whatever the value holds.
    fn line(&mut self, name: &[u8], value: &[u8], leading_space: bool) -> Result<Line, Failure> {
        if name.is_empty() || name.len() > 200 || !name.iter().all(|octet| octet.is_ascii_graphic() && *octet != b':') {
            return Err(Failure::Garbage("a malformed field name"));
        }
        let mut raw = name.to_vec();
        raw.push(b':');
        let start = raw.len();
        if !leading_space {
            raw.push(b' ');
        }
        for (nth, line) in value.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).enumerate() {
            if nth > 0 {
                if line.trim_ascii().is_empty() {
                    // An empty line would end the header section.
                    continue;
                }
                raw.extend_from_slice(b"\r\n");
                if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                    raw.push(b'\t');
                }
            }
            raw.extend(line.iter().filter(|octet| !matches!(octet, 0 | b'\r')));
        }
        let end = raw.len();
        raw.extend_from_slice(b"\r\n");
        let raw = Bytes::from(raw);
        self.header = true;
        self.spam |= calls_it_spam(name, value.trim_ascii());
        Ok(Line { name: raw.slice(..name.len()), value: raw.slice(start..end), raw })
    }
}

/// Whether a field says "spam" in one of the usual ways.
fn calls_it_spam(name: &[u8], value: &[u8]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    let yes =
        value.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"yes")) && !value.get(3).is_some_and(u8::is_ascii_alphanumeric);
    yes && (is("X-Spam") || is("X-Spam-Flag") || is("X-Spam-Status"))
}

/// `<a@b>` without its brackets, as text.
fn address(path: &[u8]) -> Result<&str, Failure> {
    let text = std::str::from_utf8(path).map_err(|_| Failure::Garbage("an address that is no text"))?.trim();
    Ok(text.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message::new(
            b"P: 0\r\n",
            &Bytes::from_static(b"A: 1\r\nB: 2\r\nA: 3\r\n 4\r\nDrop: x\r\n\r\nbody\r\n"),
            std::slice::from_ref(&(22..31)),
        )
    }

    fn edited(edits: Vec<Edit>) -> (String, Changes) {
        let (mut message, mut changes) = (message(), Changes::default());
        message.apply(edits, false, &mut changes).unwrap();
        (String::from_utf8(message.header()).unwrap(), changes)
    }

    fn change(index: u32, name: &str, value: &str) -> Edit {
        Edit::ChangeHeader { index, name: name.into(), value: value.into() }
    }

    #[test]
    fn an_untouched_message_stays_itself() {
        assert_eq!(edited(vec![]).0, "P: 0\r\nA: 1\r\nB: 2\r\nA: 3\r\n 4\r\n\r\n");
        assert_eq!(message().body(), "body\r\n");
    }

    #[test]
    fn fields_are_added_inserted_changed_and_removed() {
        let add = Edit::AddHeader { name: "N".into(), value: "9".into() };
        let insert = Edit::InsertHeader { index: 1, name: "I".into(), value: "8".into() };
        let (header, changes) =
            edited(vec![add, insert, change(2, "a", "7"), change(1, "B", ""), change(5, "Z", "new"), change(9, "Y", "")]);
        assert_eq!(header, "P: 0\r\nI: 8\r\nA: 1\r\na: 7\r\nN: 9\r\nZ: new\r\n\r\n");
        assert!(changes.header && !changes.body);
    }

    #[test]
    fn a_value_cannot_become_another_field_or_the_body() {
        let (header, _) = edited(vec![change(1, "A", "x\r\nBcc: evil\n\n\nbody\0")]);
        assert_eq!(header, "P: 0\r\nA: x\r\n\tBcc: evil\r\n\tbody\r\nB: 2\r\nA: 3\r\n 4\r\n\r\n");
        let bad = Edit::AddHeader { name: "A: b\r\nC".into(), value: vec![] };
        assert!(message().apply(vec![bad], false, &mut Changes::default()).is_err());
    }

    #[test]
    fn a_list_that_fails_changes_nothing() {
        let (mut message, mut changes) = (message(), Changes::default());
        let edits = vec![Edit::AddHeader { name: "N".into(), value: "9".into() }, Edit::AddRecipient(b"<no address>".to_vec())];
        assert!(message.apply(edits, false, &mut changes).is_err());
        assert!(!changes.header && !message.header().starts_with(b"N"));
        assert_eq!(message.lines.len(), 4);
    }

    #[test]
    fn recipients_sender_body_and_spam_flags() {
        let (_, changes) = edited(vec![
            Edit::AddRecipient(b"<x@example.org>".to_vec()),
            Edit::AddRecipient(b"y@example.org".to_vec()),
            Edit::RemoveRecipient(b"<X@example.org>".to_vec()),
            Edit::ChangeFrom(b"<>".to_vec()),
            Edit::ReplaceBody(b"one ".to_vec()),
            Edit::ReplaceBody(b"two".to_vec()),
            Edit::AddHeader { name: "X-Spam-Status".into(), value: "Yes, score=9".into() },
        ]);
        assert_eq!(changes.add_recipients, ["y@example.org".parse().unwrap()]);
        assert!(matches!(changes.remove_recipients.as_slice(), [gone] if gone.same_as(&"x@example.org".parse().unwrap())));
        assert_eq!(changes.change_from, Some(ReversePath::Null));
        assert!(changes.body && changes.spam);
        assert!(!edited(vec![Edit::AddHeader { name: "X-Spam".into(), value: "Yesterday".into() }]).1.spam);
    }
}
