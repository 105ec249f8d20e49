//! Patterns in test scripts: `*` and `…` stand for any text, `?` for one character; case does not matter.

/// Whether the whole of `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().map(|c| if c == '…' { '*' } else { c }).collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star, should what follows it not match.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || Some(&c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, at)) => {
                    p = after_star;
                    t = at + 1;
                    retry = Some((after_star, at + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_marks() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("…", "anything", true),
            ("250*ok", "250 2.0.0 OK", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ba", false),
            ("bad@*", "bad@example.org", true),
            ("bad@", "bad@example.org", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(40), &"b".repeat(10_000)));
    }
}
