//! The content of BDAT (RFC 3030 §2): framed by counts, so nothing in it ends it. Text is held to the same rules as in DATA, because
//! the next hop may get it by DATA; a BINARYMIME message may hold anything.

use bytes::Bytes;

use super::ContentRules;
use super::scan::LineScan;
use crate::server::{Abort, BareLineEnds};

/// Checks the chunks of one message.
#[derive(Debug)]
pub struct ChunkCheck {
    rules: ContentRules,
    /// `None`: binary.
    scan: Option<LineScan>,
    received: u64,
    spoilt: Option<Abort>,
}

impl ChunkCheck {
    /// At the beginning of a message; `binary`: MAIL said BODY=BINARYMIME.
    pub fn new(rules: ContentRules, binary: bool) -> Self {
        Self { rules, scan: (!binary).then(LineScan::default), received: 0, spoilt: None }
    }

    /// Whether a chunk of `size` octets still fits. When not, the message is spoilt.
    pub fn announce(&mut self, size: u64) -> bool {
        let fits = size <= self.rules.room(self.received);
        if !fits {
            self.spoilt.get_or_insert(Abort::TooLarge);
        }
        fits
    }

    /// Takes octets of a chunk, in any pieces; `None` when there is nothing to hand out, as always once the message is spoilt.
    pub fn take(&mut self, octets: Bytes) -> Option<Bytes> {
        self.received = self.received.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        if self.spoilt.is_some() || octets.is_empty() {
            return None;
        }
        let Some(scan) = &mut self.scan else { return Some(octets) };
        let offence = match scan.scan(&octets, &self.rules) {
            None => return Some(octets),
            Some(offence) if offence.why == Abort::BareLineEnd && self.rules.bare_line_ends == BareLineEnds::Normalise => {
                let (fixed, offence) = scan.normalise(&octets, &self.rules);
                match offence {
                    None => return Some(fixed.freeze()),
                    Some(why) => why,
                }
            }
            Some(offence) => offence.why,
        };
        self.spoilt = Some(offence);
        None
    }

    /// After the last chunk: what must be added so that the last line ends (nothing in a binary message), or why the message is
    /// refused.
    pub fn finish(&mut self) -> Result<Option<Bytes>, Abort> {
        if let (Some(scan), None) = (&self.scan, self.spoilt) {
            if !scan.after_cr() {
                return Ok((!scan.at_line_start()).then(|| Bytes::from_static(b"\r\n")));
            }
            if self.rules.bare_line_ends == BareLineEnds::Normalise {
                return Ok(Some(Bytes::from_static(b"\n")));
            }
            self.spoilt = Some(Abort::BareLineEnd);
        }
        self.spoilt.map_or(Ok(None), Err)
    }

    /// Why the message is refused, as far as is known.
    pub fn spoilt(&self) -> Option<Abort> {
        self.spoilt
    }

    /// Octets so far.
    pub fn received(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::NulPolicy;
    use proptest::prelude::*;

    fn run(parts: &[&[u8]], binary: bool, bare_line_ends: BareLineEnds) -> Result<Vec<u8>, Abort> {
        let rules = ContentRules { max_size: 100, max_line: 10, bare_line_ends, nul: NulPolicy::Refuse };
        let mut check = ChunkCheck::new(rules, binary);
        let mut out = Vec::new();
        for part in parts {
            check.announce(part.len() as u64);
            out.extend(check.take(Bytes::copy_from_slice(part)).unwrap_or_default());
        }
        out.extend(check.finish()?.unwrap_or_default());
        Ok(out)
    }

    #[test]
    fn text_and_binary() {
        let refuse = BareLineEnds::Refuse;
        assert_eq!(run(&[b"a\r", b"\nb\r\n"], false, refuse), Ok(b"a\r\nb\r\n".to_vec()));
        assert_eq!(run(&[b"a\r\n.\r\nb"], false, refuse), Ok(b"a\r\n.\r\nb\r\n".to_vec()));
        assert_eq!(run(&[b"a\nb"], false, refuse), Err(Abort::BareLineEnd));
        assert_eq!(run(&[b"a\r"], false, refuse), Err(Abort::BareLineEnd));
        assert_eq!(run(&[b"a\0"], false, refuse), Err(Abort::Nul));
        assert_eq!(run(&[b"a\n\0\r"], true, refuse), Ok(b"a\n\0\r".to_vec()));
        assert_eq!(run(&[b"12345678901\r\n"], false, refuse), Err(Abort::LineTooLong));
        assert_eq!(run(&[], false, refuse), Ok(Vec::new()));
        assert_eq!(run(&[&[b'x'; 60], &[b'x'; 41]], true, refuse), Err(Abort::TooLarge));
        assert_eq!(run(&[b"a\nb\r", b"c\r"], false, BareLineEnds::Normalise), Ok(b"a\r\nb\r\nc\r\n".to_vec()));
    }

    proptest! {
        #[test]
        fn any_split(text in "[ab]{0,4}((\r\n|\r|\n|\0|a){0,3}){0,6}", cut in 0usize..30, normalise in any::<bool>()) {
            let policy = if normalise { BareLineEnds::Normalise } else { BareLineEnds::Refuse };
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let whole = run(&[bytes], false, policy);
            prop_assert_eq!(run(&[&bytes[..cut], &bytes[cut..]], false, policy), whole.clone());
            if let Ok(content) = whole {
                prop_assert!(content.is_empty() || content.ends_with(b"\r\n"));
                prop_assert_eq!(content.iter().filter(|b| **b == b'\r').count(), content.windows(2).filter(|w| w == b"\r\n").count());
            }
        }
    }
}
