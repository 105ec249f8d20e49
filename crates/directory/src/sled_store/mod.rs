//! `SledDirectory`: the directory in an embedded sled database, the default for one machine.
//!
//! What it promises: `apply` returns when a power cut can no longer undo the changes; a read costs microseconds and never waits for
//! the disk longer than one page; a folder that will not open is set aside and rebuilt from the plain-text export beside it.
//! How it fails: after one failed write or sync nothing more is written until the process is restarted, reads go on, and
//! [`SledDirectory::health`] says why.

mod addresses;
mod open;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pillarbox_smtp::{Domain, Mailbox};
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::records::{Addressee, AliasAddress, AliasRecord, Change, CredentialRecord, DomainRecord, UserRecord};
use crate::state::StateRow;
use crate::store::{Directory, DirectoryError, Result};
use crate::tables::{Row, Rows, Table, Tables, keys, read};

use addresses::{Addresses, Known};
pub(crate) use open::Forest;
use state::State;
use writer::Writer;

/// How to open the database.
#[derive(Clone)]
pub struct SledOptions {
    /// The export from which a damaged database is rebuilt; by default `directory-export.toml` beside the database folder.
    pub export: Option<PathBuf>,
    /// Octets of page cache.
    pub cache: u64,
    /// Tells when state expires.
    pub clock: Arc<dyn Clock>,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { export: None, cache: 64 << 20, clock: Arc::new(SystemClock) }
    }
}

/// The directory in a sled database of its own. One process at a time.
pub struct SledDirectory {
    forest: Forest,
    addresses: Arc<Addresses>,
    state: State,
    writer: Writer,
    path: PathBuf,
    rebuilt: Option<String>,
}

impl SledDirectory {
    /// Opens or creates the database folder, by convention STATE/directory.sled. Blocking (some 50 ms).
    ///
    /// # Errors
    /// `Locked` when another process has it, `Newer` when a newer program wrote it, `Damaged` when it cannot be read and there is no
    /// export to rebuild it from, `Unavailable` when the file system refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, SledOptions::default())
    }

    /// As [`SledDirectory::open`], with options.
    ///
    /// # Errors
    /// As [`SledDirectory::open`].
    pub fn open_with(path: impl AsRef<Path>, options: SledOptions) -> Result<Self> {
        let path = path.as_ref();
        let opened = open::open(path, &options)?;
        let forest = opened.forest;
        let (addresses, gathering) = Addresses::open(path, forest.revision()?);
        let addresses = Arc::new(addresses);
        let writer = Writer::start(forest.clone(), path, Arc::clone(&options.clock), Arc::clone(&addresses), gathering)?;
        let state = State::new(forest.clone(), writer.handle(), options.clock);
        Ok(Self { forest, addresses, state, writer, path: path.to_owned(), rebuilt: opened.rebuilt })
    }

    /// Why nothing can be written any more, or `Ok`.
    ///
    /// # Errors
    /// The first I/O error, in words for `status`.
    pub fn health(&self) -> std::result::Result<(), String> {
        self.writer.handle().health()
    }

    /// What was done when the database was found damaged at opening, in one sentence.
    pub fn rebuilt(&self) -> Option<&str> {
        self.rebuilt.as_deref()
    }

    /// The database folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Rows for Forest {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tree(table).get(key).map_err(unreadable)?.map(|v| v.to_vec()))
    }
}

impl Tables for Forest {
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>> {
        use std::ops::Bound;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let rows = self.tree(table).range::<&[u8], _>((from, Bound::Unbounded));
        read::take_rows(rows.map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec()))), prefix, limit).map_err(unreadable)
    }
}

/// A failed read.
fn unreadable(error: sled::Error) -> DirectoryError {
    DirectoryError::Unavailable(format!("the database cannot be read: {error}"))
}

#[async_trait::async_trait]
impl Directory for SledDirectory {
    async fn domain(&self, name: &Domain) -> Result<Option<DomainRecord>> {
        read::domain(&self.forest, name)
    }

    async fn has_domain(&self, name: &Domain) -> Result<bool> {
        match self.addresses.has_domain(name.as_str().as_bytes()) {
            Some(known) => Ok(known),
            None => Ok(self.domain(name).await?.is_some()),
        }
    }

    async fn domains(&self) -> Result<Vec<DomainRecord>> {
        read::domains(&self.forest)
    }

    async fn user(&self, address: &Mailbox) -> Result<Option<UserRecord>> {
        read::user(&self.forest, address)
    }

    async fn addressee(&self, address: &Mailbox) -> Result<Option<Addressee>> {
        match self.addresses.user(&keys::mailbox(address)) {
            Known::Absent => Ok(None),
            Known::Plain => Ok(Some(Addressee::plain(address).map_err(|e| DirectoryError::Refused(e.to_string()))?)),
            Known::Ask => Ok(self.user(address).await?.map(Addressee::from)),
        }
    }

    async fn user_by_login(&self, login: &Mailbox) -> Result<Option<UserRecord>> {
        read::user_by_login(&self.forest, login)
    }

    async fn users(&self, domain: Option<&Domain>, after: Option<&Mailbox>, limit: usize) -> Result<Vec<UserRecord>> {
        read::users(&self.forest, domain, after, limit)
    }

    async fn credential(&self, address: &Mailbox) -> Result<Option<CredentialRecord>> {
        read::credential(&self.forest, address)
    }

    async fn alias(&self, address: &AliasAddress) -> Result<Option<AliasRecord>> {
        if self.addresses.may_have_alias(&keys::alias(address)) { read::alias(&self.forest, address) } else { Ok(None) }
    }

    async fn aliases(&self, domain: Option<&Domain>, after: Option<&AliasAddress>, limit: usize) -> Result<Vec<AliasRecord>> {
        read::aliases(&self.forest, domain, after, limit)
    }

    async fn aliases_to(&self, target: &Mailbox) -> Result<Vec<AliasRecord>> {
        read::aliases_to(&self.forest, target)
    }

    async fn counts(&self, domain: &Domain) -> Result<(u64, u64)> {
        read::counts(&self.forest, domain)
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        self.writer.handle().apply(changes).await
    }

    async fn state_flush(&self) {
        self.writer.handle().flush().await;
    }

    fn generation(&self) -> u64 {
        self.writer.handle().generation()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.writer.handle().watch()
    }

    fn health(&self) -> std::result::Result<(), String> {
        self.writer.handle().health()
    }

    fn repaired(&self) -> Option<String> {
        self.rebuilt.clone()
    }

    async fn state_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.state.get(table, key)
    }

    async fn state_put(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<()> {
        self.state.put(table, key, value, keep)
    }

    async fn state_put_new(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<bool> {
        self.state.put_new(table, key, value, keep)
    }

    async fn state_add(&self, table: &str, key: &[u8], amount: u64, keep: Duration) -> Result<u64> {
        self.state.add(table, key, amount, keep)
    }

    async fn state_remove(&self, table: &str, key: &[u8]) -> Result<()> {
        self.state.remove(table, key)
    }

    async fn state_list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.state.list(table)
    }

    async fn state_page(&self, after: Option<(&str, &[u8])>, limit: usize) -> Result<Vec<StateRow>> {
        self.state.page(after, limit)
    }
}
