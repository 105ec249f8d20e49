//! Authentication-Results (RFC 8601): reading those that claim to be ours, and putting one line of our own together.

use std::ops::Range;

use pillarbox_message::header::{Field, Limits, fields_within};

/// The field that says why: `X-Pillarbox-Verdict`.
pub(crate) const VERDICT: &str = "X-Pillarbox-Verdict";

/// No limits: every field that speaks in our name has to be found, however long the header is.
const ALL: Limits = Limits { octets: usize::MAX, fields: usize::MAX };

/// Ranges of the fields that speak in our name though they came from outside (RFC 8601 §5), and of old verdicts.
pub(crate) fn forged(message: &[u8], hostname: &str) -> Vec<Range<usize>> {
    fields_within(message, ALL).filter(|field| field.is(VERDICT) || names(field, hostname)).map(|field| field.range).collect()
}

/// The results that fields of ours hold, top to bottom, each method's statement once. `None`: there is no such field.
pub(crate) fn merged(message: &[u8], hostname: &str) -> Option<Vec<String>> {
    let mut all: Option<Vec<String>> = None;
    for field in fields_within(message, Limits::default()).filter(|field| names(field, hostname)) {
        let merged = all.get_or_insert_default();
        for statement in split_statements(&field.text()).into_iter().skip(1) {
            if !statement.is_empty() && !statement.eq_ignore_ascii_case("none") && !merged.contains(&statement) {
                merged.push(statement);
            }
        }
    }
    all.map(|merged| if merged.is_empty() { vec!["none".to_owned()] } else { merged })
}

/// The result of a method among statements such as `arc=pass header.oldest-pass=0`, in lower case.
pub(crate) fn verdict_of(statements: &[String], method: &str) -> Option<String> {
    statements.iter().find_map(|statement| {
        let (name, rest) = statement.split_once('=')?;
        // A method may carry a version, as in `dkim/1`.
        let name = name.split('/').next()?.trim();
        let result: String = rest.trim_start().chars().take_while(char::is_ascii_alphanumeric).collect();
        name.eq_ignore_ascii_case(method).then(|| result.to_ascii_lowercase())
    })
}

/// Whether a field is Authentication-Results with this authserv-id.
fn names(field: &Field<'_>, hostname: &str) -> bool {
    field.is("Authentication-Results")
        && split_statements(&field.text())
            .first()
            .and_then(|head| head.split_whitespace().next())
            .is_some_and(|id| id.trim_matches('"').trim_end_matches('.').eq_ignore_ascii_case(hostname))
}

/// Splits at semicolons outside quotes and comments, and drops the comments before the first one; each part trimmed.
pub(crate) fn split_statements(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let (mut quoted, mut depth, mut escaped) = (false, 0_usize, false);
    for c in text.chars() {
        let in_comment = depth > 0;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted || in_comment => escaped = true,
            '"' if !in_comment => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && in_comment => depth -= 1,
            ';' if !quoted && !in_comment => {
                parts.push(part.trim().to_owned());
                part.clear();
                continue;
            }
            _ => {}
        }
        // Comments before the authserv-id could hide it; those among the results are kept as they are.
        if !parts.is_empty() || !(in_comment || depth > 0) {
            part.push(c);
        }
    }
    parts.push(part.trim().to_owned());
    parts
}

/// A value as RFC 8601's `pvalue` or a comment may hold it: printable ASCII and UTF-8 without quotes, controls, white space, `;` and
/// parentheses; at most 255 characters.
pub(crate) fn pvalue(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !c.is_whitespace() && !";()\"\\<>,".contains(*c)).take(255).collect()
}

/// The field: `Authentication-Results: host;` and a folded line a statement; `none` when there is nothing to say.
pub(crate) fn write(hostname: &str, statements: &[String]) -> String {
    if statements.is_empty() {
        return format!("Authentication-Results: {hostname}; none\r\n");
    }
    format!("Authentication-Results: {hostname};\r\n\t{}\r\n", statements.join(";\r\n\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forged_in(message: &str) -> Vec<String> {
        forged(message.as_bytes(), "mx.example.org").into_iter().map(|r| message[r].trim_end().to_owned()).collect()
    }

    #[test]
    fn fields_in_our_name_are_found_however_they_are_dressed() {
        for field in [
            "Authentication-Results: mx.example.org; spf=pass",
            "AUTHENTICATION-RESULTS:MX.Example.ORG 1; none",
            "Authentication-Results : mx.example.org; dkim=pass",
            "Authentication-Results: (hidden (twice;)) mx.example.org; dkim=pass",
            "Authentication-Results:\r\n\tmx.example.org;\r\n\tdkim=pass",
            "Authentication-Results: \"mx.example.org\"; dkim=pass",
            "Authentication-Results: mx.example.org(x); dkim=pass",
            "Authentication-Results: mx.example.org",
            "X-Pillarbox-Verdict: accept",
        ] {
            assert_eq!(forged_in(&format!("A: b\r\n{field}\r\n\r\nAuthentication-Results: mx.example.org\r\n")), [field], "{field}");
        }
        for field in ["Authentication-Results: mx.example.net; spf=pass", "ARC-Authentication-Results: i=1; mx.example.org; spf=pass"] {
            assert!(forged_in(&format!("{field}\r\n\r\n")).is_empty(), "{field}");
        }
    }

    #[test]
    fn results_of_several_fields_are_merged() {
        let message =
            b"Authentication-Results: h; arc=pass (as.1=pass; ok); spf=none\r\nAuthentication-Results: h; spf=none; dkim=pass\r\n\
            Authentication-Results: other; dmarc=pass\r\n\r\n";
        let merged = merged(message, "h").unwrap();
        assert_eq!(merged, ["arc=pass (as.1=pass; ok)", "spf=none", "dkim=pass"]);
        assert_eq!(verdict_of(&merged, "ARC").as_deref(), Some("pass"));
        assert_eq!(verdict_of(&merged, "dmarc"), None);
        assert_eq!(super::merged(b"Authentication-Results: h; none\r\n\r\n", "h").unwrap(), ["none"]);
        assert_eq!(super::merged(message, "nobody"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_split_without_loss_of_order(text in "\\PC{0,200}") {
            let parts = split_statements(&text);
            proptest::prop_assert!(!parts.is_empty());
            proptest::prop_assert!(pvalue(&text).chars().count() <= 255);
        }
    }
}
