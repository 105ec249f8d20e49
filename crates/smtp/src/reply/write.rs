//! A reply as octets for the wire (RFC 5321 §4.2, RFC 2034 §4).

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::Reply;
use crate::text::is_unsafe;

/// Longest reply line, CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE: usize = 512;

impl Reply {
    /// Appends the reply in wire form, the enhanced code on each line. Text is folded where a line would pass 512 octets;
    /// control characters become `?`, and so do non-ASCII ones (RFC 5321 §4.2 allows none to clients that did not ask).
    pub fn write_to(&self, out: &mut BytesMut) {
        self.write(out, true);
    }

    /// The same without enhanced codes, for a client that said HELO.
    pub fn write_plain_to(&self, out: &mut BytesMut) {
        self.write(out, false);
    }

    /// One line without an enhanced code, cut where it would pass 512 octets.
    pub(crate) fn write_short_to(&self, out: &mut BytesMut) {
        let line = self.lines.first().map_or("", String::as_str);
        let line = fold(line, MAX_LINE - 6).into_iter().next().unwrap_or_default();
        Self { code: self.code, enhanced: None, lines: vec![line] }.write(out, false);
    }

    fn write(&self, out: &mut BytesMut, enhanced: bool) {
        // A reply that came from a damaged file must not put the client out of step.
        let code = if (200..=599).contains(&self.code) { self.code } else { 451 };
        let mut prefix = String::with_capacity(16);
        if let (true, Some(status)) = (enhanced, self.enhanced) {
            let _ = write!(prefix, "{status} ");
        }
        let room = MAX_LINE - 4 - prefix.len() - 2;
        let pieces: Vec<String> = self.lines.iter().flat_map(|line| fold(line, room)).collect();
        let last = pieces.len().saturating_sub(1);
        if pieces.is_empty() {
            put_line(out, code, b' ', &prefix, "");
        }
        for (at, piece) in pieces.iter().enumerate() {
            put_line(out, code, if at == last { b' ' } else { b'-' }, &prefix, piece);
        }
    }
}

fn put_line(out: &mut BytesMut, code: u16, separator: u8, prefix: &str, text: &str) {
    let digits = [code / 100, code / 10 % 10, code % 10].map(|d| b'0' + u8::try_from(d).unwrap_or(0));
    out.reserve(6 + prefix.len() + text.len());
    out.put_slice(&digits);
    out.put_u8(separator);
    out.put_slice(prefix.as_bytes());
    out.put_slice(text.as_bytes());
    out.put_slice(b"\r\n");
}

/// Cuts a line into pieces of at most `room` octets, at a space where there is one.
fn fold(line: &str, room: usize) -> Vec<String> {
    let clean: String =
        line.chars().map(|c| if c == '\t' { ' ' } else { c }).map(|c| if c.is_ascii() && !is_unsafe(c) { c } else { '?' }).collect();
    if clean.len() <= room {
        return vec![clean];
    }
    let mut pieces = Vec::new();
    let mut rest = clean.as_str();
    while rest.len() > room {
        let cut = rest.get(..room).and_then(|head| head.rfind(' ')).filter(|&at| at > 0).unwrap_or(room);
        let (head, tail) = rest.split_at(cut);
        pieces.push(head.to_owned());
        rest = tail.trim_start_matches(' ');
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{EnhancedCode, ReplyParser};
    use proptest::prelude::*;

    fn wire(reply: &Reply) -> String {
        let mut out = BytesMut::new();
        reply.write_to(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn codes_stand_on_every_line() {
        assert_eq!(wire(&Reply::new(250, EnhancedCode(2, 0, 0), "Ok")), "250 2.0.0 Ok\r\n");
        assert_eq!(wire(&Reply::lines(550, Some(EnhancedCode(5, 7, 1)), ["one", "two"])), "550-5.7.1 one\r\n550 5.7.1 two\r\n");
        assert_eq!(wire(&Reply::plain(354, "Go on")), "354 Go on\r\n");
        assert_eq!(wire(&Reply::lines(250, None, Vec::<String>::new())), "250 \r\n");
    }

    #[test]
    fn controls_and_long_lines_are_tamed() {
        assert_eq!(wire(&Reply::plain(550, "a\r\n250 b\u{7f}é")), "550 a??250 b??\r\n");
        let long = wire(&Reply::new(550, EnhancedCode(5, 0, 0), "word ".repeat(300)));
        assert!(long.lines().count() > 2);
        assert!(long.split_inclusive('\n').all(|line| line.len() <= MAX_LINE && line.starts_with("550")));
        assert_eq!(wire(&Reply::plain(0, "x")), "451 x\r\n");
    }

    proptest! {
        #[test]
        fn parse_print_parse(code in 200u16..560, status in (0u16..9, 0u16..30), lines in proptest::collection::vec("[ -~]{0,80}", 1..5), with in any::<bool>()) {
            let class = u8::try_from(code / 100).unwrap();
            let enhanced = (with && class != 3).then_some(EnhancedCode(class, status.0, status.1));
            let reply = Reply { code, enhanced, lines };
            let mut out = BytesMut::new();
            reply.write_to(&mut out);
            let once = ReplyParser::new().parse(&mut out).unwrap().unwrap();
            prop_assert!(out.is_empty());
            once.write_to(&mut out);
            prop_assert_eq!(ReplyParser::new().parse(&mut out).unwrap().unwrap(), once.clone());
            prop_assert_eq!(once.code, reply.code);
            if reply.enhanced.is_some() {
                prop_assert_eq!(once.enhanced, reply.enhanced);
            }
        }
    }
}
