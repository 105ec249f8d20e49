//! The ARC chain of a message (RFC 8617 §5.2).

use mail_auth::common::crypto::Algorithm;
use mail_auth::{AuthenticatedMessage, DkimResult};

use super::AuthResult;
use super::dkim::word;
use crate::dns::Dns;
use crate::results::{split_statements, verdict_of};

/// Names an ARC-Message-Signature may list.
const NAMES: usize = 200;

/// What the chain is worth.
#[derive(Debug, Clone)]
pub struct ArcCheck {
    /// `pass`, `fail` or, when DNS did not answer, `temperror`.
    pub result: AuthResult,
    /// Who sealed last (`d=`).
    pub sealer: String,
    /// Sets in the chain.
    pub instances: usize,
    /// Whether the last sealer says that the message passed DMARC when it came in there.
    pub dmarc_passed: bool,
    /// Why it did not pass.
    pub reason: Option<String>,
}

/// Verifies the chain. `None`: there is none.
pub(super) async fn check(dns: &Dns, message: &AuthenticatedMessage<'_>) -> Option<ArcCheck> {
    if message.ams_headers.is_empty() && message.as_headers.is_empty() && message.aar_headers.is_empty() && !message.has_arc_errors {
        return None;
    }
    let failed = |reason: &str| ArcCheck {
        result: AuthResult::Fail,
        sealer: String::new(),
        instances: message.as_headers.len(),
        dmarc_passed: false,
        reason: Some(reason.to_owned()),
    };
    if let Some(reason) = objection(message) {
        return Some(failed(reason));
    }
    let output = dns.authenticator().verify_arc(dns.caches().with(message)).await;
    let (result, reason) = match output.result() {
        // A chain has no neutral outcome: it passes or it has failed (§5.2).
        DkimResult::Neutral(error) | DkimResult::PermError(error) => (AuthResult::Fail, Some(error.to_string())),
        // There are ARC fields, but no set is whole.
        DkimResult::None => (AuthResult::Fail, Some("an incomplete set".to_owned())),
        other => word(other),
    };
    let last = output.sets().last();
    Some(ArcCheck {
        result,
        sealer: last.map(|set| set.seal.header.d.to_ascii_lowercase()).unwrap_or_default(),
        instances: output.sets().len(),
        dmarc_passed: last.is_some_and(|set| {
            let text = String::from_utf8_lossy(set.results.value);
            verdict_of(&split_statements(&text), "dmarc").as_deref() == Some("pass")
        }),
        reason,
    })
}

/// What is wrong with a chain before any key is asked for: `mail-auth` is more lenient than RFC 8617 wants.
fn objection(message: &AuthenticatedMessage<'_>) -> Option<&'static str> {
    let seals = message.as_headers.iter().map(|header| (header.value, header.header.a));
    let signatures = message.ams_headers.iter().map(|header| (header.value, header.header.a));
    for (value, algorithm) in seals.chain(signatures) {
        let Some(tags) = tag_list(value) else { return Some("a malformed tag list") };
        // §4.1.2, §4.1.3: the algorithm must be named, and SHA-1 is none (RFC 8301).
        if !tags.iter().any(|(name, _)| *name == "a") || algorithm == Algorithm::RsaSha1 {
            return Some("an algorithm that is missing or not believed");
        }
    }
    for header in &message.ams_headers {
        let names = &header.header.h;
        if names.len() > NAMES {
            return Some("a message signature names too many fields");
        }
        // §4.1.2: seals are not covered by message signatures.
        if names.iter().any(|name| name.eq_ignore_ascii_case("arc-seal")) {
            return Some("a message signature covers ARC-Seal");
        }
    }
    None
}

/// The tags of a list, strictly (RFC 6376 §3.2): names as they are spelled, none twice, none empty but after the last semicolon.
fn tag_list(value: &[u8]) -> Option<Vec<(&str, &str)>> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let mut tags: Vec<(&str, &str)> = Vec::new();
    for part in text.strip_suffix(';').unwrap_or(text).split(';') {
        let (name, value) = part.split_once('=')?;
        let name = name.trim();
        let spelled = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !spelled || tags.iter().any(|(other, _)| *other == name) {
            return None;
        }
        tags.push((name, value.trim()));
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::tag_list;

    #[test]
    fn tag_lists_are_read_strictly() {
        assert_eq!(tag_list(b" i=1; a = x;\r\n b=c==;\r\n").unwrap(), [("i", "1"), ("a", "x"), ("b", "c==")]);
        for bad in ["i=1;; a=x", "i=1; a", "I=1", "i=1; i=2", "; i=1", "i 1=x", ""] {
            assert!(tag_list(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
