//! What an operator does: look, retry, hold, release, remove. Safe while deliveries run.
//!
//! A queue of a million messages is gone through in steps, each under one short hold of the lock, so that mail flows meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use pillarbox_smtp::{Domain, Reply, ReversePath};

use crate::body::{Body, blocking};
use crate::deferred::Deferred;
use crate::envelope::{Envelope, Status, UnixMillis};
use crate::id::QueueId;
use crate::journal::Note;
use crate::queue::Queue;
use crate::schedule::{DestId, Entry, Live, Parked, ParkedFlags, Place, Probe, State, key};

/// Messages looked at under one hold of the lock.
const STEP: usize = 5000;

/// Messages read from disk at once while listing.
const PAGE: usize = 200;

/// A deadline that passed while a message was held is looked at after this.
const AFTER_RELEASE: UnixMillis = 60_000;

/// Which messages to list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListFilter {
    /// With an unfinished recipient in this domain.
    pub to: Option<Domain>,
    /// From this sender; the null path finds reports.
    pub from: Option<ReversePath>,
    /// With a recipient that an operator holds.
    pub held: bool,
}

/// Which messages to retry.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryFilter {
    /// These.
    Ids(Vec<QueueId>),
    /// All.
    All,
    /// Those with a recipient in this domain.
    To(Domain),
}

/// One line of a summary.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DestinationSummary {
    /// The destination as its deliverer calls it, such as `mx:example.net`.
    pub destination: String,
    /// Messages with an unfinished recipient there.
    pub messages: u64,
    /// When the oldest of them was accepted.
    pub oldest: UnixMillis,
    /// Deliveries under way.
    pub runs: u64,
    /// The earliest next attempt; none when something is due now.
    pub next_attempt: Option<UnixMillis>,
    /// Since when it cannot be reached as a whole.
    pub down_since: Option<UnixMillis>,
    /// When it is asked again.
    pub next_probe: Option<UnixMillis>,
    /// What it said last, when it is down.
    pub last_reply: Option<Reply>,
}

/// A message met while listing.
enum Met {
    Here(Box<Envelope>),
    OnDisk(QueueId),
}

impl ListFilter {
    fn wants(&self, envelope: &Envelope) -> bool {
        let open = || envelope.recipients.iter().filter(|r| !r.status.is_settled());
        self.to.as_ref().is_none_or(|domain| open().any(|r| r.address.domain == *domain))
            && self.from.as_ref().is_none_or(|from| same_path(from, &envelope.from))
            && (!self.held || open().any(|r| r.status == Status::Held))
    }

    /// Whether a parked message may be wanted, as far as memory tells.
    fn may_want(&self, parked: &Parked) -> bool {
        let domain = self.to.as_ref().map(|domain| key(domain.as_str()));
        let from = self.from.as_ref().map(|from| from.mailbox().map_or(0, |mailbox| key(&mailbox.key())));
        domain.is_none_or(|domain| parked.domain == domain || parked.domain == 0)
            && from.is_none_or(|from| parked.from == from)
            && (!self.held || parked.flags.has(ParkedFlags::HELD))
    }
}

fn same_path(a: &ReversePath, b: &ReversePath) -> bool {
    match (a, b) {
        (ReversePath::Mailbox(a), ReversePath::Mailbox(b)) => a.same_as(b),
        (ReversePath::Null, ReversePath::Null) => true,
        _ => false,
    }
}

impl Queue {
    /// Up to `limit` messages after `after` in the order of their ids. The last one's id continues the list; fewer than `limit` end it.
    pub async fn list(&self, filter: &ListFilter, after: Option<QueueId>, limit: usize) -> Vec<Envelope> {
        let mut out = Vec::new();
        let mut at = after;
        while out.len() < limit {
            let wanted = (limit - out.len()).min(PAGE);
            let (met, last) = self.meet(filter, at, wanted);
            at = last.or(at);
            let ended = last.is_none();
            let on_disk: Vec<QueueId> = met.iter().filter_map(|m| if let Met::OnDisk(id) = m { Some(*id) } else { None }).collect();
            let mut read: BTreeMap<QueueId, Envelope> = self.read_parked(on_disk).await;
            for one in met {
                let envelope = match one {
                    Met::Here(envelope) => Some(*envelope),
                    Met::OnDisk(id) => read.remove(&id),
                };
                out.extend(envelope.filter(|e| filter.wants(e)));
            }
            if ended {
                break;
            }
        }
        out.iter_mut().for_each(|envelope| self.add_down(envelope));
        out
    }

