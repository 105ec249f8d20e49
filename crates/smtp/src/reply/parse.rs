//! Reading a server's replies (RFC 5321 §4.2), strict in what matters and patient with what servers really send.

use bytes::{Buf as _, BytesMut};

use super::{EnhancedCode, Reply};
use crate::text::is_unsafe;

/// Longest line looked at, octets. RFC 5321 allows 512; some servers put an essay behind a 550.
const MAX_LINE: usize = 8192;
/// Most octets of one reply.
const MAX_REPLY: usize = 64 * 1024;
/// Most lines that are kept; further ones are read and dropped.
const MAX_LINES: usize = 100;
/// Most octets of a line that are kept.
const MAX_TEXT: usize = 1000;

/// Why what a server sent is no reply. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line, or all of them, passed the bounds.
    #[error("the server's reply is longer than any reasonable one")]
    TooLong,
    /// The first line does not begin with a code from 200 to 599.
    #[error("the server's answer is not an SMTP reply")]
    Malformed,
}

/// Reads replies from a stream of octets, one after the other.
///
/// Tolerated: bare LF as line end, a code without text, differing codes in one reply (the last counts), lines without a code
/// inside a multi-line reply, text that is not UTF-8. Control characters become `?`, so that a reply can be stored and shown.
#[derive(Debug, Default)]
pub struct ReplyParser {
    lines: Vec<String>,
    octets: usize,
    started: bool,
}

impl ReplyParser {
    /// At the beginning of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether some lines of a reply have been read and its last one has not.
    pub fn is_partial(&self) -> bool {
        self.started
    }

    /// Takes whole lines from `input` until a reply is complete. `Ok(None)`: more octets are needed. What follows the reply
    /// stays in `input`.
    pub fn parse(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(end) = memchr::memchr(b'\n', input) else {
                return if input.len() > MAX_LINE { Err(ReplyError::TooLong) } else { Ok(None) };
            };
            self.octets += end + 1;
            if end > MAX_LINE || self.octets > MAX_REPLY {
                return Err(ReplyError::TooLong);
            }
            let line = input.get(..end).unwrap_or(&[]);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let parsed = parse_line(line);
            let done = match parsed {
                Some((code, more, text)) => {
                    self.keep(text);
                    (!more).then_some(code)
                }
                None if self.started => {
                    self.keep(line);
                    None
                }
                None => return Err(ReplyError::Malformed),
            };
            self.started = true;
            input.advance(end + 1);
            if let Some(code) = done {
                let lines = std::mem::take(&mut self.lines);
                *self = Self::default();
                return Ok(Some(finish(code, lines)));
            }
        }
    }

    fn keep(&mut self, text: &[u8]) {
        if self.lines.len() < MAX_LINES {
            let text = text.get(..MAX_TEXT).unwrap_or(text);
            let text = String::from_utf8_lossy(text);
            let text = text.trim_end().chars().map(|c| if c == '\t' { ' ' } else { c });
            self.lines.push(text.map(|c| if is_unsafe(c) { '?' } else { c }).collect());
        }
    }
}

