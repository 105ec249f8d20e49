//! What a stored message holds: `Return-Path`, `Delivered-To`, then the body with LF line ends (RFC 5321 §4.4).

use std::io::{self, BufRead};

use pillarbox_message::lines::{self, CrlfToLf};
use pillarbox_smtp::{Mailbox, ReversePath};

use super::name::Sizes;

/// The header fields that final delivery adds (RFC 5321 §4.4). Addresses are parsed values, so no line end can hide in them.
pub fn delivery_header(from: &ReversePath, recipient: &Mailbox) -> Vec<u8> {
    format!("Return-Path: <{from}>\nDelivered-To: {recipient}\n").into_bytes()
}

/// Turns CRLF into LF, piece by piece, and counts both sizes. A CR that no LF follows and an LF that no CR precedes stay as they are.
#[derive(Debug, Default, Clone)]
pub struct LfConverter {
    lines: CrlfToLf,
    /// Counts what is stored, not what came: readers see the stored octets.
    virtual_size: lines::Sizes,
    stored: u64,
    last: u8,
}

impl LfConverter {
    /// Counts octets that are stored as they are (the header fields above).
    pub fn count(&mut self, stored: &[u8]) {
        let Some(&last) = stored.last() else { return };
        self.virtual_size.push(stored);
        self.stored = self.stored.saturating_add(stored.len() as u64);
        self.last = last;
    }

    /// Converts the next piece into `out`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.lines.push(input, out);
        self.count(out.get(start..).unwrap_or_default());
    }

    /// Writes what is still held back, and a last line end where the message has none: a stored message ends with one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        self.lines.finish(out);
        if out.last().copied().unwrap_or(self.last) != b'\n' {
            out.push(b'\n');
        }
        self.count(out.get(start..).unwrap_or_default());
    }

    /// Sizes so far.
    pub fn sizes(&self) -> Sizes {
        Sizes { stored: self.stored, virtual_size: self.virtual_size.on_the_wire() }
    }
}

/// A body that is read piece by piece, each time it is needed.
pub type OpenBody<'a> = &'a dyn Fn() -> io::Result<Box<dyn BufRead + 'a>>;

/// The body of a message on its way into one or more mailboxes.
pub enum Content<'a> {
    /// Already converted to LF line ends, with its sizes.
    Memory {
        /// The octets to store after the delivery header.
        body: &'a [u8],
        /// Their sizes.
        sizes: Sizes,
    },
    /// Large: converted while it is copied.
    Stream(OpenBody<'a>),
}

/// Octets converted at a time of a large body: few enough to stay in a processor's own memory until they are written.
const PIECE: usize = 128 * 1024;

/// Shows the body to `take`, piece by piece.
fn pieces(body: &mut dyn BufRead, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    loop {
        let shown = match body.fill_buf() {
            Ok(shown) => shown,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let piece = shown.get(..PIECE).unwrap_or(shown);
        if piece.is_empty() {
            return Ok(());
        }
        take(piece)?;
        let n = piece.len();
        body.consume(n);
    }
}

impl Content<'_> {
    /// Converts a whole body with CRLF line ends into `out` (cleared first) and tells its sizes.
    ///
    /// # Errors
    /// Whatever reading the body says.
    pub fn convert(body: &mut dyn BufRead, out: &mut Vec<u8>) -> io::Result<Sizes> {
        out.clear();
        let mut converter = LfConverter::default();
        pieces(body, |piece| {
            converter.push(piece, out);
            Ok(())
        })?;
        converter.finish(out);
        Ok(converter.sizes())
    }

    /// Hands `head` and the converted body to `sink` in as few pieces as possible and returns the sizes of it all.
    ///
    /// # Errors
    /// Whatever reading the body or `sink` says.
    pub fn copy(&self, head: &[u8], mut sink: impl FnMut(&[&[u8]]) -> io::Result<()>) -> io::Result<Sizes> {
        let mut converter = LfConverter::default();
        converter.count(head);
        match self {
            Self::Memory { body, sizes } => {
                sink(&[head, body])?;
                let head = converter.sizes();
                Ok(Sizes {
                    stored: head.stored.saturating_add(sizes.stored),
                    virtual_size: head.virtual_size.saturating_add(sizes.virtual_size),
                })
            }
            Self::Stream(open) => {
                let mut out = Vec::with_capacity(2 * PIECE + head.len() + 2);
                out.extend_from_slice(head);
                pieces(&mut *open()?, |piece| {
                    converter.push(piece, &mut out);
                    if out.len() >= PIECE {
                        sink(&[&out])?;
                        out.clear();
                    }
                    Ok(())
                })?;
                converter.finish(&mut out);
                sink(&[&out])?;
                Ok(converter.sizes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn converted(pieces: &[&[u8]]) -> (Vec<u8>, Sizes) {
        let mut converter = LfConverter::default();
        let mut out = Vec::new();
        for piece in pieces {
            converter.push(piece, &mut out);
        }
        converter.finish(&mut out);
        (out, converter.sizes())
    }

    #[test]
    fn line_ends_become_lf_and_all_else_stays() {
        for (input, output) in [
            ("a\r\nb\r\n", "a\nb\n"),
            ("a\r\n.\r\n..\r\n", "a\n.\n..\n"),
            ("a\rb\r\n", "a\rb\n"),
            ("a\nb\r\n", "a\nb\n"),
            ("a\r\r\n", "a\r\n"),
            ("a", "a\n"),
            ("a\r", "a\r\n"),
            ("", "\n"),
        ] {
            assert_eq!(converted(&[input.as_bytes()]).0, output.as_bytes(), "{input:?}");
        }
    }

    #[test]
    fn the_header_names_sender_and_recipient() {
        let header = delivery_header(&ReversePath::Null, &"bob@example.org".parse().unwrap());
        assert_eq!(header, b"Return-Path: <>\nDelivered-To: bob@example.org\n");
    }

    #[test]
    fn a_stream_and_memory_store_the_same() {
        let body: Vec<u8> = (0..60_000u32).flat_map(|n| format!("line {n}\r\n.\r\n").into_bytes()).collect();
        let mut lf = Vec::new();
        let sizes = Content::convert(&mut &body[..], &mut lf).unwrap();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let gather = |all: &mut Vec<u8>, parts: &[&[u8]]| {
            parts.iter().for_each(|part| all.extend_from_slice(part));
            Ok(())
        };
        let of_a = Content::Memory { body: &lf, sizes }.copy(b"H: x\n", |parts| gather(&mut a, parts)).unwrap();
        let open: OpenBody<'_> = &|| Ok(Box::new(&body[..]) as Box<dyn BufRead>);
        let of_b = Content::Stream(open).copy(b"H: x\n", |parts| gather(&mut b, parts)).unwrap();
        assert!(a == b && of_a == of_b && a.len() as u64 == of_a.stored);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_sizes_are_true(input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'x')], 0..40), cut in 0usize..40) {
            let cut = cut.min(input.len());
            let whole = converted(&[&input]);
            prop_assert_eq!(&whole, &converted(&[&input[..cut], &input[cut..]]));
            let mut expected = String::from_utf8(input).unwrap().replace("\r\n", "\n");
            if !expected.ends_with('\n') {
                expected.push('\n');
            }
            let wire = expected.replace("\r\n", "\n").replace('\n', "\r\n");
            prop_assert_eq!(&whole.0, expected.as_bytes());
            prop_assert_eq!(whole.1, Sizes { stored: expected.len() as u64, virtual_size: wire.len() as u64 });
        }
    }
}
