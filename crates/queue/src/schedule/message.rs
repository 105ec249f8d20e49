//! A queued message in memory: whole while something is done to it, a few dozen octets while it is parked.

use std::sync::Arc;

use crate::body::Body;
use crate::envelope::{Envelope, Status, UnixMillis};
use crate::journal::Hold;
use crate::schedule::{DestId, SenderKey};
use crate::transport::Outcome;

/// A message that the queue has taken responsibility for.
#[derive(Debug)]
pub(crate) enum Entry {
    Live(Box<Live>),
    Parked(Parked),
}

/// A message with its envelope in memory.
#[derive(Debug)]
pub(crate) struct Live {
    /// Statuses in here are brought up to date by [`Live::snapshot`] only; `fates` has them.
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) body: Body,
    pub(crate) place: Place,
    /// In the order of the envelope's recipients.
    pub(crate) fates: Vec<Fate>,
    pub(crate) sender: SenderKey,
    /// Deliveries under way.
    pub(crate) flying: u32,
    /// Earlier work of an earlier process may be found where it is delivered.
    pub(crate) replayed: bool,
    /// What is on disk under `deferred/` is no longer true.
    pub(crate) dirty: bool,
    /// The keeper is writing it to `deferred/`.
    pub(crate) parking: bool,
    /// What the sender must be told of, once nothing is under way.
    pub(crate) news: Vec<News>,
    /// A report is being made.
    pub(crate) reporting: bool,
}

/// Where a message survives a crash.
#[derive(Debug)]
pub(crate) enum Place {
    /// In the journal; the body as it can be read from there.
    Journal { hold: Hold, stored: Body },
    /// In files under `deferred/`.
    Deferred,
}

/// How a recipient stands.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    pub(crate) status: Status,
    pub(crate) dest: DestId,
    /// An attempt is under way.
    pub(crate) flying: bool,
    /// Failed for good, and not settled before the sender was told.
    pub(crate) failing: bool,
    /// An operator wants it removed once the attempt under way is over.
    pub(crate) removing: bool,
    /// When the next attempt is due; 0: it waits among those that are ready.
    pub(crate) next: UnixMillis,
}

/// Something to tell the sender.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) recipient: usize,
    pub(crate) what: NewsKind,
    /// The host that said it; empty when we found it ourselves.
    pub(crate) remote: String,
}

/// What to tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NewsKind {
    Delivered,
    Relayed(pillarbox_smtp::Reply),
    Failed(pillarbox_smtp::Reply),
    Delayed(Option<pillarbox_smtp::Reply>),
}

/// A message whose envelope is on disk only.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    pub(crate) received: UnixMillis,
    /// When something is due that no attempt brings: a delay report, giving up.
    pub(crate) deadline: UnixMillis,
    /// Stands for the reverse path.
    pub(crate) from: u32,
    pub(crate) sender: SenderKey,
    /// Stands for the recipients' domain; 0 when there are several.
    pub(crate) domain: u32,
    /// Those that are not settled.
    pub(crate) recipients: u16,
    pub(crate) flags: ParkedFlags,
    pub(crate) priority: i8,
    pub(crate) jobs: Jobs,
}

/// Yes-or-no facts of a parked message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct ParkedFlags(pub(crate) u8);

impl ParkedFlags {
    /// Some of it is held by an operator.
    pub(crate) const HELD: Self = Self(1);
    /// An earlier process parked it.
    pub(crate) const REPLAYED: Self = Self(2);

    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: Self, on: bool) {
        self.0 = if on { self.0 | flag.0 } else { self.0 & !flag.0 };
    }
}

/// Destinations with the time of the next attempt, as [`Fate::next`]; `u64::MAX` when held. Nearly always one.
#[derive(Debug, Clone)]
pub(crate) enum Jobs {
    One(DestId, UnixMillis),
    Many(Box<[(DestId, UnixMillis)]>),
}

impl Jobs {
    pub(crate) fn of(list: Vec<(DestId, UnixMillis)>) -> Self {
        match list.as_slice() {
            [(dest, next)] => Self::One(*dest, *next),
            _ => Self::Many(list.into()),
        }
    }

    pub(crate) fn list(&self) -> Vec<(DestId, UnixMillis)> {
        match self {
            Self::One(dest, next) => vec![(*dest, *next)],
            Self::Many(list) => list.to_vec(),
        }
    }

    pub(crate) fn next_mut(&mut self, dest: DestId) -> Option<&mut UnixMillis> {
        match self {
            Self::One(d, next) => (*d == dest).then_some(next),
            Self::Many(list) => list.iter_mut().find(|(d, _)| *d == dest).map(|(_, next)| next),
        }
    }
}

impl Fate {
    pub(crate) fn new(status: Status, dest: DestId, next: UnixMillis) -> Self {
        Self { status, dest, flying: false, failing: false, removing: false, next }
    }

