//! Times of many sessions in bounded memory, each known to within one part in 64.

use std::time::Duration;

/// Buckets for each doubling.
const STEPS: u64 = 64;
/// Doublings of a microsecond that are told apart: up to 70 minutes.
const DOUBLINGS: u64 = 32;

/// Counts of times. Merging and reading cost the same however many were noted.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; usize::try_from(STEPS * DOUBLINGS).unwrap_or(2048)], total: 0 }
    }
}

impl Histogram {
    /// Takes note of one time.
    pub fn note(&mut self, time: Duration) {
        let bucket = bucket(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).min(self.counts.len() - 1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.total += 1;
        }
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The time that `share` (0 to 1) of all times do not exceed; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(middle(bucket as u64));
            }
        }
        Duration::ZERO
    }

    /// How many were noted.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether none was noted.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// Microseconds below `STEPS` have a bucket each; above, each doubling has `STEPS`.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return usize::try_from(micros).unwrap_or(0);
    }
    let doubling = u64::from(micros.ilog2() - STEPS.ilog2());
    usize::try_from(doubling * STEPS + (micros >> doubling)).unwrap_or(usize::MAX)
}

fn middle(bucket: u64) -> u64 {
    if bucket < 2 * STEPS {
        return bucket;
    }
    let doubling = bucket / STEPS - 1;
    ((bucket - doubling * STEPS) << doubling) + (1 << doubling) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_found_again_within_one_part_in_64() {
        for micros in (0..200).chain([1_000, 12_345, 999_999, 60_000_000]) {
            let mut one = Histogram::default();
            one.note(Duration::from_micros(micros));
            let found = u64::try_from(one.quantile(0.5).as_micros()).unwrap();
            assert!(found.abs_diff(micros) * 64 <= micros, "{micros} became {found}");
        }
    }

    #[test]
    fn quantiles_of_a_merged_pair() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        (1..=99).for_each(|n| low.note(Duration::from_micros(n % 10)));
        high.note(Duration::from_secs(1));
        low.merge(&high);
        assert_eq!((low.len(), low.quantile(0.99) < Duration::from_micros(10)), (100, true));
        assert!(low.quantile(1.0) > Duration::from_millis(980));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
