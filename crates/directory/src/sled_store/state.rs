//! Small state with expiry, in a tree of its own: `table NUL key` → expiry in milliseconds since 1970 (big-endian u64), value.

use std::sync::Arc;
use std::time::Duration;

use sled::{CompareAndSwapError, Tree};

use super::open::Forest;
use super::unreadable;
use super::writer::Handle;
use crate::clock::{Clock, millis};
use crate::state::{StateRow, counter, left};
use crate::store::{DirectoryError, Result};
use crate::tables::Table;
use crate::tables::values::{self, Head};

/// Rows looked at in one pass of the sweeper.
const SWEEP_ROWS: usize = 20_000;

pub(super) struct State {
    forest: Forest,
    writer: Arc<Handle>,
    clock: Arc<dyn Clock>,
}

impl State {
    pub(super) fn new(forest: Forest, writer: Arc<Handle>, clock: Arc<dyn Clock>) -> Self {
        Self { forest, writer, clock }
    }

    fn tree(&self) -> &Tree {
        self.forest.state()
    }

    fn expiry(&self, keep: Duration) -> u64 {
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        millis(self.clock.now()).saturating_add(keep)
    }

    pub(super) fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = state_key(table, key);
        // As in `values::get`: a long value may be replaced while it is read.
        for _ in 0..8 {
            let Some(row) = self.tree().get(&key).map_err(unreadable)? else { return Ok(None) };
            let Some(value) = self.live(&row) else { return Ok(None) };
            if let Some(value) = values::join(&self.forest, value.to_vec())? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    pub(super) fn put(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<()> {
        self.writable()?;
        let row = self.row(value, keep)?;
        let old = self.tree().insert(state_key(table, key), row).map_err(|e| self.failed(e))?;
        self.forget(old.as_deref())
    }

    pub(super) fn put_new(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<bool> {
        self.writable()?;
        let key = state_key(table, key);
        let row = self.row(value, keep)?;
        loop {
            let old = self.tree().get(&key).map_err(unreadable)?;
            if old.as_deref().and_then(|row| self.live(row)).is_some() {
                self.forget(Some(&row))?;
                return Ok(false);
            }
            match self.tree().compare_and_swap(&key, old.clone(), Some(row.clone())).map_err(|e| self.failed(e))? {
                Ok(()) => {
                    self.forget(old.as_deref())?;
                    return Ok(true);
                }
                Err(CompareAndSwapError { .. }) => continue,
            }
        }
    }

    pub(super) fn add(&self, table: &str, key: &[u8], amount: u64, keep: Duration) -> Result<u64> {
        self.writable()?;
        let key = state_key(table, key);
        loop {
            let old = self.tree().get(&key).map_err(unreadable)?;
            let (count, expires) = match old.as_deref().and_then(|row| Some((self.live(row)?, expires(row)))) {
                Some((value, expires)) => (counter(value), expires),
                None => (0, self.expiry(keep)),
            };
            let new = count.saturating_add(amount);
            let row = [&expires.to_be_bytes(), new.to_string().as_bytes()].concat();
            let swapped = self.tree().compare_and_swap(&key, old, Some(row)).map_err(|e| self.failed(e))?;
            if swapped.is_ok() {
                self.writer.state_written();
                return Ok(new);
            }
        }
    }

    pub(super) fn remove(&self, table: &str, key: &[u8]) -> Result<()> {
        self.writable()?;
        let old = self.tree().remove(state_key(table, key)).map_err(|e| self.failed(e))?;
        self.forget(old.as_deref())
    }

    pub(super) fn list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let prefix = state_key(table, b"");
        let mut found = Vec::new();
        for row in self.tree().scan_prefix(&prefix) {
            let (key, row) = row.map_err(unreadable)?;
            let Some(value) = self.live(&row) else { continue };
            if let Some(value) = values::join(&self.forest, value.to_vec())? {
                found.push((key.get(prefix.len()..).unwrap_or_default().to_vec(), value));
            }
        }
        Ok(found)
    }

    pub(super) fn page(&self, after: Option<(&str, &[u8])>, limit: usize) -> Result<Vec<StateRow>> {
        use std::ops::Bound;
        let now = millis(self.clock.now());
        let from = after.map_or(Bound::Unbounded, |(table, key)| Bound::Excluded(state_key(table, key)));
        let mut found = Vec::new();
        for row in self.tree().range::<Vec<u8>, _>((from, Bound::Unbounded)) {
            if found.len() >= limit {
                break;
            }
            let (full, row) = row.map_err(unreadable)?;
            let Some(value) = self.live(&row) else { continue };
            let Some(split) = full.iter().position(|b| *b == 0) else { continue };
            let table = String::from_utf8_lossy(full.get(..split).unwrap_or_default()).into_owned();
            let key = full.get(split.saturating_add(1)..).unwrap_or_default().to_vec();
            // A long value that is just being replaced is read by its key.
            let value = match values::join(&self.forest, value.to_vec())? {
                Some(value) => value,
                None => match self.get(&table, &key)? {
                    Some(value) => value,
                    None => continue,
                },
            };
            found.push(StateRow { table, key, value, keep: left(expires(&row), now, u64::MAX) });
        }
        Ok(found)
    }

    fn live<'r>(&self, row: &'r [u8]) -> Option<&'r [u8]> {
        (expires(row) > millis(self.clock.now())).then(|| row.get(8..)).flatten()
    }

