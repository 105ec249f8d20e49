//! The queue itself: what it is made of, and taking responsibility for a message.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use pillarbox_smtp::Mailbox;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::body::{Body, Inner, blocking};
use crate::body_file::BodyFile;
use crate::body_writer::BodyWriter;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::deferred::Deferred;
use crate::disk::{Disk, is_full};
use crate::envelope::{Envelope, Recipient, UnixMillis};
use crate::health::Space;
use crate::id::{Ids, QueueId};
use crate::journal::{FileRef, Journal, JournalError, Kind, NewMessage, Note, Placed, Pool, message_head};
use crate::keeper::Keeper;
use crate::lease::Lease;
use crate::report::BounceLimit;
use crate::schedule::{NewLive, Place, State, Times, Transports};

/// What the queue asks of the daemon.
#[async_trait::async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// Resolves an address that a report goes to: its recipients with their routes; none when there is nobody.
    async fn route(&self, address: &Mailbox) -> std::io::Result<Vec<Recipient>>;
}

/// Why a message was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AcceptError {
    /// Less than `limits.free_space` is left: 452 4.3.1.
    #[error("the disk is nearly full ({free} octets are free)")]
    DiskFull {
        /// Octets left on the file system of the queue, or of the mail.
        free: u64,
    },
    /// The journal failed; nothing is taken until the daemon is restarted: 451 4.3.0.
    #[error("the journal failed: {0}")]
    Journal(String),
    /// The message's file could not be made durable: 451 4.3.0.
    #[error("the message could not be stored: {0}")]
    Storage(String),
    /// More recipients or a larger envelope than the queue can keep.
    #[error("the envelope is too large")]
    TooLarge,
    /// An envelope without a recipient.
    #[error("the message has no recipient")]
    NoRecipient,
    /// Another node may have the queue's folder by now: 451 4.3.0.
    #[error("this node's lease on its queue has run out")]
    NoLease,
    /// The queue is shutting down: 421 4.3.2.
    #[error("the queue is shutting down")]
    ShuttingDown,
}

/// Takes responsibility for messages and sees to their delivery.
pub struct Queue {
    pub(crate) me: Weak<Queue>,
    pub(crate) folder: PathBuf,
    pub(crate) mail: PathBuf,
    pub(crate) hostname: String,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) times: Times,
    pub(crate) budget: Arc<Budget>,
    pub(crate) journal: Journal,
    pub(crate) pool: Arc<Pool>,
    pub(crate) deferred: Deferred,
    pub(crate) transports: Transports,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) state: Mutex<State>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) space: Space,
    pub(crate) keeper: Keeper,
    pub(crate) bounces: Mutex<BounceLimit>,
    /// Held by who wants nothing to be forgotten.
    pub(crate) remembered: Arc<()>,
    /// The messages that the journal knew at the start, until they are asked for.
    pub(crate) earlier: Mutex<HashSet<QueueId>>,
    /// What start-up could not read, for people.
    pub(crate) damaged: Mutex<Vec<String>>,
    /// Mail was stored in mailboxes since the last [`crate::Transport::sync`].
    pub(crate) unsynced_mail: AtomicBool,
    /// The next sync of mail covers what an earlier process stored, too.
    pub(crate) unsynced_before: AtomicBool,
    /// Why mail could not be made durable, while that lasts.
    pub(crate) sync_error: Mutex<Option<String>>,
    /// Until when the schedule sleeps.
    pub(crate) sleeps_until: AtomicU64,
    pub(crate) tick: Notify,
    /// A run ended, or something else changed that a shut-down waits for.
    pub(crate) changed: Notify,
    pub(crate) deadlines: mpsc::UnboundedSender<QueueId>,
    pub(crate) runtime: Handle,
    /// Keeps a second daemon out, until the shut-down is over.
    pub(crate) lock: Mutex<Option<File>>,
    pub(crate) lease: Lease,
    /// Ends the queue's own tasks.
    pub(crate) stop: CancellationToken,
}

/// A body in the form in which the journal takes it.
enum Storable {
    Inline { prefix: Bytes, content: Bytes, body: Body },
    File { prefix: Bytes, file: Arc<BodyFile>, body: Body },
}

impl Queue {
    /// A fresh id. Never given out twice, not even after a restart or a jump of the clock.
    pub fn new_id(&self) -> QueueId {
        self.ids.next(self.clock.now())
    }

    /// Collects a body: in memory up to 4 MiB (a quarter of a small journal segment) within `limits.body_memory`, beyond that in a file under `queue/spool/`.
    pub fn body_writer(&self) -> BodyWriter {
        let path = self.folder.join("spool").join(format!("{}.msg", self.new_id()));
        BodyWriter::new(Arc::clone(&self.disk), &self.budget, path)
    }

