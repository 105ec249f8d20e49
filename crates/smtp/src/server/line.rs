//! Command lines out of the input, bounded.
//!
//! A bare LF is taken as the end of a *command*: people and scripts send it, and nothing follows from it, since content is read by
//! another reader with other rules ([`crate::content`]).

use bytes::{Buf as _, BytesMut};

/// Longest line of an AUTH exchange, CRLF included (RFC 4954 §4).
pub(super) const MAX_AUTH_LINE: usize = 12288;

/// Which bound holds for the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// A command: this many octets, CRLF included; AUTH may have [`MAX_AUTH_LINE`].
    Command(usize),
    /// An answer in an AUTH exchange.
    Answer,
}

/// A line, or what became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its line end.
    Text(BytesMut),
    /// Too long; read to its end and dropped.
    TooLong,
}

/// Reads lines; remembers only whether it is dropping one.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    dropping: bool,
}

impl LineReader {
    /// Takes one line from `input`. `None`: its end has not come. No more than the bound stays in `input`.
    pub(super) fn next(&mut self, input: &mut BytesMut, expect: Expect) -> Option<Line> {
        let end = memchr::memchr(b'\n', input);
        if self.dropping {
            match end {
                None => input.clear(),
                Some(end) => input.advance(end + 1),
            }
            self.dropping = end.is_none();
            return end.map(|_| Line::TooLong);
        }
        let limit = match expect {
            Expect::Command(limit) if !is_auth(input) => limit,
            _ => MAX_AUTH_LINE,
        };
        match end {
            Some(end) if end < limit => {
                let mut line = input.split_to(end + 1);
                line.truncate(end);
                if line.last() == Some(&b'\r') {
                    line.truncate(end - 1);
                }
                Some(Line::Text(line))
            }
            Some(end) => {
                input.advance(end + 1);
                Some(Line::TooLong)
            }
            None => {
                // A line of `limit` octets ends within them; this one cannot any more.
                if input.len() >= limit {
                    input.clear();
                    self.dropping = true;
                }
                None
            }
        }
    }
}

/// Whether it is an AUTH command.
pub(super) fn is_auth(input: &[u8]) -> bool {
    input.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(parts: &[&[u8]], limit: usize) -> Vec<Line> {
        let (mut reader, mut input, mut out) = (LineReader::default(), BytesMut::new(), Vec::new());
        for part in parts {
            input.extend_from_slice(part);
            while let Some(line) = reader.next(&mut input, Expect::Command(limit)) {
                out.push(line);
            }
            assert!(input.len() < limit.max(MAX_AUTH_LINE));
        }
        out
    }

    fn text(text: &str) -> Line {
        Line::Text(BytesMut::from(text))
    }

    #[test]
    fn lines_and_limits() {
        assert_eq!(read(&[b"NOOP\r\nQUIT\n\r\nX"], 20), [text("NOOP"), text("QUIT"), text("")]);
        assert_eq!(read(&[b"12345678\r\n", b"123456789\r\n", b"ok\r\n"], 10), [text("12345678"), Line::TooLong, text("ok")]);
        assert_eq!(read(&[&[b'x'; 5000], &[b'x'; 5000], b"\r\nok\r\n"], 10), [Line::TooLong, text("ok")]);
        let auth = format!("auth PLAIN {}\r\n", "A".repeat(4000));
        assert_eq!(read(&[auth.as_bytes()], 100), [text(auth.trim_end())]);
        assert_eq!(read(&[b"AUTH ", &[b'A'; MAX_AUTH_LINE], b"\r\n"], 100), [Line::TooLong]);
    }

    proptest! {
        #[test]
        fn any_split(text in "((AUTH )?[a-c]{0,14}\r?\n){0,5}[a-c]{0,14}", cut in 0usize..90) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            prop_assert_eq!(read(&[bytes], 12), read(&[&bytes[..cut], &bytes[cut..]], 12));
        }
    }
}
