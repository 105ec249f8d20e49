//! Text from the network made safe to show: one line, no control characters, bounded.

use std::fmt::Write as _;

/// Longest result of [`printable`], octets.
pub const MAX_PRINTABLE: usize = 512;

/// Ends what was cut.
const ELLIPSIS: &str = "…";

/// What may go to a log or a terminal of `bytes`: one line, at most [`MAX_PRINTABLE`] octets.
///
/// Control characters (C0, DEL, C1), line and paragraph separators and the characters that reorder text (Unicode's
/// bidirectional controls, which make a terminal show something other than what is there) become escapes, invalid UTF-8 becomes
/// `\xNN`, and a backslash is doubled so that an escape cannot be forged. What was cut ends in `…`.
pub fn printable(bytes: &[u8]) -> String {
    // Nearly all there is, at several texts a message.
    let is_plain = |octet: &u8| matches!(octet, b' '..=b'[' | b']'..=b'~');
    if bytes.len() + ELLIPSIS.len() <= MAX_PRINTABLE && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    // An escape makes text longer, never shorter, so more input than this cannot matter.
    let mut rest = bytes.get(..MAX_PRINTABLE + 4).unwrap_or(bytes);
    let mut out = String::with_capacity(rest.len().min(MAX_PRINTABLE));
    let mut escape = String::new();
    while !rest.is_empty() {
        let (valid, bad) = match std::str::from_utf8(rest) {
            Ok(text) => (text, 0),
            Err(error) => {
                let (head, tail) = rest.split_at(error.valid_up_to());
                (std::str::from_utf8(head).unwrap_or(""), error.error_len().unwrap_or(tail.len()))
            }
        };
        for c in valid.chars() {
            escape.clear();
            escape_char(c, &mut escape);
            if !push_bounded(&mut out, &escape) {
                return out;
            }
        }
        let (bad_bytes, next) = rest.split_at(valid.len()).1.split_at(bad);
        for byte in bad_bytes {
            escape.clear();
            let _ = write!(escape, "\\x{byte:02x}");
            if !push_bounded(&mut out, &escape) {
                return out;
            }
        }
        rest = next;
    }
    out
}

/// Appends `piece`, or `…` when it would not fit; false when the text is full.
fn push_bounded(out: &mut String, piece: &str) -> bool {
    if out.len() + piece.len() + ELLIPSIS.len() > MAX_PRINTABLE {
        out.push_str(ELLIPSIS);
        return false;
    }
    out.push_str(piece);
    true
}

fn escape_char(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_unsafe(c) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// Characters that move the cursor, break the line, hide or reorder text.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{61c}')
}

/// Splits a space-separated word off the front, with any further spaces and tabs dropped.
pub(crate) fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches([' ', '\t']);
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start_matches([' ', '\t']))
}

/// The rest of `text` when it starts with `prefix` in any case of ASCII letters.
pub(crate) fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    if head.eq_ignore_ascii_case(prefix) { text.get(prefix.len()..) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(printable(b"plain text"), "plain text");
        assert_eq!(printable(b"a\r\nb\x1b[31m\t\\"), "a\\r\\nb\\u{1b}[31m\\t\\\\");
        assert_eq!(printable("gr\u{fc}n \u{202e}gpj".as_bytes()), "gr\u{fc}n \\u{202e}gpj");
        assert_eq!(printable(b"\xffx\xc3"), "\\xffx\\xc3");
    }

    #[test]
    fn cuts_at_the_bound() {
        let text = printable(&[b'a'; 600]);
        assert!(text.len() <= MAX_PRINTABLE && text.ends_with('…'));
        assert_eq!(printable(&[b'a'; 500]).len(), 500);
    }

    proptest! {
        #[test]
        fn never_a_control_character_and_never_long(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let text = printable(&bytes);
            prop_assert!(text.len() <= MAX_PRINTABLE);
            prop_assert!(!text.chars().any(is_unsafe));
        }
    }
}
