//! The thread that writes the journal: gathers what waits, writes it, syncs once, wakes everyone who waited. A lone message goes at once,
//! company shares a flush ([`super::company`] says when it is worth waiting for).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::company::Company;
use super::inbox::{Inbox, Item, NewMessage};
use super::notes::{Note, Position, Start};
use super::record::{END_SPAN, HEADER, span};
use super::segment::{Hold, Pool, Segment};
use super::writer::{Record, Writer};
use crate::disk::{Disk, DiskFile, is_full};
use crate::id::Ids;

/// Octets written before their waiters are woken, at most: company should not make a message late.
const BATCH: u64 = 8 << 20;

/// Why the journal took nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum JournalError {
    /// No room for another segment. What was accepted before is safe.
    #[error("the disk is full: {0}")]
    Full(Arc<str>),
    /// A write or a flush failed. The journal takes nothing more in this process: what the kernel holds of it can no longer be trusted.
    #[error("the journal failed: {0}")]
    Failed(Arc<str>),
    /// An envelope or a body larger than a segment.
    #[error("the message does not fit a journal segment")]
    TooLarge,
    /// The queue is shut.
    #[error("the queue is shut")]
    Closed,
}

/// Where a message ended up.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Keeps the segment until the message is settled or parked.
    pub(crate) hold: Hold,
    /// Where `rest` begins in the segment.
    pub(crate) rest_at: u64,
}

impl Placed {
    pub(crate) fn file(&self) -> &Arc<DiskFile> {
        &self.hold.0.file
    }
}

/// The handle to the thread.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    writer: Mutex<Writer>,
    inbox: Inbox,
    company: Mutex<Company>,
    /// Segments that were written and not taken back yet, oldest first; the one being written is the last.
    segments: Mutex<VecDeque<Arc<Segment>>>,
    failed: Mutex<Option<Arc<str>>>,
    /// Notes were written that no sync covers yet.
    unsynced: AtomicBool,
    commits: AtomicU64,
    largest: u64,
}

