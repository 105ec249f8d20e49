//! `PostgresDirectory`: one directory for several nodes, in PostgreSQL or an engine that speaks its protocol.
//!
//! The same rows as in sled lie in one table, so the same code keeps rules, indexes and counters. A bounded cache answers look-ups without
//! a round trip; every commit is numbered and lists the rows that it changed, and each node takes them out of its cache: at once on
//! NOTIFY, within a second by asking. While the database is away, rows known from the cache are served for `serve_stale`;
//! everything else is `Unavailable`, which is a 451 to a sender and a 454 to a login, never an "unknown user".

mod cache;
mod commit;
mod follow;
mod registry;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use parking_lot::RwLock;
use pillarbox_config::DirectoryConfig;
use pillarbox_smtp::{Domain, Mailbox};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;

use crate::clock::{Clock, SystemClock};
use crate::records::{AliasAddress, AliasRecord, Change, CredentialRecord, DomainRecord, UserRecord};
use crate::state::StateRow;
use crate::store::{Directory, DirectoryError, Result};
use crate::tables::{Row, Table, keys, read, values};
use cache::Cache;
pub use registry::*;

/// How to reach the database and how much to remember.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host/database?sslmode=require&sslrootcert=/path`; `sslmode` is `disable` unless it says `require`, which
    /// verifies the certificate against `sslrootcert` or the system's roots.
    pub url: String,
    /// How long known rows are served while the database is away.
    pub serve_stale: Duration,
    /// Connections.
    pub connections: usize,
    /// Octets of cache.
    pub cache: u64,
    /// Longest wait for a connection or an answer.
    pub patience: Duration,
    /// Tells when state expires. Nodes should agree on the time to the second.
    pub clock: Arc<dyn Clock>,
}

impl PostgresOptions {
    /// As the configuration says.
    pub fn from_config(config: &DirectoryConfig) -> Self {
        Self {
            url: config.url.clone(),
            serve_stale: config.serve_stale,
            connections: config.connections,
            cache: config.cache_memory.bytes(),
            patience: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
        }
    }
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("PostgresOptions").field("serve_stale", &self.serve_stale).finish_non_exhaustive()
    }
}

/// The directory in PostgreSQL.
pub struct PostgresDirectory {
    shared: Arc<Shared>,
    follower: JoinHandle<()>,
}

/// What the store and its follower share.
struct Shared {
    pool: Pool,
    cache: Cache,
    patience: Duration,
    /// Set by the follower while it cannot reach the database.
    away: AtomicBool,
    /// Why, for `health`.
    away_why: RwLock<Option<String>>,
    generation: watch::Sender<u64>,
    /// One at a time catches up on others' commits.
    catching_up: tokio::sync::Mutex<()>,
    clock: Arc<dyn Clock>,
    /// Another node may have asked something.
    asked: watch::Sender<u64>,
    /// Another node may have answered.
    answered: watch::Sender<u64>,
}

impl PostgresDirectory {
    /// Connects, brings the schema up to date (one node at a time) and begins to follow changes.
    ///
    /// # Errors
    /// `Refused` for a malformed URL, `Unavailable` when the database cannot be reached, `Newer` when a newer program wrote its schema.
    pub async fn connect(options: PostgresOptions) -> Result<Self> {
        let (config, tls) = tls::configure(&options)?;
        let manager = Manager::from_config(config.clone(), tls.clone(), ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let timeouts = Timeouts { wait: Some(options.patience), create: Some(options.patience), recycle: Some(options.patience) };
        let pool = Pool::builder(manager).max_size(options.connections.max(2)).runtime(Runtime::Tokio1).timeouts(timeouts);
        let pool = pool.build().map_err(|e| DirectoryError::Refused(format!("the connection pool cannot be made: {e}")))?;
        let shared = Arc::new(Shared {
            pool,
            cache: Cache::new(options.cache, options.serve_stale),
            patience: options.patience,
            away: AtomicBool::new(false),
            away_why: RwLock::default(),
            generation: watch::channel(0).0,
            catching_up: tokio::sync::Mutex::default(),
            clock: Arc::clone(&options.clock),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(0),
        });
        {
            let mut client = shared.client().await?;
            schema::migrate(&mut client).await?;
            shared.catch_up(&client).await?;
        }
        let follower = tokio::spawn(follow::follow(Arc::downgrade(&shared), config, tls, options.patience));
        Ok(Self { shared, follower })
    }

    /// Why the database cannot be reached, or `Ok`.
    ///
    /// # Errors
    /// In words for `status`.
    pub fn health(&self) -> std::result::Result<(), String> {
        self.shared.away_why.read().clone().map_or(Ok(()), Err)
    }
}

impl Drop for PostgresDirectory {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Shared {
    /// A connection. While the database is known to be away nobody waits for one.
    async fn client(&self) -> Result<Object> {
        if self.away.load(Ordering::Acquire) {
            return Err(self.away_error());
        }
        self.pool.get().await.map_err(|e| unavailable(&e))
    }

