//! The thread that does the file work nobody waits for: parking, updates and removals under `deferred/`, making deliveries
//! durable, taking journal segments back.
//!
//! Its order is what keeps promises: mail handed to mailboxes is made durable before anything forgets it, and whatever
//! happened to the messages of a segment is durable before the segment is used again.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::body::{Body, Inner};
use crate::body_file::BodyFile;
use crate::envelope::{Envelope, UnixMillis};
use crate::id::QueueId;
use crate::journal::Note;
use crate::queue::Queue;
use crate::schedule::{Entry, Place};

/// The thread looks around this often when nobody asks for anything.
const PAUSE: Duration = Duration::from_secs(1);

/// Deliveries to mailboxes are made durable this often at least. A power cut replays those that were not.
const SYNC_EVERY: Duration = Duration::from_secs(10);

/// Files of finished messages are removed at the latest when they take this much.
const SPOOL_MOST: u64 = 128 << 20;

/// Messages parked in one go.
const PARK_BATCH: usize = 1000;

/// Segments in use above which messages are parked whatever their age.
const MOST_SEGMENTS: usize = 16;

/// The index of parked mail is written anew this often at most, once so many messages were parked, changed or removed.
const INDEX_EVERY: Duration = Duration::from_secs(600);
const INDEX_AFTER: usize = 1000;
/// With so many it is written sooner, lest a start after a kill has to read them all.
const INDEX_SOON: Duration = Duration::from_secs(60);
const INDEX_SOON_AFTER: usize = 50_000;

/// What waits for the thread.
#[derive(Default)]
pub(crate) struct Keeper {
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Default)]
struct Work {
    park: BTreeSet<QueueId>,
    update: HashSet<QueueId>,
    remove: HashSet<QueueId>,
    /// Their envelopes are gone; once that is durable, they go.
    messages: Vec<QueueId>,
    files: Vec<Arc<BodyFile>>,
    file_octets: u64,
    /// Someone wants everything done now.
    hurry: bool,
    stop: bool,
    ended: bool,
    rounds: u64,
}

impl Keeper {
    /// A message should move to files under `deferred/`.
    pub(crate) fn park(&self, id: QueueId) {
        self.work.lock().park.insert(id);
    }

    /// What `deferred/` says of a message is out of date.
    pub(crate) fn update(&self, id: QueueId) {
        self.work.lock().update.insert(id);
    }

    /// The files of a parked message have served.
    pub(crate) fn remove(&self, id: QueueId) {
        self.work.lock().remove.insert(id);
    }

    /// The file of a journalled message has served.
    pub(crate) fn drop_file(&self, file: Arc<BodyFile>) {
        let mut work = self.work.lock();
        work.file_octets = work.file_octets.saturating_add(file.len);
        work.files.push(file);
        if work.file_octets > SPOOL_MOST {
            work.hurry = true;
            self.wake.notify_all();
        }
    }

    /// Has the thread do now what it would do soon.
    pub(crate) fn hurry(&self) {
        self.work.lock().hurry = true;
        self.wake.notify_all();
    }

    /// Ends the thread after a last round.
    pub(crate) fn stop(&self) {
        self.work.lock().stop = true;
        self.wake.notify_all();
    }

    /// Waits until the thread has ended. Blocks.
    pub(crate) fn wait_end(&self) {
        let mut work = self.work.lock();
        while !work.ended {
            self.wake.wait(&mut work);
        }
    }

    /// Waits until a round that began after this call has ended. Blocks.
    #[cfg(test)]
    pub(crate) fn wait_round(&self) {
        let mut work = self.work.lock();
        let target = work.rounds + 2;
        while work.rounds < target && !work.stop {
            work.hurry = true;
            self.wake.notify_all();
            self.wake.wait_for(&mut work, Duration::from_millis(50));
        }
    }

    fn next(&self) -> (Work, bool) {
        let mut work = self.work.lock();
        if !work.hurry && !work.stop {
            self.wake.wait_for(&mut work, PAUSE);
        }
        let (stop, rounds) = (work.stop, work.rounds);
        let taken = std::mem::replace(&mut *work, Work { stop, rounds, ..Work::default() });
        (taken, stop)
    }

