//! Token buckets by key: one number each, as many as fit into a few MiB.

use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pillarbox_config::Rate;
use quick_cache::sync::Cache;

/// Keys remembered a limit; those seen least are forgotten first, so that a flood of addresses costs a few MiB and not all memory.
const REMEMBERED: usize = 65_536;

/// A bucket is the time at which it would be full again (the generic cell rate algorithm): `count` at once, refilled evenly over `period`.
pub(super) struct Buckets<K> {
    rate: Rate,
    start: Instant,
    full_at: Cache<K, Arc<AtomicU64>>,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, start: Instant::now(), full_at: Cache::new(if rate.is_limited() { REMEMBERED } else { 1 }) }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.rate.is_limited()
    }

    /// Takes one token. `false`: there is none.
    pub(super) fn take(&self, key: K) -> bool {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: K, now: Instant) -> bool {
        if !self.is_limited() {
            return true;
        }
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let period = u64::try_from(self.rate.period.as_nanos()).unwrap_or(u64::MAX);
        let step = period / u64::from(self.rate.count.max(1));
        let bucket = match self.full_at.get(&key) {
            Some(bucket) => bucket,
            None => self.full_at.get_or_insert_with(&key, || Ok::<_, Infallible>(Arc::new(AtomicU64::new(0)))).unwrap_or_default(),
        };
        bucket
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
                let next = full.max(now).saturating_add(step);
                (next.saturating_sub(now) <= period).then_some(next)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_empties_and_refills_evenly() {
        let limit = Buckets::new(Rate { count: 3, period: Duration::from_secs(60) });
        let start = Instant::now();
        let taken = |seconds, n| (0..n).filter(|_| limit.take_at("a", start + Duration::from_secs(seconds))).count();
        assert_eq!(taken(0, 10), 3);
        assert_eq!(taken(21, 10), 1);
        assert_eq!(taken(200, 10), 3);
        assert!(limit.take_at("b", start));
    }

    #[test]
    fn memory_stays_bounded() {
        let limit = Buckets::new(Rate { count: 1, period: Duration::from_secs(60) });
        for n in 0..200_000_u32 {
            limit.take(n);
        }
        assert!(limit.full_at.len() <= REMEMBERED + REMEMBERED / 4, "{}", limit.full_at.len());
    }
}
