//! The one thread that writes: it gathers the changes that wait, applies each in a transaction, flushes once, syncs once, answers all.
//!
//! sled's own flush stops at the page cache, so durability is an `fdatasync` of the database file by us. State written
//! elsewhere only marks itself as unsynced; it is flushed with the next commit or within [`STATE_DELAY`].

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use tokio::sync::{oneshot, watch};

use super::addresses::{Addresses, Gathering};
use super::open::{Forest, REVISION, wait_until_unlocked};
use super::state::Sweeper;
use crate::clock::Clock;
use crate::records::Change;
use crate::store::{DirectoryError, Result};
use crate::tables::{Table, stage};

/// State waits at most this long for its flush, so that a greylisting rush shares one.
const STATE_DELAY: Duration = Duration::from_millis(500);
/// Between two looks for expired state.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Changes taken into one flush.
const MAX_GROUP: usize = 4096;

enum Job {
    Apply(Vec<Change>, oneshot::Sender<Result<()>>),
    StateWritten,
    Flush(oneshot::Sender<()>),
    Stop,
}

/// What the store's handles need of the writer.
pub(super) struct Handle {
    jobs: Mutex<Sender<Job>>,
    unsynced: AtomicBool,
    failed: RwLock<Option<String>>,
    generation: watch::Sender<u64>,
}

impl Handle {
    pub(super) async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        self.health().map_err(DirectoryError::Unavailable)?;
        let (answer, wait) = oneshot::channel();
        let stopped = || DirectoryError::Unavailable("the directory is shutting down".into());
        self.jobs.lock().send(Job::Apply(changes, answer)).map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }

    /// Call after each state write: it will be on disk within a second.
    pub(super) fn state_written(&self) {
        if !self.unsynced.swap(true, Ordering::AcqRel) {
            // A writer that is gone has flushed for the last time; nobody can be told.
            let _ = self.jobs.lock().send(Job::StateWritten);
        }
    }

    /// Returns when what was written so far is on disk, or never will be.
    pub(super) async fn flush(&self) {
        let (answer, wait) = oneshot::channel();
        if self.jobs.lock().send(Job::Flush(answer)).is_ok() {
            let _ = wait.await;
        }
    }

    pub(super) fn health(&self) -> std::result::Result<(), String> {
        self.failed.read().clone().map_or(Ok(()), Err)
    }

    /// From now on nothing is written: pages that failed once must never be taken for clean.
    pub(super) fn fail(&self, why: &str) {
        let mut failed = self.failed.write();
        if failed.is_none() {
            let why = format!("the directory cannot be written any more until a restart: {why}");
            tracing::error!("{why}");
            *failed = Some(why);
        }
    }

    pub(super) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

/// The thread, joined at drop so that the database's lock is free afterwards.
pub(super) struct Writer {
    handle: Arc<Handle>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Writer {
    pub(super) fn start(
        forest: Forest,
        path: &Path,
        clock: Arc<dyn Clock>,
        addresses: Arc<Addresses>,
        gathering: Gathering,
    ) -> Result<Self> {
        let unavailable = |e: std::io::Error| DirectoryError::Unavailable(format!("{}: {e}", path.display()));
        let file = File::open(path.join("db")).map_err(unavailable)?;
        let (sender, jobs) = channel();
        let handle = Arc::new(Handle {
            jobs: Mutex::new(sender),
            unsynced: AtomicBool::new(false),
            failed: RwLock::new(None),
            generation: watch::channel(forest.revision()?).0,
        });
        let sweeper = Sweeper::new(forest.clone(), clock);
        let revision = handle.generation();
        let saved = (!gathering.is_under_way()).then_some(revision);
        let run = Run { forest, file, jobs, handle: Arc::clone(&handle), sweeper, revision, addresses, gathering, saved };
        let thread = std::thread::Builder::new().name("directory".into()).spawn(|| run.run()).map_err(unavailable)?;
        Ok(Self { handle, thread: Some(thread), path: path.to_owned() })
    }

    pub(super) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.handle.jobs.lock().send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Whoever opens the folder next must not meet a lock of ours.
        wait_until_unlocked(&self.path);
    }
}

struct Run {
    forest: Forest,
    file: File,
    jobs: Receiver<Job>,
    handle: Arc<Handle>,
    sweeper: Sweeper,
    revision: u64,
    addresses: Arc<Addresses>,
    gathering: Gathering,
    /// The revision for which the file of addresses is right.
    saved: Option<u64>,
}

impl Run {
    fn run(mut self) {
        self.serve();
        self.save_addresses();
    }

