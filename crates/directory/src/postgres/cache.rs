//! Rows remembered, absent ones too, within a bound of octets; and how long they may be served while the database is away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use quick_cache::Weighter;

use crate::tables::Table;

type Key = (Table, Box<[u8]>);
type Entry = Option<Box<[u8]>>;

#[derive(Clone)]
struct Octets;

impl Weighter<Key, Entry> for Octets {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        // What the map itself needs for an entry is about as much as a short row.
        let octets = key.1.len() + entry.as_ref().map_or(0, |e| e.len()) + 96;
        octets as u64
    }
}

/// When a look-up began; it counts only if nothing was forgotten since.
#[derive(Clone, Copy)]
pub(super) struct Ticket(u64);

pub(super) struct Cache {
    rows: quick_cache::sync::Cache<Key, Entry, Octets>,
    /// Grows whenever rows are forgotten. Held for writing meanwhile, so that a row read before a commit is never stored after it.
    epoch: RwLock<u64>,
    /// Commits up to here are accounted for.
    revision: AtomicU64,
    /// When the database was last known to agree.
    agreed: RwLock<Instant>,
    serve_stale: Duration,
}

impl Cache {
    pub(super) fn new(octets: u64, serve_stale: Duration) -> Self {
        let estimate = usize::try_from(octets / 256).unwrap_or(1 << 20).max(16);
        Self {
            rows: quick_cache::sync::Cache::with_weighter(estimate, octets.max(1 << 16), Octets),
            epoch: RwLock::new(0),
            revision: AtomicU64::new(0),
            agreed: RwLock::new(Instant::now()),
            serve_stale,
        }
    }

    /// What is known of a row; the inner `None`: that there is none.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Vec<u8>>> {
        self.rows.get(&(table, key.into())).map(|entry| entry.map(Vec::from))
    }

    /// What was known of a row, while the database is away. A user or a domain that was absent may have been added since, so nothing is said of
    /// it; that a known user has no alias counts, or none could be served.
    pub(super) fn stale(&self, table: Table, key: &[u8]) -> Option<Option<Vec<u8>>> {
        if self.agreed.read().elapsed() > self.serve_stale {
            return None;
        }
        self.get(table, key).filter(|row| row.is_some() || matches!(table, Table::Aliases | Table::AliasesTo))
    }

    /// To be taken before the database is asked.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(*self.epoch.read())
    }

    /// Remembers an answer, unless rows were forgotten since the question.
    pub(super) fn put(&self, ticket: Ticket, table: Table, key: &[u8], row: Option<Vec<u8>>) {
        let epoch = self.epoch.read();
        if *epoch == ticket.0 {
            self.rows.insert((table, key.into()), row.map(Vec::into_boxed_slice));
        }
    }

    pub(super) fn forget(&self, table: Table, key: &[u8]) {
        self.forget_all([(table, key)]);
    }

    pub(super) fn forget_all<'k>(&self, keys: impl IntoIterator<Item = (Table, &'k [u8])>) {
        let mut epoch = self.epoch.write();
        *epoch = epoch.wrapping_add(1);
        for (table, key) in keys {
            self.rows.remove(&(table, key.into()));
        }
    }

    pub(super) fn clear(&self) {
        let mut epoch = self.epoch.write();
        *epoch = epoch.wrapping_add(1);
        self.rows.clear();
    }

    /// Memory taken.
    pub(super) fn octets(&self) -> u64 {
        self.rows.weight()
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The database was asked just now, and all up to `revision` is accounted for.
    pub(super) fn agree(&self, revision: u64) {
        self.revision.store(revision, Ordering::Release);
        *self.agreed.write() = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_a_commit_is_not_kept() {
        let cache = Cache::new(1 << 20, Duration::from_secs(60));
        let ticket = cache.ticket();
        cache.forget(Table::Users, b"bob");
        cache.put(ticket, Table::Users, b"bob", Some(b"old".to_vec()));
        assert_eq!(cache.get(Table::Users, b"bob"), None);
        cache.put(cache.ticket(), Table::Users, b"bob", Some(b"new".to_vec()));
        cache.put(cache.ticket(), Table::Users, b"eve", None);
        assert_eq!(cache.get(Table::Users, b"bob"), Some(Some(b"new".to_vec())));
        assert_eq!(cache.get(Table::Users, b"eve"), Some(None));
        assert_eq!((cache.stale(Table::Users, b"bob"), cache.stale(Table::Users, b"eve")), (Some(Some(b"new".to_vec())), None));
        cache.put(cache.ticket(), Table::Aliases, b"bob", None);
        assert_eq!((cache.stale(Table::Aliases, b"bob"), cache.stale(Table::Aliases, b"eve")), (Some(None), None));
        let strict = Cache::new(1 << 20, Duration::ZERO);
        strict.put(strict.ticket(), Table::Users, b"bob", Some(b"x".to_vec()));
        std::hint::black_box(Instant::now());
        assert_eq!(strict.stale(Table::Users, b"bob"), None);
    }

    #[test]
    fn memory_is_bounded() {
        let cache = Cache::new(1 << 16, Duration::ZERO);
        for n in 0..10_000u32 {
            cache.put(cache.ticket(), Table::Users, &n.to_be_bytes(), Some(vec![0; 100]));
        }
        assert!(cache.octets() <= 1 << 16);
    }
}
