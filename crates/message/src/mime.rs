//! `Content-Type` and `Content-Disposition` values (RFC 2045 §5.1, RFC 2183), read leniently.

/// Most parameters that are read.
const MAX_PARAMETERS: usize = 100;

/// A value with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// `text/plain` or `attachment`, lower case; empty when there was nothing readable.
    pub kind: String,
    /// Names in lower case, values without quotes, in order.
    pub parameters: Vec<(String, String)>,
}

impl Content {
    /// Reads an unfolded value. Octets that are no UTF-8 become U+FFFD.
    pub fn parse(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value);
        let mut segments = segments(&text).into_iter();
        let kind = segments.next().unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
        let parameters = segments
            .filter_map(|segment| {
                let (name, value) = segment.split_once('=')?;
                let name = name.trim().to_ascii_lowercase();
                (!name.is_empty()).then(|| (name, unquote(value.trim())))
            })
            .take(MAX_PARAMETERS)
            .collect();
        Self { kind, parameters }
    }

    /// The first parameter of this name (lower case).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether it is `multipart/…`.
    pub fn is_multipart(&self) -> bool {
        self.kind.starts_with("multipart/")
    }
}

/// The text between semicolons, with quoted strings kept whole and comments left out.
fn segments(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let (mut quoted, mut escaped, mut depth) = (false, false, 0usize);
    for c in text.chars() {
        if depth > 0 {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => {
                depth = 1;
                continue;
            }
            ';' if !quoted => {
                if all.len() > MAX_PARAMETERS {
                    return all;
                }
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = all.last_mut() {
            last.push(c);
        }
    }
    all
}

/// A token as it is, a quoted string without its quotes.
fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        return value.split_whitespace().next().unwrap_or_default().to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_occur() {
        let content = Content::parse(b"Multipart/Mixed; (c) boundary=\"a;b\\\"c\" (x); Charset=utf-8 ; junk; =x");
        assert_eq!(content.kind, "multipart/mixed");
        assert_eq!(content.parameter("boundary"), Some("a;b\"c"));
        assert_eq!(content.parameter("charset"), Some("utf-8"));
        assert_eq!(content.parameters.len(), 2);
        assert_eq!(Content::parse(b""), Content { kind: String::new(), parameters: Vec::new() });
    }
}
