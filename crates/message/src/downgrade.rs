//! What a message needs of the next hop, and converting it where the hop offers less (RFC 6152 §3, RFC 3030 §3, RFC 6531 §3.6).

use pillarbox_smtp::BodyType;

use crate::encode::LONGEST_LINE;
use crate::header;

/// What a message needs of the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The smallest BODY= that is true.
    pub body: BodyType,
    /// Its header section holds UTF-8 (the envelope may need SMTPUTF8 besides).
    pub smtputf8: bool,
}

/// Looks at the whole message.
pub fn needs(message: &[u8]) -> Needs {
    let end = header::split(message).header;
    let smtputf8 = needs_smtputf8(message.get(..end).unwrap_or_default());
    let body = if !is_lines(message) {
        BodyType::BinaryMime
    } else if has_8bit(message) {
        BodyType::EightBitMime
    } else {
        BodyType::SevenBit
    };
    Needs { body, smtputf8 }
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
    memchr::memchr2_iter(b'\r', b'\n', bytes).any(|at| match bytes.get(at) {
        Some(b'\r') => bytes.get(at + 1) != Some(&b'\n'),
        _ => at == 0 || bytes.get(at - 1) != Some(&b'\r'),
    })
}

/// Whether it is made of lines as 7BIT and 8BITMIME define them: CRLF ends only, no NUL, none over 998 octets (RFC 2045 §2.7).
pub fn is_lines(bytes: &[u8]) -> bool {
    let mut start = 0;
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, bytes) {
        match bytes.get(at) {
            Some(b'\r') if bytes.get(at + 1) == Some(&b'\n') => {
                if at - start > LONGEST_LINE {
                    return false;
                }
                start = at + 2;
            }
            Some(b'\n') if at > 0 && bytes.get(at - 1) == Some(&b'\r') => {}
            _ => return false,
        }
    }
    bytes.len() - start <= LONGEST_LINE
}
