//! Finding what may not be in a line of text. This runs over every octet received, so it is one pass without branches that the
//! compiler turns into vector instructions; only where that pass sees trouble does a second one look for the place.

use bytes::{BufMut as _, BytesMut};

use super::ContentRules;
use crate::server::{Abort, NulPolicy};

/// Octets checked between two looks at the result.
const BLOCK: usize = 1024;

/// Keeps the place within lines across slices of any cut.
#[derive(Debug, Clone, Default)]
pub(super) struct LineScan {
    /// Octets of the current line so far.
    line: usize,
    /// The slice before ended in a CR, whose LF must come next.
    after_cr: bool,
}

/// The first offence in a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offence {
    /// Octets before it that are in order.
    pub(super) at: usize,
    /// What it is.
    pub(super) why: Abort,
}

impl LineScan {
    /// Looks through `slice`, which follows what was looked through before. Nothing found: the place moves to its end.
    ///
    /// A CR at the very end is left to the next slice; when that shows it to be bare, the offence is at 0.
    pub(super) fn scan(&mut self, slice: &[u8], rules: &ContentRules) -> Option<Offence> {
        let mut offence = first_offence(slice, self.after_cr, rules.nul == NulPolicy::Refuse);
        // Only what stands before the offence in hand can come before it, which also keeps repeated scans linear.
        let before = slice.get(..offence.map_or(slice.len(), |o| o.at)).unwrap_or(slice);
        offence = self.first_too_long(before, rules.max_line).map(|at| Offence { at, why: Abort::LineTooLong }).or(offence);
        if offence.is_none() {
            self.advance(slice);
        }
        offence
    }

    /// A copy of `slice` with each bare line end made CRLF, up to the first offence of another kind.
    pub(super) fn normalise(&mut self, slice: &[u8], rules: &ContentRules) -> (BytesMut, Option<Abort>) {
        let mut out = BytesMut::with_capacity(slice.len() + slice.len() / 16 + 2);
        let mut rest = slice;
        loop {
            let Some(offence) = self.scan(rest, rules) else {
                out.put_slice(rest);
                return (out, None);
            };
            let (in_order, offending) = rest.split_at(offence.at.min(rest.len()));
            if offence.why == Abort::BareLineEnd && self.after_cr && offence.at == 0 {
                // The CR is out already; what follows it is looked at again, now at the start of a line.
                out.put_u8(b'\n');
                self.start_line();
                continue;
            }
            out.put_slice(in_order);
            if offence.why != Abort::BareLineEnd {
                return (out, Some(offence.why));
            }
            out.put_slice(b"\r\n");
            self.start_line();
            rest = offending.get(1..).unwrap_or(&[]);
        }
    }

    /// Moves the place over `slice` without looking for offences.
    pub(super) fn advance(&mut self, slice: &[u8]) {
        let Some(&last) = slice.last() else { return };
        self.line = match memchr::memrchr(b'\n', slice) {
            Some(at) => slice.len() - at - 1,
            None => self.line + slice.len(),
        };
        self.after_cr = last == b'\r';
    }

    /// Puts the place at the start of a line.
    pub(super) fn start_line(&mut self) {
        *self = Self::default();
    }

    /// Whether a CR still waits for its LF.
    pub(super) fn after_cr(&self) -> bool {
        self.after_cr
    }

    /// Whether the place is at the start of a line.
    pub(super) fn at_line_start(&self) -> bool {
        self.line == 0
    }

    /// Where the first line passes `max` octets, its CR not counted.
    fn first_too_long(&self, slice: &[u8], max: usize) -> Option<usize> {
        let mut start = 0;
        let mut before = self.line;
        loop {
            let rest = slice.get(start..)?;
            let room = max.saturating_sub(before);
            // Most slices are shorter than the limit, and then no line within can pass it.
            let window = rest.get(..=room)?;
            start += match (memchr::memrchr(b'\n', window), window.last(), rest.get(room + 1)) {
                (Some(end), ..) => end + 1,
                (None, Some(b'\r'), Some(b'\n')) => room + 2,
                (None, Some(b'\r'), None) => return None,
                _ => return Some(start + room),
            };
            before = 0;
        }
    }
}