    /// Whether an attempt may be started.
    pub(crate) fn is_waiting(&self) -> bool {
        self.status == Status::Pending && !self.flying && !self.failing
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.status.is_settled()
    }
}

impl Live {
    /// Stands in a message's place while that is worked on.
    pub(crate) fn hollow() -> Self {
        Self {
            envelope: Arc::new(Envelope::new(crate::id::QueueId(0), pillarbox_smtp::ReversePath::Null, Vec::new())),
            body: Body::from_bytes(bytes::Bytes::new()),
            place: Place::Deferred,
            fates: Vec::new(),
            sender: 0,
            flying: 0,
            replayed: false,
            dirty: false,
            parking: false,
            news: Vec::new(),
            reporting: false,
        }
    }

    /// Whether every recipient is settled and the sender knows.
    pub(crate) fn is_done(&self) -> bool {
        self.flying == 0 && self.news.is_empty() && !self.reporting && self.fates.iter().all(|f| !f.is_open())
    }

    /// Whether it needs to be in memory.
    pub(crate) fn is_busy(&self) -> bool {
        self.flying > 0
            || !self.news.is_empty()
            || self.reporting
            || self.dirty
            || self.parking
            || matches!(self.place, Place::Journal { .. })
    }

    /// Recipients that are not settled.
    pub(crate) fn open(&self) -> usize {
        self.fates.iter().filter(|f| f.is_open()).count()
    }

    /// Whether an unsettled recipient belongs to this destination.
    pub(crate) fn needs(&self, dest: DestId) -> bool {
        self.fates.iter().any(|f| f.dest == dest && f.is_open())
    }

    /// The envelope as things stand.
    pub(crate) fn snapshot(&self) -> Envelope {
        let mut envelope = Envelope::clone(&self.envelope);
        for (recipient, fate) in envelope.recipients.iter_mut().zip(&self.fates) {
            recipient.status = fate.status;
            recipient.next_attempt = (fate.status == Status::Pending && fate.next > 0 && fate.next < UnixMillis::MAX).then_some(fate.next);
        }
        envelope
    }

    /// Its destinations with unsettled recipients and when each is due.
    pub(crate) fn jobs(&self) -> Vec<(DestId, UnixMillis)> {
        let mut list: Vec<(DestId, UnixMillis)> = Vec::new();
        for fate in self.fates.iter().filter(|f| f.is_open()) {
            let next = if fate.status == Status::Held { UnixMillis::MAX } else { fate.next };
            match list.iter_mut().find(|(dest, _)| *dest == fate.dest) {
                Some((_, earliest)) => *earliest = next.min(*earliest),
                None => list.push((fate.dest, next)),
            }
        }
        list
    }

    /// What remains in memory of it.
    pub(crate) fn compact(&self, deadline: UnixMillis) -> Parked {
        let held = self.fates.iter().any(|f| f.status == Status::Held);
        let mut flags = ParkedFlags::default();
        flags.set(ParkedFlags::HELD, held);
        flags.set(ParkedFlags::REPLAYED, self.replayed);
        Parked {
            received: self.envelope.received,
            deadline,
            from: from_key(&self.envelope),
            sender: self.sender,
            domain: domain_key(&self.envelope),
            recipients: u16::try_from(self.open()).unwrap_or(u16::MAX),
            flags,
            priority: self.envelope.priority,
            jobs: Jobs::of(self.jobs()),
        }
    }
}

/// A short stand-in for a text; different texts may share one.
pub(crate) fn key(text: &str) -> u32 {
    crc32c::crc32c(text.as_bytes()).max(1)
}

/// Stands for the reverse path.
pub(crate) fn from_key(envelope: &Envelope) -> u32 {
    envelope.from.mailbox().map_or(0, |mailbox| key(&mailbox.key()))
}

/// Whose turn a message takes: the logged-in user's, or else the reverse path's; reports take that of their recipient.
pub(crate) fn sender_key(envelope: &Envelope) -> SenderKey {
    match (&envelope.source.user, envelope.from.mailbox()) {
        (Some(mailbox), _) | (None, Some(mailbox)) => key(&mailbox.key()),
        (None, None) => envelope.recipients.first().map_or(0, |r| key(&r.address.key())),
    }
}

/// Stands for the domain of all open recipients, when it is one.
pub(crate) fn domain_key(envelope: &Envelope) -> u32 {
    let mut keys = envelope.recipients.iter().filter(|r| !r.status.is_settled()).map(|r| key(r.address.domain.as_str()));
    let first = keys.next().unwrap_or(0);
    if keys.all(|k| k == first) { first } else { 0 }
}

/// Whether an outcome ends the attempts for a recipient.
pub(crate) fn is_final(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Deferred { .. })
}
