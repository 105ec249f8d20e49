//! What the screen makes of a message.

use std::ops::Range;

use pillarbox_smtp::{Mailbox, Reply, ReversePath};

/// What to do with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Deliver to the inbox.
    Accept,
    /// Deliver into the junk folder.
    Junk,
    /// Refuse with this 5xx reply.
    Reject(Reply),
    /// Refuse for now with this 4xx reply.
    Defer(Reply),
    /// Answer 250 and drop the message: only a milter asks for that.
    Discard,
}

/// The judgment on one message.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What to do with it.
    pub action: Action,
    /// Header fields to put before the message, each ending in CRLF: Authentication-Results and X-Pillarbox-Verdict.
    pub prepend: Vec<u8>,
    /// Octet ranges of the original message to leave out, in ascending order, none overlapping: whole header fields, such as forged
    /// Authentication-Results in our name.
    pub remove: Vec<Range<usize>>,
    /// A milter changed the header: the whole new header section, its empty line included, that stands for the original one, for
    /// `prepend` and for `remove`.
    pub header: Option<Vec<u8>>,
    /// A milter replaced the body: the new one.
    pub body: Option<Vec<u8>>,
    /// Where the body of the original message begins: after the empty line, or at its end when there is none.
    pub body_offset: usize,
    /// Recipients a milter added.
    pub add_recipients: Vec<Mailbox>,
    /// Recipients a milter removed.
    pub remove_recipients: Vec<Mailbox>,
    /// A milter changed the envelope sender.
    pub change_from: Option<ReversePath>,
    /// Which rule spoke, one line each, for the log and `pillarbox trace`; printable.
    pub why: Vec<String>,
    /// Points; `screen.junk_score` and more is junk.
    pub score: f64,
    /// The DMARC result for the From domain, `None` when it was not checked: `pass`, `fail`, `none`, `temperror`, `permerror`.
    pub dmarc: Option<&'static str>,
}

impl Verdict {
    /// Nothing to object and nothing to add.
    pub fn accept() -> Self {
        Self::of(Action::Accept)
    }

    /// A verdict of this action and nothing else.
    pub fn of(action: Action) -> Self {
        Self {
            action,
            prepend: Vec::new(),
            remove: Vec::new(),
            header: None,
            body: None,
            body_offset: 0,
            add_recipients: Vec::new(),
            remove_recipients: Vec::new(),
            change_from: None,
            why: Vec::new(),
            score: 0.0,
            dmarc: None,
        }
    }

    /// The message as it is to be stored, in pieces of `original` (the octets that were judged) and of the verdict's own; nothing is copied.
    pub fn pieces<'a>(&'a self, original: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::with_capacity(2 * self.remove.len() + 3);
        let mut at = match &self.header {
            Some(header) => {
                pieces.push(header.as_slice());
                self.body_offset
            }
            None => {
                pieces.push(self.prepend.as_slice());
                let mut at = 0;
                for range in &self.remove {
                    pieces.push(original.get(at..range.start).unwrap_or_default());
                    at = range.end;
                }
                at
            }
        };
        match &self.body {
            Some(body) => {
                if self.header.is_none() {
                    pieces.push(original.get(at..self.body_offset).unwrap_or_default());
                }
                pieces.push(body);
            }
            None => {
                at = at.min(original.len());
                pieces.push(original.get(at..).unwrap_or_default());
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// Whether the message is to be stored just as it came.
    pub fn leaves_unchanged(&self) -> bool {
        self.prepend.is_empty() && self.remove.is_empty() && self.header.is_none() && self.body.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &[u8] = b"A: 1\r\nB: 2\r\nC: 3\r\n\r\nbody\r\n";

    fn first(octets: usize) -> Vec<Range<usize>> {
        std::iter::once(0..octets).collect()
    }

    #[test]
    fn removed_fields_are_left_out_and_new_ones_come_first() {
        let verdict = Verdict { prepend: b"N: 0\r\n".to_vec(), remove: vec![0..6, 12..18], body_offset: 20, ..Verdict::accept() };
        assert_eq!(verdict.pieces(ORIGINAL).concat(), b"N: 0\r\nB: 2\r\n\r\nbody\r\n");
    }

    #[test]
    fn a_milters_header_and_body_stand_for_the_original_ones() {
        let header = Verdict { header: Some(b"X: 1\r\n\r\n".to_vec()), remove: first(6), body_offset: 20, ..Verdict::accept() };
        assert_eq!(header.pieces(ORIGINAL).concat(), b"X: 1\r\n\r\nbody\r\n");
        let body = Verdict { body: Some(b"new\r\n".to_vec()), remove: first(6), body_offset: 20, ..Verdict::accept() };
        assert_eq!(body.pieces(ORIGINAL).concat(), b"B: 2\r\nC: 3\r\n\r\nnew\r\n");
        let both =
            Verdict { header: Some(b"X: 1\r\n\r\n".to_vec()), body: Some(b"new\r\n".to_vec()), body_offset: 20, ..Verdict::accept() };
        assert_eq!(both.pieces(ORIGINAL).concat(), b"X: 1\r\n\r\nnew\r\n");
        assert!(Verdict::accept().leaves_unchanged());
        assert_eq!(Verdict::accept().pieces(ORIGINAL).concat(), ORIGINAL);
    }
}
