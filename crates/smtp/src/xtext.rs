//! `xtext` (RFC 3461 §4) and its UTF-8 kin (RFC 6533 §3): how ENVID, ORCPT and AUTH carry any text inside a parameter.

use std::fmt::Write as _;

/// Encodes octets as xtext: `+`, `=`, and everything outside `!`–`~` become `+XX`.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'+' && byte != b'=' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "+{byte:02X}");
        }
    }
    out
}

/// Decodes xtext. `None` when it holds a character that must have been escaped, or an escape that is not `+` and two
/// hexadecimal digits (lower case is accepted, though RFC 3461 asks for upper).
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let high = hex_digit(bytes.next()?)?;
                let low = hex_digit(bytes.next()?)?;
                out.push(high << 4 | low);
            }
            b'=' => return None,
            b if b.is_ascii_graphic() => out.push(b),
            _ => return None,
        }
    }
    Some(out)
}

/// Decodes xtext that must be UTF-8 without control characters, as every address and envelope id is.
pub fn decode_text(text: &str) -> Option<String> {
    let text = String::from_utf8(decode(text)?).ok()?;
    if text.chars().any(char::is_control) { None } else { Some(text) }
}

/// Encodes an address as `utf-8-addr-xtext`: plain ASCII, other characters as `\x{HEX}`; safe on any connection.
pub fn encode_utf8_addr(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_qchar(c) {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
        }
    }
    out
}

/// Encodes an address as `utf-8-addr-unitext`: the characters themselves; only where SMTPUTF8 is in force.
pub fn encode_utf8_addr_raw(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_qchar(c) || (!c.is_ascii() && !c.is_control()) {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
        }
    }
    out
}

/// Decodes both UTF-8 forms. `None` for unescaped specials, bad escapes, and characters that may not stand in an address.
///
/// Some senders write `+XX` in the `utf-8` type as well, since RFC 3461 made it a habit; RFC 6533 forbids a bare `+`, so
/// reading it as an xtext escape is unambiguous.
pub fn decode_utf8_addr(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        match c {
            '\\' => {
                let inner = rest.strip_prefix("x{")?;
                let (digits, after) = inner.split_once('}')?;
                if !(2..=6).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                rest = after;
            }
            '+' => {
                let digits = rest.get(..2)?;
                out.push(char::from(decode(&format!("+{digits}"))?.first().copied().filter(u8::is_ascii)?));
                rest = rest.get(2..)?;
            }
            c if is_qchar(c) || !c.is_ascii() => out.push(c),
            _ => return None,
        }
    }
    if out.chars().any(char::is_control) { None } else { Some(out) }
}

/// `QCHAR` of RFC 6533 §3.
fn is_qchar(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\')
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_3461() {
        assert_eq!(encode(b"Bob Smith+x=y"), "Bob+20Smith+2Bx+3Dy");
        assert_eq!(decode_text("QQ314159").as_deref(), Some("QQ314159"));
        for bad in ["a=b", "a+4", "a+", "a+GG", "a b", "a\u{e9}", "+0A", "+FF"] {
            assert_eq!(decode_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn utf8_forms() {
        let address = "用户+x@例え.jp";
        assert_eq!(encode_utf8_addr("a+é"), "a\\x{2B}\\x{E9}");
        assert_eq!(decode_utf8_addr(&encode_utf8_addr(address)).as_deref(), Some(address));
        assert_eq!(decode_utf8_addr(&encode_utf8_addr_raw(address)).as_deref(), Some(address));
        assert_eq!(decode_utf8_addr("a+2Bb").as_deref(), Some("a+b"));
        for bad in ["a\\b", "\\x{}", "\\x{1}", "\\x{D800}", "\\x{110000}", "\\x{0A}", "a=b", "+", "+é1"] {
            assert_eq!(decode_utf8_addr(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn xtext_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let text = encode(&bytes);
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b'='));
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn utf8_round_trip(text in "\\PC{0,60}") {
            prop_assume!(!text.chars().any(char::is_control));
            let encoded = encode_utf8_addr(&text);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(decode_utf8_addr(&encoded), Some(text.clone()));
            prop_assert_eq!(decode_utf8_addr(&encode_utf8_addr_raw(&text)), Some(text));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in ".{0,40}") {
            let _ = decode(&text);
            if let Some(decoded) = decode_utf8_addr(&text) {
                prop_assert_eq!(decode_utf8_addr(&encode_utf8_addr(&decoded)), Some(decoded));
            }
        }
    }
}
