//! Where mail for an address goes: exact names first, then without detail, then the catch-all; aliases expanded with bounds.

mod step;
#[cfg(test)]
mod tests;
mod walk;

pub use step::{RouteStep, StepKind};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use pillarbox_config::Config;
use pillarbox_smtp::{Domain, LocalPart, Mailbox};
use serde::Serialize;

use crate::srs::Srs;
use crate::store::{Directory, Result};
use walk::Walk;

/// What resolution needs to know besides the directory.
#[derive(Debug, Clone)]
pub struct ResolvePolicy {
    /// Separates user and detail; empty: no details.
    pub delimiter: String,
    /// This host's name: its postmaster is reachable whether or not it is a hosted domain.
    pub hostname: Option<Domain>,
    /// This host's addresses: mail for `postmaster@[address]` is for us.
    pub addresses: Vec<IpAddr>,
    /// Who gets postmaster and abuse where nothing else is said; `None`: the first user of the domain.
    pub postmaster: Option<Mailbox>,
    /// Undoes rewritten senders.
    pub srs: Option<Arc<Srs>>,
    /// Aliases behind aliases.
    pub max_depth: usize,
    /// Targets of one address, all expanded.
    pub max_targets: usize,
}

impl Default for ResolvePolicy {
    fn default() -> Self {
        Self { delimiter: "+".into(), hostname: None, addresses: Vec::new(), postmaster: None, srs: None, max_depth: 20, max_targets: 1000 }
    }
}

impl ResolvePolicy {
    /// As the configuration says. Addresses of the host and the SRS secret are added by whoever knows them.
    pub fn from_config(config: &Config) -> Self {
        Self { delimiter: config.mailbox.recipient_delimiter.clone(), hostname: config.hostname.parse().ok(), ..Self::default() }
    }

    /// The same with a rewriter.
    #[must_use]
    pub fn with_srs(mut self, srs: Arc<Srs>) -> Self {
        self.srs = Some(srs);
        self
    }
}

/// The answer, and how it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// What becomes of the mail.
    pub outcome: Resolved,
    /// How that was found, for `pillarbox route`.
    pub steps: Vec<RouteStep>,
    /// Suspended users among those reached. With `mailbox.suspended = "hold"` their mail is kept, also when others get theirs.
    pub suspended: Vec<Mailbox>,
}

/// What becomes of mail for an address.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolved {
    /// One copy for each target; never empty.
    Deliver(Vec<Target>),
    /// A domain of ours, and nobody of that name: 550 5.1.1.
    Unknown,
    /// Not a domain of ours: 550 5.7.1 unless authenticated.
    NotOurs,
    /// Only suspended users.
    Suspended,
    /// The aliases lead nowhere but back: 550 5.4.6.
    Loop,
    /// More targets than allowed, or too deep.
    TooMany,
}

/// A final target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Target {
    /// A user's mailbox.
    Mailbox {
        /// The user's address as it was added.
        user: Mailbox,
        /// The detail, to be used as a folder when that folder exists.
        folder: Option<String>,
    },
    /// Somewhere else.
    Remote {
        /// Where.
        address: Mailbox,
        /// The local address that forwards there: its domain takes the reports (SRS).
        forwarded_by: Mailbox,
    },
}

/// Finds out where mail for `rcpt` goes.
///
/// # Errors
/// When the directory does not answer; to be told to the sender as 451.
pub async fn resolve(directory: &dyn Directory, policy: &ResolvePolicy, rcpt: &Mailbox) -> Result<Resolution> {
    resolve_at(directory, policy, rcpt, SystemTime::now()).await
}

/// As [`resolve`], at a given time: rewritten senders expire.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_at(directory: &dyn Directory, policy: &ResolvePolicy, rcpt: &Mailbox, now: SystemTime) -> Result<Resolution> {
    let mut walk = Walk::new(directory, policy);
    let outcome = walk.start(rcpt, now).await?;
    Ok(Resolution { outcome, steps: walk.steps, suspended: walk.suspended })
}

/// Whether RFC 5321 §4.5.1 (postmaster) or RFC 2142 §4 (abuse) wants the address to reach someone.
pub fn is_role_address(local: &LocalPart) -> bool {
    ["postmaster", "abuse"].iter().any(|role| local.as_str().eq_ignore_ascii_case(role))
}
