//! Serving destinations: starting runs of their transports, and handing deliveries to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pillarbox_smtp::{EnhancedCode, Reply};

use crate::body::blocking;
use crate::envelope::UnixMillis;
use crate::feed::{Feed, Source};
use crate::id::QueueId;
use crate::queue::Queue;
use crate::schedule::{DestId, Down, Entry, Kind, Place, Probe, QUANTUM, State};
use crate::transport::{Delivery, Finish};

/// One run of a transport, as the queue sees it.
struct Run {
    queue: Arc<Queue>,
    dest: DestId,
    kind: Kind,
    served: AtomicUsize,
    /// It got nothing since the queue's lease has run out.
    without_lease: AtomicBool,
    /// It asked when nothing waited, and may end for that reason.
    nothing_came: AtomicBool,
}

/// Ends the run's account however the transport ends, a panic included.
struct RunEnd(Arc<Run>);

impl Drop for RunEnd {
    fn drop(&mut self) {
        self.0.queue.run_ended(&self.0);
    }
}

impl Queue {
    /// Starts as many runs for a destination as it may have and can use.
    pub(crate) fn kick(&self, state: &mut State, dest: DestId) {
        loop {
            let (stopping, full) = (state.stopping || !self.lease.holds(), state.relay_runs >= state.most_runs);
            let Some(slot) = state.dests.get_mut(dest) else { return };
            let Some(active) = slot.active.as_deref_mut().filter(|a| a.wants_run()) else { return };
            if stopping {
                return;
            }
            if slot.kind == Kind::Relay {
                if full {
                    if !active.in_line {
                        active.in_line = true;
                        state.line.push_back(dest);
                    }
                    return;
                }
                state.relay_runs += 1;
            }
            active.runs += 1;
            state.runs += 1;
            let Some(queue) = self.me.upgrade() else { return };
            let (kind, name) = (slot.kind, slot.name.clone());
            let transport = Arc::clone(self.transports.of(kind));
            let (served, without_lease, nothing_came) = Default::default();
            let run = Arc::new(Run { queue, dest, kind, served, without_lease, nothing_came });
            self.runtime.spawn(async move {
                let end = RunEnd(Arc::clone(&run));
                transport.run(name, Feed::new(run)).await;
                drop(end);
            });
        }
    }

