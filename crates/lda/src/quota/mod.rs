//! Quotas: how much a mailbox may hold, what it holds, and what a sender is told when it is full.

pub(crate) mod maildirsize;
pub(crate) mod warning;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pillarbox_directory::{Addressee, Quota, UserRecord};
use pillarbox_smtp::{EnhancedCode, Mailbox, Reply};

use crate::maildir::{MailRoot, Missing, StoreError};
use crate::settings::Settings;
use maildirsize::Account;

pub use maildirsize::Usage;

/// Answers questions about quotas; clones share all they know. What the RCPT door and `user show` ask.
#[derive(Debug, Clone)]
pub struct QuotaCheck {
    root: Arc<MailRoot>,
    settings: Arc<ArcSwap<Settings>>,
}

impl QuotaCheck {
    pub(crate) fn new(root: Arc<MailRoot>, settings: Arc<ArcSwap<Settings>>) -> Self {
        Self { root, settings }
    }

    /// The octets a user may hold; `None` is no bound.
    pub fn limit(&self, user: &UserRecord) -> Option<u64> {
        limit(&self.settings.load(), user.quota)
    }

    /// The reply for a recipient whose mailbox cannot take `size` more octets (the SIZE of MAIL, or 1): 452 4.2.2, or 552 5.2.2 as `mailbox.over_quota` says.
    /// `None` when it fits, when there is no bound, or when the mailbox cannot be read now: then delivery finds out.
    pub async fn would_exceed(&self, user: &Addressee, size: u64) -> Option<Reply> {
        let settings = self.settings.load_full();
        let limit = limit(&settings, user.quota)?;
        let address = user.address.clone();
        let root = Arc::clone(&self.root);
        let used = blocking(move || {
            let Some(inbox) = root.inbox(&address, Missing::Report)? else { return Ok(0) };
            let usage = Account::open(&inbox, Some(limit), SystemTime::now()).usage(size.max(1))?;
            Ok(usage.unwrap_or_default().bytes)
        })
        .await;
        match used {
            Ok(used) => (used.saturating_add(size.max(1)) > limit).then(|| over_quota(&settings)),
            Err(error) => {
                tracing::warn!(user = %user.address, %error, "a mailbox's use could not be read");
                None
            }
        }
    }

    /// What a user's mailbox holds; nothing when it does not exist yet.
    ///
    /// # Errors
    /// When its folders cannot be read.
    pub async fn used(&self, user: &Mailbox) -> Result<Usage, StoreError> {
        let (root, user) = (Arc::clone(&self.root), user.clone());
        blocking(move || match root.inbox(&user, Missing::Report)? {
            Some(inbox) => maildirsize::used(&inbox, SystemTime::now()),
            None => Ok(Usage::default()),
        })
        .await
    }
}

/// What a user's mailbox in the mail folder `mail` holds, for programs that deliver nothing. Creates nothing; blocks.
///
/// # Errors
/// When folders cannot be read.
pub fn used_in(mail: &Path, user: &Mailbox) -> Result<Usage, StoreError> {
    if !mail.exists() {
        return Ok(Usage::default());
    }
    let root = MailRoot::open(mail).map_err(|source| StoreError::Io { doing: "opening", what: mail.display().to_string(), source })?;
    match root.inbox(user, Missing::Report)? {
        Some(inbox) => maildirsize::used(&inbox, SystemTime::now()),
        None => Ok(Usage::default()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Io { doing: "reading", what: "a mailbox".into(), source: std::io::Error::other(error) }))
}

/// The octets a user may hold; `None` is no bound.
pub(crate) fn limit(settings: &Settings, own: Option<Quota>) -> Option<u64> {
    match own {
        Some(Quota::Bytes(bytes)) => Some(bytes),
        Some(Quota::None) => None,
        None => settings.default_quota,
    }
    // Zero is how a maildirsize says "no bound"; a quota of nothing is one octet.
    .map(|bytes| bytes.max(1))
}

/// What a sender is told when the mailbox is full (RFC 3463 §3.3).
pub(crate) fn over_quota(settings: &Settings) -> Reply {
    let text = "The mailbox is full";
    if settings.reject_over_quota { Reply::new(552, EnhancedCode(5, 2, 2), text) } else { Reply::new(452, EnhancedCode(4, 2, 2), text) }
}
