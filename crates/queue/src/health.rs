//! How the queue is: for `status`, for metrics, and for the answer at MAIL.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::disk::Disk;
use crate::envelope::UnixMillis;
use crate::queue::Queue;
use crate::schedule::Entry;

/// The state of the queue at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueHealth {
    /// Messages with an unfinished recipient.
    pub messages: u64,
    /// Unfinished recipients.
    pub recipients: u64,
    /// Age of the oldest message in seconds; 0 when there is none.
    pub oldest_seconds: u64,
    /// Destinations with something queued.
    pub destinations: u64,
    /// Those of them that cannot be reached.
    pub destinations_down: u64,
    /// Runs of deliverers under way.
    pub runs: u64,
    /// The journal.
    pub journal: JournalHealth,
    /// The disk.
    pub disk: DiskHealth,
    /// Why stored mail cannot be made durable at present, if so.
    pub sync_error: Option<String>,
    /// What start-up or a delivery could not read; each is set aside under `queue/damaged/` or left where it is.
    pub damaged: Vec<String>,
    /// Octets of message bodies in memory.
    pub body_memory: u64,
    /// Mail can be accepted and delivered, and nothing waits to be looked after.
    pub healthy: bool,
}

/// The state of the journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JournalHealth {
    /// Segments in use.
    pub segments: u64,
    /// Flushes of the disk since the start.
    pub commits: u64,
    /// Why it takes nothing, if so: a write or a flush failed. Look after the disk and restart the daemon.
    pub failed: Option<String>,
}

/// The state of the disk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiskHealth {
    /// Octets free on the file systems of queue and mail, the smaller one.
    pub free_bytes: u64,
    /// Less than `limits.free_space`: MAIL is answered 452 4.3.1.
    pub nearly_full: bool,
}

/// How much room is left, asked at most once a second.
#[derive(Debug)]
pub(crate) struct Space {
    paths: Vec<PathBuf>,
    wanted: u64,
    free: AtomicU64,
    asked: AtomicU64,
}

/// An answer of the file system counts for so long.
const FRESH: UnixMillis = 1000;

impl Space {
    /// Watches the file systems of `paths`, of which `wanted` octets should stay free.
    pub(crate) fn new(paths: Vec<PathBuf>, wanted: u64) -> Self {
        Self { paths, wanted, free: AtomicU64::new(u64::MAX), asked: AtomicU64::new(0) }
    }

    /// `Err` with what is free when that is too little.
    pub(crate) fn check(&self, disk: &dyn Disk, now: UnixMillis) -> Result<(), u64> {
        let asked = self.asked.load(Ordering::Relaxed);
        let stale = now.abs_diff(asked) >= FRESH;
        if stale && self.asked.compare_exchange(asked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // A file system that cannot tell, such as a mail folder not made yet, does not stop the mail.
            let free = self.paths.iter().filter_map(|path| disk.free_space(path).ok()).min();
            self.free.store(free.unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        match self.free() {
            free if free < self.wanted => Err(free),
            _ => Ok(()),
        }
    }

    /// What the last answer said.
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}

impl Queue {
    /// How the queue is. Cheap enough to be asked every second.
    pub fn health(&self) -> QueueHealth {
        let now = self.clock.now();
        let space = self.space.check(&*self.disk, now);
        let state = self.state.lock();
        let oldest = state.messages.values().next().map_or(now, |entry| match entry {
            Entry::Live(live) => live.envelope.received,
            Entry::Parked(parked) => parked.received,
        });
        let (messages, recipients, runs) = (state.messages.len() as u64, state.recipients as u64, state.runs as u64);
        let destinations = state.dests.len() as u64;
        let destinations_down = state.dests.iter().filter(|(_, d)| d.active.as_ref().is_some_and(|a| a.down.is_some())).count() as u64;
        drop(state);
        let journal = JournalHealth {
            segments: self.journal.segments() as u64,
            commits: self.journal.commits(),
            failed: self.journal.failure().map(|reason| reason.to_string()),
        };
        let disk = DiskHealth { free_bytes: self.space.free(), nearly_full: space.is_err() };
        let sync_error = self.sync_error.lock().clone();
        let damaged = self.damaged.lock().clone();
        QueueHealth {
            messages,
            recipients,
            oldest_seconds: now.saturating_sub(oldest) / 1000,
            destinations,
            destinations_down,
            runs,
            healthy: journal.failed.is_none() && !disk.nearly_full && sync_error.is_none() && damaged.is_empty(),
            journal,
            disk,
            sync_error,
            damaged,
            body_memory: self.budget.used(),
        }
    }

    /// Brings the gauges up to date.
    pub(crate) fn gauges(&self) {
        let health = self.health();
        metrics::gauge!("pillarbox_queue_messages").set(health.messages as f64);
        metrics::gauge!("pillarbox_queue_recipients").set(health.recipients as f64);
        metrics::gauge!("pillarbox_queue_oldest_seconds").set(health.oldest_seconds as f64);
        metrics::gauge!("pillarbox_queue_destinations_down").set(health.destinations_down as f64);
        metrics::gauge!("pillarbox_queue_journal_segments").set(health.journal.segments as f64);
        metrics::gauge!("pillarbox_queue_body_memory_bytes").set(health.body_memory as f64);
        metrics::gauge!("pillarbox_queue_disk_free_bytes").set(health.disk.free_bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn room_is_asked_for_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("here");
        std::fs::create_dir(&path).unwrap();
        let space = Space::new(vec![path.clone()], 1);
        assert_eq!(space.check(&RealDisk, 5000), Ok(()));
        let free = space.free();
        assert!(free > 0 && free < u64::MAX);
        // Within the second nothing is asked, so that the folder going away is not seen.
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(space.check(&RealDisk, 5999), Ok(()));
        assert_eq!(space.free(), free);
        assert_eq!(space.check(&RealDisk, 6000), Ok(()));
        assert_eq!(space.free(), u64::MAX);
    }

    #[test]
    fn too_little_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(vec![dir.path().into()], u64::MAX);
        assert!(space.check(&RealDisk, 5000).is_err());
    }
}
