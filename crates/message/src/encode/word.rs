//! Encoded words (RFC 2047): header text beyond ASCII.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{LINE, one_line};

/// Longest encoded word (RFC 2047 §2).
const LONGEST_WORD: usize = 75;
/// `=?utf-8?B?` and `?=`.
const OVERHEAD: usize = 12;

/// The text as the value of an unstructured field (RFC 2047 §5 rule 1), folded so that lines stay under 78 octets; `column` is where it starts.
///
/// Plain ASCII stays as it is, unless it holds a word too long for a line or something that reads as an encoded word.
pub fn unstructured(text: &str, column: usize) -> String {
    let text = one_line(text);
    let text = text.trim();
    if !text.is_ascii() || text.contains("=?") {
        return encoded(text, column, false);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut column = column;
    let mut rest = text;
    while !rest.is_empty() {
        // A token is a run of spaces and the word after it; a fold goes before the run, so that no space is lost.
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        let word = rest.get(spaces..).and_then(|t| t.find(' ')).unwrap_or(rest.len() - spaces);
        let (token, after) = rest.split_at(spaces + word);
        if token.len() > LINE {
            return encoded(text, LINE, false);
        }
        if column + token.len() > LINE {
            if spaces == 0 {
                return encoded(text, LINE, false);
            }
            out.push_str("\r\n");
            column = 0;
        }
        out.push_str(token);
        column += token.len();
        rest = after;
    }
    out
}

/// The text as a phrase, as display names are (RFC 5322 §3.2.5): atoms, a quoted string, or encoded words (RFC 2047 §5 rule 3).
pub fn phrase(text: &str) -> String {
    let text = one_line(text);
    let text = text.trim();
    let is_atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    if !text.is_ascii() || text.contains("=?") || text.len() > LINE - 10 {
        return encoded(text, 6, true);
    }
    if !text.is_empty() && text.split(' ').all(|w| !w.is_empty() && w.bytes().all(is_atext)) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Encoded words joined by folds: `Q`, which people can half read, unless `B` is much shorter.
fn encoded(text: &str, column: usize, in_phrase: bool) -> String {
    let q_cost: usize = text.bytes().map(|b| if q_literal(b, in_phrase) || b == b' ' { 1 } else { 3 }).sum();
    let b_cost = text.len().div_ceil(3) * 4;
    let use_q = q_cost * 2 <= b_cost * 3;
    let mut out = String::with_capacity(q_cost.min(b_cost) + 64);
    let mut room = LINE.saturating_sub(column).clamp(OVERHEAD + 12, LONGEST_WORD) - OVERHEAD;
    let mut word = String::new();
    // A word never ends inside a character (RFC 2047 §5).
    let mut start = 0;
    let mut used = 0;
    for (at, c) in text.char_indices() {
        let cost = |so_far: usize| {
            if use_q {
                let mut utf8 = [0; 4];
                so_far + c.encode_utf8(&mut utf8).bytes().map(|b| if q_literal(b, in_phrase) || b == b' ' { 1 } else { 3 }).sum::<usize>()
            } else {
                (at + c.len_utf8() - start).div_ceil(3) * 4
            }
        };
        let next = cost(used);
        if next > room && at > start {
            push_word(&mut word, text.get(start..at).unwrap_or(""), use_q, in_phrase);
            out.push_str(&word);
            out.push_str("\r\n ");
            start = at;
            room = LONGEST_WORD - OVERHEAD;
            used = 0;
        }
        used = if use_q {
            let mut utf8 = [0; 4];
            used + c.encode_utf8(&mut utf8).bytes().map(|b| if q_literal(b, in_phrase) || b == b' ' { 1 } else { 3 }).sum::<usize>()
        } else {
            0
        };
    }
    push_word(&mut word, text.get(start..).unwrap_or(""), use_q, in_phrase);
    out.push_str(&word);
    out
}

/// Fills `word` with one encoded word.
fn push_word(word: &mut String, text: &str, use_q: bool, in_phrase: bool) {
    word.clear();
    word.push_str(if use_q { "=?utf-8?Q?" } else { "=?utf-8?B?" });
    if use_q {
        for b in text.bytes() {
            match b {
                b' ' => word.push('_'),
                b if q_literal(b, in_phrase) => word.push(char::from(b)),
                b => word.push_str(&format!("={b:02X}")),
            }
        }
    } else {
        STANDARD.encode_string(text, word);
    }
    word.push_str("?=");
}

/// What `Q` leaves as it is: in a phrase only the set of RFC 2047 §5 rule 3, elsewhere printable ASCII but `=`, `?`, `_`.
fn q_literal(b: u8, in_phrase: bool) -> bool {
    if in_phrase { b.is_ascii_alphanumeric() || b"!*+-/".contains(&b) } else { b.is_ascii_graphic() && !b"=?_".contains(&b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_stays_readable() {
        assert_eq!(unstructured("Lunch on Friday?", 9), "Lunch on Friday?");
        assert_eq!(phrase("Ada Lovelace"), "Ada Lovelace");
        assert_eq!(phrase("Lovelace, Ada"), "\"Lovelace, Ada\"");
        assert_eq!(phrase("a\"b"), "\"a\\\"b\"");
    }

    #[test]
    fn latin_is_q_and_others_are_b() {
        assert_eq!(unstructured("Grüße", 9), "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=");
        assert!(unstructured("こんにちは", 9).starts_with("=?utf-8?B?"));
        assert_eq!(phrase("J. Gärtner"), "=?utf-8?Q?J=2E_G=C3=A4rtner?=");
    }

    #[test]
    fn what_reads_as_an_encoded_word_is_encoded() {
        assert!(!unstructured("=?utf-8?Q?x?=", 9).contains("?x?"));
    }

    proptest::proptest! {
        #[test]
        fn another_parser_reads_subjects_back(text in "[ -~äé€東京𝄞]{0,300}") {
            let message = format!("Subject: {}\r\n\r\n", unstructured(&text, 9));
            for line in message.lines() {
                proptest::prop_assert!(line.len() <= LINE, "{}", line);
            }
            let parsed = mail_parser::MessageParser::default().parse(message.as_bytes()).unwrap();
            proptest::prop_assert_eq!(parsed.subject().unwrap_or("").trim(), text.trim());
        }
    }
}
