//! Queue ids: short, sortable by time, never reused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A message's id in the queue: a 64-bit number, written as 13 characters of a lower-case base 32 that sorts as the number does.
///
/// The upper bits are milliseconds since the epoch at acceptance, the lower ones a counter, so that ids made in one
/// process are strictly increasing and a restart never repeats one.
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
    fn other_text_is_refused() {
        for text in ["", "abc", "zzzzzzzzzzzzz", "0123456789ab!", "0123456789abcd"] {
            assert!(text.parse::<QueueId>().is_err(), "{text}");
        }
    }
}