    /// Runs a query with a bound on its time; its statement is prepared once a connection.
    async fn query(&self, client: &Object, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<tokio_postgres::Row>> {
        let run = async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        };
        timed(self.patience, run).await
    }

    /// A row, from the cache or the database; while the database is away, from the cache or not at all.
    async fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if !self.away.load(Ordering::Acquire)
            && let Some(hit) = self.cache.get(table, key)
        {
            metrics::counter!("pillarbox_directory_cache_hits_total").increment(1);
            return Ok(hit);
        }
        match self.fetch(table, key).await {
            Ok(row) => Ok(row),
            Err(error) => match self.cache.stale(table, key) {
                Some(row) => {
                    metrics::counter!("pillarbox_directory_stale_lookups_total").increment(1);
                    Ok(row)
                }
                None => Err(error),
            },
        }
    }

    async fn fetch(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let ticket = self.cache.ticket();
        let client = self.client().await?;
        metrics::counter!("pillarbox_directory_database_lookups_total").increment(1);
        let rows = self.query(&client, schema::GET, &[&(table as i16), &key]).await?;
        let row: Option<Vec<u8>> = rows.first().map(|row| row.get(0));
        self.cache.put(ticket, table, key, row.clone());
        Ok(row)
    }

    /// A whole value; the pieces of a long one are rows of their own.
    async fn value(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        for _ in 0..8 {
            let Some(row) = self.row(table, key).await? else { return Ok(None) };
            if let Some(value) = self.join(row).await? {
                return Ok(Some(value));
            }
            // Replaced between head and pieces.
            self.cache.forget(table, key);
        }
        Err(values::damaged(table, key, "a piece of the value is missing"))
    }

