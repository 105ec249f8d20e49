//! Start-up: reads what is parked into the schedule. What that takes too long for is read behind the start, while mail flows.
//!
//! Two rules keep that safe. All of it is listed, and what the journal knows something of is read, before the queue is open. And whatever becomes
//! of a message begins with its entry in the schedule: until a listed one has that, nobody but the reading touches its files.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::deferred::{Batch, Deferred, Index, IndexEntry, Lead, Listing, ScanError, Scanned, Source, list, read};
use crate::envelope::{Envelope, Recipient, Status, UnixMillis};
use crate::id::QueueId;
use crate::journal::Replay;
use crate::keep_index::index_path;
use crate::queue::Queue;
use crate::recover::is_finished;
use crate::schedule::{DestId, Entry, Jobs, Kind, Parked, ParkedFlags, State, Times, Transports, domain_key, from_key, sender_key};
use crate::start::{OpenError, io_error};
use crate::transport::Destination;

/// Folders read ahead of who takes them.
const AHEAD: usize = 4;

/// What is read, and by what rules.
struct Job {
    source: Source,
    transports: Transports,
    times: Arc<Times>,
    now: UnixMillis,
}

/// Parked mail as far as the start has read it.
pub(crate) struct ParkedMail {
    /// The highest id of all, read or not, or 0.
    pub(crate) last_id: u64,
    /// How many are read.
    pub(crate) count: usize,
    /// How many of them the index knew.
    pub(crate) known: usize,
    /// What is said of those that were set aside.
    pub(crate) damaged: Vec<String>,
    /// What is not read yet.
    pub(crate) rest: Option<Rest>,
}

/// Parked mail that is read behind the start.
pub(crate) struct Rest {
    reading: Reading,
    gathered: Gathered,
    pub(crate) unread: usize,
}

/// Threads that read a listing.
struct Reading {
    batches: Receiver<Batch<Noted>>,
    lead: Arc<Lead>,
    thread: JoinHandle<Result<(), ScanError>>,
}

/// What the reading makes of one message.
enum Noted {
    Known(QueueId, IndexEntry),
    Read(QueueId, Parked, Names),
}

/// What was read and is not in the schedule yet.
struct Gathered {
    entries: Vec<(QueueId, Entry)>,
    /// The destinations of the index as the schedule numbers them, once they are met.
    numbers: Vec<Option<DestId>>,
    job: Arc<Job>,
    /// Of how many listed messages it is known what they are.
    settled: usize,
    damaged: Vec<String>,
    /// How many the index knew, and how many it did not.
    known: usize,
    read: usize,
}

/// Fills the schedule with what is parked, as far as that can be read within `patience`. A million messages are gathered first and put in together,
/// sorted: that takes less memory and time than one by one.
pub(crate) fn read_parked(
    folder: &Path,
    deferred: &Deferred,
    state: &Mutex<State>,
    times: &Arc<Times>,
    found: &Replay,
    now: UnixMillis,
    patience: Duration,
) -> Result<ParkedMail, OpenError> {
    let began = Instant::now();
    let source = Source { deferred: deferred.clone(), index: Index::load(&index_path(folder)), aside: folder.join("damaged") };
    let mut listing = list(&source, &|envelope| is_finished(found, envelope))?;
    let last_id = listing.last_id();
    let job = Arc::new(Job { source, transports: state.lock().transports().clone(), times: Arc::clone(times), now });
    let mut gathered = Gathered {
        entries: Vec::with_capacity(listing.len()),
        numbers: vec![None; job.source.index.destinations.len()],
        job: Arc::clone(&job),
        settled: 0,
        damaged: std::mem::take(&mut listing.damaged),
        known: 0,
        read: 0,
    };
    let journalled: HashSet<QueueId> =
        found.messages.iter().map(|m| &m.envelope.id).chain(found.fates.keys()).chain(found.added.keys()).copied().collect();
    let first = listing.part(|id| journalled.contains(&id));
    if first.len() > 0 {
        let reading = Reading::begin(&job, first)?;
        reading.gather(&mut gathered, state, None);
        reading.end()?;
    }
    gathered.settled = 0;
    let unread = listing.len();
    let reading = Reading::begin(&job, listing)?;
    // Its part of the index may go with the last who holds it: its memory is needed for what follows.
    drop(job);
    let whole = reading.gather(&mut gathered, state, Some(began + patience));
    let (entries, damaged) = (std::mem::take(&mut gathered.entries), std::mem::take(&mut gathered.damaged));
    let (count, known) = (entries.len(), gathered.known);
    let rest = if whole {
        reading.end()?;
        drop(gathered);
        None
    } else {
        reading.lead.behind.store(true, Ordering::Relaxed);
        Some(Rest { unread: unread.saturating_sub(gathered.settled), reading, gathered })
    };
    state.lock().insert_all_parked(entries, now);
    Ok(ParkedMail { last_id, count, known, damaged, rest })
}

