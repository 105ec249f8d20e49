//! What the stores share about small state: counters are decimal text, so that a listing can be read; `FOREVER` never expires.

use std::time::Duration;

/// Keeps state until it is removed.
pub const FOREVER: Duration = Duration::MAX;

/// Table of secrets and settings that outlive rebuilds: it is part of the plain-text export.
pub const SETTINGS: &str = "settings";

/// The number a counter holds; 0 for anything else.
pub(crate) fn counter(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
