//! SPF (RFC 7208): may this client send for that domain?

use std::net::IpAddr;
use std::time::Duration;

use mail_auth::spf::verify::SpfParameters;
use mail_auth::{SpfOutput, SpfResult};
use pillarbox_smtp::{Domain, ReversePath};

use super::AuthResult;
use crate::dns::Dns;

/// Longest time for one check (RFC 7208 §4.6.4 recommends at least 20 s for those that wait for an answer; ours runs beside the session).
const LONGEST: Duration = Duration::from_secs(20);

/// SPF's word on the envelope sender.
#[derive(Debug, Clone)]
pub struct SpfCheck {
    /// The result.
    pub result: AuthResult,
    /// The domain that was checked: of the envelope sender, or the HELO name for `<>` (§2.4).
    pub domain: String,
    /// Whether the HELO name was checked.
    pub helo: bool,
    /// What the domain says about a refusal, not yet made printable.
    pub explanation: Option<String>,
    pub(crate) output: SpfOutput,
}

/// Checks the envelope sender, or the HELO name where there is none. `hostname` is ours, for macros.
pub async fn check(dns: &Dns, client: IpAddr, helo: &str, from: &ReversePath, hostname: &str) -> SpfCheck {
    let client = client.to_canonical();
    let sender = from.mailbox().map(|mailbox| mailbox.to_string());
    // A HELO that is no name (an address literal, one word) has no policy.
    let helo_name = Domain::new(helo).ok().filter(|name| name.ip().is_none() && name.as_str().contains('.'));
    let helo_name = helo_name.as_ref().map_or("", Domain::as_str);
    let (domain, parameters) = match (&sender, from.mailbox()) {
        (Some(sender), Some(mailbox)) => (mailbox.domain.as_str(), SpfParameters::verify_mail_from(client, helo_name, hostname, sender)),
        _ => (helo_name, SpfParameters::verify_ehlo(client, helo_name, hostname)),
    };
    let output = if domain.is_empty() || domain.starts_with('[') {
        SpfOutput::new(domain.to_owned()).with_result(SpfResult::None)
    } else if dns.is_down() {
        SpfOutput::new(domain.to_owned()).with_result(SpfResult::TempError)
    } else {
        let checked = dns.authenticator().verify_spf(dns.caches().with(parameters));
        match tokio::time::timeout(LONGEST, checked).await {
            Ok(output) => output,
            Err(_) => SpfOutput::new(domain.to_owned()).with_result(SpfResult::TempError),
        }
    };
    SpfCheck {
        result: output.result().into(),
        domain: domain.to_owned(),
        helo: from.is_null(),
        explanation: output.explanation().map(str::to_owned),
        output,
    }
}

impl From<SpfResult> for AuthResult {
    fn from(result: SpfResult) -> Self {
        match result {
            SpfResult::Pass => Self::Pass,
            SpfResult::Fail => Self::Fail,
            SpfResult::SoftFail => Self::SoftFail,
            SpfResult::Neutral => Self::Neutral,
            SpfResult::TempError => Self::TempError,
            SpfResult::PermError => Self::PermError,
            SpfResult::None => Self::None,
        }
    }
}
