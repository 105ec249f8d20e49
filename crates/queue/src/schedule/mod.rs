//! What is queued and when it is due. Plain data behind one short lock; nothing here waits, reads or writes.

mod destination;
mod message;
mod ready;
mod retry;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(crate) use destination::{Active, DestId, Destinations, Down, Kind, Probe};
pub(crate) use message::{
    Entry, Fate, Jobs, Live, News, NewsKind, Parked, ParkedFlags, Place, domain_key, from_key, is_final, key, sender_key,
};
pub(crate) use ready::SenderKey;
pub(crate) use retry::Times;

use crate::body::Body;
use crate::envelope::{Envelope, Recipient, Status, UnixMillis};
use crate::id::QueueId;
use crate::transport::{Destination, Transport};

/// Runs of relaying destinations under way at once. Each holds a connection or two.
const MOST_RUNS: usize = 400;

/// A run gives its place to another destination after so many deliveries, when others wait.
pub(crate) const QUANTUM: usize = 20;

/// In place of a destination: a deadline of the message.
const DEADLINE: DestId = DestId::MAX;

/// In place of a message: a probe of the destination.
const PROBE: QueueId = QueueId(0);

/// The deliverers.
#[derive(Clone)]
pub struct Transports {
    /// For mailboxes of ours.
    pub mailbox: Arc<dyn Transport>,
    /// For the world.
    pub relay: Arc<dyn Transport>,
}

impl Transports {
    pub(crate) fn of(&self, kind: Kind) -> &Arc<dyn Transport> {
        match kind {
            Kind::Mailbox => &self.mailbox,
            Kind::Relay => &self.relay,
        }
    }

    /// Where each recipient goes.
    pub(crate) fn names(&self, envelope: &Envelope) -> Vec<(Kind, Destination)> {
        let name = |recipient: &Recipient| {
            let kind = Kind::of(&recipient.route);
            (kind, self.of(kind).destination(envelope, recipient))
        };
        envelope.recipients.iter().map(name).collect()
    }
}

/// Everything queued.
pub(crate) struct State {
    pub(crate) messages: BTreeMap<QueueId, Entry>,
    pub(crate) dests: Destinations,
    /// What becomes due: an attempt of a message, its deadline, or a probe of a destination.
    waits: BTreeSet<(UnixMillis, QueueId, DestId)>,
    /// Accepted into the journal and not looked at since, oldest first, to be parked when they grow old.
    pub(crate) fresh: VecDeque<(UnixMillis, QueueId)>,
    /// Destinations that wait for a free run.
    pub(crate) line: VecDeque<DestId>,
    /// Runs under way, those for mailboxes not counted.
    pub(crate) relay_runs: usize,
    /// All runs under way.
    pub(crate) runs: usize,
    /// Recipients that are not settled.
    pub(crate) recipients: usize,
    pub(crate) stopping: bool,
    /// Relaying runs under way at once, at most.
    pub(crate) most_runs: usize,
    transports: Transports,
}

/// What became due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A deadline of this message.
    Deadline(QueueId),
    /// Something for this destination.
    Destination(DestId),
}

impl State {
    pub(crate) fn new(transports: Transports) -> Self {
        Self {
            messages: BTreeMap::new(),
            dests: Destinations::default(),
            waits: BTreeSet::new(),
            fresh: VecDeque::new(),
            line: VecDeque::new(),
            relay_runs: 0,
            runs: 0,
            recipients: 0,
            stopping: false,
            most_runs: MOST_RUNS,
            transports,
        }
    }

    /// The deliverers.
    pub(crate) fn transports(&self) -> &Transports {
        &self.transports
    }

    /// Adds a message. `names` has one entry a recipient. The answer lists destinations that got something to do.
    pub(crate) fn insert(&mut self, new: NewLive, names: &[(Kind, Destination)], now: UnixMillis) -> Vec<DestId> {
        let NewLive { envelope, body, place, replayed } = new;
        let id = envelope.id;
        let mut live = Live {
            sender: sender_key(&envelope),
            envelope: Arc::new(envelope),
            body,
            place,
            fates: Vec::with_capacity(names.len()),
            flying: 0,
            replayed,
            dirty: false,
            parking: false,
            news: Vec::new(),
            reporting: false,
        };
        let mut touched = Vec::new();
        self.extend(&mut live, names, now, &mut touched);
        self.messages.insert(id, Entry::Live(Box::new(live)));
        touched
    }

