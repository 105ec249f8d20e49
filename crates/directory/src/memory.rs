//! `MemoryDirectory`: the whole directory in memory, for tests of the rooms above.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pillarbox_smtp::{Domain, Mailbox};
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock, millis};
use crate::records::{AliasAddress, AliasRecord, Change, CredentialRecord, DomainRecord, UserRecord};
use crate::state::{StateRow, left};
use crate::store::{Directory, DirectoryError, Result};
use crate::tables::{Row, Rows, Table, Tables, read, stage};

#[derive(Default)]
struct Store(BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl Rows for Store {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }
}

impl Tables for Store {
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((table, after.to_vec())),
            _ => Bound::Included((table, prefix.to_vec())),
        };
        let rows = self.0.range((from, Bound::Unbounded)).take_while(|((t, _), _)| *t == table);
        read::take_rows(rows.map(|((_, key), value)| Ok((key.clone(), value.clone()))), prefix, limit)
    }
}

struct Entry {
    value: Vec<u8>,
    expires: u64,
}

/// A directory that lives and dies with the process.
pub struct MemoryDirectory {
    rows: RwLock<Store>,
    state: Mutex<BTreeMap<(String, Vec<u8>), Entry>>,
    generation: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    away: RwLock<Option<String>>,
}

impl Default for MemoryDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDirectory {
    /// An empty directory on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty directory on a clock of the test's.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { rows: RwLock::default(), state: Mutex::default(), generation: watch::channel(1).0, clock, away: RwLock::default() }
    }

    /// From now on every answer is `Unavailable` with this reason, as when a database is away; `None` ends it.
    pub fn set_away(&self, why: Option<&str>) {
        *self.away.write() = why.map(str::to_owned);
    }

    fn here(&self) -> Result<()> {
        match &*self.away.read() {
            Some(why) => Err(DirectoryError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    fn read<R>(&self, read: impl FnOnce(&Store) -> Result<R>) -> Result<R> {
        self.here()?;
        read(&self.rows.read())
    }

    fn now(&self) -> u64 {
        millis(self.clock.now())
    }

    fn expiry(&self, keep: Duration) -> u64 {
        self.now().saturating_add(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX))
    }
}

#[async_trait::async_trait]
impl Directory for MemoryDirectory {
    async fn domain(&self, name: &Domain) -> Result<Option<DomainRecord>> {
        self.read(|rows| read::domain(rows, name))
    }

    async fn domains(&self) -> Result<Vec<DomainRecord>> {
        self.read(read::domains)
    }

    async fn user(&self, address: &Mailbox) -> Result<Option<UserRecord>> {
        self.read(|rows| read::user(rows, address))
    }

    async fn user_by_login(&self, login: &Mailbox) -> Result<Option<UserRecord>> {
        self.read(|rows| read::user_by_login(rows, login))
    }

    async fn users(&self, domain: Option<&Domain>, after: Option<&Mailbox>, limit: usize) -> Result<Vec<UserRecord>> {
        self.read(|rows| read::users(rows, domain, after, limit))
    }

    async fn credential(&self, address: &Mailbox) -> Result<Option<CredentialRecord>> {
        self.read(|rows| read::credential(rows, address))
    }

    async fn alias(&self, address: &AliasAddress) -> Result<Option<AliasRecord>> {
        self.read(|rows| read::alias(rows, address))
    }

    async fn aliases(&self, domain: Option<&Domain>, after: Option<&AliasAddress>, limit: usize) -> Result<Vec<AliasRecord>> {
        self.read(|rows| read::aliases(rows, domain, after, limit))
    }

    async fn aliases_to(&self, target: &Mailbox) -> Result<Vec<AliasRecord>> {
        self.read(|rows| read::aliases_to(rows, target))
    }

    async fn counts(&self, domain: &Domain) -> Result<(u64, u64)> {
        self.read(|rows| read::counts(rows, domain))
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        self.here()?;
        {
            let mut rows = self.rows.write();
            for (key, value) in stage::stage(&*rows, &changes)? {
                match value {
                    Some(value) => rows.0.insert(key, value),
                    None => rows.0.remove(&key),
                };
            }
        }
        self.generation.send_modify(|g| *g = g.wrapping_add(1));
        Ok(())
    }

    fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn health(&self) -> std::result::Result<(), String> {
        self.here().map_err(|e| e.to_string())
    }

    async fn state_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.here()?;
        let state = self.state.lock();
        Ok(state.get(&(table.to_owned(), key.to_vec())).filter(|e| e.expires > self.now()).map(|e| e.value.clone()))
    }

    async fn state_put(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<()> {
        self.here()?;
        let entry = Entry { value: value.to_vec(), expires: self.expiry(keep) };
        self.state.lock().insert((table.to_owned(), key.to_vec()), entry);
        Ok(())
    }

    async fn state_put_new(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<bool> {
        self.here()?;
        let mut state = self.state.lock();
        let key = (table.to_owned(), key.to_vec());
        if state.get(&key).is_some_and(|e| e.expires > self.now()) {
            return Ok(false);
        }
        state.insert(key, Entry { value: value.to_vec(), expires: self.expiry(keep) });
        Ok(true)
    }

    async fn state_add(&self, table: &str, key: &[u8], amount: u64, keep: Duration) -> Result<u64> {
        self.here()?;
        let (now, fresh) = (self.now(), self.expiry(keep));
        let mut state = self.state.lock();
        let entry = state.entry((table.to_owned(), key.to_vec())).or_insert(Entry { value: Vec::new(), expires: 0 });
        let (old, expires) = if entry.expires > now { (crate::state::counter(&entry.value), entry.expires) } else { (0, fresh) };
        let new = old.saturating_add(amount);
        *entry = Entry { value: new.to_string().into_bytes(), expires };
        Ok(new)
    }

    async fn state_remove(&self, table: &str, key: &[u8]) -> Result<()> {
        self.here()?;
        self.state.lock().remove(&(table.to_owned(), key.to_vec()));
        Ok(())
    }

    async fn state_list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.here()?;
        let now = self.now();
        let state = self.state.lock();
        let rows = state.range((table.to_owned(), Vec::new())..).take_while(|((t, _), _)| t == table);
        Ok(rows.filter(|(_, e)| e.expires > now).map(|((_, k), e)| (k.clone(), e.value.clone())).collect())
    }

    async fn state_page(&self, after: Option<(&str, &[u8])>, limit: usize) -> Result<Vec<StateRow>> {
        self.here()?;
        let now = self.now();
        let from = after.map_or(Bound::Unbounded, |(table, key)| Bound::Excluded((table.to_owned(), key.to_vec())));
        let state = self.state.lock();
        let rows = state.range((from, Bound::Unbounded)).filter(|(_, e)| e.expires > now).take(limit);
        let row = |((table, key), e): (&(String, Vec<u8>), &Entry)| StateRow {
            table: table.clone(),
            key: key.clone(),
            value: e.value.clone(),
            keep: left(e.expires, now, u64::MAX),
        };
        Ok(rows.map(row).collect())
    }

    async fn state_flush(&self) {}
}