    fn ended_round(&self) {
        self.work.lock().rounds += 1;
        self.wake.notify_all();
    }

    /// Puts back what could not be done.
    fn again(&self, left: Work) {
        let mut work = self.work.lock();
        work.park.extend(left.park);
        work.update.extend(left.update);
        work.remove.extend(left.remove);
        work.messages.extend(left.messages);
        work.file_octets = work.file_octets.saturating_add(left.file_octets);
        work.files.extend(left.files);
    }
}

/// What the thread remembers between rounds.
struct Rounds {
    queue: Arc<Queue>,
    last_sync: Instant,
    last_index: Instant,
    changed_since_index: usize,
    complained: bool,
    /// Why the last mail that was to be parked was not.
    park_error: Option<String>,
    /// Why the mail folder could not be flushed, once. The kernel marks pages that it could not write as clean, so a later success would
    /// prove nothing: it counts as failed until a restart, which delivers again what no flush covers.
    mail_error: Option<String>,
}

/// The thread's whole life. `unindexed`: parked messages that the index did not have at the start.
pub(crate) fn run(queue: Arc<Queue>, unindexed: usize) {
    let now = Instant::now();
    let mut rounds = Rounds {
        queue,
        last_sync: now,
        last_index: now,
        changed_since_index: unindexed,
        complained: false,
        park_error: None,
        mail_error: None,
    };
    if unindexed > INDEX_AFTER {
        // Reading them took long; the next start need not do it again.
        rounds.save_index();
    }
    loop {
        let (work, stop) = rounds.queue.keeper.next();
        rounds.round(work, stop);
        rounds.queue.keeper.ended_round();
        if stop {
            break;
        }
    }
    let keeper = &rounds.queue.keeper;
    keeper.work.lock().ended = true;
    keeper.wake.notify_all();
}

/// Whether an error says that the process lacks something, and nothing about the disk.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = Errno::from_io_error(error);
    code.is_some_and(|code| matches!(code, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR))
}

impl Rounds {
    fn round(&mut self, mut work: Work, last: bool) {
        let result = self.work(&mut work, last);
        // More than fits one round waits for the next, which comes at once.
        let more = !work.park.is_empty() && result.is_ok();
        self.queue.keeper.again(work);
        if more {
            self.queue.keeper.hurry();
        }
        let error = result.err().map(|error| error.to_string()).or(self.park_error.clone());
        if let (Some(error), false) = (&error, self.complained) {
            tracing::error!(%error, "mail that was delivered or put off cannot be made durable; it is tried again, and nothing is forgotten meanwhile");
        }
        self.complained = error.is_some();
        *self.queue.sync_error.lock() = error;
        self.queue.gauges();
        if let Err(error) = self.queue.pool.refill() {
            tracing::warn!(%error, "no journal segment could be made ready");
        }
        let (changed, since) = (self.changed_since_index, self.last_index.elapsed());
        if (last && changed > 0) || (changed > INDEX_AFTER && since > INDEX_EVERY) || (changed > INDEX_SOON_AFTER && since > INDEX_SOON) {
            self.save_index();
        }
    }

    fn save_index(&mut self) {
        self.changed_since_index = 0;
        if let Err(error) = self.queue.save_index() {
            tracing::warn!(%error, "the index of parked mail could not be written; the next start takes longer");
        }
        self.last_index = Instant::now();
    }

