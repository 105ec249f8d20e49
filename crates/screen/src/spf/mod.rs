//! Sender Policy Framework (RFC 7208): may this client send for that domain?
//!
//! Our own evaluation, not `mail-auth`'s: that one lacks the limit on void look-ups and takes a fifth of the published test suite's
//! malformed records for good ones.

mod check;
mod macros;
mod record;

use std::net::IpAddr;
use std::time::Duration;

use mail_auth::{SpfOutput, SpfResult};
use pillarbox_smtp::{Domain, ReversePath};

use crate::auth::AuthResult;
use crate::dns::Dns;
use check::Evaluation;
use macros::Facts;

/// Longest time for one check (RFC 7208 §4.6.4: at least 20 s). It runs beside the session.
const LONGEST: Duration = Duration::from_secs(20);

/// SPF's word on the envelope sender.
#[derive(Debug, Clone)]
pub struct SpfCheck {
    /// The result: `pass`, `fail`, `softfail`, `neutral`, `none`, `temperror` or `permerror`.
    pub result: AuthResult,
    /// The domain that was checked: of the envelope sender, or the HELO name for `<>` (§2.4).
    pub domain: String,
    /// Whether the HELO name was checked.
    pub helo: bool,
    /// What the domain says about a refusal (§6.2): printable ASCII, but a stranger's words.
    pub explanation: Option<String>,
}

impl SpfCheck {
    /// In the form that mail-auth's DMARC takes.
    pub(crate) fn output(&self) -> SpfOutput {
        SpfOutput::new(self.domain.clone()).with_result(match self.result {
            AuthResult::Pass => SpfResult::Pass,
            AuthResult::Fail | AuthResult::Policy => SpfResult::Fail,
            AuthResult::SoftFail => SpfResult::SoftFail,
            AuthResult::Neutral => SpfResult::Neutral,
            AuthResult::TempError => SpfResult::TempError,
            AuthResult::PermError => SpfResult::PermError,
            AuthResult::None => SpfResult::None,
        })
    }
}

/// Checks the envelope sender, or the HELO name where there is none. `hostname` is ours, for macros.
pub async fn check_spf(dns: &Dns, client: IpAddr, helo: &str, from: &ReversePath, hostname: &str) -> SpfCheck {
    let (local, domain) = match from.mailbox() {
        Some(mailbox) => (mailbox.local.as_str().to_owned(), mailbox.domain.as_str().to_owned()),
        // A HELO that is no name of several labels has no policy.
        None => ("postmaster".to_owned(), Domain::new(helo).map(|name| name.as_str().to_owned()).unwrap_or_default()),
    };
    let mut check = SpfCheck { result: AuthResult::None, domain, helo: from.is_null(), explanation: None };
    if check.domain.starts_with('[') || !check.domain.contains('.') {
        return check;
    }
    if dns.is_down() {
        check.result = AuthResult::TempError;
        return check;
    }
    let facts = Facts { client: client.to_canonical(), helo, local: &local, sender_domain: &check.domain, hostname };
    let mut evaluation = Evaluation::new(dns, facts);
    let evaluated = tokio::time::timeout(LONGEST, evaluation.run(&check.domain)).await;
    (check.result, check.explanation) = evaluated.unwrap_or((AuthResult::TempError, None));
    check
}
