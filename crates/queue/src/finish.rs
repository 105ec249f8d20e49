//! What becomes of a recipient after an attempt: settled, tried again, given up, replaced.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pillarbox_smtp::{EnhancedCode, Reply};

use crate::body::Inner;
use crate::envelope::{Door, Envelope, Recipient, Status, UnixMillis};
use crate::events::Event;
use crate::id::QueueId;
use crate::journal::Note;
use crate::queue::Queue;
use crate::schedule::{DestId, Entry, Live, News, NewsKind, Place, State};
use crate::serve::lost;
use crate::transport::{Outcome, Outcomes};

impl Queue {
    /// Takes the outcomes of a delivery; `None` when the deliverer dropped it.
    pub(crate) fn finished(&self, id: QueueId, dest: DestId, served: &[usize], outcomes: Option<Outcomes>) {
        let now = self.clock.now();
        let Outcomes { mut each, relay, tls } = outcomes.unwrap_or_default();
        each.resize_with(served.len(), || Outcome::Deferred { reply: lost() });
        let mut events = Vec::with_capacity(served.len());

        // What another host took is written down at once, before anything else can delay it: a process killed later than this does
        // not send it again.
        let taken: Vec<(u16, Status)> = served
            .iter()
            .zip(&each)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Relayed { .. }))
            .map(|(n, _)| (u16::try_from(*n).unwrap_or(u16::MAX), Status::Relayed))
            .collect();
        if !taken.is_empty() {
            self.journal.note_now(&Note::Settled(id, taken));
        }
        // What replaces recipients is routed before the lock is taken: that asks the transports.
        let added = self.replacements(&each);

        let mut state = self.state.lock();
        let Some(Entry::Live(live)) = state.messages.get_mut(&id) else { return };
        // Taken out while it is worked on, so that the message and the rest of the state can both be changed.
        let mut live = std::mem::replace(&mut **live, Live::hollow());
        live.flying = live.flying.saturating_sub(1);
        let any_final = each.iter().any(crate::schedule::is_final);
        let mut settled = Vec::new();
        let mut touched = Vec::new();
        let context = Context { relay: &relay, tls: &tls, now };
        for (&recipient, outcome) in served.iter().zip(each) {
            if let Some(fate) = live.fates.get_mut(recipient) {
                fate.flying = false;
            }
            events.extend(self.apply(&mut state, &mut live, recipient, outcome, &context, &mut settled));
        }
        // Whatever is on disk, or on its way there, is out of date.
        live.dirty |= live.parking || matches!(live.place, Place::Deferred);
        if !added.is_empty() {
            self.add(&mut state, &mut live, added, &mut touched, now);
        }
        if !settled.is_empty() {
            let remote = settled.iter().any(|(_, status)| *status != Status::Delivered);
            if !remote {
                self.unsynced_mail.store(true, Ordering::Release);
            }
            self.journal.note(&Note::Settled(id, settled), remote);
        }
        if let Some(active) = state.dests.active(dest) {
            if any_final {
                active.succeeded();
            } else {
                active.failed();
            }
        }
        self.put_back(&mut state, id, live, now);
        touched.push(dest);
        touched.into_iter().for_each(|dest| self.kick(&mut state, dest));
        let wake = state.next_due().unwrap_or(UnixMillis::MAX);
        drop(state);
        self.wake_schedule_at(wake);
        events.iter().for_each(Event::log);
    }

    /// Applies one outcome.
    fn apply(
        &self,
        state: &mut State,
        live: &mut Live,
        recipient: usize,
        outcome: Outcome,
        context: &Context<'_>,
        settled: &mut Vec<(u16, Status)>,
    ) -> Option<Event> {
        let about = live.envelope.recipients.get(recipient)?;
        let mut event = Event::new(&live.envelope, about, context);
        let index = u16::try_from(recipient).unwrap_or(u16::MAX);
        let notify = about.notify;
        let news = |what| News { recipient, what, remote: context.relay.to_owned() };
        let status = match outcome {
            Outcome::Delivered => {
                event.delivered();
                if notify.success && may_report(&live.envelope) {
                    live.news.push(news(NewsKind::Delivered));
                }
                Status::Delivered
            }
            Outcome::Relayed { reply, dsn } => {
                event.relayed(&reply);
                if notify.success && !dsn && may_report(&live.envelope) {
                    live.news.push(news(NewsKind::Relayed(reply)));
                }
                state.settle(live, recipient, Status::Relayed);
                return Some(event);
            }
            // Those who take its place were counted before; that they exist is written down before this is.
            Outcome::Replaced { .. } => {
                event.replaced();
                Status::Relayed
            }
            Outcome::Failed { reply } => {
                event.failed(&reply);
                self.fail(state, live, recipient, reply, context.relay, settled);
                return Some(event);
            }
            Outcome::Deferred { reply } => {
                self.defer(state, live, recipient, reply, context, settled, &mut event);
                return Some(event);
            }
        };
        state.settle(live, recipient, status);
        settled.push((index, status));
        Some(event)
    }

    /// An attempt did not go through: another will, unless the time is up.
    #[expect(clippy::too_many_arguments, reason = "all of it is one recipient's attempt")]
    fn defer(
        &self,
        state: &mut State,
        live: &mut Live,
        recipient: usize,
        reply: Reply,
        context: &Context<'_>,
        settled: &mut Vec<(u16, Status)>,
        event: &mut Event,
    ) {
        let now = context.now;
        event.deferred(&reply);
        let removing = live.fates.get(recipient).is_some_and(|f| f.removing);
        let envelope = Arc::make_mut(&mut live.envelope);
        let Some(about) = envelope.recipients.get_mut(recipient) else { return };
        about.attempts = about.attempts.saturating_add(1);
        about.last_reply = Some(reply.clone());
        let attempts = about.attempts;
        // Memory is better used for what goes at once.
        if let Place::Journal { stored, .. } = &live.place {
            live.body = stored.clone();
        }
        if removing {
            state.settle(live, recipient, Status::Removed);
            settled.push((u16::try_from(recipient).unwrap_or(u16::MAX), Status::Removed));
            return;
        }
        let too_late =
            live.envelope.by.is_some_and(|by| by.return_when_late) && self.times.deliver_by(&live.envelope).is_some_and(|t| now >= t);
        if now >= self.times.expires(&live.envelope) || too_late {
            event.expired();
            let reply = if too_late { late(&reply) } else { reply };
            self.fail(state, live, recipient, reply, context.relay, settled);
            return;
        }
        let next = self.times.next_attempt(&live.envelope, attempts, now);
        let (id, priority, sender) = (live.envelope.id, live.envelope.priority, live.sender);
        if let Some(fate) = live.fates.get_mut(recipient)
            && fate.status == Status::Pending
        {
            fate.next = next;
            let dest = fate.dest;
            state.queue(id, dest, next, priority, sender, now);
        }
        // No need to keep the segment for what will not go before it is parked anyway.
        if let Place::Journal { .. } = live.place
            && next.saturating_sub(now) >= crate::clock::millis(self.times.park_after)
        {
            self.keeper.park(id);
        }
    }

    /// A recipient is given up. It counts as settled once the sender was told, where a report is due.
    pub(crate) fn fail(
        &self,
        state: &mut State,
        live: &mut Live,
        recipient: usize,
        reply: Reply,
        relay: &str,
        settled: &mut Vec<(u16, Status)>,
    ) {
        let envelope = Arc::make_mut(&mut live.envelope);
        let Some(about) = envelope.recipients.get_mut(recipient) else { return };
        about.last_reply = Some(reply.clone());
        let report = about.notify.failure;
        if report && may_report(&live.envelope) {
            if let Some(fate) = live.fates.get_mut(recipient) {
                fate.failing = true;
            }
            live.news.push(News { recipient, what: NewsKind::Failed(reply), remote: relay.to_owned() });
            return;
        }
        state.settle(live, recipient, Status::Failed);
        settled.push((u16::try_from(recipient).unwrap_or(u16::MAX), Status::Failed));
    }

    /// Recipients that take the place of others, with their routes.
    fn replacements(&self, outcomes: &[Outcome]) -> Vec<Recipient> {
        outcomes.iter().filter_map(|o| if let Outcome::Replaced { by } = o { Some(by.clone()) } else { None }).flatten().collect()
    }

    /// Appends recipients to a message.
    fn add(&self, state: &mut State, live: &mut Live, added: Vec<Recipient>, touched: &mut Vec<DestId>, now: UnixMillis) {
        let id = live.envelope.id;
        self.journal.note(&Note::Added(id, added.clone()), true);
        let envelope = Arc::make_mut(&mut live.envelope);
        envelope.recipients.extend(added);
        let names = self.transports.names(&live.envelope).split_off(live.fates.len());
        state.extend(live, &names, now, touched);
    }

    /// Puts a message back after it was worked on, or forgets it when it is done.
    pub(crate) fn put_back(&self, state: &mut State, id: QueueId, mut live: Live, now: UnixMillis) {
        if live.flying == 0 && !live.news.is_empty() && !live.reporting {
            live.reporting = true;
            self.report(&live);
        }
        let done = live.is_done();
        let (dirty, parked) = (live.dirty, matches!(live.place, Place::Deferred));
        if let Some(Entry::Live(slot)) = state.messages.get_mut(&id) {
            **slot = live;
        }
        if done {
            if let Some(live) = state.remove(id) {
                self.forget(id, live);
            }
        } else if parked && dirty {
            self.keeper.update(id);
        } else {
            state.let_rest(id, &self.times, now);
        }
    }

    /// Lets go of what stood for a message that is done: the journal's segment, or its files.
    pub(crate) fn forget(&self, id: QueueId, live: Live) {
        match live.place {
            Place::Journal { stored, .. } => {
                if let Inner::File(file) = stored.parts().1 {
                    self.keeper.drop_file(Arc::clone(file));
                }
            }
            Place::Deferred => self.keeper.remove(id),
        }
        metrics::counter!("pillarbox_queue_finished_total").increment(1);
    }
}

/// What all recipients of one attempt share.
pub(crate) struct Context<'a> {
    pub(crate) relay: &'a str,
    pub(crate) tls: &'a str,
    pub(crate) now: UnixMillis,
}

/// Whether anybody may be told: not of reports, and not where there is no sender.
pub(crate) fn may_report(envelope: &Envelope) -> bool {
    !envelope.from.is_null() && envelope.source.door != Door::Internal
}

/// The reply for what missed the time that its sender set (RFC 2852 §4.1.2: 5.4.7), with the last word of the remote.
pub(crate) fn late(last: &Reply) -> Reply {
    let text = "the time that the sender allowed for the delivery is over";
    let mut reply = Reply::new(554, EnhancedCode(5, 4, 7), text);
    reply.lines.push(format!("the last attempt ended with: {last}"));
    reply
}
