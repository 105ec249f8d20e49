//! Queue ids: short, sortable by time, never reused.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A message's id in the queue: a 64-bit number, written as 13 characters of a lower-case base 32 that sorts as the number does.
///
/// The upper 44 bits are milliseconds since the epoch at acceptance, the lower ones a scattered counter that begins anywhere, so that ids
/// made in one process are strictly increasing, a restart never repeats one, two nodes make one hardly ever, and the folders of parked
/// mail fill evenly. 0 is no message's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// Crockford's alphabet in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Text that is not a queue id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a queue id (13 letters and digits, as `pillarbox queue list` shows them)")]
pub struct BadQueueId(pub String);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; 13];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = *ALPHABET.get((rest & 31) as usize).unwrap_or(&b'0');
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for QueueId {
    type Err = BadQueueId;
    fn from_str(text: &str) -> Result<Self, BadQueueId> {
        let bad = || BadQueueId(text.chars().take(40).collect());
        if text.len() != 13 {
            return Err(bad());
        }
        let mut value: u64 = 0;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|&a| a == byte.to_ascii_lowercase()).ok_or_else(bad)?;
            value = value.checked_mul(32).and_then(|v| v.checked_add(digit as u64)).ok_or_else(bad)?;
        }
        Ok(Self(value))
    }
}

impl Serialize for QueueId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QueueId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Gives out ids.
#[derive(Debug)]
pub(crate) struct Ids {
    last: AtomicU64,
    count: AtomicU64,
}

impl Ids {
    /// None given out will be `last` or below.
    pub(crate) fn after(last: u64) -> Self {
        // Two nodes that take mail in one millisecond must not count alike: file names in a common mail folder are made of ids.
        Self { last: AtomicU64::new(last), count: AtomicU64::new(rand::random()) }
    }

    /// The next one, at this time in milliseconds. A clock that went back does not matter.
    pub(crate) fn next(&self, now: u64) -> QueueId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let wished = (now << 20) | (count.wrapping_mul(0x9_e379) & 0xf_ffff);
        let next = |last: u64| Some(wished.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|last| last);
        QueueId(next(last).unwrap_or(wished))
    }

    /// None given out from now on will be `last` or below.
    pub(crate) fn raise(&self, last: u64) {
        self.last.fetch_max(last, Ordering::Relaxed);
    }

    /// The last one given out.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_sorts_as_numbers_do_and_comes_back() {
        let ids = [0, 1, 31, 32, 1 << 40, u64::MAX - 1, u64::MAX];
        let texts: Vec<String> = ids.iter().map(|&n| QueueId(n).to_string()).collect();
        assert!(texts.is_sorted());
        for (n, text) in ids.iter().zip(&texts) {
            assert_eq!(text.parse::<QueueId>().unwrap(), QueueId(*n));
        }
    }

    #[test]
    fn ids_grow_whatever_the_clock_does() {
        let ids = Ids::after(QueueId(5 << 30).0);
        let mut last = 5 << 30;
        for now in [1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_001, 3, 1_700_000_000_000, 1_800_000_000_000] {
            for _ in 0..1000 {
                let id = ids.next(now).0;
                assert!(id > last);
                last = id;
            }
        }
        assert_eq!(ids.last(), last);
        // Many ids of one millisecond may reach into the next.
        assert!((last >> 20) - 1_800_000_000_000 <= 1, "{last}");
    }

    #[test]
    fn one_message_a_second_still_fills_all_folders() {
        let ids = Ids::after(0);
        let folders: std::collections::HashSet<String> =
            (0..2000).map(|s| ids.next(1_700_000_000_000 + s * 1000).to_string()[9..11].to_owned()).collect();
        assert!(folders.len() > 900, "{}", folders.len());
    }

    #[test]
    fn nodes_that_start_alike_make_different_ids() {
        let made = |_| Ids::after(0).next(1_700_000_000_000).0;
        let all: std::collections::HashSet<u64> = (0..32).map(made).collect();
        // One in a million for each pair; that a third of them meet does not happen.
        assert!(all.len() > 20, "{all:?}");
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "abc", "zzzzzzzzzzzzz", "0123456789ab!", "0123456789abcd"] {
            assert!(text.parse::<QueueId>().is_err(), "{text}");
        }
    }
}