/// The first CR or LF that is not part of CRLF, or NUL.
fn first_offence(slice: &[u8], after_cr: bool, refuse_nul: bool) -> Option<Offence> {
    let (&first, &last) = (slice.first()?, slice.last()?);
    if after_cr != (first == b'\n') {
        return Some(Offence { at: 0, why: Abort::BareLineEnd });
    }
    let mut from = 0;
    while let (Some(rest), Some(next)) = (slice.get(from..), slice.get(from + 1..)) {
        let here = rest.get(..BLOCK).unwrap_or(rest);
        let mut trouble = 0u8;
        for (&a, &b) in here.iter().zip(next) {
            trouble |= (u8::from(a == b'\r') ^ u8::from(b == b'\n')) | (u8::from(a == 0) & u8::from(refuse_nul));
        }
        if trouble != 0 {
            let mut pairs = here.iter().zip(next);
            let at = pairs.position(|(&a, &b)| (a == b'\r') != (b == b'\n') || (a == 0 && refuse_nul))?;
            let why = if here.get(at) == Some(&0) && refuse_nul { Abort::Nul } else { Abort::BareLineEnd };
            // A LF offends one further than the octet before it.
            let lf = why == Abort::BareLineEnd && here.get(at) != Some(&b'\r');
            return Some(Offence { at: from + at + usize::from(lf), why });
        }
        from += here.len();
    }
    (last == 0 && refuse_nul).then_some(Offence { at: slice.len() - 1, why: Abort::Nul })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::BareLineEnds;
    use proptest::prelude::*;

    fn rules(max_line: usize) -> ContentRules {
        ContentRules { max_size: 0, max_line, bare_line_ends: BareLineEnds::Refuse, nul: NulPolicy::Refuse }
    }

    /// The same, one octet at a time and in the plainest way.
    fn by_hand(bytes: &[u8], max: usize) -> Option<Abort> {
        let mut line = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let (before, after) = (at.checked_sub(1).and_then(|i| bytes.get(i)), bytes.get(at + 1));
            match byte {
                b'\r' if after.is_some_and(|b| *b != b'\n') => return Some(Abort::BareLineEnd),
                b'\n' if before != Some(&b'\r') => return Some(Abort::BareLineEnd),
                b'\r' => {}
                b'\n' => line = 0,
                0 => return Some(Abort::Nul),
                _ if line == max => return Some(Abort::LineTooLong),
                _ => line += 1,
            }
        }
        None
    }

    #[test]
    fn long_lines_across_blocks() {
        let mut text = vec![b'a'; 3 * BLOCK];
        text.extend_from_slice(b"\r\n");
        assert_eq!(LineScan::default().scan(&text, &rules(3 * BLOCK)), None);
        let found = LineScan::default().scan(&text, &rules(3 * BLOCK - 1));
        assert_eq!(found, Some(Offence { at: 3 * BLOCK - 1, why: Abort::LineTooLong }));
        text.insert(2 * BLOCK, b'\n');
        assert_eq!(LineScan::default().scan(&text, &rules(9999)), Some(Offence { at: 2 * BLOCK, why: Abort::BareLineEnd }));
        text.insert(BLOCK - 1, b'\r');
        assert_eq!(LineScan::default().scan(&text, &rules(9999)), Some(Offence { at: BLOCK - 1, why: Abort::BareLineEnd }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_the_plain_reading_at_any_split(
            text in "([ab]{0,5}(\r\n|\r\n|\r\n|\r|\n|\0)){0,6}[ab]{0,4}", max in 1usize..7, cut in 0usize..40,
        ) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let mut scan = LineScan::default();
            let found = scan.scan(&bytes[..cut], &rules(max)).or_else(|| scan.scan(&bytes[cut..], &rules(max)));
            prop_assert_eq!(found.map(|o| o.why), by_hand(bytes, max));
        }
    }
}