    /// Gives fates to the envelope's recipients from `live.fates.len()` on, and queues them.
    pub(crate) fn extend(&mut self, live: &mut Live, names: &[(Kind, Destination)], now: UnixMillis, touched: &mut Vec<DestId>) {
        let first = live.fates.len();
        let envelope = Arc::clone(&live.envelope);
        let not_before = envelope.hold_until.unwrap_or(0);
        let mut last: Option<(&(Kind, Destination), DestId)> = None;
        let mut seen: std::collections::HashMap<&(Kind, Destination), DestId> = std::collections::HashMap::new();
        for (recipient, name) in envelope.recipients.iter().skip(first).zip(names) {
            // Recipients of one destination usually follow each other; with few of them a map costs more than it saves.
            let known = last.filter(|(n, _)| *n == name).map(|(_, d)| d).or_else(|| seen.get(name).copied());
            let dest = match known {
                Some(dest) => dest,
                None if recipient.status.is_settled() => 0,
                None => match live.fates.iter().find(|f| f.is_open() && self.is_named(f.dest, name)).map(|f| f.dest) {
                    Some(dest) => dest,
                    None => self.dests.add_job(name.0, &name.1),
                },
            };
            if !recipient.status.is_settled() {
                self.recipients += 1;
                last = Some((name, dest));
                if names.len() > 1 {
                    seen.insert(name, dest);
                }
            }
            let next = recipient.next_attempt.unwrap_or(0).max(not_before);
            live.fates.push(Fate::new(recipient.status, dest, next));
        }
        for (dest, next) in live.jobs() {
            let is_new = live.fates.iter().skip(first).any(|f| f.dest == dest && f.is_open());
            if is_new && next < UnixMillis::MAX && self.queue(envelope.id, dest, next, envelope.priority, live.sender, now) {
                live.fates.iter_mut().filter(|f| f.dest == dest && f.is_waiting() && f.next <= now).for_each(|f| f.next = 0);
                touched.push(dest);
            }
        }
        self.wait_for_each(live, now);
    }

    /// Recipients of one destination may have different times; each is waited for.
    fn wait_for_each(&mut self, live: &Live, now: UnixMillis) {
        let later = live.fates.iter().filter(|f| f.is_waiting() && f.next > now && f.next < UnixMillis::MAX);
        self.waits.extend(later.map(|f| (f.next, live.envelope.id, f.dest)));
    }

    fn is_named(&self, dest: DestId, name: &(Kind, Destination)) -> bool {
        self.dests.get(dest).is_some_and(|d| d.kind == name.0 && d.name == name.1)
    }

    /// Puts one destination's part of a message among those that are ready, or lets it wait. Says whether it is ready.
    pub(crate) fn queue(&mut self, id: QueueId, dest: DestId, next: UnixMillis, priority: i8, sender: SenderKey, now: UnixMillis) -> bool {
        if next > now {
            self.waits.insert((next, id, dest));
            return false;
        }
        let transports = &self.transports;
        let active = self.dests.activate(dest, |kind, name| transports.of(kind).concurrency(name));
        if let Some(active) = active {
            active.ready.push(priority, sender, id);
            if active.patient > 0 {
                active.came.notify_one();
            }
        }
        true
    }

    /// The priority and the sender that decide a message's turn.
    pub(crate) fn turn_of(&self, id: QueueId) -> Option<(i8, SenderKey)> {
        Some(match self.messages.get(&id)? {
            Entry::Live(live) => (live.envelope.priority, live.sender),
            Entry::Parked(parked) => (parked.priority, parked.sender),
        })
    }

    /// Lets a message's deadline be found when it comes.
    pub(crate) fn wait_for_deadline(&mut self, id: QueueId, deadline: UnixMillis) {
        self.waits.insert((deadline, id, DEADLINE));
    }

    /// Lets a destination's probe be found when it comes.
    pub(crate) fn wait_for_probe(&mut self, dest: DestId, time: UnixMillis) {
        self.waits.insert((time, PROBE, dest));
    }

    /// When something becomes due next.
    pub(crate) fn next_due(&self) -> Option<UnixMillis> {
        self.waits.first().map(|(time, ..)| *time)
    }