    /// The row for a value; the pieces of a long one are written first, so that its head never points at nothing.
    fn row(&self, value: &[u8], keep: Duration) -> Result<Vec<u8>> {
        if value.len() > values::MAX_VALUE {
            return Err(DirectoryError::Refused(format!("a state value of {} octets is too long", value.len())));
        }
        let (body, pieces) = values::split(value.to_vec(), rand::random);
        for (key, piece) in pieces {
            self.forest.tree(Table::Chunks).insert(key, piece).map_err(|e| self.failed(e))?;
        }
        Ok([&self.expiry(keep).to_be_bytes(), body.as_slice()].concat())
    }

    /// Removes the pieces of a row that is no longer referred to, and asks for a flush.
    fn forget(&self, row: Option<&[u8]>) -> Result<()> {
        if let Some(row) = row {
            remove_pieces(&self.forest, row).map_err(|e| self.failed(e))?;
        }
        self.writer.state_written();
        Ok(())
    }

    fn writable(&self) -> Result<()> {
        self.writer.health().map_err(DirectoryError::Unavailable)
    }

    fn failed(&self, error: sled::Error) -> DirectoryError {
        self.writer.fail(&error.to_string());
        DirectoryError::Unavailable(error.to_string())
    }
}

fn state_key(table: &str, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(table.len() + key.len() + 1);
    full.extend_from_slice(table.as_bytes());
    full.push(0);
    full.extend_from_slice(key);
    full
}

fn expires(row: &[u8]) -> u64 {
    row.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn remove_pieces(forest: &Forest, row: &[u8]) -> sled::Result<()> {
    let Some(head) = row.get(8..).and_then(Head::parse) else { return Ok(()) };
    for key in head.piece_keys() {
        forest.tree(Table::Chunks).remove(key)?;
    }
    Ok(())
}

/// Removes expired state a slice at a time, so that a million greylist entries never hold anyone up.
pub(super) struct Sweeper {
    forest: Forest,
    clock: Arc<dyn Clock>,
    after: Option<Vec<u8>>,
}

/// What one pass of the sweeper did.
pub(super) struct Pass {
    pub(super) removed: usize,
    pub(super) more: bool,
}

impl Sweeper {
    pub(super) fn new(forest: Forest, clock: Arc<dyn Clock>) -> Self {
        Self { forest, clock, after: None }
    }

    pub(super) fn pass(&mut self) -> sled::Result<Pass> {
        use std::ops::Bound;
        let now = millis(self.clock.now());
        let tree = self.forest.state();
        let from = self.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut seen, mut removed, mut last) = (0, 0, None);
        for row in tree.range::<Vec<u8>, _>((from, Bound::Unbounded)).take(SWEEP_ROWS) {
            let (key, row) = row?;
            seen += 1;
            // Swapped out rather than removed: a row renewed since it was read stays.
            if expires(&row) <= now && tree.compare_and_swap(&key, Some(row.clone()), None::<&[u8]>)?.is_ok() {
                remove_pieces(&self.forest, &row)?;
                removed += 1;
            }
            last = Some(key);
        }
        let more = seen == SWEEP_ROWS;
        if more {
            self.after = last.map(|key| key.to_vec());
        }
        Ok(Pass { removed, more })
    }
}

/// Writes a setting into a database that is being rebuilt; it never expires.
pub(super) fn restore(forest: &Forest, table: &str, key: &[u8], value: &[u8]) -> sled::Result<()> {
    let row = [&u64::MAX.to_be_bytes(), value].concat();
    forest.state().insert(state_key(table, key), row).map(drop)
}
