//! The schedule's own task: waits for what becomes due, and deals with deadlines that no attempt brings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pillarbox_smtp::{EnhancedCode, Reply};
use tokio::sync::mpsc;

use crate::envelope::{Status, UnixMillis};
use crate::events::Event;
use crate::finish::{Context, late, may_report};
use crate::id::QueueId;
use crate::journal::Note;
use crate::queue::Queue;
use crate::schedule::{DestId, Due, Entry, Live, News, NewsKind, Place, State};

/// Taken up under one hold of the lock.
const STEP: usize = 500;

/// The schedule is looked at this often at most for messages that grow old, and this often at least.
const SHORTEST: UnixMillis = 200;
const LONGEST: UnixMillis = 30_000;

/// A message past its end is looked at again after this.
const AGAIN: UnixMillis = 60_000;

/// A clock that lost more than this was set.
const WENT_BACK: UnixMillis = 60_000;

/// Runs until the queue shuts down.
pub(crate) async fn run(queue: Arc<Queue>) {
    let mut before = (queue.clock.now(), Instant::now());
    loop {
        let now = queue.clock.now();
        let expected = before.0.saturating_add(crate::clock::millis(before.1.elapsed()));
        before = (now, Instant::now());
        if expected.saturating_sub(now) > WENT_BACK {
            let by = expected.saturating_sub(now);
            tracing::warn!(seconds = by / 1000, "the clock was set back; waiting mail is tried as if it had not been");
            queue.state.lock().clock_went_back(by);
        }
        if !queue.lease.holds() {
            // Nothing is due here; a new lease wakes this.
            tokio::select! {
                () = queue.clock.sleep_until(now.saturating_add(LONGEST)) => {}
                () = queue.tick.notified() => {}
                () = queue.stop.cancelled() => return,
            }
            continue;
        }
        if !queue.step(now) {
            return;
        }
        let until = {
            let state = queue.state.lock();
            let soonest = now.saturating_add(SHORTEST);
            let due = state.next_due().unwrap_or(UnixMillis::MAX);
            due.min(queue.park_time(&state).max(soonest)).min(now.saturating_add(LONGEST))
        };
        queue.sleeps_until.store(until, Ordering::Release);
        // Something may have been queued between the look and the store.
        let missed = queue.state.lock().next_due().is_some_and(|due| due < until);
        if !missed {
            tokio::select! {
                () = queue.clock.sleep_until(until) => {}
                () = queue.tick.notified() => {}
                () = queue.stop.cancelled() => return,
            }
        }
        queue.sleeps_until.store(0, Ordering::Release);
    }
}

/// Deals with deadlines, one after the other, until the queue shuts down.
pub(crate) async fn run_deadlines(queue: Arc<Queue>, mut due: mpsc::UnboundedReceiver<QueueId>) {
    let mut ids = Vec::new();
    loop {
        tokio::select! {
            n = due.recv_many(&mut ids, 100) => if n == 0 { return },
            () = queue.stop.cancelled() => return,
        }
        let asleep: Vec<QueueId> = {
            let state = queue.state.lock();
            ids.iter().copied().filter(|id| matches!(state.messages.get(id), Some(Entry::Parked(_)))).collect()
        };
        queue.wake(asleep).await;
        ids.drain(..).for_each(|id| queue.deadline(id));
    }
}

impl Queue {
    /// Takes up everything that is due. False once the queue shuts down.
    fn step(&self, now: UnixMillis) -> bool {
        loop {
            let mut state = self.state.lock();
            if state.stopping {
                return false;
            }
            let due = state.due(now, STEP);
            let more = due.len() == STEP;
            for what in due {
                match what {
                    Due::Deadline(id) => _ = self.deadlines.send(id),
                    Due::Destination(dest) => {
                        self.kick(&mut state, dest);
                        state.dests.tidy(dest);
                    }
                }
            }
            let aged = now.saturating_sub(crate::clock::millis(self.times.park_after));
            while let Some((_, id)) = state.fresh.front().copied().filter(|(time, _)| *time <= aged) {
                state.fresh.pop_front();
                if matches!(state.messages.get(&id), Some(Entry::Live(live)) if matches!(live.place, Place::Journal { .. })) {
                    self.keeper.park(id);
                }
            }
            if !more {
                return true;
            }
        }
    }

