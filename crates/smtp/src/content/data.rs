//! The content of DATA: dots undone, its end found (RFC 5321 §4.5.2). Exactly CRLF `.` CRLF ends it, and nothing else.
//!
//! Servers that took a bare LF or CR around the dot for the same let one message smuggle in another (CVE-2023-51764 and kin).
//! Here a bare CR or LF spoils the message. It is still read to its end so that the client hears why. Since a client that sends
//! bare LFs may end its message with them and then wait, any line end around a dot counts as the end of a message *that is
//! already refused*, and the session is closed after it: there is no second message in which a difference could matter.

use std::sync::LazyLock;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem::Finder;

use super::ContentRules;
use super::scan::LineScan;
use crate::server::{Abort, BareLineEnds, NulPolicy};

static DOT_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

/// What [`DataDecoder::decode`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// More octets are needed.
    NeedInput,
    /// Octets of the message, as they will be stored.
    Content(Bytes),
    /// The message is complete.
    End,
    /// The message was spoilt, and its end has come.
    Aborted {
        /// The first offence.
        why: Abort,
        /// The end was found by a lenient rule, so what follows cannot be trusted to be a command.
        must_close: bool,
    },
}

/// Decodes one message. Hands out slices of the input without copying.
#[derive(Debug)]
pub struct DataDecoder {
    rules: ContentRules,
    scan: LineScan,
    received: u64,
    /// What came before was CRLF, or nothing: a dot here is markup. Not so after a normalised bare line end.
    line_start: bool,
    spoilt: Option<Abort>,
    /// Bare line ends were seen: where in a line we are by the lenient reading.
    lenient: Option<Lenient>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lenient {
    LineStart,
    Dot,
    Within,
}

impl DataDecoder {
    /// At the beginning of a message, after 354.
    pub fn new(rules: ContentRules) -> Self {
        Self { rules, scan: LineScan::default(), received: 0, line_start: true, spoilt: None, lenient: None }
    }

    /// Octets of content so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes what it can from `input`. Every split of the input gives the same content and the same outcome. Must not be called
    /// again after `End` or `Aborted`.
    pub fn decode(&mut self, input: &mut BytesMut) -> Decoded {
        loop {
            if let Some(place) = self.lenient {
                return self.skip_leniently(place, input);
            }
            if self.line_start && input.first() == Some(&b'.') {
                match (input.get(1), input.get(2)) {
                    (None, _) | (Some(b'\r'), None) => return Decoded::NeedInput,
                    (Some(b'\r'), Some(b'\n')) => {
                        input.advance(3);
                        return match self.spoilt {
                            None => Decoded::End,
                            Some(why) => Decoded::Aborted { why, must_close: false },
                        };
                    }
                    (Some(b'\r' | b'\n'), _) if self.rules.bare_line_ends == BareLineEnds::Refuse => {
                        self.spoil(Abort::BareLineEnd);
                        self.lenient = Some(Lenient::Dot);
                    }
                    _ => {}
                }
                input.advance(1);
                self.line_start = false;
                continue;
            }
            let end = match DOT_LINE.find(input) {
                Some(at) => at + 2,
                // A CR is nothing until it is known what follows.
                None => input.iter().rposition(|b| *b != b'\r').map_or(0, |at| at + 1),
            };
            if end == 0 {
                if input.len() < 2 {
                    return Decoded::NeedInput;
                }
                if let Some(content) = self.take_carriage_returns(input) {
                    return Decoded::Content(content);
                }
                continue;
            }
            if let Some(content) = self.take(end, input) {
                return Decoded::Content(content);
            }
        }
    }

