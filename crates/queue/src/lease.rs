//! The lease on the queue's folder, where several nodes share a register: past its end nothing is taken and nothing handed out, since another
//! node may have the folder by then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::clock::millis;
use crate::queue::Queue;
use crate::schedule::DestId;

/// No end.
const FOREVER: u64 = u64::MAX;

/// Until when the folder is ours.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Milliseconds of [`since_boot`].
    until: AtomicU64,
    /// Somebody was told that it does not hold, and waits for it.
    missed: AtomicBool,
}

impl Default for Lease {
    fn default() -> Self {
        Self { until: AtomicU64::new(FOREVER), missed: AtomicBool::new(false) }
    }
}

impl Lease {
    /// Whether the folder is certainly ours.
    pub(crate) fn holds(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        let holds = until == FOREVER || millis(since_boot()) < until;
        if !holds {
            self.missed.store(true, Ordering::Release);
        }
        holds
    }
}

/// Time since the machine started, sleep included: a clock that nobody sets.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Queue {
    /// The folder is this process's until then, a reading of [`since_boot`]; `None`: for good, as it is at first. Later the queue takes nothing
    /// ([`crate::AcceptError::NoLease`]) and hands nothing out, until it is told of a later time. What is under way goes on to its end.
    pub fn leased_until(&self, until: Option<Duration>) {
        self.lease.until.store(until.map_or(FOREVER, millis), Ordering::Release);
        if !self.lease.holds() || !self.lease.missed.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut state = self.state.lock();
        let all: Vec<DestId> = state.dests.iter().map(|(dest, _)| dest).collect();
        all.into_iter().for_each(|dest| self.kick(&mut state, dest));
        drop(state);
        self.tick.notify_one();
    }

    /// Whether mail is taken and handed out, as far as the lease goes.
    pub fn has_lease(&self) -> bool {
        self.lease.holds()
    }
}