impl Reading {
    fn begin(job: &Arc<Job>, listing: Listing) -> Result<Self, OpenError> {
        let lead = Arc::new(Lead::default());
        let (sender, batches) = sync_channel(AHEAD);
        let (own_job, own_lead) = (Arc::clone(job), Arc::clone(&lead));
        let thread = std::thread::Builder::new()
            .name("queue-reader".into())
            .spawn(move || own_job.read(&listing, &own_lead, &sender))
            .map_err(io_error(job.source.deferred.root()))?;
        Ok(Self { batches, lead, thread })
    }

    /// Takes what is read, to the end or until then. Says whether it was the end.
    fn gather(&self, gathered: &mut Gathered, state: &Mutex<State>, until: Option<Instant>) -> bool {
        loop {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            match self.batches.recv_timeout(left) {
                Ok(batch) => gathered.take(&mut state.lock(), batch),
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// Waits for the threads, and says why they did not read all.
    fn end(self) -> Result<(), ScanError> {
        drop(self.batches);
        self.thread.join().unwrap_or_else(|_| {
            Err(ScanError::Io { path: "queue/deferred".into(), error: io::Error::other("its reader ended unexpectedly") })
        })
    }
}

impl Job {
    fn read(&self, listing: &Listing, lead: &Lead, sender: &SyncSender<Batch<Noted>>) -> Result<(), ScanError> {
        let note = |scanned| match scanned {
            Scanned::Known(id, entry) => Noted::Known(id, entry),
            Scanned::Read(envelope) => {
                let (parked, names) = parked_of_envelope(&envelope, &self.transports, &self.times, self.now);
                Noted::Read(envelope.id, parked, names)
            }
        };
        let take = |batch| {
            if sender.send(batch).is_err() {
                lead.stop.store(true, Ordering::Relaxed);
            }
        };
        read(&self.source, listing, lead, note, take)
    }
}

impl Gathered {
    fn take(&mut self, state: &mut State, batch: Batch<Noted>) {
        self.settled += batch.settled;
        self.damaged.extend(batch.damaged);
        for one in batch.found {
            let (id, mut parked, jobs) = match one {
                Noted::Known(id, entry) => {
                    self.known += 1;
                    let jobs = entry.jobs.iter().filter_map(|(number, next)| Some((self.number(state, *number)?, *next)));
                    let jobs = jobs.collect();
                    (id, parked_of_index(&entry), jobs)
                }
                Noted::Read(id, parked, names) => {
                    self.read += 1;
                    let jobs = names.iter().map(|((kind, name), next)| (state.dests.add_job(*kind, name), *next));
                    (id, parked, jobs.collect())
                }
            };
            parked.jobs = Jobs::of(jobs);
            self.entries.push((id, Entry::Parked(parked)));
        }
    }

    /// The number that the schedule gives a destination of the index; one more job is counted for it.
    fn number(&mut self, state: &mut State, number: u32) -> Option<DestId> {
        let slot = self.numbers.get_mut(number as usize)?;
        match *slot {
            Some(dest) => state.dests.count_job(dest),
            None => {
                let (kind, name) = self.job.source.index.destinations.get(number as usize)?;
                *slot = Some(state.dests.add_job(*kind, name));
            }
        }
        *slot
    }
}

impl Queue {
    /// Takes up what is read behind the start, until all is or the queue stops. Blocks.
    pub(crate) fn read_behind(&self, rest: Rest) {
        let Rest { reading, mut gathered, unread } = rest;
        let began = Instant::now();
        tracing::info!(unread, "parked mail is still being read; mail flows meanwhile");
        while let Ok(batch) = reading.batches.recv() {
            if self.stop.is_cancelled() {
                break;
            }
            let settled = batch.settled;
            let mut state = self.state.lock();
            gathered.take(&mut state, batch);
            self.damaged.lock().append(&mut gathered.damaged);
            let (ready, next) = state.insert_all_parked(std::mem::take(&mut gathered.entries), self.clock.now());
            self.unread.send_modify(|unread| *unread = unread.saturating_sub(settled));
            ready.into_iter().for_each(|dest| self.kick(&mut state, dest));
            drop(state);
            self.wake_schedule_at(next);
        }
        let stopped = self.stop.is_cancelled();
        if let Err(error) = reading.end() {
            tracing::error!(%error, "parked mail cannot be read to the end; what is left is not tried before a restart");
            self.damaged.lock().push(error.to_string());
        }
        if stopped {
            return;
        }
        // Those whose reading failed are not in the index either: the next start reads them.
        self.unread.send_replace(0);
        self.keeper.unindexed(gathered.read);
        tracing::info!(seconds = began.elapsed().as_secs(), from_index = gathered.known, "all parked mail is read");
    }

    /// Whether everything parked is in the schedule.
    pub(crate) fn is_whole(&self) -> bool {
        *self.unread.borrow() == 0
    }

    /// Waits until everything parked is in the schedule, or the queue stops.
    pub(crate) async fn whole(&self) {
        let mut unread: watch::Receiver<usize> = self.unread.subscribe();
        tokio::select! {
            _ = unread.wait_for(|unread| *unread == 0) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

fn parked_of_index(entry: &IndexEntry) -> Parked {
    Parked {
        received: entry.received,
        deadline: entry.deadline,
        from: entry.from,
        sender: entry.sender,
        domain: entry.domain,
        recipients: entry.recipients,
        flags: entry.flags,
        priority: entry.priority,
        jobs: Jobs::of(Vec::new()),
    }
}

type Names = Vec<((Kind, Destination), UnixMillis)>;

/// What the schedule keeps of an envelope, and the destinations of what is left to do with the next attempt at each.
pub(crate) fn parked_of_envelope(envelope: &Envelope, transports: &Transports, times: &Times, now: UnixMillis) -> (Parked, Names) {
    let mut names: Names = Vec::new();
    let open = |r: &&Recipient| !r.status.is_settled();
    for (recipient, name) in envelope.recipients.iter().zip(transports.names(envelope)).filter(|(r, _)| open(r)) {
        let held = recipient.status == Status::Held;
        let next = if held { UnixMillis::MAX } else { recipient.next_attempt.unwrap_or(0).max(envelope.hold_until.unwrap_or(0)) };
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, earliest)) => *earliest = next.min(*earliest),
            None => names.push((name, next)),
        }
    }
    let recipients = envelope.recipients.iter().filter(open).count();
    let mut flags = ParkedFlags::default();
    flags.set(ParkedFlags::HELD, envelope.recipients.iter().any(|r| r.status == Status::Held));
    let parked = Parked {
        received: envelope.received,
        deadline: times.next_deadline(envelope, now),
        from: from_key(envelope),
        sender: sender_key(envelope),
        domain: domain_key(envelope),
        recipients: u16::try_from(recipients).unwrap_or(u16::MAX),
        flags,
        priority: envelope.priority,
        jobs: Jobs::of(Vec::new()),
    };
    (parked, names)
}
