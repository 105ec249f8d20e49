//! When things are due: the next attempt, the delay report, giving up.

use std::time::Duration;

use crate::clock::millis;
use crate::envelope::{Envelope, UnixMillis};

/// The configured times, and the randomness they are spread with.
pub(crate) struct Times {
    pub(crate) retry: Vec<Duration>,
    pub(crate) lifetime: Duration,
    pub(crate) delay_warning: Duration,
    pub(crate) park_after: Duration,
    /// Numbers from 0 to 1.
    pub(crate) random: Box<dyn Fn() -> f64 + Send + Sync>,
}

/// A destination that is down is asked again this often at least, however long a message would wait.
const LONGEST_PROBE: Duration = Duration::from_secs(15 * 60);

impl Times {
    /// When to try again what failed `attempts` times so far: the configured wait and up to a fifth more, and at the very end once more.
    pub(crate) fn next_attempt(&self, envelope: &Envelope, attempts: u32, now: UnixMillis) -> UnixMillis {
        let next = now.saturating_add(self.spread(self.wait(attempts)));
        let end = self.expires(envelope);
        if now < end { next.min(end) } else { next }
    }

    /// When to probe a destination that failed `failures` times in a row.
    pub(crate) fn next_probe(&self, failures: u32, now: UnixMillis) -> UnixMillis {
        now.saturating_add(self.spread(self.wait(failures).min(LONGEST_PROBE)))
    }

    /// When to give the message up.
    pub(crate) fn expires(&self, envelope: &Envelope) -> UnixMillis {
        // Time spent on hold at the sender's wish (RFC 4865) is not counted.
        envelope.received.max(envelope.hold_until.unwrap_or(0)).saturating_add(millis(self.lifetime))
    }

    /// When the sender is told that the message is late.
    pub(crate) fn warns(&self, envelope: &Envelope) -> UnixMillis {
        envelope.received.max(envelope.hold_until.unwrap_or(0)).saturating_add(millis(self.delay_warning))
    }

    /// When the time that the sender allowed is over (RFC 2852).
    pub(crate) fn deliver_by(&self, envelope: &Envelope) -> Option<UnixMillis> {
        let by = envelope.by?;
        Some(envelope.received.saturating_add(u64::try_from(by.seconds).unwrap_or(0).saturating_mul(1000)))
    }

    /// The first of the times above that has not come yet, or has not been dealt with.
    pub(crate) fn next_deadline(&self, envelope: &Envelope, now: UnixMillis) -> UnixMillis {
        let expires = self.expires(envelope);
        let later = [Some(self.warns(envelope)), self.deliver_by(envelope)].into_iter().flatten().filter(|&t| t > now);
        later.chain([expires]).min().unwrap_or(expires)
    }

    fn wait(&self, failures: u32) -> Duration {
        let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        self.retry.get(at).or(self.retry.last()).copied().unwrap_or(Duration::from_secs(300)).max(Duration::from_secs(1))
    }

    fn spread(&self, wait: Duration) -> UnixMillis {
        millis(wait.mul_f64(1.0 + 0.2 * (self.random)().clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::QueueId;
    use pillarbox_smtp::{DeliverBy, ReversePath};

    fn times(random: f64) -> Times {
        Times {
            retry: [60, 300].map(Duration::from_secs).to_vec(),
            lifetime: Duration::from_secs(86_400),
            delay_warning: Duration::from_secs(3600),
            park_after: Duration::from_secs(30),
            random: Box::new(move || random),
        }
    }

    fn envelope() -> Envelope {
        Envelope { received: 1_000_000, ..Envelope::new(QueueId(1), ReversePath::Null, vec![]) }
    }

    #[test]
    fn waits_grow_and_the_last_repeats_with_jitter() {
        let e = envelope();
        let wait = |random: f64, attempts| times(random).next_attempt(&e, attempts, 2_000_000) - 2_000_000;
        assert_eq!([wait(0.0, 1), wait(0.0, 2), wait(0.0, 3), wait(0.0, 99)], [60_000, 300_000, 300_000, 300_000]);
        assert_eq!([wait(1.0, 1), wait(0.5, 2)], [72_000, 330_000]);
    }

    #[test]
    fn the_last_attempt_is_made_when_the_time_is_up() {
        let e = envelope();
        let end = times(0.0).expires(&e);
        assert_eq!(times(0.0).next_attempt(&e, 2, end - 1000), end);
        assert!(times(0.0).next_attempt(&e, 2, end) > end);
    }

    #[test]
    fn deadlines_come_in_order() {
        let t = times(0.0);
        let mut e = envelope();
        e.by = Some(DeliverBy { seconds: 100, return_when_late: true, trace: false });
        assert_eq!(t.next_deadline(&e, e.received), e.received + 100_000);
        assert_eq!(t.next_deadline(&e, e.received + 100_000), e.received + 3_600_000);
        assert_eq!(t.next_deadline(&e, e.received + 3_600_000), e.received + 86_400_000);
        e.hold_until = Some(e.received + 50_000_000);
        assert_eq!(t.expires(&e), e.received + 136_400_000);
    }

    #[test]
    fn a_probe_never_waits_for_hours() {
        let mut t = times(0.0);
        t.retry = vec![Duration::from_secs(4 * 3600)];
        assert_eq!(t.next_probe(1, 0), 900_000);
        t.retry.clear();
        assert_eq!(t.next_probe(1, 0), 300_000);
    }
}