    fn run_ended(&self, run: &Run) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.runs = state.runs.saturating_sub(1);
        if run.kind == Kind::Relay {
            state.relay_runs = state.relay_runs.saturating_sub(1);
        }
        let mut probe_at = None;
        let stopping = state.stopping || run.without_lease.load(Ordering::Relaxed);
        if let Some(active) = state.dests.active(run.dest) {
            active.runs = active.runs.saturating_sub(1);
            if active.down.as_ref().is_some_and(|down| down.probe == Probe::Out) {
                // The probe's message was put off for reasons of its own; the destination as a whole answered.
                active.down = None;
            }
            // What comes once a run has asked in vain is for the next run.
            let took_nothing = run.served.load(Ordering::Relaxed) == 0 && !run.nothing_came.load(Ordering::Relaxed);
            if took_nothing && active.wants_run() && active.runs == 0 && !stopping {
                let reply = Reply::new(451, EnhancedCode(4, 3, 0), "the deliverer ended without taking the message");
                probe_at = self.mark_down(active, reply, now);
            }
        }
        if let Some(time) = probe_at {
            state.wait_for_probe(run.dest, time);
        }
        // Those in line have waited for this; what is left here goes behind them.
        if run.kind == Kind::Relay
            && let Some(next) = state.line.pop_front()
        {
            if let Some(active) = state.dests.active(next) {
                active.in_line = false;
            }
            self.kick(&mut state, next);
        }
        self.kick(&mut state, run.dest);
        state.dests.tidy(run.dest);
        drop(state);
        if let Some(time) = probe_at {
            self.wake_schedule_at(time);
        }
        self.changed.notify_waiters();
    }

    /// Takes note that a destination cannot be reached. Answers when to probe it, if that is news.
    fn mark_down(&self, active: &mut crate::schedule::Active, reply: Reply, now: UnixMillis) -> Option<UnixMillis> {
        let (since, failures) = match &mut active.down {
            // Several runs find out at once; that is one failure.
            Some(down) if down.probe == Probe::Waiting => {
                down.reply = reply;
                return None;
            }
            Some(down) => (down.since, down.failures.saturating_add(1)),
            None => (now, 1),
        };
        let next_probe = self.times.next_probe(failures, now);
        active.down = Some(Down { reply, since, failures, next_probe, probe: Probe::Waiting });
        active.window = 1.0;
        // Patient runs have nothing to wait for.
        active.came.notify_waiters();
        Some(next_probe)
    }

    /// Makes a delivery of what is due of a message for a destination.
    fn delivery(&self, state: &mut State, id: QueueId, dest: DestId, now: UnixMillis) -> Option<Delivery> {
        let Some(Entry::Live(live)) = state.messages.get_mut(&id) else { return None };
        let recipients: Vec<usize> =
            (0..).zip(&live.fates).filter(|(_, f)| f.dest == dest && f.is_waiting() && f.next <= now).map(|(n, _)| n).collect();
        if recipients.is_empty() {
            return None;
        }
        if self.journal.failure().is_some() && matches!(live.place, Place::Journal { .. }) && state.dests.get(dest)?.kind == Kind::Relay {
            // Nobody could write down that another host took it: it waits until it is parked.
            let next = now.saturating_add(10_000);
            live.fates.iter_mut().filter(|f| f.dest == dest && f.is_waiting()).for_each(|f| f.next = next);
            let (priority, sender) = (live.envelope.priority, live.sender);
            state.queue(id, dest, next, priority, sender, now);
            self.keeper.park(id);
            return None;
        }
        let mut repeated = live.replayed;
        for &n in &recipients {
            if let Some(fate) = live.fates.get_mut(n) {
                fate.flying = true;
            }
            repeated |= live.envelope.recipients.get(n).is_some_and(|r| r.attempts > 0);
        }
        live.flying += 1;
        let (queue, served) = (self.me.upgrade()?, recipients.clone());
        let finish = Finish::new(move |outcomes| queue.finished(id, dest, &served, outcomes));
        let envelope = Arc::clone(&live.envelope);
        Some(Delivery { envelope, recipients, body: live.body.clone(), replayed: repeated, finish })
    }

    /// Reads the envelopes of parked messages and puts them into the schedule whole. Those that cannot be read are reported and left.
    pub(crate) async fn wake(&self, ids: Vec<QueueId>) {
        if ids.is_empty() {
            return;
        }
        let deferred = self.deferred.clone();
        let read = blocking(move || {
            let one = |id: QueueId| deferred.read_whole(id);
            // A defect that one envelope finds must not take the others of its batch along.
            let read = |id: QueueId| {
                let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(id)));
                (id, read.unwrap_or_else(|_| Err(std::io::Error::other("reading it ended in a panic").into())))
            };
            Ok(ids.into_iter().map(read).collect::<Vec<_>>())
        });
        let Ok(read) = read.await else { return };
        let now = self.clock.now();
        for (id, result) in read {
            match result {
                Ok((envelope, body)) => {
                    let names = self.transports.names(&envelope);
                    let mut state = self.state.lock();
                    let touched = state.wake(envelope, body, &names, now);
                    touched.into_iter().for_each(|dest| self.kick(&mut state, dest));
                }
                Err(error) => self.unreadable(id, &error.to_string()),
            }
        }
    }

    /// A parked message cannot be read: it is no longer scheduled, and someone must look.
    fn unreadable(&self, id: QueueId, error: &str) {
        let mut state = self.state.lock();
        if !matches!(state.messages.get(&id), Some(Entry::Parked(_))) {
            return;
        }
        state.remove(id);
        drop(state);
        tracing::error!(%id, %error, "a parked message cannot be read; its files are left where they are, and it is tried again at the next start");
        self.damaged.lock().push(format!("{id}: {error}"));
    }
}

/// Messages taken from a destination's queue and not delivered yet. Dropped, they go back: a deliverer may stop waiting for its feed.
struct Picked<'a> {
    run: &'a Run,
    ids: Vec<QueueId>,
    /// Those of them whose envelopes must be read first.
    asleep: Vec<QueueId>,
}

impl Drop for Picked<'_> {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let (dest, now) = (self.run.dest, self.run.queue.clock.now());
        let mut state = self.run.queue.state.lock();
        for id in self.ids.drain(..) {
            if let Some((priority, sender)) = state.turn_of(id) {
                state.queue(id, dest, 0, priority, sender, now);
            }
        }
    }
}