    /// The clock went back by `by`: attempts and probes that were set by the former time come as much earlier. Deadlines stay.
    pub(crate) fn clock_went_back(&mut self, by: UnixMillis) {
        let waits = std::mem::take(&mut self.waits);
        let earlier = |(time, id, dest): (UnixMillis, QueueId, DestId)| match dest {
            DEADLINE => (time, id, dest),
            _ => (time.saturating_sub(by), id, dest),
        };
        for entry in self.messages.values_mut() {
            let shift = |next: &mut UnixMillis| {
                if *next > 0 && *next < UnixMillis::MAX {
                    *next = next.saturating_sub(by).max(1);
                }
            };
            match entry {
                Entry::Live(live) => live.fates.iter_mut().for_each(|f| shift(&mut f.next)),
                Entry::Parked(Parked { jobs: Jobs::One(_, next), .. }) => shift(next),
                Entry::Parked(Parked { jobs: Jobs::Many(list), .. }) => list.iter_mut().for_each(|(_, next)| shift(next)),
            }
        }
        self.waits = waits.into_iter().map(earlier).collect();
        self.fresh.iter_mut().for_each(|(time, _)| *time = time.saturating_sub(by));
        self.dests.clock_went_back(by);
    }

    /// Takes up to `most` of what has become due, and queues the attempts among it.
    pub(crate) fn due(&mut self, now: UnixMillis, most: usize) -> Vec<Due> {
        let mut out = Vec::new();
        while out.len() < most && self.next_due().is_some_and(|time| time <= now) {
            let Some((_, id, dest)) = self.waits.pop_first() else { break };
            if dest == DEADLINE {
                out.push(Due::Deadline(id));
            } else if id == PROBE {
                if let Some(down) = self.dests.active(dest).and_then(|a| a.down.as_mut()).filter(|d| d.next_probe <= now) {
                    down.probe = Probe::Due;
                }
                out.push(Due::Destination(dest));
            } else if self.make_ready(id, dest, now) {
                out.push(Due::Destination(dest));
            }
        }
        out
    }

    /// Queues one destination's part of a message whose time has come. A wait that no longer means anything does nothing.
    fn make_ready(&mut self, id: QueueId, dest: DestId, now: UnixMillis) -> bool {
        let due = |next: UnixMillis| next > 0 && next <= now;
        let (priority, sender) = match self.messages.get_mut(&id) {
            Some(Entry::Live(live)) => {
                let mut any = false;
                for fate in live.fates.iter_mut().filter(|f| f.dest == dest && f.is_waiting() && due(f.next)) {
                    fate.next = 0;
                    any = true;
                }
                if !any {
                    return false;
                }
                (live.envelope.priority, live.sender)
            }
            Some(Entry::Parked(parked)) => match parked.jobs.next_mut(dest).filter(|next| due(**next)) {
                Some(next) => {
                    *next = 0;
                    (parked.priority, parked.sender)
                }
                None => return false,
            },
            None => return false,
        };
        self.queue(id, dest, 0, priority, sender, now)
    }

    /// Sets a recipient's status once and for all, or holds it, and keeps the counts right.
    pub(crate) fn settle(&mut self, live: &mut Live, recipient: usize, status: Status) {
        let Some(fate) = live.fates.get_mut(recipient) else { return };
        let was_open = fate.is_open();
        fate.status = status;
        (fate.failing, fate.removing) = (false, false);
        let dest = fate.dest;
        if was_open && status.is_settled() {
            self.recipients = self.recipients.saturating_sub(1);
            if !live.needs(dest) {
                self.dests.remove_job(dest);
            }
        }
    }

    /// Puts a message whose envelope was read again in the place of its parked entry. `names` has one entry a recipient.
    pub(crate) fn wake(&mut self, envelope: Envelope, body: Body, names: &[(Kind, Destination)], now: UnixMillis) -> Vec<DestId> {
        let id = envelope.id;
        let Some(Entry::Parked(parked)) = self.messages.get(&id) else { return Vec::new() };
        let parked = parked.clone();
        let old: Vec<((Kind, Destination), UnixMillis)> = parked
            .jobs
            .list()
            .into_iter()
            .filter_map(|(dest, next)| self.dests.get(dest).map(|d| ((d.kind, d.name.clone()), next)))
            .collect();
        let mut live = Live {
            sender: parked.sender,
            envelope: Arc::new(envelope),
            body,
            place: Place::Deferred,
            fates: Vec::new(),
            flying: 0,
            replayed: parked.flags.has(ParkedFlags::REPLAYED),
            dirty: false,
            parking: false,
            news: Vec::new(),
            reporting: false,
        };
        self.recipients = self.recipients.saturating_sub(usize::from(parked.recipients));
        let mut moved = Vec::new();
        let mut numbers: Vec<((Kind, Destination), DestId)> = Vec::new();
        for (recipient, name) in live.envelope.recipients.iter().zip(names) {
            if recipient.status.is_settled() {
                live.fates.push(Fate::new(recipient.status, 0, 0));
                continue;
            }
            self.recipients += 1;
            let dest = match numbers.iter().find(|(n, _)| n == name) {
                Some((_, dest)) => *dest,
                None => {
                    let dest = self.dests.add_job(name.0, &name.1);
                    numbers.push((name.clone(), dest));
                    dest
                }
            };
            let known = old.iter().find(|(n, _)| n == name).map(|(_, next)| *next);
            // A destination's name follows the configuration, which may have changed since the message was parked.
            if known.is_none() && recipient.status == Status::Pending {
                moved.push((dest, recipient.next_attempt.unwrap_or(0)));
            }
            // Its destination's turn has come, be it by time or because an operator wished it.
            let next = if known == Some(0) { 0 } else { recipient.next_attempt.unwrap_or(0) };
            live.fates.push(Fate::new(recipient.status, dest, next));
        }
        parked.jobs.list().into_iter().for_each(|(dest, _)| self.dests.remove_job(dest));
        moved.dedup();
        self.wait_for_each(&live, now);
        let (priority, sender) = (live.envelope.priority, live.sender);
        self.messages.insert(id, Entry::Live(Box::new(live)));
        moved.into_iter().filter(|(dest, next)| self.queue(id, *dest, *next, priority, sender, now)).map(|(dest, _)| dest).collect()
    }

