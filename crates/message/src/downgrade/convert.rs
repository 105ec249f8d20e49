//! The walk over a message's parts that brings each to what a hop can take.
//!
//! It goes from top to bottom once, with a stack of boundaries instead of recursion; depth and count of parts are bounded.
//! DKIM signatures do not survive (RFC 6376 §5.3); MIME signatures must not be broken, so a signed part that would have to
//! change makes the message unconvertible.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem::Finder;

use super::{fields, has_8bit, has_long_line, is_lines};
use crate::encode::{self, LONGEST_LINE};
use crate::header::{self, Field};
use crate::mime::Content;

/// What the next hop can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// It offers 8BITMIME.
    pub eight_bit: bool,
    /// It offers SMTPUTF8 and the message is sent with it, so that headers may hold UTF-8.
    pub utf8_header: bool,
    /// Lines over 998 octets must go, too.
    pub short_lines: bool,
}

/// Why a message cannot be converted: to be reported as 5.6.3 (or 5.6.7 for an address).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unconvertible {
    /// A signed or encrypted part would have to change.
    #[error("the message holds 8-bit content under a signature, and the next server takes only 7-bit content")]
    Signed,
    /// A transfer encoding that nobody registered.
    #[error("a part of the message has an unknown transfer encoding")]
    UnknownEncoding,
    /// More than 10,000 parts or 100 levels.
    #[error("the message has too many or too deeply nested parts to be converted")]
    TooComplex,
    /// The named header field holds an address that is not ASCII.
    #[error("the {0} field holds an address beyond ASCII, and the next server does not support such addresses")]
    Address(String),
}

/// Most levels of multiparts.
pub(super) const MAX_DEPTH: usize = 100;
/// Most parts.
pub(super) const MAX_PARTS: usize = 10_000;

/// The message as `hop` can take it: with CRLF line ends only, without NULs, in ASCII where `hop` demands it. Borrowed when nothing had to change.
///
/// Linear in the message's length. Parts become quoted-printable (text) or base64 (all else).
pub fn convert(message: &[u8], hop: Hop) -> Result<Cow<'_, [u8]>, Unconvertible> {
    let end = header::split(message).header;
    let header_fits = hop.utf8_header || message.get(..end).unwrap_or_default().is_ascii();
    if header_fits && fits(message, hop) {
        return Ok(Cow::Borrowed(message));
    }
    let mut walk = Walk {
        message,
        hop,
        out: Vec::with_capacity(message.len() + message.len() / 3),
        frames: Vec::new(),
        parts: 0,
        dashes: Finder::new(b"\n--"),
    };
    walk.run()?;
    Ok(Cow::Owned(walk.out))
}

/// Whether a body can be sent to `hop` as it is.
fn fits(content: &[u8], hop: Hop) -> bool {
    (hop.eight_bit || !has_8bit(content)) && is_lines(content) && !(hop.short_lines && has_long_line(content))
}

/// A delimiter line that was found.
struct Delimiter {
    /// Where the content before it ends: before the line end that belongs to the delimiter (RFC 2046 §5.1.1).
    content_end: usize,
    /// After its line end.
    line_end: usize,
    /// Which frame it belongs to.
    frame: usize,
    /// It is the last of its multipart.
    close: bool,
}

/// The header of a part.
struct Head<'a> {
    fields: Vec<Field<'a>>,
    content: Content,
    encoding: String,
    /// The blank line.
    blank: Range<usize>,
}

