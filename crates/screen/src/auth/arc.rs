//! The ARC chain of a message (RFC 8617 §5.2).

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
pub(super) async fn check(dns: &Dns, message: &mut AuthenticatedMessage<'_>) -> Option<ArcCheck> {
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
    if message.ams_headers.iter().any(|header| header.header.h.len() > NAMES) {
        return Some(failed("a signature names too many fields"));
    }
    if message.ams_headers.iter().any(|header| header.header.h.iter().any(|name| name.eq_ignore_ascii_case("arc-seal"))) {
        // §4.1.2: ARC-Seal must not be signed by a message signature.
        return Some(failed("a message signature covers ARC-Seal"));
    }
    let output = dns.authenticator().verify_arc(dns.caches().with(&*message)).await;
    let (result, reason) = match output.result() {
        // A chain has no neutral outcome: it passes or it has failed (§5.2).
        DkimResult::Neutral(error) | DkimResult::PermError(error) => (AuthResult::Fail, Some(error.to_string())),
        DkimResult::None if message.as_headers.is_empty() && message.ams_headers.is_empty() => {
            (AuthResult::Fail, Some("an incomplete set".to_owned()))
        }
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