    async fn join(&self, row: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let Some(head) = values::Head::parse(&row) else { return Ok(Some(row)) };
        let mut value = Vec::new();
        for key in head.piece_keys() {
            match self.row(Table::Chunks, &key).await? {
                Some(piece) => value.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    async fn record<R: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<R>> {
        self.value(table, key).await?.map(|bytes| values::decode(table, key, &bytes)).transpose()
    }

    async fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>> {
        let after = after.filter(|after| *after >= prefix);
        let (from, inclusive) = (after.unwrap_or(prefix), after.is_none());
        // No key goes on with 0xff after a prefix: keys are UTF-8 and low control characters.
        let to = [prefix, &[0xff]].concat();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let client = self.client().await?;
        let rows = self.query(&client, schema::SCAN, &[&(table as i16), &from, &inclusive, &to, &limit]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn list<R: DeserializeOwned>(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<R>> {
        let mut records = Vec::new();
        for (key, row) in self.scan(table, prefix, after, limit).await? {
            let bytes = match self.join(row).await? {
                Some(bytes) => bytes,
                None => match self.value(table, &key).await? {
                    Some(bytes) => bytes,
                    None => continue,
                },
            };
            records.push(values::decode(table, &key, &bytes)?);
        }
        Ok(records)
    }

    fn away_error(&self) -> DirectoryError {
        let why = self.away_why.read().clone().unwrap_or_else(|| "the database is away".into());
        DirectoryError::Unavailable(why)
    }
}

/// Bounds the wait for an answer.
async fn timed<T>(patience: Duration, work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>) -> Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done.map_err(|e| unavailable(&e)),
        Err(_) => Err(DirectoryError::Unavailable(format!("the database did not answer within {} s", patience.as_secs()))),
    }
}

/// An error of the database's, with its causes: the top one alone says little.
fn unavailable(error: &dyn std::error::Error) -> DirectoryError {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    DirectoryError::Unavailable(pillarbox_smtp::printable(words.as_bytes()))
}

#[async_trait::async_trait]
impl Directory for PostgresDirectory {
    async fn domain(&self, name: &Domain) -> Result<Option<DomainRecord>> {
        self.shared.record(Table::Domains, name.as_str().as_bytes()).await
    }

    async fn domains(&self) -> Result<Vec<DomainRecord>> {
        self.shared.list(Table::Domains, b"", None, usize::MAX).await
    }

    async fn user(&self, address: &Mailbox) -> Result<Option<UserRecord>> {
        self.shared.record(Table::Users, &keys::mailbox(address)).await
    }

    async fn user_by_login(&self, login: &Mailbox) -> Result<Option<UserRecord>> {
        let key = keys::mailbox(login);
        let by_address = self.shared.record(Table::Users, &key).await;
        if let Ok(Some(_)) = by_address {
            return by_address;
        }
        // While the database is away nothing is said of an address that no user had; a further name of a known user is known all the same.
        match (self.shared.row(Table::Logins, &key).await, by_address) {
            (Ok(Some(user_key)), _) => self.shared.record(Table::Users, &user_key).await,
            (_, Err(error)) | (Err(error), _) => Err(error),
            (Ok(None), Ok(_)) => Ok(None),
        }
    }

    async fn users(&self, domain: Option<&Domain>, after: Option<&Mailbox>, limit: usize) -> Result<Vec<UserRecord>> {
        let prefix = domain.map(keys::domain_prefix).unwrap_or_default();
        self.shared.list(Table::Users, &prefix, after.map(keys::mailbox).as_deref(), limit).await
    }

    async fn credential(&self, address: &Mailbox) -> Result<Option<CredentialRecord>> {
        self.shared.record(Table::Credentials, &keys::mailbox(address)).await
    }

    async fn alias(&self, address: &AliasAddress) -> Result<Option<AliasRecord>> {
        self.shared.record(Table::Aliases, &keys::alias(address)).await
    }

    async fn aliases(&self, domain: Option<&Domain>, after: Option<&AliasAddress>, limit: usize) -> Result<Vec<AliasRecord>> {
        let prefix = domain.map(keys::domain_prefix).unwrap_or_default();
        self.shared.list(Table::Aliases, &prefix, after.map(keys::alias).as_deref(), limit).await
    }

    async fn aliases_to(&self, target: &Mailbox) -> Result<Vec<AliasRecord>> {
        let prefix = keys::target_prefix(target);
        let mut found = Vec::new();
        for (key, _) in self.shared.scan(Table::AliasesTo, &prefix, None, usize::MAX).await? {
            found.extend(self.shared.record(Table::Aliases, key.get(prefix.len()..).unwrap_or_default()).await?);
        }
        Ok(found)
    }

    async fn counts(&self, domain: &Domain) -> Result<(u64, u64)> {
        let row = self.shared.row(Table::Counts, domain.as_str().as_bytes()).await?;
        Ok(row.map_or((0, 0), |row| read::decode_counts(&row)))
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        self.shared.apply(&changes).await
    }

    fn generation(&self) -> u64 {
        *self.shared.generation.borrow()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    fn health(&self) -> std::result::Result<(), String> {
        Self::health(self)
    }

    async fn state_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.shared.state_get(table, key).await
    }

    async fn state_put(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<()> {
        self.shared.state_put(table, key, value, keep, false).await.map(drop)
    }

    async fn state_put_new(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<bool> {
        self.shared.state_put(table, key, value, keep, true).await
    }

    async fn state_add(&self, table: &str, key: &[u8], amount: u64, keep: Duration) -> Result<u64> {
        self.shared.state_add(table, key, amount, keep).await
    }

    async fn state_remove(&self, table: &str, key: &[u8]) -> Result<()> {
        self.shared.state_remove(table, key).await
    }

    async fn state_list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.shared.state_list(table).await
    }

    async fn state_page(&self, after: Option<(&str, &[u8])>, limit: usize) -> Result<Vec<StateRow>> {
        self.shared.state_page(after, limit).await
    }

    /// Each statement is durable when the database has answered.
    async fn state_flush(&self) {}

    fn registry(&self) -> Option<Registry> {
        Some(Registry::new(Arc::clone(&self.shared)))
    }
}