    /// One round. What was done is taken out of `work`.
    fn work(&mut self, work: &mut Work, last: bool) -> io::Result<()> {
        let queue = Arc::clone(&self.queue);
        self.park_for_room(work);
        // First of all it is settled what this round is about: all of it was reported before the sync below begins.
        let releasable = if queue.must_remember() { 0 } else { queue.journal.releasable() };
        let parking = self.pick_parking(&mut work.park);
        let updates = self.pick_updates(&mut work.update);
        let late = work.hurry || self.last_sync.elapsed() >= SYNC_EVERY;
        let unsynced = queue.unsynced_mail.load(Ordering::Acquire);
        // A queue with nothing to do leaves the disk alone.
        let anything = unsynced || !work.files.is_empty() || !work.messages.is_empty();
        let forgets = !parking.is_empty() || !updates.is_empty() || !work.remove.is_empty();
        let mut position = None;
        if last || releasable > 0 || (late && anything) || (forgets && unsynced) {
            position = queue.journal.flush().blocking_recv().ok().and_then(Result::ok);
            queue.unsynced_mail.store(false, Ordering::Release);
            if let Err(error) = self.sync_mail() {
                queue.unsynced_mail.store(true, Ordering::Release);
                self.undo(work, parking, updates);
                return Err(error);
            }
            self.last_sync = Instant::now();
        } else if queue.journal.has_unsynced() {
            _ = queue.journal.flush().blocking_recv();
        }
        self.changed_since_index += parking.len() + updates.len() + work.remove.len();
        for id in std::mem::take(&mut work.remove) {
            match queue.deferred.remove_envelope(id) {
                Ok(()) => work.messages.push(id),
                Err(error) => {
                    work.remove.insert(id);
                    tracing::warn!(%id, %error, "the envelope of a finished message could not be removed");
                }
            }
        }
        let updated = self.update(&mut work.update, &updates);
        self.park(parking);
        updated?;
        let Some(position) = position else { return Ok(()) };
        queue.deferred.sync()?;
        for id in work.messages.drain(..) {
            if let Err(error) = queue.deferred.remove_message(id) {
                tracing::warn!(%id, %error, "the file of a finished message could not be removed; the next start does it");
            }
        }
        queue.journal.note(&Note::Synced(position), true);
        if queue.journal.flush().blocking_recv().is_ok_and(|r| r.is_ok()) {
            work.files.drain(..).for_each(|file| file.release());
            work.file_octets = 0;
            for segment in queue.journal.release(releasable) {
                queue.pool.recycle(segment)?;
            }
        }
        Ok(())
    }

    /// Makes durable what mailboxes took.
    fn sync_mail(&mut self) -> io::Result<()> {
        if let Some(error) = &self.mail_error {
            return Err(io::Error::other(error.clone()));
        }
        let Err(error) = self.flush_mail() else { return Ok(()) };
        if is_shortage(&error) {
            return Err(error);
        }
        let error = format!("{error}; restart the daemon once the disk is in order");
        self.queue.journal.distrust();
        self.mail_error = Some(error.clone());
        Err(io::Error::other(error))
    }

