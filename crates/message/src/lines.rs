//! Line ends: CRLF on the wire and in the queue, LF in mailboxes, anything from local programs.

use memchr::{memchr, memchr2};

/// Turns CRLF into LF, chunk by chunk. A bare CR or LF stays exactly as it is.
#[derive(Debug, Default, Clone)]
pub struct CrlfToLf {
    /// The last chunk ended in a CR that is not written yet.
    pending_cr: bool,
}

impl CrlfToLf {
    /// Appends the converted chunk to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Some(&first) = chunk.first() else { return };
        if std::mem::take(&mut self.pending_cr) && first != b'\n' {
            out.push(b'\r');
        }
        out.reserve(chunk.len());
        let mut rest = chunk;
        while let Some(at) = memchr(b'\r', rest) {
            let (before, from_cr) = rest.split_at(at);
            out.extend_from_slice(before);
            match from_cr.get(1) {
                Some(b'\n') => {
                    out.push(b'\n');
                    rest = from_cr.get(2..).unwrap_or_default();
                }
                Some(_) => {
                    out.push(b'\r');
                    rest = from_cr.get(1..).unwrap_or_default();
                }
                None => {
                    self.pending_cr = true;
                    return;
                }
            }
        }
        out.extend_from_slice(rest);
    }

    /// Writes a CR that the last chunk ended in.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.pending_cr) {
            out.push(b'\r');
        }
    }
}

/// The whole message with CRLF turned into LF.
pub fn crlf_to_lf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    let mut converter = CrlfToLf::default();
    converter.push(message, &mut out);
    converter.finish(&mut out);
    out
}

/// Turns whatever ends lines into CRLF, chunk by chunk: LF, CRLF, several CRs before an LF, and a CR alone, so that the
/// result never holds a bare CR or LF.
#[derive(Debug, Default, Clone)]
pub struct ToCrlf {
    pending_cr: bool,
}

impl ToCrlf {
    /// Appends the converted chunk to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        out.reserve(chunk.len() + chunk.len() / 32);
        let mut rest = chunk;
        while let Some(&first) = rest.first() {
            if self.pending_cr {
                match first {
                    b'\r' => {
                        rest = rest.get(1..).unwrap_or_default();
                        continue;
                    }
                    b'\n' => rest = rest.get(1..).unwrap_or_default(),
                    _ => {}
                }
                out.extend_from_slice(b"\r\n");
                self.pending_cr = false;
                continue;
            }
            let Some(at) = memchr2(b'\r', b'\n', rest) else {
                out.extend_from_slice(rest);
                return;
            };
            let (before, from) = rest.split_at(at);
            out.extend_from_slice(before);
            if from.first() == Some(&b'\n') {
                out.extend_from_slice(b"\r\n");
            } else {
                self.pending_cr = true;
            }
            rest = from.get(1..).unwrap_or_default();
        }
    }

    /// Ends the last line if a CR was its end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.pending_cr) {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The whole message with every kind of line end turned into CRLF.
pub fn to_crlf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32);
    let mut converter = ToCrlf::default();
    converter.push(message, &mut out);
    converter.finish(&mut out);
    out
}

/// The two sizes that a Maildir name carries, counted chunk by chunk over a message with CRLF line ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    octets: u64,
    crlf: u64,
    bare_lf: u64,
    last_was_cr: bool,
}

impl Sizes {
    /// Counts a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        if !self.last_was_cr && memchr(b'\r', chunk).is_none() {
            // What is stored in mailboxes: counting without looking at each line is several times faster.
            self.bare_lf += memchr::memchr_iter(b'\n', chunk).count() as u64;
            self.octets += chunk.len() as u64;
            return;
        }
        for at in memchr::memchr_iter(b'\n', chunk) {
            let after_cr = match at.checked_sub(1) {
                Some(before) => chunk.get(before) == Some(&b'\r'),
                None => self.last_was_cr,
            };
            if after_cr {
                self.crlf += 1;
            } else {
                self.bare_lf += 1;
            }
        }
        self.octets += chunk.len() as u64;
        if let Some(&last) = chunk.last() {
            self.last_was_cr = last == b'\r';
        }
    }

    /// `S=`: octets once CRLF became LF.
    pub fn stored(&self) -> u64 {
        self.octets - self.crlf
    }

    /// `W=`: octets as IMAP shows them, with CRLF at every line end (RFC822.SIZE).
    pub fn on_the_wire(&self) -> u64 {
        self.octets + self.bare_lf
    }
}

/// [`Sizes`] of a whole message.
pub fn sizes(message: &[u8]) -> Sizes {
    let mut sizes = Sizes::default();
    sizes.push(message);
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_on_bare_ends() {
        assert_eq!(crlf_to_lf(b"a\r\nb\rc\nd\r\r\n\r"), b"a\nb\rc\nd\r\n\r");
        assert_eq!(to_crlf(b"a\r\nb\rc\nd\r\r\n\r"), b"a\r\nb\r\nc\r\nd\r\n\r\n");
        assert_eq!(to_crlf(b"no end"), b"no end");
        let counted = sizes(b"a\r\nb\nc\r");
        assert_eq!((counted.stored(), counted.on_the_wire()), (6, 8));
    }

    fn text() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(b"ab\r\n\r\n".to_vec()), 0..60)
    }

    proptest::proptest! {
        #[test]
        fn chunks_do_not_matter(message in text(), cuts in proptest::collection::vec(0usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(message.len())).collect();
            cuts.sort_unstable();
            cuts.push(message.len());
            let (mut lf, mut crlf, mut counted) = (Vec::new(), Vec::new(), Sizes::default());
            let (mut to_lf, mut to_crlf_) = (CrlfToLf::default(), ToCrlf::default());
            let mut start = 0;
            for cut in cuts {
                to_lf.push(&message[start..cut], &mut lf);
                to_crlf_.push(&message[start..cut], &mut crlf);
                counted.push(&message[start..cut]);
                start = cut;
            }
            to_lf.finish(&mut lf);
            to_crlf_.finish(&mut crlf);
            proptest::prop_assert_eq!(&lf, &crlf_to_lf(&message));
            proptest::prop_assert_eq!(&crlf, &to_crlf(&message));
            proptest::prop_assert_eq!(counted.stored(), lf.len() as u64);
            proptest::prop_assert_eq!(counted.on_the_wire(), sizes(&message).on_the_wire());
            proptest::prop_assert!(!crate::downgrade::has_bare_cr_lf(&crlf));
        }
    }
}