struct Walk<'a> {
    message: &'a [u8],
    hop: Hop,
    out: Vec<u8>,
    /// `--boundary` of each multipart that we are in.
    frames: Vec<Vec<u8>>,
    parts: usize,
    dashes: Finder<'static>,
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<(), Unconvertible> {
        let mut at = 0;
        loop {
            self.parts += 1;
            if self.parts > MAX_PARTS {
                return Err(Unconvertible::TooComplex);
            }
            let top = self.parts == 1;
            let head = self.head(at);
            let opaque = matches!(head.encoding.as_str(), "base64" | "quoted-printable");
            let boundary =
                head.content.parameter("boundary").filter(|b| !b.is_empty() && b.is_ascii() && head.content.is_multipart() && !opaque);
            let sealed = matches!(head.content.kind.as_str(), "multipart/signed" | "multipart/encrypted");
            let mut delimiter = if let (Some(boundary), false) = (boundary, sealed) {
                let frame = [b"--", boundary.as_bytes()].concat();
                self.push_head(&head, self.plain_encoding(&head), top, None)?;
                if self.frames.len() >= MAX_DEPTH {
                    return Err(Unconvertible::TooComplex);
                }
                self.frames.push(frame);
                let delimiter = self.next_delimiter(head.blank.end);
                self.push_filler(head.blank.end, delimiter.as_ref());
                delimiter
            } else if matches!(head.content.kind.as_str(), "message/rfc822" | "message/news") && !opaque {
                self.push_head(&head, self.plain_encoding(&head), top, None)?;
                at = head.blank.end;
                continue;
            } else {
                let delimiter = self.next_delimiter(head.blank.end);
                let end = delimiter.as_ref().map_or(self.message.len(), |d| d.content_end).max(head.blank.end);
                self.push_leaf(&head, self.slice(head.blank.end..end), top, sealed)?;
                delimiter
            };
            // On to the next part: over closing delimiters and what stands behind them.
            loop {
                let Some(found) = delimiter else { return Ok(()) };
                self.push_lines(found.content_end..found.line_end);
                self.frames.truncate(found.frame + 1);
                if !found.close {
                    at = found.line_end;
                    break;
                }
                self.frames.pop();
                delimiter = self.next_delimiter(found.line_end);
                self.push_filler(found.line_end, delimiter.as_ref());
            }
        }
    }

    fn slice(&self, range: Range<usize>) -> &'a [u8] {
        self.message.get(range).unwrap_or_default()
    }

    /// Reads the header of the part at `at`, which ends at a blank line, at a delimiter of a multipart around it, or at the limits.
    fn head(&self, at: usize) -> Head<'a> {
        let mut head = Head {
            fields: Vec::new(),
            content: Content::default(),
            encoding: String::new(),
            blank: self.message.len()..self.message.len(),
        };
        let mut end = at;
        let mut typed = false;
        for mut field in header::fields(self.slice(at..self.message.len())) {
            field.range = at + field.range.start..at + field.range.end;
            if field.raw.starts_with(b"--") && self.delimiter_at(field.range.start).is_some() {
                break;
            }
            end = field.range.end;
            if field.is("Content-Type") && !std::mem::replace(&mut typed, true) {
                head.content = Content::parse(&field.unfolded());
            } else if field.is("Content-Transfer-Encoding") && head.encoding.is_empty() {
                let value = field.text();
                head.encoding = value.split(['(', ';']).next().unwrap_or_default().trim().to_ascii_lowercase();
            }
            head.fields.push(field);
        }
        let blank = match self.slice(end..self.message.len()) {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        head.blank = end..end + blank;
        head
    }

    /// The delimiter whose line begins at `at`.
    fn delimiter_at(&self, at: usize) -> Option<Delimiter> {
        let line = self.slice(at..self.message.len());
        let frame = self.frames.iter().rposition(|frame| {
            line.strip_prefix(frame.as_slice()).is_some_and(|rest| {
                let rest = rest.strip_prefix(b"--").unwrap_or(rest);
                let blank = rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r')).count();
                matches!(rest.get(blank), None | Some(b'\n'))
            })
        })?;
        let after = line.get(self.frames.get(frame)?.len()..).unwrap_or_default();
        let line_end = memchr::memchr(b'\n', line).map_or(self.message.len(), |n| at + n + 1);
        let content_end = match self.slice(at.saturating_sub(2)..at) {
            [b'\r', b'\n'] => at - 2,
            [.., b'\n'] => at - 1,
            _ => at,
        };
        Some(Delimiter { content_end, line_end, frame, close: after.starts_with(b"--") })
    }

    /// The first delimiter at or after the line start `from`.
    fn next_delimiter(&self, from: usize) -> Option<Delimiter> {
        let bounded = |mut d: Delimiter| {
            d.content_end = d.content_end.max(from);
            d
        };
        if self.frames.is_empty() {
            return None;
        }
        if let Some(found) = self.delimiter_at(from) {
            return Some(bounded(found));
        }
        let rest = self.slice(from..self.message.len());
        self.dashes.find_iter(rest).find_map(|n| self.delimiter_at(from + n + 1)).map(bounded)
    }

    /// The transfer encoding for a part that cannot be encoded itself, when the declared one promises more than the hop takes.
    fn plain_encoding(&self, head: &Head<'_>) -> Option<&'static str> {
        match (head.encoding.as_str(), self.hop.eight_bit) {
            ("8bit" | "binary", false) => Some("7bit"),
            ("binary", true) => Some("8bit"),
            _ => None,
        }
    }

    /// Writes a part's header and blank line. `encoding` replaces the transfer encoding; `charset` adds a type where none was.
    fn push_head(&mut self, head: &Head<'_>, encoding: Option<&str>, top: bool, charset: Option<&str>) -> Result<(), Unconvertible> {
        let mut mime_version = false;
        for field in &head.fields {
            if encoding.is_some() && field.is("Content-Transfer-Encoding") {
                continue;
            }
            mime_version |= field.is("MIME-Version");
            if self.hop.short_lines && has_long_line(field.raw) && field.raw.is_ascii() && !field.name.is_empty() {
                encode::push_structured(&mut self.out, &String::from_utf8_lossy(field.name), &field.text());
            } else if self.hop.utf8_header || field.raw.is_ascii() {
                self.push_lines(field.range.clone());
            } else {
                fields::push_ascii(&mut self.out, field)?;
            }
            if !self.out.ends_with(b"\n") && !self.out.is_empty() {
                self.out.extend_from_slice(b"\r\n");
            }
        }
        if let Some(encoding) = encoding {
            if top && !mime_version {
                encode::push_structured(&mut self.out, "MIME-Version", "1.0");
            }
            if let Some(charset) = charset.filter(|_| head.content.kind.is_empty()) {
                encode::push_structured(&mut self.out, "Content-Type", &format!("text/plain; charset={charset}"));
            }
            encode::push_structured(&mut self.out, "Content-Transfer-Encoding", encoding);
        }
        if !head.blank.is_empty() {
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Writes a part that holds no parts, encoded where the hop needs it.
    fn push_leaf(&mut self, head: &Head<'_>, content: &[u8], top: bool, sealed: bool) -> Result<(), Unconvertible> {
        if fits(content, self.hop) {
            // Nothing under a signature is touched, not even a header that promises too much.
            let encoding = if sealed { None } else { self.plain_encoding(head) };
            self.push_head(head, encoding, top, Some("us-ascii"))?;
            self.out.extend_from_slice(content);
            return Ok(());
        }
        if sealed {
            return Err(Unconvertible::Signed);
        }
        match head.encoding.as_str() {
            "" | "7bit" | "8bit" | "binary" => {
                let text =
                    head.content.kind.is_empty() || head.content.kind.starts_with("text/") || head.content.kind.starts_with("message/");
                let charset = if std::str::from_utf8(content).is_ok() { "utf-8" } else { "unknown-8bit" };
                // Quoted-printable triples each such octet; text that is mostly that is smaller in base64.
                let high = content.iter().filter(|b| !b.is_ascii()).count();
                if text && high < content.len() / 4 + 40 {
                    self.push_head(head, Some("quoted-printable"), top, Some(charset))?;
                    encode::quoted_printable(content, &mut self.out);
                } else {
                    self.push_head(head, Some("base64"), top, Some(charset))?;
                    encode::base64_lines(content, &mut self.out);
                }
            }
            // What is no base64 is to be ignored (RFC 2045 §6.8): left out here, and the lines cut anew.
            "base64" => {
                self.push_head(head, None, top, None)?;
                let alphabet = content.iter().filter(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b));
                for (i, &b) in alphabet.enumerate() {
                    if i > 0 && i % 76 == 0 {
                        self.out.extend_from_slice(b"\r\n");
                    }
                    self.out.push(b);
                }
                if content.ends_with(b"\n") {
                    self.out.extend_from_slice(b"\r\n");
                }
            }
            "quoted-printable" => {
                self.push_head(head, None, top, None)?;
                self.mend_quoted_printable(content);
            }
            _ => return Err(Unconvertible::UnknownEncoding),
        }
        Ok(())
    }

    /// Quoted-printable that holds what it must not: octets above 127 and controls are escaped, bare ends become CRLF, long lines get soft breaks.
    fn mend_quoted_printable(&mut self, content: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or(b'0');
        let mut column = 0;
        // Octets of an `=XX` still to come: no break inside it.
        let mut escape = 0;
        let mut previous = 0;
        for &b in content {
            match b {
                b'\n' if previous == b'\r' => {}
                b'\r' | b'\n' => {
                    self.out.extend_from_slice(b"\r\n");
                    (column, escape) = (0, 0);
                }
                _ => {
                    if column >= LONGEST_LINE - 8 && escape == 0 {
                        self.out.extend_from_slice(b"=\r\n");
                        column = 0;
                    }
                    if b.is_ascii_graphic() || b == b' ' || b == b'\t' {
                        self.out.push(b);
                        column += 1;
                        escape = if b == b'=' { 2 } else { usize::saturating_sub(escape, 1) };
                    } else {
                        self.out.extend_from_slice(&[b'=', digit(b >> 4), digit(b & 15)]);
                        column += 3;
                        escape = 0;
                    }
                }
            }
            previous = b;
        }
    }

    /// Writes header lines or a delimiter as they are, but with CRLF ends and without NULs.
    fn push_lines(&mut self, range: Range<usize>) {
        let bytes = self.slice(range);
        if is_lines(bytes) {
            self.out.extend_from_slice(bytes);
            return;
        }
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            self.out.extend(line.iter().filter(|b| !matches!(b, b'\r' | b'\n' | 0)));
            if line.ends_with(b"\n") {
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Writes what stands before the first delimiter or after the last one: nobody reads it, so it is kept only where it fits.
    fn push_filler(&mut self, from: usize, next: Option<&Delimiter>) {
        let end = next.map_or(self.message.len(), |d| d.content_end).max(from);
        let filler = self.slice(from..end);
        if fits(filler, self.hop) {
            self.out.extend_from_slice(filler);
        }
    }
}
