//! What waits for the thread that writes the journal, and what wakes it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::committer::{JournalError, Placed};
use super::notes::{Note, Position};
use super::record::{Kind, span, u64_at};
use super::writer::Record;
use crate::id::QueueId;

/// How long a note that nobody waits for may wait for company. It is written then, and synced with whatever is synced next.
const LAZY: Duration = Duration::from_millis(5);

/// A message to be appended.
#[derive(Debug)]
pub(crate) struct NewMessage {
    pub(crate) kind: Kind,
    /// From [`super::message_head`].
    pub(crate) head: Bytes,
    /// What follows it: header fields added before the body, and the body unless it is a file.
    pub(crate) rest: [Bytes; 2],
}

impl NewMessage {
    /// Octets of its record's payload.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

pub(super) enum Item {
    /// `alone`: no notes came with it that say more than itself.
    Message {
        crc: u32,
        message: NewMessage,
        alone: bool,
        answer: Answer<Placed>,
    },
    Note {
        kind: Kind,
        payload: Vec<u8>,
    },
    Flush(Answer<Position>),
}

impl Item {
    pub(super) fn note(note: &Note) -> Self {
        Self::Note { kind: note.kind(), payload: note.encode() }
    }

    pub(super) fn record(&self) -> Option<Record<'_>> {
        match self {
            Self::Message { crc, message, .. } => Some(Record::message(message.kind, *crc, &message.head, &message.rest)),
            Self::Note { kind, payload } => Some(Record::note(*kind, payload)),
            Self::Flush(_) => None,
        }
    }

    pub(super) fn span(&self) -> u64 {
        match self {
            Self::Message { message, .. } => span(message.len()),
            Self::Note { payload, .. } => span(payload.len()),
            Self::Flush(_) => 0,
        }
    }

    /// What takes a message back. Not one that came with notes: a report that is taken back would leave the failure of which it tells.
    pub(super) fn withdrawal(&self) -> Option<Note> {
        match self {
            Self::Message { message, alone: true, .. } => Some(Note::Parked(QueueId(u64_at(&message.head, 0)?))),
            _ => None,
        }
    }

    /// Whether someone waits until it is durable.
    pub(super) fn wants_sync(&self) -> bool {
        !matches!(self, Self::Note { .. })
    }

    pub(super) fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }

    pub(super) fn refuse(self, error: &JournalError) {
        match self {
            Self::Message { answer, .. } => _ = answer.send(Err(error.clone())),
            Self::Flush(answer) => _ = answer.send(Err(error.clone())),
            Self::Note { .. } => {}
        }
    }
}

/// The thread's inbox.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    items: Vec<Item>,
    /// Messages among them.
    messages: usize,
    /// Someone waits for one of them.
    awaited: bool,
    /// There is a note that is to be written at once.
    urgent: bool,
    /// `None`: the thread does not sleep.
    sleep: Option<Sleep>,
    stop: bool,
}

/// What the thread sleeps for.
#[derive(Clone, Copy)]
enum Sleep {
    /// For anything.
    Idle,
    /// For anything urgent: there are notes that can wait a little.
    Lazy,
    /// For so many messages, or anything urgent.
    Gathering(usize),
}

impl State {
    fn has_work(&self, wanted: Sleep) -> bool {
        self.stop
            || self.urgent
            || match wanted {
                Sleep::Lazy => self.awaited,
                Sleep::Idle => !self.items.is_empty(),
                Sleep::Gathering(enough) => self.messages >= enough,
            }
    }

    fn take(&mut self) -> Vec<Item> {
        (self.messages, self.awaited, self.urgent) = (0, false, false);
        std::mem::take(&mut self.items)
    }
}

impl Inbox {
    /// Puts items in, in one piece. `urgent`: they are written at once even when nobody waits for them.
    pub(super) fn push(&self, items: impl Iterator<Item = Item>, urgent: bool) {
        let mut state = self.state.lock();
        if state.stop {
            drop(state);
            items.for_each(|item| item.refuse(&JournalError::Closed));
            return;
        }
        for item in items {
            state.messages += usize::from(item.is_message());
            state.awaited |= item.wants_sync();
            state.items.push(item);
        }
        state.urgent |= urgent;
        let wake = state.sleep.is_some_and(|wanted| state.has_work(wanted));
        if wake {
            // Once is enough.
            state.sleep = None;
        }
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Takes no more, and has the thread end once all is written.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_one();
    }

    /// As [`Self::stop`]; what waits is handed back.
    pub(super) fn close(&self) -> Vec<Item> {
        let mut state = self.state.lock();
        state.stop = true;
        state.take()
    }

    /// What to write next; `None` once stopped and empty.
    pub(super) fn next(&self) -> Option<Vec<Item>> {
        let mut state = self.state.lock();
        self.sleep(&mut state, Sleep::Idle, None);
        self.sleep(&mut state, Sleep::Lazy, Some(Instant::now() + LAZY));
        let items = state.take();
        (!items.is_empty() || !state.stop).then_some(items)
    }

    /// What came until then, or until something urgent comes, or `enough` messages.
    pub(super) fn gather(&self, enough: usize, until: Instant) -> Vec<Item> {
        let mut state = self.state.lock();
        self.sleep(&mut state, Sleep::Gathering(enough), Some(until));
        state.take()
    }

    /// How many messages wait.
    pub(super) fn messages(&self) -> usize {
        self.state.lock().messages
    }

    fn sleep(&self, state: &mut MutexGuard<'_, State>, wanted: Sleep, until: Option<Instant>) {
        while !state.has_work(wanted) {
            state.sleep = Some(wanted);
            let timed_out = match until {
                Some(until) => self.wake.wait_until(state, until).timed_out(),
                None => {
                    self.wake.wait(state);
                    false
                }
            };
            state.sleep = None;
            if timed_out {
                return;
            }
        }
    }
}
