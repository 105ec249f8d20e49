//! A message as DATA content (RFC 5321 §4.5.2) or as BDAT content: CRLF line ends only, whatever the stored bytes hold.
//!
//! A bare CR or LF that reached the next hop could end the message early there (SMTP smuggling), so both become CRLF here, last
//! line included. Nothing a sender stored can make this code emit one, or a line of a single dot.

use bytes::{BufMut as _, BytesMut};

/// Turns a stream of chunks into lines that end in CRLF, each of them, the last too.
#[derive(Debug, Clone)]
pub struct LineEnds {
    /// The next octet starts a line.
    line_start: bool,
    /// The last octet seen was a CR, whose line end has been written already.
    after_cr: bool,
}

/// [`LineEnds`] with the dot of each line that starts with one doubled; `finish` adds the line `.`.
#[derive(Debug, Clone, Default)]
pub struct DotStuffer(LineEnds);

impl Default for LineEnds {
    fn default() -> Self {
        Self { line_start: true, after_cr: false }
    }
}

impl LineEnds {
    /// At the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `chunk` to `out`; chunks may be cut anywhere.
    pub fn encode(&mut self, chunk: &[u8], out: &mut BytesMut) {
        self.run(chunk, out, false);
    }

    /// Ends an unfinished last line.
    pub fn finish(self, out: &mut BytesMut) {
        if !self.line_start {
            out.put_slice(b"\r\n");
        }
    }

    fn run(&mut self, chunk: &[u8], out: &mut BytesMut, stuff: bool) {
        out.reserve(chunk.len() + chunk.len() / 64 + 8);
        let mut rest = chunk;
        if self.after_cr {
            // The CRLF of this CR is out; its own LF, if that is what comes now, is not repeated.
            if let Some((&first, tail)) = rest.split_first() {
                self.after_cr = false;
                if first == b'\n' {
                    rest = tail;
                }
            }
        }
        while let Some(&first) = rest.first() {
            if stuff && self.line_start && first == b'.' {
                out.put_u8(b'.');
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                out.put_slice(rest);
                self.line_start = false;
                return;
            };
            let (line, tail) = rest.split_at(end);
            self.line_start = true;
            rest = match tail {
                [b'\r', b'\n', next @ ..] => {
                    // The usual case: the line and its CRLF in one copy.
                    out.put_slice(rest.get(..end + 2).unwrap_or(rest));
                    next
                }
                [b'\r'] => {
                    out.put_slice(line);
                    out.put_slice(b"\r\n");
                    self.after_cr = true;
                    return;
                }
                [_, next @ ..] => {
                    out.put_slice(line);
                    out.put_slice(b"\r\n");
                    next
                }
                [] => return,
            };
        }
    }
}

impl DotStuffer {
    /// At the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `chunk` to `out`; chunks may be cut anywhere.
    pub fn encode(&mut self, chunk: &[u8], out: &mut BytesMut) {
        self.0.run(chunk, out, true);
    }

    /// Ends the last line and the message: `.` on a line of its own.
    pub fn finish(self, out: &mut BytesMut) {
        self.0.finish(out);
        out.put_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(parts: &[&[u8]]) -> Vec<u8> {
        let (mut stuffer, mut out) = (DotStuffer::new(), BytesMut::new());
        parts.iter().for_each(|part| stuffer.encode(part, &mut out));
        stuffer.finish(&mut out);
        out.to_vec()
    }

    #[test]
    fn dots_and_line_ends() {
        for (body, expected) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n.b\r\n", b"a\r\n..b\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb\r", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\r\nb\n\r\n", b"a\r\n\r\nb\r\n\r\n.\r\n"),
        ] {
            assert_eq!(stuffed(&[body]), expected, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn only_crlf_and_no_early_end_at_any_split(body in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..40), cuts in proptest::collection::vec(0usize..40, 0..4)) {
            let whole = stuffed(&[&body]);
            let mut cuts: Vec<usize> = cuts.iter().map(|c| (*c).min(body.len())).collect();
            cuts.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([body.len()]) {
                parts.push(&body[from..cut]);
                from = cut;
            }
            prop_assert_eq!(&stuffed(&parts), &whole);
            let text = String::from_utf8(whole).unwrap();
            prop_assert!(text.ends_with(".\r\n"));
            let lines: Vec<&str> = text.strip_suffix("\r\n").unwrap().split("\r\n").collect();
            let (end, content) = lines.split_last().unwrap();
            prop_assert_eq!(*end, ".");
            prop_assert!(content.iter().all(|line| *line != "." && !line.contains(['\r', '\n'])));
        }
    }
}
