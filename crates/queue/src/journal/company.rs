//! How long a flush waits for company, told from the flushes before it.
//!
//! Each flush costs the same however many messages it serves. Where several sessions end their messages at nearly the same time, a flush
//! that begins with the first of them leaves the others to the next one. So the thread waits for as many as there usually are, and no longer
//! than two flushes take, nor than [`MOST`]. Where messages come one at a time, nobody was ever found waiting after a flush, and none
//! waits before one.

use std::time::{Duration, Instant};

/// Longest wait. A disk whose flush takes longer gathers enough meanwhile.
const MOST: Duration = Duration::from_millis(1);

/// Most that are waited for.
const ENOUGH: f32 = 64.0;

/// What the last flushes were like.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// How many messages one flush served and how many had come when it was done, together; an average.
    usual: f32,
    /// How long one took; an average.
    flush: Duration,
}

/// A wait for company.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// How many more are expected.
    pub(super) more: usize,
    /// When to go on without them.
    pub(super) until: Instant,
}

impl Company {
    /// Whether a flush for so many should wait; `since` is when the first of them was written.
    pub(super) fn wait(&self, waiting: usize, since: Instant) -> Option<Wait> {
        let usual = self.usual.min(ENOUGH) as usize;
        let more = usual.checked_sub(waiting).filter(|more| *more > 0)?;
        Some(Wait { more, until: since + (self.flush * 2).min(MOST) })
    }

    /// Takes note of a flush: how long it took, whom it served, and who came meanwhile.
    pub(super) fn note(&mut self, took: Duration, served: usize, came: usize) {
        self.flush = if self.flush.is_zero() { took } else { (self.flush * 7 + took) / 8 };
        self.usual += ((served + came) as f32 - self.usual) / 4.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: Duration = Duration::from_micros(300);

    #[test]
    fn nobody_waits_for_nobody() {
        let (mut company, now) = (Company::default(), Instant::now());
        assert_eq!(company.wait(1, now), None);
        for _ in 0..100 {
            company.note(FLUSH, 1, 0);
            assert_eq!(company.wait(1, now), None);
        }
    }

    #[test]
    fn as_many_are_awaited_as_there_usually_are_for_two_flushes() {
        let (mut company, now) = (Company::default(), Instant::now());
        (0..100).for_each(|_| company.note(FLUSH, 3, 3));
        assert_eq!(company.wait(2, now), Some(Wait { more: 3, until: now + FLUSH * 2 }));
        assert_eq!(company.wait(6, now), None);
        assert_eq!(company.wait(9, now), None);
    }

    #[test]
    fn a_chance_meeting_makes_nobody_wait_and_company_that_stays_away_is_forgotten() {
        let (mut company, now) = (Company::default(), Instant::now());
        (0..100).for_each(|_| company.note(FLUSH, 1, 0));
        company.note(FLUSH, 1, 1);
        assert_eq!(company.wait(1, now), None);
        (0..100).for_each(|_| company.note(FLUSH, 10, 10));
        let waits = (0..100).take_while(|_| {
            company.note(FLUSH, 1, 0);
            company.wait(1, now).is_some()
        });
        assert!((5..20).contains(&waits.count()));
    }

    #[test]
    fn a_slow_disk_waits_a_millisecond_and_a_crowd_is_not_waited_for() {
        let (mut company, now) = (Company::default(), Instant::now());
        company.note(Duration::from_millis(20), 500, 500);
        assert_eq!(company.wait(1, now), Some(Wait { more: 63, until: now + MOST }));
    }
}