    /// What to answer at MAIL: `Err` when no message can be taken now.
    pub fn admission(&self) -> Result<(), AcceptError> {
        if !self.lease.holds() {
            return Err(AcceptError::NoLease);
        }
        if let Some(reason) = self.journal.failure() {
            return Err(AcceptError::Journal(reason.to_string()));
        }
        self.space.check(&*self.disk, self.clock.now()).map_err(|free| AcceptError::DiskFull { free })
    }

    /// Returns once the message survives a power cut; from then on it is ours. `size` is set from the body, `received` unless it is given.
    ///
    /// When the caller goes away before the answer, the message may have been taken or not, as with any lost answer.
    pub async fn accept(&self, envelope: Envelope, body: Body) -> Result<QueueId, AcceptError> {
        self.admission()?;
        let id = self.accept_with(envelope, body, &[], false).await?;
        // A flush may take long, and whoever took the folder over meanwhile may not have seen this message: rather twice than not at all.
        if self.lease.holds() { Ok(id) } else { Err(AcceptError::NoLease) }
    }

    /// [`Queue::accept`] without asking for room, together with notes that are true once it is durable. `replayed`: another process may have
    /// delivered some of it.
    pub(crate) async fn accept_with(
        &self,
        mut envelope: Envelope,
        body: Body,
        notes: &[Note],
        replayed: bool,
    ) -> Result<QueueId, AcceptError> {
        self.complete(&mut envelope, &body)?;
        let id = envelope.id;
        let storable = self.storable(body).await?;
        let (message, body, prefix, file) = match storable {
            Storable::Inline { prefix, content, body } => {
                let head = head(&envelope, None)?;
                (NewMessage { kind: Kind::Message, head, rest: [prefix.clone(), content] }, body, prefix, None)
            }
            Storable::File { prefix, file, body } => {
                let name = file.path().file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
                let reference = FileRef { name, len: file.len, crc: file.crc };
                let head = head(&envelope, Some(&reference))?;
                (NewMessage { kind: Kind::FileMessage, head, rest: [prefix.clone(), Bytes::new()] }, body, prefix, Some(file))
            }
        };
        let pending = Pending { queue: self, parts: Some(Parts { envelope, body, prefix, file, replayed }) };
        let mut waiting = Waiting { pending, answer: self.journal.append(message, notes), done: false };
        let result = (&mut waiting.answer).await;
        waiting.done = true;
        match result {
            Ok(Ok(placed)) => {
                waiting.pending.insert(placed);
                metrics::counter!("pillarbox_queue_accepted_total").increment(1);
                Ok(id)
            }
            Ok(Err(error)) => Err(self.refusal(error)),
            Err(_) => Err(AcceptError::ShuttingDown),
        }
    }

    /// Fills in what the queue knows, and refuses what it cannot keep.
    pub(crate) fn complete(&self, envelope: &mut Envelope, body: &Body) -> Result<(), AcceptError> {
        if envelope.recipients.is_empty() {
            return Err(AcceptError::NoRecipient);
        }
        if envelope.recipients.len() > usize::from(u16::MAX) {
            return Err(AcceptError::TooLarge);
        }
        envelope.size = body.len();
        if envelope.received == 0 {
            envelope.received = self.clock.now();
        }
        let id = envelope.id;
        if self.state.lock().messages.contains_key(&id) {
            return Err(AcceptError::Storage(format!("{id} is in the queue already")));
        }
        Ok(())
    }

    fn refusal(&self, error: JournalError) -> AcceptError {
        match error {
            JournalError::Full(_) => AcceptError::DiskFull { free: self.space.free() },
            JournalError::Failed(reason) => AcceptError::Journal(reason.to_string()),
            JournalError::TooLarge => AcceptError::TooLarge,
            JournalError::Closed => AcceptError::ShuttingDown,
        }
    }

    /// Brings a body into a form that the journal takes: small and in memory, or a durable file under `spool/`.
    async fn storable(&self, body: Body) -> Result<Storable, AcceptError> {
        let storage = |error: std::io::Error| {
            if is_full(&error) { AcceptError::DiskFull { free: self.space.free() } } else { AcceptError::Storage(error.to_string()) }
        };
        let largest = self.pool.largest_body();
        let (prefix, inner) = body.parts();
        match inner {
            Inner::Memory(content, _) if body.len() <= largest => {
                return Ok(Storable::Inline { prefix: prefix.clone(), content: content.clone(), body });
            }
            Inner::File(file) if prefix.len() as u64 <= largest && self.is_spooled(file) => {
                let (prefix, file) = (prefix.clone(), Arc::clone(file));
                let syncing = Arc::clone(&file);
                blocking(move || syncing.persist()).await.map_err(storage)?;
                return Ok(Storable::File { prefix, file, body });
            }
            _ => {}
        }
        // Anything else is read and brought into one of the two forms.
        if body.len() <= largest {
            let content = body.bytes().await.map_err(storage)?;
            return Ok(Storable::Inline { prefix: Bytes::new(), content: content.clone(), body: Body::from_bytes(content) });
        }
        let mut writer = self.body_writer();
        let mut chunks = body.chunks();
        while let Some(chunk) = futures::StreamExt::next(&mut chunks).await {
            writer.write(&chunk.map_err(storage)?).await.map_err(storage)?;
        }
        let body = writer.finish().await.map_err(storage)?;
        match body.parts().1 {
            Inner::File(file) => {
                let (file, syncing) = (Arc::clone(file), Arc::clone(file));
                blocking(move || syncing.persist()).await.map_err(storage)?;
                Ok(Storable::File { prefix: Bytes::new(), file, body })
            }
            _ => Err(AcceptError::Storage("a large body was not written to a file".into())),
        }
    }

