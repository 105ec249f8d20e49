//! Who a message really comes from: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 9989, which follows RFC 7489) and ARC (RFC 8617);
//! the last three verified by `mail-auth` within bounds of our own.
//!
//! Temporary DNS errors come out as `temperror` and are never held against anyone.

mod arc;
mod dkim;
mod dmarc;
mod key_terms;

use std::time::Duration;

use bytes::Bytes;
use mail_auth::AuthenticatedMessage;
use pillarbox_message::header::{Limits, SectionEnd, summary};
use pillarbox_smtp::ReversePath;

pub use crate::spf::{SpfCheck, check_spf};
pub use arc::ArcCheck;
pub use dkim::DkimCheck;
pub use dmarc::{DmarcCheck, FromField, Policy};

use crate::dns::Dns;

/// Longest time for all checks of one message, DNS included.
const WHOLE: Duration = Duration::from_secs(20);
/// Messages above this many octets are hashed on the blocking pool.
const LARGE: usize = 256 * 1024;
/// Header sections beyond these are not looked at: no honest message has them, and work grows with fields times signatures.
const HEADER: Limits = Limits { octets: 1 << 20, fields: 2_000 };

/// A result as RFC 8601 §2.7 spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum AuthResult {
    Pass,
    Fail,
    SoftFail,
    Neutral,
    Policy,
    None,
    TempError,
    PermError,
}

impl AuthResult {
    /// The word in Authentication-Results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::None => "none",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// Which checks to run.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// DKIM.
    pub dkim: bool,
    /// DMARC; needs the results of SPF and DKIM.
    pub dmarc: bool,
    /// ARC.
    pub arc: bool,
}

/// What is known of a message's origin.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// SPF of the envelope sender, or of the HELO name for `<>`.
    pub spf: Option<SpfCheck>,
    /// Each DKIM signature that was looked at.
    pub dkim: Vec<DkimCheck>,
    /// The ARC chain; `None` when there is none or it was not checked.
    pub arc: Option<ArcCheck>,
    /// DMARC of the From domain; `None` when not checked.
    pub dmarc: Option<DmarcCheck>,
    /// What the From field looks like.
    pub from: FromField,
}

/// Runs the checks on a message. `spf` is the result found at MAIL.
pub async fn authenticate(dns: &Dns, checks: Checks, from: &ReversePath, spf: Option<SpfCheck>, message: Bytes) -> Authentication {
    let (dns, from) = (dns.clone(), from.clone());
    let fallback = spf.clone();
    let large = message.len() > LARGE;
    let work = async move { tokio::time::timeout(WHOLE, all(&dns, checks, &from, spf, &message)).await };
    let done = if large {
        // Parsing hashes the body at once; that is no work for a thread that others wait on.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(work)).await.ok()
    } else {
        Some(work.await)
    };
    match done {
        Some(Ok(authentication)) => authentication,
        _ => {
            metrics::counter!("pillarbox_screen_auth_timeouts_total").increment(1);
            Authentication {
                dmarc: checks.dmarc.then(|| DmarcCheck::unknown(String::new(), "the checks took too long")),
                spf: fallback,
                ..Authentication::default()
            }
        }
    }
}

async fn all(dns: &Dns, checks: Checks, from: &ReversePath, spf: Option<SpfCheck>, message: &[u8]) -> Authentication {
    let mut authentication = Authentication { spf, ..Authentication::default() };
    let header = summary(message, HEADER);
    if header.end == SectionEnd::Limit {
        authentication.from = FromField::TooLarge;
        return authentication;
    }
    let Some(mut parsed) = AuthenticatedMessage::parse_with_opts(message, None, true) else {
        authentication.from = FromField::Missing;
        return authentication;
    };
    authentication.from = FromField::of(message, &parsed);
    if dns.is_down() {
        let why = "name servers do not answer";
        authentication.dkim = if checks.dkim { dkim::unknown(&parsed, why) } else { vec![] };
        authentication.dmarc = checks.dmarc.then(|| DmarcCheck::unknown(authentication.from.domain().to_owned(), why));
        return authentication;
    }
    if checks.arc {
        authentication.arc = arc::check(dns, &parsed).await;
    }
    let mut outputs = Vec::new();
    if checks.dkim {
        authentication.dkim = dkim::select(&mut parsed, authentication.from.domain());
        outputs = dns.authenticator().verify_dkim(dns.caches().with(&parsed)).await;
        authentication.dkim.splice(0..0, key_terms::heed(dns, &mut outputs).await);
    }
    if checks.dmarc {
        authentication.dmarc = dmarc::check(dns, &authentication.from, from, authentication.spf.as_ref(), &parsed, &outputs).await;
    }
    authentication
}
