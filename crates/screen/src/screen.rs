//! The screen as a whole: what the configuration says, and what all sessions share.

use std::sync::Arc;

use pillarbox_config::Config;
use pillarbox_directory::Directory;
use tokio::sync::Semaphore;

use crate::access::{AccessList, BadEntry};
use crate::dns::{Dns, DnsSetupError};
use crate::dnsbl::{BadZone, DnsLists};
use crate::facts::SessionFacts;
use crate::milter::{BadAddress, Settings};
use crate::rates::{AddressRate, ClientRate};
use crate::reports::Collector;
use crate::session::ScreenSession;

/// Why a configuration cannot be screened by.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// An entry of `screen.allow`.
    #[error("screen.allow: {0}")]
    Allow(#[source] BadEntry),
    /// An entry of `screen.deny`.
    #[error("screen.deny: {0}")]
    Deny(#[source] BadEntry),
    /// A zone of `screen.dnsbl`.
    #[error(transparent)]
    Zone(#[from] BadZone),
    /// A filter of `screen.milter`.
    #[error(transparent)]
    Milter(#[from] BadAddress),
    /// The name servers.
    #[error(transparent)]
    Dns(#[from] DnsSetupError),
}

/// Messages judged at once; more wait their turn.
const AT_ONCE: usize = 64;

/// Judges mail from outside. Made at start and at each reload; sessions keep the one they began with.
pub struct Screen {
    pub(crate) config: pillarbox_config::Screen,
    pub(crate) hostname: String,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) dns: Dns,
    pub(crate) allow: AccessList,
    pub(crate) deny: AccessList,
    pub(crate) lists: DnsLists,
    pub(crate) milters: Vec<Settings>,
    /// Filters see mail of our own users too.
    pub(crate) milter_submission: bool,
    pub(crate) connections: ClientRate,
    pub(crate) messages: ClientRate,
    pub(crate) recipients: ClientRate,
    pub(crate) senders: AddressRate,
    pub(crate) mailboxes: AddressRate,
    /// What separates user and detail: `user+a` and `user+b` are one mailbox.
    pub(crate) delimiter: String,
    pub(crate) judging: Semaphore,
    pub(crate) reports: Option<Collector>,
}

impl Screen {
    /// Reads `[screen]`. Look-ups go through `dns`, which outlives reloads so that its caches do.
    pub fn new(config: &Config, directory: Arc<dyn Directory>, dns: Dns) -> Result<Arc<Self>, ScreenError> {
        let screen = config.screen.clone();
        Ok(Arc::new(Self {
            hostname: config.hostname.clone(),
            allow: AccessList::new(&screen.allow).map_err(ScreenError::Allow)?,
            deny: AccessList::new(&screen.deny).map_err(ScreenError::Deny)?,
            lists: DnsLists::new(&screen.dnsbl)?,
            milters: screen.milter.iter().map(Settings::new).collect::<Result<_, _>>()?,
            milter_submission: config.submission.milter,
            connections: ClientRate::new(screen.connection_rate),
            messages: ClientRate::new(screen.message_rate),
            recipients: ClientRate::new(screen.recipient_rate),
            senders: AddressRate::new(screen.sender_rate),
            mailboxes: AddressRate::new(screen.mailbox_rate),
            delimiter: config.mailbox.recipient_delimiter.clone(),
            judging: Semaphore::new(AT_ONCE),
            reports: screen.dmarc_reports.then(|| Collector::new(directory.clone())),
            config: screen,
            directory,
            dns,
        }))
    }

    /// Begins to screen a connection.
    pub fn session(self: &Arc<Self>, facts: SessionFacts) -> ScreenSession {
        ScreenSession::new(self.clone(), facts)
    }

    /// The shared resolver and caches.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }
}