impl Journal {
    /// Opens a segment and starts the thread. `old` are the segments that a replay left in use, oldest first.
    pub(crate) fn start(disk: Arc<dyn Disk>, pool: Arc<Pool>, start: Start, old: Vec<Arc<Segment>>, ids: Arc<Ids>) -> io::Result<Self> {
        let segment = Arc::new(pool.take()?);
        let mut segments: VecDeque<_> = old.into();
        segments.push_back(Arc::clone(&segment));
        let largest = pool.segment_size().saturating_sub(END_SPAN + 4096);
        let mut writer = Writer { disk: Arc::clone(&disk), pool, start, ids, segment, at: 0, synced: 0 };
        writer.open_segment()?;
        let shared = Arc::new(Shared {
            disk,
            writer: Mutex::new(writer),
            inbox: Inbox::default(),
            company: Mutex::default(),
            segments: Mutex::new(segments),
            failed: Mutex::new(None),
            unsynced: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            largest,
        });
        let committer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || committer.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Appends messages and notes in one piece: a crash finds all of them or a part from the front. The answer comes once all is durable.
    pub(crate) fn append(&self, message: NewMessage, notes: &[Note]) -> oneshot::Receiver<Result<Placed, JournalError>> {
        let (answer, receiver) = oneshot::channel();
        let too_large = span(message.len()) > self.shared.largest;
        if let Some(error) = self.error().or(too_large.then_some(JournalError::TooLarge)) {
            _ = answer.send(Err(error));
            return receiver;
        }
        // The sum over the payload is taken here, in the sessions' threads, which are many.
        let crc = message.rest.iter().fold(crc32c::crc32c(&message.head), |crc, part| crc32c::crc32c_append(crc, part));
        let first = Item::Message { crc, message, alone: notes.is_empty(), answer };
        self.shared.inbox.push(std::iter::once(first).chain(notes.iter().map(Item::note)), false);
        receiver
    }

    /// Appends a note that nobody waits for. `urgent`: at once; otherwise within milliseconds.
    pub(crate) fn note(&self, note: &Note, urgent: bool) {
        if self.error().is_none() {
            self.shared.inbox.push(std::iter::once(Item::note(note)), urgent);
        }
    }

    /// Writes a note before it returns, so that it is lost only with the machine and not with the process. Takes a few microseconds.
    pub(crate) fn note_now(&self, note: &Note) {
        if self.error().is_some() {
            return;
        }
        let payload = note.encode();
        let record = Record::note(note.kind(), &payload);
        let mut writer = self.shared.writer.lock();
        if !writer.has_room(record.header.span()) {
            drop(writer);
            self.shared.inbox.push(std::iter::once(Item::note(note)), true);
            return;
        }
        match writer.put(&[record]) {
            Ok(()) => self.shared.unsynced.store(true, Ordering::Release),
            Err(error) => _ = self.shared.fail(&error.to_string()),
        }
    }

    /// A flush of the mail folder has failed: a start during the same boot of the machine, which would otherwise believe what mailboxes are
    /// noted to have taken, delivers again whatever no earlier flush covers.
    pub(crate) fn distrust(&self) {
        let start = {
            let mut writer = self.shared.writer.lock();
            // For the segments to come, too.
            writer.start.boot.clear();
            writer.start.clone()
        };
        self.shared.last_words(&[Note::Start(start)]);
    }

    /// Makes everything appended so far durable, and says where that ends.
    pub(crate) fn flush(&self) -> oneshot::Receiver<Result<Position, JournalError>> {
        let (answer, receiver) = oneshot::channel();
        match self.error() {
            Some(error) => _ = answer.send(Err(error)),
            None => self.shared.inbox.push(std::iter::once(Item::Flush(answer)), false),
        }
        receiver
    }

    /// Why it takes nothing more, if so.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.shared.failed.lock().clone()
    }