    /// Whether it is a file that a body writer of this queue wrote and no other message has.
    fn is_spooled(&self, file: &BodyFile) -> bool {
        file.is_fresh() && file.path().parent().is_some_and(|folder| folder == self.folder.join("spool"))
    }

    /// Puts a durable message into the schedule.
    fn take_over(&self, parts: Parts, placed: Placed) {
        let Parts { envelope, body, prefix, file, replayed } = parts;
        let now = self.clock.now();
        let stored = match file {
            Some(_) => body.clone(),
            None => {
                let file = Arc::clone(placed.file());
                Body::new(Inner::Slice { file, offset: placed.rest_at, len: envelope.size })
            }
        };
        // Memory is kept for what is delivered at once; under pressure the journal is read again instead.
        let tight = self.budget.is_tight();
        let body = match body.parts().1 {
            Inner::Memory(..) if tight => stored.clone(),
            Inner::Memory(content, None) => match self.budget.lease_of(content.len() as u64) {
                Some(lease) => Body::new(Inner::Memory(content.clone(), Some(Arc::new(lease)))).prefixed(prefix),
                None => stored.clone(),
            },
            _ => body,
        };
        let names = self.transports.names(&envelope);
        let id = envelope.id;
        // Later ones are set when it is parked.
        let parking = now.saturating_add(crate::clock::millis(self.times.park_after));
        let early = Some(self.times.next_deadline(&envelope, now)).filter(|time| *time <= parking);
        let deadline = early.or(self.times.deliver_by(&envelope));
        let new = NewLive { envelope, body, place: Place::Journal { hold: placed.hold, stored }, replayed };
        let mut state = self.state.lock();
        let touched = state.insert(new, &names, now);
        state.fresh.push_back((now, id));
        if let Some(time) = deadline {
            state.wait_for_deadline(id, time);
        }
        let wake = deadline.unwrap_or(UnixMillis::MAX).min(self.park_time(&state));
        touched.into_iter().for_each(|dest| self.kick(&mut state, dest));
        drop(state);
        self.wake_schedule_at(wake);
    }
}

fn head(envelope: &Envelope, file: Option<&FileRef>) -> Result<Bytes, AcceptError> {
    message_head(envelope, file).map_err(|error| AcceptError::Storage(error.to_string()))
}

/// A message on its way into the journal.
struct Pending<'a> {
    queue: &'a Queue,
    parts: Option<Parts>,
}

/// What the schedule needs of a message once it is durable.
struct Parts {
    envelope: Envelope,
    body: Body,
    prefix: Bytes,
    file: Option<Arc<BodyFile>>,
    replayed: bool,
}

impl Pending<'_> {
    fn insert(&mut self, placed: Placed) {
        if let Some(parts) = self.parts.take() {
            self.queue.take_over(parts, placed);
        }
    }
}

/// Sees to it that a message which becomes durable is scheduled, even when nobody waits for the answer any more.
struct Waiting<'a> {
    pending: Pending<'a>,
    answer: tokio::sync::oneshot::Receiver<Result<Placed, JournalError>>,
    done: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (Some(parts), Some(queue)) = (self.pending.parts.take(), self.pending.queue.me.upgrade()) else { return };
        let (_, closed) = tokio::sync::oneshot::channel();
        let answer = std::mem::replace(&mut self.answer, closed);
        let runtime = queue.runtime.clone();
        runtime.spawn(async move {
            if let Ok(Ok(placed)) = answer.await {
                queue.take_over(parts, placed);
            }
        });
    }
}

impl Queue {
    /// Wakes the schedule when it would sleep beyond this time.
    pub(crate) fn wake_schedule_at(&self, time: UnixMillis) {
        if time < self.sleeps_until.load(Ordering::Acquire) {
            self.tick.notify_one();
        }
    }

    /// When the oldest message that was not parked yet grows too old.
    pub(crate) fn park_time(&self, state: &State) -> UnixMillis {
        state.fresh.front().map_or(UnixMillis::MAX, |(time, _)| time.saturating_add(crate::clock::millis(self.times.park_after)))
    }
}
