//! DMARC (RFC 9989): does anything that passed speak for the domain in From, and what does that domain want done otherwise?

use std::sync::Arc;

use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::dmarc::{Dmarc, Policy as Published};
use mail_auth::{AuthenticatedMessage, DkimOutput, DmarcResult, SpfOutput};
use pillarbox_message::header::fields;
use pillarbox_smtp::{Domain, ReversePath};

use super::{AuthResult, SpfCheck};
use crate::dns::Dns;

/// What the author's domain wants done with mail that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    None,
    /// Junk it.
    Quarantine,
    /// Refuse it.
    Reject,
}

impl Policy {
    /// The word in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

impl From<Published> for Policy {
    fn from(policy: Published) -> Self {
        match policy {
            Published::Reject => Self::Reject,
            Published::Quarantine => Self::Quarantine,
            Published::None | Published::Unspecified => Self::None,
        }
    }
}

/// The From field, as far as DMARC cares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FromField {
    /// No From field.
    #[default]
    Missing,
    /// A field without an address.
    Unreadable,
    /// The header is too large to look through.
    TooLarge,
    /// Authors of one domain, in A-labels.
    One(String),
    /// Authors of several domains: DMARC does not apply.
    SeveralDomains,
    /// More than one From field: malformed (RFC 5322 §3.6), and a way to show one author and prove another.
    SeveralFields,
}

impl FromField {
    pub(super) fn of(raw: &[u8], message: &AuthenticatedMessage<'_>) -> Self {
        // A name may be followed by white space (RFC 5322 §4.5); mail-auth accepts that as well.
        let count = fields(raw).filter(|field| field.is("From")).count();
        let mut domains: Vec<String> = message
            .froms()
            .iter()
            .filter_map(|from| from.rsplit_once('@'))
            .map(|(_, domain)| Domain::new(domain).map_or_else(|_| domain.to_ascii_lowercase(), |d| d.as_str().to_owned()))
            .collect();
        domains.dedup();
        match (count, domains.as_slice()) {
            (2.., _) => Self::SeveralFields,
            (_, [one]) => Self::One(one.clone()),
            (_, [_, _, ..]) => Self::SeveralDomains,
            (0, []) => Self::Missing,
            (_, []) => Self::Unreadable,
        }
    }

    /// The author's domain; empty unless there is exactly one.
    pub fn domain(&self) -> &str {
        match self {
            Self::One(domain) => domain,
            _ => "",
        }
    }
}

/// DMARC's word on the author's domain.
#[derive(Debug, Clone)]
pub struct DmarcCheck {
    /// `pass`, `fail`, `none`, `temperror` or `permerror`.
    pub result: AuthResult,
    /// The domain in From.
    pub domain: String,
    /// What it wants done with mail that fails.
    pub policy: Policy,
    /// SPF passed for an aligned domain.
    pub spf_aligned: bool,
    /// A DKIM signature passed for an aligned domain.
    pub dkim_aligned: bool,
    /// Its record, for reports.
    pub record: Option<Arc<Dmarc>>,
    /// Why it could not be found out.
    pub reason: Option<String>,
}

impl DmarcCheck {
    pub(super) fn unknown(domain: String, why: &str) -> Self {
        Self {
            result: AuthResult::TempError,
            domain,
            policy: Policy::None,
            spf_aligned: false,
            dkim_aligned: false,
            record: None,
            reason: Some(why.to_owned()),
        }
    }
}

/// Applies DMARC to the results at hand. `None`: there is no single author domain to apply it to.
pub(super) async fn check(
    dns: &Dns,
    from_field: &FromField,
    envelope: &ReversePath,
    spf: Option<&SpfCheck>,
    message: &AuthenticatedMessage<'_>,
    dkim: &[DkimOutput<'_>],
) -> Option<DmarcCheck> {
    let FromField::One(domain) = from_field else { return None };
    let spf_output = spf.map_or_else(SpfOutput::default, SpfCheck::output);
    let mail_from = match (envelope.mailbox(), spf) {
        (Some(mailbox), _) => mailbox.domain.as_str(),
        (None, Some(spf)) => spf.domain.as_str(),
        (None, None) => "",
    };
    let parameters = DmarcParameters::new(message, dkim, mail_from, &spf_output);
    let output = dns.authenticator().verify_dmarc(dns.caches().with(parameters)).await;
    let (result, reason) = match output.result() {
        DmarcResult::Pass => (AuthResult::Pass, None),
        DmarcResult::Fail(_) => (AuthResult::Fail, None),
        DmarcResult::TempError(error) => (AuthResult::TempError, Some(error.to_string())),
        DmarcResult::PermError(error) => (AuthResult::PermError, Some(error.to_string())),
        DmarcResult::None => (AuthResult::None, None),
    };
    Some(DmarcCheck {
        result,
        domain: domain.clone(),
        policy: output.policy().into(),
        spf_aligned: matches!(output.spf_result(), DmarcResult::Pass),
        dkim_aligned: matches!(output.dkim_result(), DmarcResult::Pass),
        record: output.dmarc_record_cloned(),
        reason,
    })
}
