//! What the stores share about small state: counters are decimal text, so that a listing can be read; `FOREVER` never expires.

use std::time::Duration;

/// Keeps state until it is removed.
pub const FOREVER: Duration = Duration::MAX;

/// Table of secrets and settings that outlive rebuilds: it is part of the plain-text export.
pub const SETTINGS: &str = "settings";

/// One live entry of state, as it is moved to another store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// Its table.
    pub table: String,
    /// Its key in the table.
    pub key: Vec<u8>,
    /// What it holds; a counter is decimal text.
    pub value: Vec<u8>,
    /// How much longer it is kept; [`FOREVER`] until it is removed.
    pub keep: Duration,
}

/// How much longer something is kept that expires at `expires`, in milliseconds since 1970; `never` is the store's number for no end.
pub(crate) fn left(expires: u64, now: u64, never: u64) -> Duration {
    if expires >= never { FOREVER } else { Duration::from_millis(expires.saturating_sub(now)) }
}

/// The number a counter holds; 0 for anything else.
pub(crate) fn counter(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