    /// All messages, page by page as they are asked for. What comes or goes meanwhile may or may not be among them.
    pub fn stream(self: &Arc<Self>, filter: ListFilter) -> BoxStream<'static, Envelope> {
        let queue = Arc::clone(self);
        stream::unfold((queue, filter, None, false), |(queue, filter, after, ended)| async move {
            if ended {
                return None;
            }
            let page = queue.list(&filter, after, PAGE).await;
            let (last, ended) = (page.last().map(|e| e.id), page.len() < PAGE);
            Some((stream::iter(page), (queue, filter, last, ended)))
        })
        .flatten()
        .boxed()
    }

    /// Messages from behind `after` on that may be wanted: `wanted` of them, or as many as there are. Answers the last one looked at; none
    /// at the end.
    fn meet(&self, filter: &ListFilter, after: Option<QueueId>, wanted: usize) -> (Vec<Met>, Option<QueueId>) {
        let mut out = Vec::new();
        let mut at = after;
        loop {
            let state = self.state.lock();
            let mut looked = 0;
            for (id, entry) in state.messages.range((at.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)).take(STEP) {
                looked += 1;
                at = Some(*id);
                match entry {
                    Entry::Live(live) => {
                        let envelope = live.snapshot();
                        if filter.wants(&envelope) {
                            out.push(Met::Here(Box::new(envelope)));
                        }
                    }
                    Entry::Parked(parked) if filter.may_want(parked) => out.push(Met::OnDisk(*id)),
                    Entry::Parked(_) => {}
                }
                if out.len() >= wanted {
                    return (out, at);
                }
            }
            if looked < STEP {
                return (out, None);
            }
        }
    }

    async fn read_parked(&self, ids: Vec<QueueId>) -> BTreeMap<QueueId, Envelope> {
        if ids.is_empty() {
            return BTreeMap::new();
        }
        let deferred: Deferred = self.deferred.clone();
        // One that is gone was finished meanwhile; one that cannot be read is reported when its time comes.
        let read = blocking(move || Ok(ids.into_iter().filter_map(|id| Some((id, deferred.read(id).ok()?))).collect()));
        read.await.unwrap_or_default()
    }

    /// Says of recipients whose destination is down what it said and when it is asked again.
    fn add_down(&self, envelope: &mut Envelope) {
        let names = self.transports.names(envelope);
        let state = self.state.lock();
        for (recipient, (kind, name)) in envelope.recipients.iter_mut().zip(&names).filter(|(r, _)| r.status == Status::Pending) {
            if let Some(down) = state.dests.find(*kind, name).and_then(|dest| state.dests.down(dest)) {
                recipient.last_reply = Some(down.reply.clone());
                recipient.next_attempt = Some(recipient.next_attempt.unwrap_or(0).max(down.next_probe));
            }
        }
    }

    /// One message's envelope as things stand.
    pub async fn show(&self, id: QueueId) -> Option<Envelope> {
        let here = match self.state.lock().messages.get(&id)? {
            Entry::Live(live) => Some(live.snapshot()),
            Entry::Parked(_) => None,
        };
        let mut envelope = match here {
            Some(envelope) => envelope,
            None => self.read_parked(vec![id]).await.remove(&id)?,
        };
        self.add_down(&mut envelope);
        Some(envelope)
    }

    /// One message's octets.
    pub async fn body(&self, id: QueueId) -> Option<Body> {
        match self.state.lock().messages.get(&id)? {
            Entry::Live(live) => return Some(live.body.clone()),
            Entry::Parked(_) => {}
        }
        let deferred = self.deferred.clone();
        blocking(move || deferred.body(id)).await.ok()
    }

    /// Has messages tried now, and destinations that are down asked now. Held ones stay held. Answers how many messages it concerned.
    pub async fn retry(&self, filter: &RetryFilter) -> u64 {
        let mut count = 0;
        match filter {
            RetryFilter::Ids(ids) => {
                self.wake(ids.clone()).await;
                for id in ids {
                    count += self.retry_some(&[*id], &|_| true);
                }
            }
            RetryFilter::All | RetryFilter::To(_) => {
                let domain = if let RetryFilter::To(domain) = filter { Some(domain) } else { None };
                let list = ListFilter { to: domain.cloned(), ..ListFilter::default() };
                let mut at = None;
                loop {
                    let (ids, mixed, last) = self.retriable(&list, at);
                    self.wake(mixed).await;
                    let wanted = |d: &Domain| domain.is_none_or(|domain| domain == d);
                    for chunk in ids.chunks(PAGE) {
                        count += self.retry_some(chunk, &wanted);
                    }
                    match last {
                        Some(last) => at = Some(last),
                        None => break,
                    }
                }
            }
        }
        count
    }

    /// A step through the queue: the messages to retry, and those of them whose recipients must be read first.
    fn retriable(&self, list: &ListFilter, after: Option<QueueId>) -> (Vec<QueueId>, Vec<QueueId>, Option<QueueId>) {
        let (mut ids, mut mixed, mut looked, mut last) = (Vec::new(), Vec::new(), 0, after);
        let state = self.state.lock();
        for (id, entry) in state.messages.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)).take(STEP) {
            looked += 1;
            last = Some(*id);
            let wanted = match entry {
                Entry::Live(_) => true,
                Entry::Parked(parked) => {
                    let may = list.may_want(parked);
                    if may && list.to.is_some() && parked.domain == 0 {
                        mixed.push(*id);
                    }
                    may
                }
            };
            if wanted {
                ids.push(*id);
            }
        }
        (ids, mixed, (looked == STEP).then_some(last).flatten())
    }

    /// Makes the waiting recipients of these messages ready.
    fn retry_some(&self, ids: &[QueueId], wanted: &dyn Fn(&Domain) -> bool) -> u64 {
        let now = self.clock.now();
        let mut count = 0;
        let mut touched: Vec<DestId> = Vec::new();
        let mut state = self.state.lock();
        for id in ids {
            let Some(entry) = state.messages.get_mut(id) else { continue };
            let mut dests: Vec<(DestId, bool)> = Vec::new();
            let (priority, sender) = match entry {
                Entry::Live(live) => {
                    let envelope = Arc::clone(&live.envelope);
                    for (fate, recipient) in live.fates.iter_mut().zip(&envelope.recipients) {
                        if fate.is_waiting() && wanted(&recipient.address.domain) {
                            let waits = fate.next > 0;
                            fate.next = 0;
                            match dests.iter_mut().find(|(dest, _)| *dest == fate.dest) {
                                Some((_, any)) => *any |= waits,
                                None => dests.push((fate.dest, waits)),
                            }
                        }
                    }
                    (envelope.priority, live.sender)
                }
                Entry::Parked(parked) => {
                    for (dest, next) in parked.jobs.list() {
                        if next < UnixMillis::MAX {
                            dests.push((dest, next > 0));
                            if let Some(next) = parked.jobs.next_mut(dest) {
                                *next = 0;
                            }
                        }
                    }
                    (parked.priority, parked.sender)
                }
            };
            count += u64::from(!dests.is_empty());
            for (dest, waits) in dests {
                if waits {
                    state.queue(*id, dest, 0, priority, sender, now);
                }
                if !touched.contains(&dest) {
                    touched.push(dest);
                }
            }
        }
        for dest in touched {
            if let Some(down) = state.dests.active(dest).and_then(|a| a.down.as_mut()).filter(|d| d.probe == Probe::Waiting) {
                down.probe = Probe::Due;
            }
            self.kick(&mut state, dest);
        }
        count
    }

    /// Keeps messages from being tried until they are released. What is under way is finished. Answers how many it concerned; the
    /// answer is durable.
    pub async fn hold(&self, ids: &[QueueId]) -> u64 {
        self.change(ids, |_, live| {
            let mut changed = Vec::new();
            for (n, fate) in live.fates.iter_mut().enumerate().filter(|(_, f)| f.status == Status::Pending && !f.failing) {
                fate.status = Status::Held;
                changed.push((n, Status::Held));
            }
            changed
        })
        .await
    }

    /// Lets held messages go on, at once. Answers how many it concerned; the answer is durable.
    pub async fn release(&self, ids: &[QueueId]) -> u64 {
        let now = self.clock.now();
        self.change(ids, |state, live| {
            let mut changed = Vec::new();
            let mut dests: Vec<DestId> = Vec::new();
            for (n, fate) in live.fates.iter_mut().enumerate().filter(|(_, f)| f.status == Status::Held) {
                fate.status = Status::Pending;
                fate.next = 0;
                changed.push((n, Status::Pending));
                if !fate.flying && !dests.contains(&fate.dest) {
                    dests.push(fate.dest);
                }
            }
            let (id, priority, sender) = (live.envelope.id, live.envelope.priority, live.sender);
            dests.into_iter().for_each(|dest| _ = state.queue(id, dest, 0, priority, sender, now));
            changed
        })
        .await
    }

    /// Takes messages out of the queue without telling anybody. Recipients with an attempt under way go when that fails. Answers how many
    /// messages it concerned; the answer is durable.
    pub async fn remove(&self, ids: &[QueueId]) -> u64 {
        self.change(ids, |state, live| {
            let mut changed = Vec::new();
            for n in 0..live.fates.len() {
                match live.fates.get_mut(n) {
                    Some(fate) if fate.is_open() && fate.flying => fate.removing = true,
                    Some(fate) if fate.is_open() && !(fate.failing && live.reporting) => {
                        live.news.retain(|news| news.recipient != n);
                        state.settle(live, n, Status::Removed);
                        changed.push((n, Status::Removed));
                    }
                    _ => {}
                }
            }
            changed
        })
        .await
    }

    /// Changes messages one by one, and makes the changes durable.
    pub(crate) async fn change(&self, ids: &[QueueId], change: impl Fn(&mut State, &mut Live) -> Vec<(usize, Status)>) -> u64 {
        let mut count = 0;
        for chunk in ids.chunks(PAGE) {
            self.wake(chunk.to_vec()).await;
            for id in chunk {
                let now = self.clock.now();
                let mut state = self.state.lock();
                let Some(Entry::Live(live)) = state.messages.get_mut(id) else { continue };
                let mut live = std::mem::replace(&mut **live, Live::hollow());
                let before = live.fates.iter().filter(|f| f.removing).count();
                let changed = change(&mut state, &mut live);
                let after = live.fates.iter().filter(|f| f.removing).count();
                count += u64::from(!changed.is_empty() || after > before);
                if !changed.is_empty() {
                    let fates = changed.iter().map(|(n, status)| (u16::try_from(*n).unwrap_or(u16::MAX), *status)).collect();
                    self.journal.note(&Note::Settled(*id, fates), true);
                    live.dirty |= live.parking || matches!(live.place, Place::Deferred);
                    // What was held had no deadline, and is tried before one counts.
                    if live.fates.iter().any(|f| f.status == Status::Pending) {
                        state.wait_for_deadline(*id, self.times.next_deadline(&live.envelope, now).max(now.saturating_add(AFTER_RELEASE)));
                    }
                    for (_, status) in changed.iter().take(1) {
                        tracing::info!(%id, ?status, "changed by an operator");
                    }
                }
                let dests: Vec<DestId> = live.jobs().into_iter().map(|(dest, _)| dest).collect();
                self.put_back(&mut state, *id, live, now);
                dests.into_iter().for_each(|dest| self.kick(&mut state, dest));
            }
        }
        // Should the journal have failed, what is parked is still written by the keeper.
        _ = self.journal.flush().await;
        count
    }

    /// One line a destination, the ones with most messages first.
    pub async fn summary(&self) -> Vec<DestinationSummary> {
        struct Sum {
            messages: u64,
            oldest: UnixMillis,
            next: UnixMillis,
        }
        let mut sums: std::collections::HashMap<DestId, Sum> = std::collections::HashMap::new();
        let mut at = None;
        loop {
            let mut looked = 0;
            {
                let state = self.state.lock();
                for (id, entry) in state.messages.range((at.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)).take(STEP) {
                    looked += 1;
                    at = Some(*id);
                    let (received, jobs) = match entry {
                        Entry::Live(live) => (live.envelope.received, live.jobs()),
                        Entry::Parked(parked) => (parked.received, parked.jobs.list()),
                    };
                    for (dest, next) in jobs {
                        let sum = sums.entry(dest).or_insert(Sum { messages: 0, oldest: UnixMillis::MAX, next: UnixMillis::MAX });
                        sum.messages += 1;
                        sum.oldest = sum.oldest.min(received);
                        sum.next = sum.next.min(next);
                    }
                }
            }
            if looked < STEP {
                break;
            }
            tokio::task::yield_now().await;
        }
        let state = self.state.lock();
        let line = |(dest, sum): (DestId, Sum)| {
            let dest = state.dests.get(dest)?;
            let active = dest.active.as_deref();
            let down = active.and_then(|a| a.down.as_ref());
            Some(DestinationSummary {
                destination: dest.name.to_string(),
                messages: sum.messages,
                oldest: sum.oldest,
                runs: active.map_or(0, |a| a.runs as u64),
                next_attempt: (sum.next > 0 && sum.next < UnixMillis::MAX).then_some(sum.next),
                down_since: down.map(|d| d.since),
                next_probe: down.map(|d| d.next_probe),
                last_reply: down.map(|d| d.reply.clone()),
            })
        };
        let mut lines: Vec<DestinationSummary> = sums.into_iter().filter_map(line).collect();
        lines.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.destination.cmp(&b.destination)));
        lines
    }
}