    /// Takes up to `end` octets, which hold no dot to undo. `None`: nothing to hand out, look again.
    fn take(&mut self, end: usize, input: &mut BytesMut) -> Option<Bytes> {
        let normalise = self.rules.bare_line_ends == BareLineEnds::Normalise;
        let slice = input.get(..end).unwrap_or(&[]);
        let crlf = slice.ends_with(b"\r\n");
        if normalise && self.spoilt.is_some() {
            input.advance(end);
            self.line_start = crlf;
            return None;
        }
        let Some(offence) = self.scan.scan(slice, &self.rules) else {
            self.line_start = crlf;
            return self.give(end, input);
        };
        if normalise && offence.why == Abort::BareLineEnd {
            let (fixed, offence) = self.scan.normalise(slice, &self.rules);
            input.advance(end);
            self.line_start = crlf;
            let fits = self.count(fixed.len());
            if let Some(why) = offence.or((!fits).then_some(Abort::TooLarge)) {
                self.spoil(if fits { why } else { Abort::TooLarge });
                return None;
            }
            return self.spoilt.is_none().then(|| fixed.freeze());
        }
        if !self.count(offence.at) {
            self.spoil(Abort::TooLarge);
        }
        self.spoil(offence.why);
        // The message is spoilt. The offending octet is out of the way, and so is the rule, so that each octet is scanned once.
        match offence.why {
            Abort::BareLineEnd => self.lenient = Some(Lenient::LineStart),
            Abort::Nul => self.rules.nul = NulPolicy::Accept,
            _ => self.rules.max_line = usize::MAX,
        }
        self.scan.advance(slice.get(..=offence.at).unwrap_or(slice));
        input.advance(offence.at + 1);
        self.line_start = false;
        None
    }

    /// All that is left is CRs, so all but the last are known to be bare.
    fn take_carriage_returns(&mut self, input: &mut BytesMut) -> Option<Bytes> {
        let bare = input.len() - 1;
        self.line_start = false;
        if self.rules.bare_line_ends == BareLineEnds::Refuse {
            self.spoil(Abort::BareLineEnd);
            self.lenient = Some(Lenient::LineStart);
            input.advance(1);
            return None;
        }
        input.advance(bare);
        self.scan.start_line();
        if !self.count(2 * bare) {
            self.spoil(Abort::TooLarge);
        }
        self.spoilt.is_none().then(|| b"\r\n".repeat(bare).into())
    }

    /// Hands out `count` octets, if the message is still whole.
    fn give(&mut self, count: usize, input: &mut BytesMut) -> Option<Bytes> {
        if !self.count(count) {
            self.spoil(Abort::TooLarge);
        }
        if self.spoilt.is_some() {
            input.advance(count);
            return None;
        }
        Some(input.split_to(count).freeze())
    }

    /// Counts octets of content; false when they do not fit.
    fn count(&mut self, count: usize) -> bool {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let fits = count <= self.rules.room(self.received);
        self.received = self.received.saturating_add(count);
        fits
    }

    /// The first offence is the one that is told.
    fn spoil(&mut self, why: Abort) {
        self.spoilt.get_or_insert(why);
    }

    /// Reads on to anything that may have been meant as the end.
    fn skip_leniently(&mut self, mut place: Lenient, input: &mut BytesMut) -> Decoded {
        while let Some(&byte) = input.first() {
            if place == Lenient::Within {
                // The long stretches go quickly.
                match memchr::memchr2(b'\r', b'\n', input) {
                    Some(at) => {
                        input.advance(at + 1);
                        place = Lenient::LineStart;
                    }
                    None => input.clear(),
                }
                continue;
            }
            input.advance(1);
            place = match (place, byte) {
                (Lenient::Dot, b'\r' | b'\n') => {
                    return Decoded::Aborted { why: self.spoilt.unwrap_or(Abort::BareLineEnd), must_close: true };
                }
                (_, b'\r' | b'\n') => Lenient::LineStart,
                (Lenient::LineStart, b'.') => Lenient::Dot,
                _ => Lenient::Within,
            };
        }
        self.lenient = Some(place);
        Decoded::NeedInput
    }
}

#[cfg(test)]
mod tests;