/// `250-text`, `250 text`, `250`: code, whether more lines follow, text.
fn parse_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0u16, |code, d| code * 10 + u16::from(d - b'0'));
    if !(200..=599).contains(&code) {
        return None;
    }
    match rest.split_first() {
        None => Some((code, false, rest)),
        Some((b'-', text)) => Some((code, true, text)),
        Some((b' ' | b'\t', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// Lifts the enhanced code out of the text: it must belong to the class of the reply (RFC 2034 §4).
fn finish(code: u16, mut lines: Vec<String>) -> Reply {
    let class = code / 100;
    let split = |line: &str| -> Option<(EnhancedCode, usize)> {
        let end = line.find(' ').unwrap_or(line.len());
        let status = EnhancedCode::parse(line.get(..end)?)?;
        (u16::from(status.0) == class).then_some((status, end))
    };
    // The last line decides, as for the code: greetings and EHLO replies carry none, so nothing is lifted from them.
    let enhanced = lines.last().and_then(|line| split(line)).map(|(status, _)| status);
    if let Some(enhanced) = enhanced {
        for line in &mut lines {
            if let Some((status, end)) = split(line)
                && status == enhanced
            {
                *line = line.get(end..).unwrap_or("").trim_start().to_owned();
            }
        }
    }
    Reply { code, enhanced, lines }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_all(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let (mut parser, mut input, mut out) = (ReplyParser::new(), BytesMut::from(bytes), Vec::new());
        while let Some(reply) = parser.parse(&mut input)? {
            out.push(reply);
        }
        Ok(out)
    }

    fn one(text: &str) -> Reply {
        let mut all = parse_all(text.as_bytes()).unwrap();
        assert_eq!(all.len(), 1, "{text:?}");
        all.remove(0)
    }

    #[test]
    fn ordinary_replies() {
        assert_eq!(one("250 2.1.0 Ok\r\n"), Reply::new(250, EnhancedCode(2, 1, 0), "Ok"));
        assert_eq!(one("354 go\r\n"), Reply::plain(354, "go"));
        let reply = one("550-5.1.1 No such\r\n550-5.1.1 user\r\n550 5.1.1 here\r\n");
        assert_eq!(reply, Reply::lines(550, Some(EnhancedCode(5, 1, 1)), ["No such", "user", "here"]));
        assert_eq!(one("250-mx.example\r\n250-SIZE 1000\r\n250 8BITMIME\r\n").lines, ["mx.example", "SIZE 1000", "8BITMIME"]);
    }

    #[test]
    fn sloppy_servers() {
        assert_eq!(one("250\r\n"), Reply::plain(250, ""));
        assert_eq!(one("250\n"), Reply::plain(250, ""));
        assert_eq!(one("250-a\n  b\n250 c\n").lines, ["a", "  b", "c"]);
        assert_eq!(one("250-a\r\n550 b\r\n").code, 550);
        assert_eq!(one("550 4.1.1 mismatched\r\n"), Reply::plain(550, "4.1.1 mismatched"));
        assert_eq!(one("550 5.1.1\r\n"), Reply::new(550, EnhancedCode(5, 1, 1), ""));
        assert_eq!(one("550 \x1b[31mred\r\n").lines, ["?[31mred"]);
    }

    #[test]
    fn what_is_no_reply() {
        for text in ["HTTP/1.1 400 Bad Request\r\n", "\r\n", "25 x\r\n", "250x\r\n", "999 x\r\n", "SSH-2.0-x\r\n", "100 x\r\n"] {
            assert_eq!(parse_all(text.as_bytes()), Err(ReplyError::Malformed), "{text:?}");
        }
        assert_eq!(parse_all(&[b'2'; MAX_LINE + 2]), Err(ReplyError::TooLong));
        let endless = "250-x\r\n".repeat(MAX_REPLY / 7 + 1);
        assert_eq!(parse_all(endless.as_bytes()), Err(ReplyError::TooLong));
    }

    #[test]
    fn what_follows_stays() {
        let mut input = BytesMut::from(&b"250 a\r\n250 b\r\n25"[..]);
        let mut parser = ReplyParser::new();
        assert_eq!(parser.parse(&mut input).unwrap().unwrap().lines, ["a"]);
        assert_eq!(&input[..], b"250 b\r\n25");
        assert_eq!(parser.parse(&mut input).unwrap().unwrap().lines, ["b"]);
        assert_eq!(parser.parse(&mut input).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_replies(text in "(2[0-9]{2}[ -][a-z .0-9]{0,12}\r?\n){1,8}", cut in 0usize..100) {
            let whole = parse_all(text.as_bytes());
            let cut = cut.min(text.len());
            let (mut parser, mut input, mut out) = (ReplyParser::new(), BytesMut::new(), Vec::new());
            for part in [&text.as_bytes()[..cut], &text.as_bytes()[cut..]] {
                input.extend_from_slice(part);
                while let Ok(Some(reply)) = parser.parse(&mut input) {
                    out.push(reply);
                }
            }
            prop_assert_eq!(whole.unwrap(), out);
        }

        #[test]
        fn any_octets_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for reply in parse_all(&bytes).unwrap_or_default() {
                prop_assert!(reply.lines.iter().all(|line| !line.chars().any(is_unsafe)));
            }
        }
    }
}