    /// Drops the envelope of a parked message from memory when nothing needs it.
    pub(crate) fn let_rest(&mut self, id: QueueId, times: &Times, now: UnixMillis) {
        let Some(entry @ Entry::Live(_)) = self.messages.get_mut(&id) else { return };
        if let Entry::Live(live) = entry
            && !live.is_busy()
        {
            let deadline = times.next_deadline(&live.envelope, now);
            *entry = Entry::Parked(live.compact(deadline));
        }
    }

    /// Forgets a message.
    pub(crate) fn remove(&mut self, id: QueueId) -> Option<Live> {
        match self.messages.remove(&id) {
            Some(Entry::Live(live)) => {
                self.recipients = self.recipients.saturating_sub(live.open());
                live.jobs().into_iter().for_each(|(dest, _)| self.dests.remove_job(dest));
                Some(*live)
            }
            Some(Entry::Parked(parked)) => {
                self.recipients = self.recipients.saturating_sub(usize::from(parked.recipients));
                parked.jobs.list().into_iter().for_each(|(dest, _)| self.dests.remove_job(dest));
                None
            }
            None => None,
        }
    }

    /// Adds what start-up learnt of a parked message.
    pub(crate) fn insert_parked(&mut self, id: QueueId, mut parked: Parked, names: &[((Kind, Destination), UnixMillis)], now: UnixMillis) {
        parked.jobs = Jobs::of(names.iter().map(|((kind, name), next)| (self.dests.add_job(*kind, name), *next)).collect());
        let mut waits = Vec::new();
        self.schedule_parked(id, &mut parked, now, &mut waits);
        self.waits.extend(waits);
        self.messages.insert(id, Entry::Parked(parked));
    }

    /// Adds all parked messages that start-up found; their jobs are counted already.
    pub(crate) fn insert_all_parked(&mut self, mut entries: Vec<(QueueId, Entry)>, now: UnixMillis) {
        // The oldest first, where several are due.
        entries.sort_unstable_by_key(|(id, _)| *id);
        let mut waits = Vec::with_capacity(entries.len().saturating_mul(2));
        for (id, entry) in &mut entries {
            if let Entry::Parked(parked) = entry {
                self.schedule_parked(*id, parked, now, &mut waits);
            }
        }
        self.messages.append(&mut entries.into_iter().collect());
        waits.sort_unstable();
        self.waits.append(&mut waits.into_iter().collect());
    }

    /// Puts a parked message's attempts that are due among those that are ready; what it waits for is added to `waits`.
    fn schedule_parked(&mut self, id: QueueId, parked: &mut Parked, now: UnixMillis, waits: &mut Vec<(UnixMillis, QueueId, DestId)>) {
        self.recipients += usize::from(parked.recipients);
        parked.flags.set(ParkedFlags::REPLAYED, true);
        waits.push((parked.deadline, id, DEADLINE));
        for (dest, next) in parked.jobs.list() {
            if next > now {
                // What is held waits for nothing.
                waits.extend((next < UnixMillis::MAX).then_some((next, id, dest)));
            } else if self.queue(id, dest, next, parked.priority, parked.sender, now)
                && let Some(next) = parked.jobs.next_mut(dest)
            {
                *next = 0;
            }
        }
    }
}

/// A message to be added.
pub(crate) struct NewLive {
    pub(crate) envelope: Envelope,
    pub(crate) body: Body,
    pub(crate) place: Place,
    pub(crate) replayed: bool,
}
