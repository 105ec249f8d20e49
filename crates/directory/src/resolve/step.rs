//! The steps of a resolution, for `pillarbox route`: as data, and as sentences.

use std::fmt;

use pillarbox_smtp::{Domain, Mailbox};
use serde::Serialize;

use crate::records::AliasAddress;

/// One step: what happened, and the same in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteStep {
    /// What happened.
    #[serde(flatten)]
    pub what: StepKind,
    /// The same as a sentence.
    pub text: String,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[allow(missing_docs)] // The sentences below explain the fields.
pub enum StepKind {
    /// The domain is ours.
    Hosted { domain: Domain },
    /// The domain is not ours.
    NotHosted { address: Mailbox },
    /// An address literal or our host name stands for this host.
    OwnHost { address: Mailbox, becomes: Mailbox },
    /// A user's mailbox.
    Mailbox { user: Mailbox, folder: Option<String> },
    /// An alias or a forwarding.
    Alias { address: AliasAddress, targets: Vec<Mailbox> },
    /// The part after the delimiter was set aside.
    Detail { address: Mailbox, base: Mailbox, detail: String },
    /// Nothing of that name; the domain's catch-all takes it.
    CatchAll { domain: Domain, targets: Vec<Mailbox> },
    /// postmaster or abuse, which must reach someone (RFC 5321 §4.5.1, RFC 2142).
    RoleAddress { address: Mailbox, user: Mailbox },
    /// An address outside.
    Remote { address: Mailbox, forwarded_by: Mailbox },
    /// A rewritten sender, led back.
    Srs { address: Mailbox, original: Mailbox },
    /// A rewritten sender that is not to be believed.
    SrsInvalid { address: Mailbox, why: String },
    /// The user is suspended.
    Suspended { user: Mailbox },
    /// An alias that leads to itself.
    Loop { address: Mailbox },
    /// Reached a second time.
    Duplicate { address: Mailbox },
    /// Too many targets, or too deep.
    TooMany { address: Mailbox },
    /// Nobody of that name.
    Unknown { address: Mailbox },
}

impl From<StepKind> for RouteStep {
    fn from(what: StepKind) -> Self {
        let text = what.to_string();
        Self { what, text }
    }
}

impl fmt::Display for RouteStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct List<'a>(&'a [Mailbox]);

impl fmt::Display for List<'_> {
    /// The first few, and how many more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (at, target) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{target}", if at > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosted { domain } => write!(f, "{domain} is a domain of this server"),
            Self::NotHosted { address } => {
                write!(f, "{} is not a domain of this server: mail for {address} is relayed for logged-in users only", address.domain)
            }
            Self::OwnHost { address, becomes } => write!(f, "{address} is this host itself, looked up as {becomes}"),
            Self::Mailbox { user, folder: None } => write!(f, "{user} is a user: into the mailbox"),
            Self::Mailbox { user, folder: Some(folder) } => {
                write!(f, "{user} is a user: into the folder {folder} if there is one, else into the mailbox")
            }
            Self::Alias { address, targets } => write!(f, "{address} is an alias for {}", List(targets)),
            Self::Detail { address, base, detail } => write!(f, "nothing is named {address}; without the detail {detail:?} it is {base}"),
            Self::CatchAll { domain, targets } => write!(f, "the catch-all @{domain} takes it to {}", List(targets)),
            Self::RoleAddress { address, user } => write!(f, "{address} must reach someone: it goes to {user}"),
            Self::Remote { address, forwarded_by } => write!(f, "{address} is elsewhere: relayed on behalf of {forwarded_by}"),
            Self::Srs { address, original } => write!(f, "{address} was made by this server for {original}: the report is relayed there"),
            Self::SrsInvalid { address, why } => write!(f, "{address} looks like a rewritten sender, but {why}"),
            Self::Suspended { user } => write!(f, "{user} is suspended"),
            Self::Loop { address } => write!(f, "{address} leads back to itself: this branch is left out"),
            Self::Duplicate { address } => write!(f, "{address} was reached before: one copy only"),
            Self::TooMany { address } => write!(f, "at {address} the aliases are too many or too deep: refused"),
            Self::Unknown { address } => write!(f, "there is no user or alias {address}"),
        }
    }
}
