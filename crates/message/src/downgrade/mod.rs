//! What a message needs of the next hop, and converting it where the hop offers less (RFC 6152 §3, RFC 3030 §3, RFC 6531 §3.6).

mod convert;
mod fields;

use pillarbox_smtp::BodyType;

use crate::encode::LONGEST_LINE;
use crate::header;

pub use convert::{Hop, Unconvertible, convert};

/// What a message needs of the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The smallest BODY= that is true: binary with a bare CR, a bare LF or a NUL, otherwise by the highest bit.
    pub body: BodyType,
    /// Its header section holds octets above 127 (the envelope may need SMTPUTF8 besides).
    pub utf8_header: bool,
    /// Some line is longer than the 998 octets of RFC 5321 §4.5.3.1.6.
    pub long_lines: bool,
}

/// Looks at the whole message, in linear time.
pub fn needs(message: &[u8]) -> Needs {
    let end = header::split(message).header;
    let body = if !is_lines(message) {
        BodyType::BinaryMime
    } else if has_8bit(message) {
        BodyType::EightBitMime
    } else {
        BodyType::SevenBit
    };
    Needs { body, utf8_header: needs_smtputf8(message.get(..end).unwrap_or_default()), long_lines: has_long_line(message) }
}

/// Whether any octet is above 127.
pub fn has_8bit(bytes: &[u8]) -> bool {
    !bytes.is_ascii()
}

/// Whether a header section holds octets above 127, so that it can travel only with SMTPUTF8 (RFC 6532).
pub fn needs_smtputf8(header: &[u8]) -> bool {
    has_8bit(header)
}

/// Whether a CR stands without LF, or an LF without CR.
pub fn has_bare_cr_lf(bytes: &[u8]) -> bool {
    memchr::memchr2_iter(b'\r', b'\n', bytes).any(|at| is_bare(bytes, at))
}

/// Whether it is made of lines as 7BIT and 8BITMIME define them: CRLF ends only, no NUL (RFC 2045 §2.7, §2.8).
pub fn is_lines(bytes: &[u8]) -> bool {
    !memchr::memchr3_iter(b'\r', b'\n', 0, bytes).any(|at| is_bare(bytes, at))
}

/// Whether the CR, LF or NUL at `at` is none of a CRLF.
fn is_bare(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        Some(b'\r') => bytes.get(at + 1) != Some(&b'\n'),
        Some(b'\n') => at == 0 || bytes.get(at - 1) != Some(&b'\r'),
        _ => true,
    }
}

/// Whether a line is longer than 998 octets without its end (RFC 5322 §2.1.1).
pub fn has_long_line(bytes: &[u8]) -> bool {
    let mut start = 0;
    for at in memchr::memchr_iter(b'\n', bytes) {
        let end = if at > start && bytes.get(at - 1) == Some(&b'\r') { at - 1 } else { at };
        if end - start > LONGEST_LINE {
            return true;
        }
        start = at + 1;
    }
    bytes.len() - start > LONGEST_LINE
}

#[cfg(test)]
mod tests;
