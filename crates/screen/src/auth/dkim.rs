//! DKIM signatures (RFC 6376), as many as are worth verifying.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::Algorithm;
use mail_auth::common::headers::Header;
use mail_auth::dkim::Signature;
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult};

use super::AuthResult;

/// Signatures verified a message (RFC 6376 §6.1 lets verifiers limit them). Those of the From domain go first.
const VERIFIED: usize = 10;
/// Malformed ones reported.
const REPORTED: usize = 3;
/// Names a signature may list: each is looked for among all fields.
const NAMES: usize = 200;

/// One signature.
#[derive(Debug, Clone)]
pub struct DkimCheck {
    /// The result.
    pub result: AuthResult,
    /// `d=`; empty when the signature is malformed.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// `a=`.
    pub algorithm: &'static str,
    /// The first characters of `b=`, to tell signatures apart (RFC 6008).
    pub tag: String,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// The key's record says that its domain is testing (`t=y`): a failure is not held against the message. What passes counts, as it
    /// does everywhere, since many domains forget to take the flag out.
    pub testing: bool,
}

impl DkimCheck {
    fn new(result: AuthResult, signature: Option<&Signature>, reason: Option<String>) -> Self {
        Self {
            result,
            domain: signature.map(|s| s.d.to_ascii_lowercase()).unwrap_or_default(),
            selector: signature.map(|s| s.s.clone()).unwrap_or_default(),
            algorithm: signature.map_or("", |s| s.a.name()),
            tag: signature.and_then(|s| s.b.get(..6)).map(|b| STANDARD.encode(b)).unwrap_or_default(),
            reason,
            testing: false,
        }
    }
}

impl From<&DkimOutput<'_>> for DkimCheck {
    fn from(output: &DkimOutput<'_>) -> Self {
        let (result, reason) = word(output.result());
        Self::new(result, output.signature(), reason)
    }
}

/// mail-auth's result in RFC 8601's words.
pub(super) fn word(result: &DkimResult) -> (AuthResult, Option<String>) {
    match result {
        DkimResult::Pass => (AuthResult::Pass, None),
        DkimResult::Neutral(error) => (AuthResult::Neutral, Some(error.to_string())),
        DkimResult::Fail(error) => (AuthResult::Fail, Some(error.to_string())),
        DkimResult::PermError(error) => (AuthResult::PermError, Some(error.to_string())),
        DkimResult::TempError(error) => (AuthResult::TempError, Some(error.to_string())),
        DkimResult::None => (AuthResult::None, None),
    }
}

/// Leaves in the message only the signatures that are to be verified, and returns results for those that are not.
pub(super) fn select(message: &mut AuthenticatedMessage<'_>, from_domain: &str) -> Vec<DkimCheck> {
    let mut refused = Vec::new();
    message.errors.truncate(REPORTED);
    message.dkim_headers.retain(|header| match objection(&header.header) {
        None => true,
        Some((result, reason)) => {
            if refused.len() < REPORTED {
                refused.push(DkimCheck::new(result, Some(&header.header), Some(reason.to_owned())));
            }
            false
        }
    });
    if message.dkim_headers.len() > VERIFIED {
        let foreign = |header: &Header<'_, Signature>| !same_or_parent(&header.header.d, from_domain);
        message.dkim_headers.sort_by_key(foreign);
        message.dkim_headers.truncate(VERIFIED);
    }
    refused
}

/// What is wrong with a signature before any key is asked for.
fn objection(signature: &Signature) -> Option<(AuthResult, &'static str)> {
    if signature.a == Algorithm::RsaSha1 {
        // RFC 8301 §3.1: must not be believed.
        return Some((AuthResult::Policy, "rsa-sha1 is not believed any more"));
    }
    if signature.h.len() > NAMES {
        return Some((AuthResult::Policy, "the signature names too many fields"));
    }
    if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("from")) {
        return Some((AuthResult::PermError, "the From field is not signed"));
    }
    let agent = signature.i.rsplit_once('@').map(|(_, domain)| domain);
    if agent.is_some_and(|agent| !same_or_parent(&signature.d, agent)) {
        return Some((AuthResult::PermError, "i= is not within d="));
    }
    None
}

/// Whether `parent` is `name` or above it.
pub(super) fn same_or_parent(parent: &str, name: &str) -> bool {
    let (parent, name) = (parent.to_ascii_lowercase(), name.to_ascii_lowercase());
    name == parent || name.strip_suffix(&parent).is_some_and(|head| head.ends_with('.'))
}

/// Results for signatures that cannot be verified just now.
pub(super) fn unknown(message: &AuthenticatedMessage<'_>, why: &str) -> Vec<DkimCheck> {
    let checks = message.dkim_headers.iter().take(REPORTED);
    checks.map(|header| DkimCheck::new(AuthResult::TempError, Some(&header.header), Some(why.to_owned()))).collect()
}