    /// Whether something was written that no sync covers yet.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.shared.unsynced.load(Ordering::Acquire)
    }

    /// Flushes of the disk so far.
    pub(crate) fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// How many segments are in use, the one being written included.
    pub(crate) fn segments(&self) -> usize {
        self.shared.segments.lock().len()
    }

    /// The generation of the oldest segment, when it is not the one being written.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let segments = self.shared.segments.lock();
        (segments.len() > 1).then(|| segments.front().map(|s| s.generation)).flatten()
    }

    /// The segments from the oldest on that no message needs any more; never the one being written. They stay in use until
    /// [`Journal::release`], since a later one may hold the fates of messages in an earlier one.
    pub(crate) fn releasable(&self) -> usize {
        let segments = self.shared.segments.lock();
        segments.iter().take(segments.len().saturating_sub(1)).take_while(|s| s.live() == 0).count()
    }

    /// Takes up to `count` segments out of use, oldest first. The caller has made durable all that happened to their messages.
    pub(crate) fn release(&self, count: usize) -> Vec<Segment> {
        let mut segments = self.shared.segments.lock();
        let mut out = Vec::new();
        while out.len() < count && segments.len() > 1 && segments.front().is_some_and(|s| s.is_free()) {
            let Some(segment) = segments.pop_front() else { break };
            match Arc::try_unwrap(segment) {
                Ok(segment) => out.push(segment),
                Err(shared) => {
                    segments.push_front(shared);
                    break;
                }
            }
        }
        out
    }

    /// Writes and syncs what waits, then ends the thread. Blocks for as long as that takes.
    pub(crate) fn close(&self) {
        self.shared.inbox.stop();
        if let Some(thread) = self.thread.lock().take() {
            _ = thread.join();
        }
    }

    fn error(&self) -> Option<JournalError> {
        self.failure().map(JournalError::Failed)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Items that were written together, and where.
struct Chunk {
    items: Vec<Item>,
    segment: Arc<Segment>,
    start: u64,
    end: u64,
}

fn messages(chunks: &[Chunk]) -> usize {
    chunks.iter().flat_map(|chunk| &chunk.items).filter(|item| item.is_message()).count()
}

/// Whether that is enough for one flush.
fn is_much(chunks: &[Chunk]) -> bool {
    chunks.iter().map(|chunk| chunk.end - chunk.start).sum::<u64>() >= BATCH
}

impl Chunk {
    /// Tells those who wait that it is durable.
    fn answer(self) {
        let mut at = self.start;
        for item in self.items {
            let next = at + item.span();
            match item {
                Item::Message { message, answer, .. } => {
                    let placed = Placed { hold: Hold::new(&self.segment), rest_at: at + HEADER as u64 + message.head.len() as u64 };
                    _ = answer.send(Ok(placed));
                }
                Item::Flush(answer) => {
                    _ = answer.send(Ok(Position { generation: self.segment.generation, offset: self.end }));
                }
                Item::Note { .. } => {}
            }
            at = next;
        }
    }
}

impl Shared {
    /// The thread.
    fn run(self: Arc<Self>) {
        // Should this thread ever panic, nobody may wait for it forever.
        struct Fuse(Arc<Shared>);
        impl Drop for Fuse {
            fn drop(&mut self) {
                let left = self.0.inbox.close();
                if std::thread::panicking() {
                    self.0.fail("its thread ended unexpectedly");
                }
                left.into_iter().for_each(|item| item.refuse(&JournalError::Closed));
            }
        }
        let fuse = Fuse(self);
        while let Some(items) = fuse.0.inbox.next() {
            fuse.0.write_all(items);
        }
        if fuse.0.failed.lock().is_none()
            && let Err(error) = fuse.0.sync()
        {
            fuse.0.fail(&error.to_string());
        }
    }

    /// Writes items as they are, then lets what comes shortly after join their flush. Nothing that was taken out of the inbox waits unwritten.
    fn write_all(&self, items: Vec<Item>) {
        let mut waiting: VecDeque<Item> = items.into();
        let (mut chunks, began) = (Vec::new(), Instant::now());
        loop {
            self.write(&mut waiting, &mut chunks);
            let messages = messages(&chunks);
            let wait = if messages > 0 && !is_much(&chunks) { self.company.lock().wait(messages, began) } else { None };
            // Urgent notes may come without end, and nobody's flush shall wait for that.
            let Some(wait) = wait.filter(|wait| Instant::now() < wait.until) else { break };
            waiting.extend(self.inbox.gather(wait.more, wait.until));
            if waiting.is_empty() {
                break;
            }
        }
        self.commit(chunks);
    }

    /// Writes all items; what was written and waits for its flush is in `chunks`.
    fn write(&self, waiting: &mut VecDeque<Item>, chunks: &mut Vec<Chunk>) {
        while !waiting.is_empty() {
            if let Some(reason) = self.failed.lock().clone() {
                waiting.drain(..).for_each(|item| item.refuse(&JournalError::Failed(Arc::clone(&reason))));
                return;
            }
            if is_much(chunks) {
                self.commit(std::mem::take(chunks));
            }
            match self.write_some(waiting, chunks.is_empty()) {
                Ok(Some(chunk)) => chunks.push(chunk),
                Ok(None) => self.commit(std::mem::take(chunks)),
                // The room that is left in the segment still serves notes, which let what was accepted be finished.
                Err(error) if is_full(&error) => {
                    if let Some(item) = waiting.pop_front() {
                        item.refuse(&JournalError::Full(error.to_string().into()));
                    }
                }
                Err(error) => _ = self.fail(&error.to_string()),
            }
        }
    }

    /// Writes as many of the items as fit the segment and one flush, after changing to the next segment if not one fits. Where it may not change,
    /// since what waits in this segment must be flushed before, the answer is `None`: the change flushes it, too, and a flush that failed may
    /// never be followed by one that is believed.
    fn write_some(&self, waiting: &mut VecDeque<Item>, may_change: bool) -> io::Result<Option<Chunk>> {
        let mut writer = self.writer.lock();
        if waiting.front().is_some_and(|item| !writer.has_room(item.span())) {
            if !may_change {
                return Ok(None);
            }
            let segment = writer.rotate()?;
            self.segments.lock().push_back(segment);
        }
        let mut items = Vec::with_capacity(waiting.len());
        let mut octets = 0;
        while let Some(item) = waiting.front() {
            let more = octets + item.span();
            if !writer.has_room(more) || (more > BATCH && !items.is_empty()) {
                break;
            }
            octets = more;
            items.extend(waiting.pop_front());
        }
        let start = writer.at;
        let records: Vec<Record<'_>> = items.iter().filter_map(Item::record).collect();
        let result = writer.put(&records);
        drop(records);
        self.unsynced.store(true, Ordering::Release);
        if let Err(error) = result {
            drop(writer);
            self.refuse_written(items, &error);
            return Err(io::Error::other(error.to_string()));
        }
        Ok(Some(Chunk { items, segment: Arc::clone(&writer.segment), start, end: writer.at }))
    }

    /// Syncs what was written, if anyone waits for that, and answers.
    fn commit(&self, chunks: Vec<Chunk>) {
        if chunks.iter().flat_map(|chunk| &chunk.items).any(Item::wants_sync) {
            let began = Instant::now();
            if let Err(error) = self.sync() {
                self.refuse_written(chunks.into_iter().flat_map(|chunk| chunk.items).collect(), &error);
                return;
            }
            match messages(&chunks) {
                0 => {}
                served => self.company.lock().note(began.elapsed(), served, self.inbox.messages()),
            }
        }
        chunks.into_iter().for_each(Chunk::answer);
    }

    /// Refuses what was written and did not become durable. The next start may find it all the same, and what was refused shall not be
    /// delivered then; so that is written, too.
    fn refuse_written(&self, items: Vec<Item>, error: &io::Error) {
        let reason = self.fail(&error.to_string());
        let withdrawn: Vec<Note> = items.iter().filter_map(Item::withdrawal).collect();
        self.last_words(&withdrawn);
        items.into_iter().for_each(|item| item.refuse(&JournalError::Failed(Arc::clone(&reason))));
    }

    /// Writes notes whatever failed before. Nobody relies on them; a start during this boot of the machine reads what the kernel holds.
    fn last_words(&self, notes: &[Note]) {
        let mut writer = self.writer.lock();
        for note in notes {
            let payload = note.encode();
            let record = Record::note(note.kind(), &payload);
            if !writer.has_room(record.header.span()) || writer.put(&[record]).is_err() {
                return;
            }
        }
        self.unsynced.store(true, Ordering::Release);
    }

    /// Makes durable what was written before this call.
    fn sync(&self) -> io::Result<()> {
        let (segment, end) = {
            let writer = self.writer.lock();
            if writer.synced == writer.at {
                return Ok(());
            }
            (Arc::clone(&writer.segment), writer.at)
        };
        self.disk.sync_data(&segment.file)?;
        let mut writer = self.writer.lock();
        // This thread alone changes segments, so it is the same one still.
        writer.synced = end;
        self.unsynced.store(writer.at > end, Ordering::Release);
        drop(writer);
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fail(&self, reason: &str) -> Arc<str> {
        let mut failed = self.failed.lock();
        let first = failed.is_none();
        let reason = Arc::clone(failed.get_or_insert_with(|| reason.into()));
        if first {
            tracing::error!(%reason, "the journal cannot be written: no mail is accepted until the disk is looked after and the daemon restarted");
        }
        reason
    }
}

#[cfg(test)]
#[path = "committer_tests.rs"]
pub(crate) mod tests;