    fn flush_mail(&self) -> io::Result<()> {
        let queue = &self.queue;
        if queue.unsynced_before.load(Ordering::Acquire) {
            // A transport may know only of its own deliveries; those before the restart are synced with the whole file system.
            match queue.disk.sync_fs(&queue.mail) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => queue.unsynced_before.store(false, Ordering::Release),
            }
        }
        queue.runtime.block_on(queue.transports.mailbox.sync())
    }

    /// When many segments are in use, those who keep the oldest must leave it.
    fn park_for_room(&self, work: &mut Work) {
        if self.queue.journal.segments() <= MOST_SEGMENTS {
            return;
        }
        let Some(oldest) = self.queue.journal.oldest() else { return };
        let state = self.queue.state.lock();
        let keeps = |entry: &Entry| {
            matches!(entry, Entry::Live(live)
            if matches!(&live.place, Place::Journal { hold, .. } if hold.0.generation <= oldest))
        };
        work.park.extend(state.messages.iter().filter(|(_, entry)| keeps(entry)).map(|(id, _)| *id));
    }

    /// Takes down what is to be parked, as it is now.
    fn pick_parking(&self, wanted: &mut BTreeSet<QueueId>) -> Vec<(Envelope, Body)> {
        let mut batch = Vec::new();
        let mut state = self.queue.state.lock();
        while let (true, Some(id)) = (batch.len() < PARK_BATCH, wanted.pop_first()) {
            if let Some(Entry::Live(live)) = state.messages.get_mut(&id)
                && let Place::Journal { stored, .. } = &live.place
                && !live.parking
            {
                let body = if live.body.in_memory().is_some() { live.body.clone() } else { stored.clone() };
                batch.push((live.snapshot(), body));
                (live.parking, live.dirty) = (true, false);
            }
        }
        batch
    }

    /// Takes down what is to be written anew, as it is now.
    fn pick_updates(&self, wanted: &mut HashSet<QueueId>) -> Vec<Envelope> {
        let mut batch = Vec::new();
        let mut state = self.queue.state.lock();
        for id in wanted.drain() {
            if let Some(Entry::Live(live)) = state.messages.get_mut(&id)
                && matches!(live.place, Place::Deferred)
            {
                batch.push(live.snapshot());
                live.dirty = false;
            }
        }
        batch
    }

    /// Nothing was written of what was picked.
    fn undo(&self, work: &mut Work, parking: Vec<(Envelope, Body)>, updates: Vec<Envelope>) {
        let mut state = self.queue.state.lock();
        for (envelope, _) in parking {
            if let Some(Entry::Live(live)) = state.messages.get_mut(&envelope.id) {
                live.parking = false;
                work.park.insert(envelope.id);
            }
        }
        for envelope in updates {
            if let Some(Entry::Live(live)) = state.messages.get_mut(&envelope.id) {
                live.dirty = true;
                work.update.insert(envelope.id);
            }
        }
    }

    /// Writes messages to files under `deferred/`. Those for which that fails stay in the journal and are tried again later.
    fn park(&mut self, batch: Vec<(Envelope, Body)>) {
        if batch.is_empty() {
            return;
        }
        let queue = &self.queue;
        let (parked, failed) = match queue.deferred.park(&batch) {
            Ok((parked, failed)) => (parked, failed),
            Err(error) => (Vec::new(), Some(error)),
        };
        let parked: HashSet<QueueId> = parked.into_iter().collect();
        let now = queue.clock.now();
        for (envelope, _) in batch {
            queue.parked(envelope.id, parked.contains(&envelope.id), now);
        }
        self.park_error = failed.map(|error| format!("late mail cannot be written to {}: {error}", queue.deferred.root().display()));
    }

    /// Writes envelopes under `deferred/` anew.
    fn update(&self, wanted: &mut HashSet<QueueId>, batch: &[Envelope]) -> io::Result<()> {
        let queue = &self.queue;
        let result = queue.deferred.update(batch);
        let now = queue.clock.now();
        let mut state = queue.state.lock();
        for envelope in batch {
            match (&result, state.messages.get_mut(&envelope.id)) {
                (Err(_), Some(Entry::Live(live))) => {
                    live.dirty = true;
                    wanted.insert(envelope.id);
                }
                (Ok(()), Some(_)) => state.let_rest(envelope.id, &queue.times, now),
                // It was finished while it was written; its files are on the list of those to be removed, or were.
                (Ok(()), None) => queue.keeper.remove(envelope.id),
                _ => {}
            }
        }
        result
    }
}

impl Queue {
    /// Takes note that files stand for a message from here on, or that they could not be written.
    fn parked(&self, id: QueueId, success: bool, now: UnixMillis) {
        let mut state = self.state.lock();
        let Some(Entry::Live(live)) = state.messages.get_mut(&id) else {
            // It was finished meanwhile.
            drop(state);
            if success {
                self.keeper.remove(id);
            }
            return;
        };
        live.parking = false;
        if !success {
            // It stays in the journal and is tried again.
            state.fresh.push_back((now, id));
            return;
        }
        let body = match self.deferred.body(id) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%id, %error, "a message was parked and is not there");
                state.fresh.push_back((now, id));
                return;
            }
        };
        self.journal.note(&Note::Parked(id), false);
        live.body = body;
        let former = std::mem::replace(&mut live.place, Place::Deferred);
        // Whatever happened while it was written is written next.
        let dirty = live.dirty;
        let deadline = self.times.next_deadline(&live.envelope, now);
        state.wait_for_deadline(id, deadline);
        if dirty {
            self.keeper.update(id);
        }
        state.let_rest(id, &self.times, now);
        drop(state);
        self.wake_schedule_at(deadline);
        if let Place::Journal { stored, .. } = former
            && let Inner::File(file) = stored.parts().1
        {
            self.keeper.drop_file(Arc::clone(file));
        }
    }
}
