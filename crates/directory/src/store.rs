//! The `Directory` trait: what a store of domains, users, aliases, credentials and small state must do.

use std::time::Duration;

use pillarbox_smtp::{Domain, Mailbox};

use crate::postgres::Registry;
use crate::records::{Addressee, AliasAddress, AliasRecord, Change, CredentialRecord, DomainRecord, UserRecord};
use crate::state::StateRow;

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store cannot be reached or fails to read or write; try again later (451 4.3.0 at RCPT).
    #[error("the directory is unavailable: {0}")]
    Unavailable(String),
    /// Another process holds it.
    #[error("the directory at {path} is in use by another process; is the daemon running?")]
    Locked {
        /// The database folder.
        path: std::path::PathBuf,
    },
    /// A value that this program cannot read.
    #[error("the directory holds a value that cannot be read ({key}): {why}")]
    Damaged {
        /// Tree and key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer program.
    #[error("the directory was written by a newer Pillarbox (format {found}, this program knows {known}); upgrade this program")]
    Newer {
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// A move was to fill a store that holds something.
    #[error("{place} holds {domains} domains already")]
    Occupied {
        /// Which store.
        place: String,
        /// How much is in it.
        domains: usize,
    },
    /// The change contradicts what is there (a user of no domain, an alias loop).
    #[error("{0}")]
    Refused(String),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, DirectoryError>;

/// A store of domains, users, aliases, credentials and small state. Keys are folded: `Bob@` and `bob@` are one user.
#[async_trait::async_trait]
pub trait Directory: Send + Sync + 'static {
    /// A domain we host, or `None`.
    async fn domain(&self, name: &Domain) -> Result<Option<DomainRecord>>;
    /// Whether we host it: asked for each message, where a store can answer it with less work than `domain`.
    async fn has_domain(&self, name: &Domain) -> Result<bool> {
        Ok(self.domain(name).await?.is_some())
    }
    /// All domains by name.
    async fn domains(&self) -> Result<Vec<DomainRecord>>;
    /// A user by the exact (folded) address.
    async fn user(&self, address: &Mailbox) -> Result<Option<UserRecord>>;
    /// The same, of which RCPT needs no more: asked for each recipient, where a store can answer it with less work than `user`.
    async fn addressee(&self, address: &Mailbox) -> Result<Option<Addressee>> {
        Ok(self.user(address).await?.map(Addressee::from))
    }
    /// The user that a login name belongs to: its address or one of its `logins`.
    async fn user_by_login(&self, login: &Mailbox) -> Result<Option<UserRecord>>;
    /// Users by address, of one domain or all, after `after`, at most `limit`: so that a million can be listed in pages.
    async fn users(&self, domain: Option<&Domain>, after: Option<&Mailbox>, limit: usize) -> Result<Vec<UserRecord>>;
    /// A user's secrets.
    async fn credential(&self, address: &Mailbox) -> Result<Option<CredentialRecord>>;
    /// An alias by its left side.
    async fn alias(&self, address: &AliasAddress) -> Result<Option<AliasRecord>>;
    /// Aliases in order, of one domain or all, after `after`, at most `limit`.
    async fn aliases(&self, domain: Option<&Domain>, after: Option<&AliasAddress>, limit: usize) -> Result<Vec<AliasRecord>>;
    /// Aliases that name this address among their targets: what a user may send as.
    async fn aliases_to(&self, target: &Mailbox) -> Result<Vec<AliasRecord>>;
    /// (users, aliases) of a domain, without listing them.
    async fn counts(&self, domain: &Domain) -> Result<(u64, u64)>;
    /// Makes all changes durable at once, then tells subscribers. Returns when a power cut can no longer undo them.
    async fn apply(&self, changes: Vec<Change>) -> Result<()>;
    /// A number that grows with every change, for caches.
    fn generation(&self) -> u64;
    /// Woken after every change, wherever it was made.
    fn watch(&self) -> tokio::sync::watch::Receiver<u64>;
    /// Whether reads and writes go well; else why not, in words for `status`.
    ///
    /// # Errors
    /// What is wrong.
    fn health(&self) -> std::result::Result<(), String> {
        Ok(())
    }
    /// What was repaired at opening, in one sentence for `status`.
    fn repaired(&self) -> Option<String> {
        None
    }

    /// Small state with expiry (greylist, vacation memory, rates), by table and key.
    async fn state_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Writes state; durable within a second, lost at most that much in a power cut.
    async fn state_put(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<()>;
    /// Writes only when the key is absent or expired; returns whether it wrote. Atomic over all nodes: the way to do a thing once.
    async fn state_put_new(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<bool>;
    /// Adds to a counter that starts anew when it expires; returns the new value.
    async fn state_add(&self, table: &str, key: &[u8], amount: u64, keep: Duration) -> Result<u64>;
    /// Removes state.
    async fn state_remove(&self, table: &str, key: &[u8]) -> Result<()>;
    /// All live entries of a table, for listings.
    async fn state_list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Live entries of all tables in an order of the store's own, after `after` (table and key), at most `limit`: for moving them elsewhere.
    async fn state_page(&self, after: Option<(&str, &[u8])>, limit: usize) -> Result<Vec<StateRow>>;

    /// Returns when all state written so far is durable: a process that ends in an orderly way loses none.
    async fn state_flush(&self);

    /// The register of the nodes that share this store; `None`: one process has it for itself.
    fn registry(&self) -> Option<Registry> {
        None
    }
}