impl Run {
    /// Takes up to `max` from the queue. `None`: the run should end.
    fn pick(&self, max: usize) -> Option<Picked<'_>> {
        let mut state = self.queue.state.lock();
        if !self.queue.lease.holds() {
            self.without_lease.store(true, Ordering::Relaxed);
            return None;
        }
        let others_wait = self.kind == Kind::Relay && !state.line.is_empty();
        if state.stopping || (others_wait && self.served.load(Ordering::Relaxed) >= QUANTUM) {
            return None;
        }
        let active = state.dests.active(self.dest)?;
        let most = match active.down.as_ref().map(|down| down.probe) {
            None => max,
            Some(Probe::Due) => 1,
            Some(_) => return None,
        };
        let ids: Vec<QueueId> = std::iter::from_fn(|| active.ready.pop()).take(most).collect();
        let asleep = ids.iter().copied().filter(|id| matches!(state.messages.get(id), Some(Entry::Parked(_)))).collect();
        Some(Picked { run: self, ids, asleep })
    }

    /// Makes deliveries of what was picked, reading envelopes where that is needed.
    async fn deliveries(&self, mut picked: Picked<'_>) -> Vec<Delivery> {
        self.queue.wake(std::mem::take(&mut picked.asleep)).await;
        // From here on nothing waits, so that nothing can be lost half way.
        let ids = std::mem::take(&mut picked.ids);
        let now = self.queue.clock.now();
        let mut state = self.queue.state.lock();
        let mut out = Vec::with_capacity(ids.len());
        for id in ids {
            match self.queue.delivery(&mut state, id, self.dest, now) {
                Some(delivery) => out.push(delivery),
                None => state.let_rest(id, &self.queue.times, now),
            }
        }
        if !out.is_empty()
            && let Some(down) = state.dests.active(self.dest).and_then(|a| a.down.as_mut())
        {
            down.probe = Probe::Out;
        }
        out
    }
}

/// Counts a run as waiting for as long as it lives.
struct Patience<'a>(&'a Run);

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if let Some(active) = self.0.queue.state.lock().dests.active(self.0.dest) {
            active.patient = active.patient.saturating_sub(1);
        }
    }
}

#[async_trait::async_trait]
impl Source for Run {
    async fn take(&self, max: usize, patience: Duration) -> Vec<Delivery> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let Some(picked) = self.pick(max) else { return Vec::new() };
            if !picked.ids.is_empty() {
                let deliveries = self.deliveries(picked).await;
                if deliveries.is_empty() {
                    continue;
                }
                self.served.fetch_add(deliveries.len(), Ordering::Relaxed);
                return deliveries;
            }
            if patience.is_zero() {
                self.nothing_came.store(true, Ordering::Relaxed);
                return Vec::new();
            }
            let came = {
                let mut state = self.queue.state.lock();
                let others_wait = self.kind == Kind::Relay && !state.line.is_empty();
                let Some(active) = state.dests.active(self.dest).filter(|_| !others_wait) else { return Vec::new() };
                if !active.ready.is_empty() {
                    continue;
                }
                active.patient += 1;
                Arc::clone(&active.came)
            };
            let waiting = Patience(self);
            let timed_out = tokio::time::timeout_at(deadline, came.notified()).await.is_err();
            drop(waiting);
            if timed_out {
                self.nothing_came.store(true, Ordering::Relaxed);
                return Vec::new();
            }
        }
    }

    fn waiting(&self) -> usize {
        self.queue.state.lock().dests.active(self.dest).map_or(0, |active| active.ready.len())
    }

    fn down(&self, reply: Reply) {
        let now = self.queue.clock.now();
        let mut state = self.queue.state.lock();
        let Some(active) = state.dests.active(self.dest) else { return };
        let Some(time) = self.queue.mark_down(active, reply.clone(), now) else { return };
        state.wait_for_probe(self.dest, time);
        let name = state.dests.get(self.dest).map(|d| d.name.to_string()).unwrap_or_default();
        drop(state);
        self.queue.wake_schedule_at(time);
        tracing::info!(destination = %pillarbox_smtp::printable(name.as_bytes()), reply = %pillarbox_smtp::printable(reply.to_string().as_bytes()),
            "a destination cannot be reached; its mail waits together");
    }
}

/// What a recipient hears when a deliverer lost its delivery.
pub(crate) fn lost() -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "the delivery was interrupted")
}