    /// A deadline of a message came: its sender is told that it is late, or it is given up.
    fn deadline(&self, id: QueueId) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(Entry::Live(live)) = state.messages.get_mut(&id) else { return };
        let mut live = std::mem::replace(&mut **live, Live::hollow());
        let mut events = Vec::new();
        let mut touched = Vec::new();
        if now >= self.times.expires(&live.envelope) {
            self.expire(&mut state, &mut live, now, &mut events, &mut touched);
        }
        match (self.times.deliver_by(&live.envelope), live.envelope.by) {
            (Some(time), Some(by)) if now >= time && by.return_when_late => {
                self.give_up(&mut state, &mut live, now, &mut events, false, |last| late(&last));
            }
            (Some(time), Some(_)) if now >= time => warn_of_delay(&state, &mut live, true),
            _ => {}
        }
        // Past its end there is nothing to wait for any more.
        if now >= self.times.warns(&live.envelope) && now < self.times.expires(&live.envelope) {
            warn_of_delay(&state, &mut live, false);
        }
        let next = self.times.next_deadline(&live.envelope, now);
        // What is held has no deadline before it is released. What is past its end has its last attempt under way; should that not come
        // back, it is looked at again.
        if live.fates.iter().any(|f| f.status == Status::Pending) {
            state.wait_for_deadline(id, if next > now { next } else { now.saturating_add(AGAIN) });
        }
        self.put_back(&mut state, id, live, now);
        touched.into_iter().for_each(|dest| self.kick(&mut state, dest));
        drop(state);
        events.iter().for_each(Event::log);
    }

    /// The lifetime is over: what is not known to be hopeless is tried once more, and given up when that fails. The clock may have jumped, or
    /// nobody was here to try for days.
    fn expire(&self, state: &mut State, live: &mut Live, now: UnixMillis, events: &mut Vec<Event>, touched: &mut Vec<DestId>) {
        self.give_up(state, live, now, events, true, |last| last);
        let id = live.envelope.id;
        let (priority, sender) = (live.envelope.priority, live.sender);
        for fate in live.fates.iter_mut().filter(|f| f.is_waiting() && f.next > 0) {
            fate.next = 0;
            if !touched.contains(&fate.dest) {
                touched.push(fate.dest);
            }
        }
        touched.iter().for_each(|dest| _ = state.queue(id, *dest, 0, priority, sender, now));
    }

    /// Gives up the waiting recipients whose destination is down; with `hopeless` no others, and only where it is not about to be asked
    /// again; without, also those that were tried.
    fn give_up(
        &self,
        state: &mut State,
        live: &mut Live,
        now: UnixMillis,
        events: &mut Vec<Event>,
        hopeless: bool,
        put: impl Fn(Reply) -> Reply,
    ) {
        let mut settled = Vec::new();
        for n in 0..live.fates.len() {
            let Some(fate) = live.fates.get(n).filter(|f| f.is_waiting()) else { continue };
            let down = state.dests.down(fate.dest).filter(|down| down.next_probe > now || !hopeless).map(|down| down.reply.clone());
            let Some(recipient) = live.envelope.recipients.get(n) else { continue };
            let tried = (recipient.attempts > 0 && !hopeless).then(|| recipient.last_reply.clone().unwrap_or_else(unexplained));
            let Some(last) = down.or(tried) else { continue };
            let reply = put(last);
            let mut event = Event::new(&live.envelope, recipient, &Context { relay: "", tls: "", now });
            event.failed(&reply);
            event.expired();
            events.push(event);
            self.fail(state, live, n, reply, "", &mut settled);
        }
        live.dirty |= live.parking || matches!(live.place, Place::Deferred);
        if !settled.is_empty() {
            self.journal.note(&Note::Settled(live.envelope.id, settled), true);
        }
    }
}

/// Lines up a delay report for those who want one and had none (RFC 3461 §4.1, RFC 2852 §4.1.3).
fn warn_of_delay(state: &State, live: &mut Live, whatever_the_default: bool) {
    if !may_report(&live.envelope) {
        return;
    }
    for (n, (recipient, fate)) in live.envelope.recipients.iter().zip(&live.fates).enumerate() {
        let wanted = recipient.notify.delay || (whatever_the_default && !recipient.notify.explicit);
        let known = live.news.iter().any(|news| news.recipient == n);
        if fate.status == Status::Pending && !fate.failing && wanted && !recipient.delay_reported && !known {
            let reply = state.dests.down(fate.dest).map(|down| down.reply.clone()).or_else(|| recipient.last_reply.clone());
            live.news.push(News { recipient: n, what: NewsKind::Delayed(reply), remote: String::new() });
        }
    }
}

/// What is said where nothing was heard.
fn unexplained() -> Reply {
    Reply::new(450, EnhancedCode(4, 4, 7), "the message could not be delivered in time")
}