    fn serve(&mut self) {
        let mut flush_at: Option<Instant> = None;
        let mut sweep_at = Instant::now() + SWEEP_EVERY;
        loop {
            let until = flush_at.map_or(sweep_at, |at| at.min(sweep_at));
            let pause = if self.gathering.is_under_way() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
            let job = match self.jobs.recv_timeout(pause) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Job::Stop),
            };
            match job {
                Some(Job::Apply(changes, answer)) => {
                    let stop = self.commit_group(changes, answer);
                    flush_at = None;
                    if stop {
                        return;
                    }
                }
                Some(Job::StateWritten) => flush_at = flush_at.or(Some(Instant::now() + STATE_DELAY)),
                Some(Job::Flush(answer)) => {
                    self.sync();
                    flush_at = None;
                    // Whoever asks is about to end, and may not live to see this thread joined.
                    self.save_addresses();
                    let _ = answer.send(());
                }
                Some(Job::Stop) => {
                    self.sync();
                    return;
                }
                None => self.gather(),
            }
            let now = Instant::now();
            if flush_at.is_some_and(|at| at <= now) {
                self.sync();
                flush_at = None;
            }
            if sweep_at <= now {
                let more = self.sweep();
                sweep_at = now + if more { Duration::from_secs(1) } else { SWEEP_EVERY };
            }
        }
    }

    /// Applies what waits, makes it durable together, answers. Returns whether to stop.
    fn commit_group(&mut self, changes: Vec<Change>, answer: oneshot::Sender<Result<()>>) -> bool {
        let mut stop = false;
        let (mut answers, mut flushes) = (Vec::new(), Vec::<oneshot::Sender<()>>::new());
        let mut next = Some((changes, answer));
        while let Some((changes, answer)) = next.take() {
            let outcome = self.transact(&changes);
            answers.push((outcome, answer));
            while next.is_none() && answers.len() < MAX_GROUP {
                match self.jobs.try_recv() {
                    Ok(Job::Apply(changes, answer)) => next = Some((changes, answer)),
                    Ok(Job::StateWritten) => {}
                    Ok(Job::Flush(answer)) => flushes.push(answer),
                    Ok(Job::Stop) => {
                        stop = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        let changed = answers.iter().any(|(outcome, _)| outcome.is_ok());
        // State that asked for its flush meanwhile has it here, whether or not a change came to anything.
        if changed || self.handle.unsynced.load(Ordering::Acquire) {
            self.sync();
        }
        for answer in flushes {
            let _ = answer.send(());
        }
        let health = self.handle.health();
        if changed && health.is_ok() {
            // The generation grows before the answers go out: who was told "done" never meets an older cache. It does not grow when the
            // sync failed: the export must never be ahead of the disk.
            self.handle.generation.send_replace(self.revision);
        }
        for (outcome, answer) in answers {
            let outcome = outcome.and_then(|()| health.clone().map_err(DirectoryError::Unavailable));
            let _ = answer.send(outcome);
        }
        stop
    }

    fn transact(&mut self, changes: &[Change]) -> Result<()> {
        self.handle.health().map_err(DirectoryError::Unavailable)?;
        let mut writes = stage::stage(&self.forest, changes)?;
        let revision = self.revision.saturating_add(1);
        writes.insert((Table::Meta, REVISION.to_vec()), Some(revision.to_be_bytes().to_vec()));
        let trees = self.forest.trees();
        let commit = || {
            trees.transaction(|views| {
                for ((table, key), value) in &writes {
                    let Some(view) = views.get(*table as usize) else { continue };
                    match value {
                        Some(value) => view.insert(key.as_slice(), value.as_slice())?,
                        None => view.remove(key.as_slice())?,
                    };
                }
                Ok::<(), ConflictableTransactionError<()>>(())
            })
        };
        // sled meets some I/O errors with a panic; the thread must outlive them to answer those who wait.
        let why = match catch_unwind(AssertUnwindSafe(commit)) {
            Ok(Ok(())) => {
                self.revision = revision;
                self.addresses.follow(&writes);
                return Ok(());
            }
            Ok(Err(TransactionError::Storage(error))) => error.to_string(),
            Ok(Err(TransactionError::Abort(()))) => "the transaction was given up".into(),
            Err(_) => "the database panicked in a write".into(),
        };
        self.addresses.distrust();
        self.handle.fail(&why);
        Err(DirectoryError::Unavailable(why))
    }

    /// Gathers some of the addresses, where they are not whole yet.
    fn gather(&mut self) {
        if !self.gathering.is_under_way() {
            return;
        }
        let gathered = catch_unwind(AssertUnwindSafe(|| self.addresses.gather(&self.forest, &mut self.gathering)));
        let why = match gathered {
            Ok(Ok(())) => {
                if !self.gathering.is_under_way() {
                    self.save_addresses();
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database panicked in a read".into(),
        };
        self.gathering = Gathering::default();
        self.addresses.distrust();
        tracing::warn!(%why, "the addresses could not be gathered; each look-up reads the database");
    }

    /// For the next start. Without them it takes longer, which is all.
    fn save_addresses(&mut self) {
        if self.saved == Some(self.revision) {
            return;
        }
        // The file must not be ahead of the disk.
        self.sync();
        if self.handle.health().is_err() {
            return;
        }
        match self.addresses.save(self.revision) {
            Ok(()) => self.saved = Some(self.revision),
            Err(error) => tracing::warn!(%error, "the addresses could not be kept for the next start"),
        }
    }

    /// Flush, then a real sync. Failure is final.
    fn sync(&self) {
        if self.handle.health().is_err() {
            return;
        }
        // Cleared first: a state write after this point asks for the next flush.
        self.handle.unsynced.store(false, Ordering::Release);
        let flushed = catch_unwind(AssertUnwindSafe(|| self.forest.flush()));
        match flushed {
            Ok(Ok(())) => {
                if let Err(error) = self.file.sync_data() {
                    self.handle.fail(&format!("fdatasync failed: {error}"));
                }
            }
            Ok(Err(error)) => self.handle.fail(&error.to_string()),
            Err(_) => self.handle.fail("the database panicked in a flush"),
        }
    }

    fn sweep(&mut self) -> bool {
        if self.handle.health().is_err() {
            return false;
        }
        match catch_unwind(AssertUnwindSafe(|| self.sweeper.pass())) {
            Ok(Ok(pass)) => {
                if pass.removed > 0 {
                    self.handle.state_written();
                }
                pass.more
            }
            Ok(Err(error)) => {
                self.handle.fail(&error.to_string());
                false
            }
            Err(_) => {
                self.handle.fail("the database panicked while expired state was removed");
                false
            }
        }
    }
}

// The index of a table in the slice of trees is its discriminant.
const _: () = assert!(Table::Domains as usize == 0 && Table::Meta as usize == Table::ALL.len() - 1);
