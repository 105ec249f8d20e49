//! Verdicts remembered for a minute, so that a client that logs in for every message costs one argon2 a minute.
//!
//! The key is an HMAC, under a random key of this process, of the login name, the password and the stored hashes it was checked against: whoever
//! reads this memory learns no password, and a changed hash is another key. The name is part of it since all unknown names are checked against
//! one hash: a password tried on one of them would be answered at once for every other, and only for those.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use pillarbox_smtp::Secret;
use quick_cache::sync::Cache;
use rand::RngCore;
use sha2::Sha256;

/// Verdicts kept; some 100 octets each.
const CAPACITY: usize = 20_000;

type Key = [u8; 32];

#[derive(Clone)]
struct Verdict {
    /// Which of the hashes matched.
    matched: Option<usize>,
    until: SystemTime,
}

pub(super) struct Verdicts {
    key: Key,
    keep: Duration,
    known: Cache<Key, Verdict>,
}

impl Verdicts {
    pub(super) fn new(keep: Duration) -> Self {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Self { key, keep, known: Cache::new(CAPACITY) }
    }

    /// The verdict on these hashes and this password, if it is remembered: the hash that matched, or none.
    pub(super) fn known(&self, name: &str, hashes: &[String], password: &Secret, now: SystemTime) -> Option<Option<String>> {
        let verdict = self.known.get(&self.id(name, hashes, password)?)?;
        // A clock that was set back must not make a verdict last.
        let fresh = now < verdict.until && verdict.until.duration_since(now).is_ok_and(|left| left <= self.keep);
        fresh.then(|| verdict.matched.and_then(|at| hashes.get(at).cloned()))
    }

    pub(super) fn remember(&self, name: &str, hashes: &[String], password: &Secret, matched: Option<String>, now: SystemTime) {
        if let Some(id) = self.id(name, hashes, password) {
            let matched = matched.and_then(|hash| hashes.iter().position(|h| *h == hash));
            self.known.insert(id, Verdict { matched, until: now + self.keep });
        }
    }

    fn id(&self, name: &str, hashes: &[String], password: &Secret) -> Option<Key> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        for part in hashes.iter().map(String::as_bytes).chain([password.as_bytes(), name.as_bytes()]) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac.finalize().into_bytes().into())
    }
}
