//! Destinations: how many runs each may have, and whether it is down.

use std::collections::HashMap;
use std::sync::Arc;

use pillarbox_smtp::Reply;
use tokio::sync::Notify;

use super::ready::Ready;
use crate::envelope::{Route, UnixMillis};
use crate::transport::Destination;

/// A destination's number while anything is queued for it.
pub(crate) type DestId = u32;

/// Which transport serves a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Mailbox,
    Relay,
}

impl Kind {
    pub(crate) fn of(route: &Route) -> Self {
        match route {
            Route::Mailbox { .. } => Self::Mailbox,
            Route::Relay => Self::Relay,
        }
    }
}

/// Runs that a destination starts with.
const FIRST_WINDOW: f32 = 2.0;

/// All destinations that anything is queued for.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    slots: Vec<Option<Dest>>,
    free: Vec<DestId>,
    numbers: HashMap<(Kind, Destination), DestId>,
}

/// One destination.
#[derive(Debug)]
pub(crate) struct Dest {
    pub(crate) kind: Kind,
    pub(crate) name: Destination,
    /// Messages with recipients of this destination that are not settled.
    pub(crate) jobs: u32,
    /// Present while something is due, under way, or known to be wrong.
    pub(crate) active: Option<Box<Active>>,
}

/// The part of a destination that exists only while it matters.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) ready: Ready,
    /// Runs under way.
    pub(crate) runs: usize,
    /// Runs that wait for something to come.
    pub(crate) patient: usize,
    /// How many runs may be under way; grows with success, shrinks with failure.
    pub(crate) window: f32,
    /// The transport's own limit.
    pub(crate) max: usize,
    /// In the line of destinations that wait for a free run.
    pub(crate) in_line: bool,
    pub(crate) down: Option<Down>,
    /// Wakes patient runs.
    pub(crate) came: Arc<Notify>,
}

/// A destination that cannot be reached as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Down {
    /// In its own words, or ours.
    pub(crate) reply: Reply,
    pub(crate) since: UnixMillis,
    /// Probes that failed, the first attempt included.
    pub(crate) failures: u32,
    pub(crate) next_probe: UnixMillis,
    pub(crate) probe: Probe,
}

/// How the present probe stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Not due yet.
    Waiting,
    /// Due: the next run may take one message.
    Due,
    /// One message was taken.
    Out,
}

impl Active {
    fn new(kind: Kind, max: usize) -> Self {
        let max = max.max(1);
        let window = match kind {
            // A mailbox store is ours and needs no courtesy.
            Kind::Mailbox => max as f32,
            Kind::Relay => FIRST_WINDOW.min(max as f32),
        };
        Self { ready: Ready::default(), runs: 0, patient: 0, window, max, in_line: false, down: None, came: Arc::new(Notify::new()) }
    }

    /// How many runs may be under way now.
    pub(crate) fn allowed(&self) -> usize {
        match self.down.as_ref().map(|d| d.probe) {
            None => (self.window as usize).clamp(1, self.max),
            Some(Probe::Due) => 1,
            Some(_) => 0,
        }
    }

    /// Whether another run would find work.
    pub(crate) fn wants_run(&self) -> bool {
        self.ready.len() > self.patient && self.runs < self.allowed()
    }

    /// A delivery went through: the window doubles with each round of successes.
    pub(crate) fn succeeded(&mut self) {
        self.down = None;
        self.window = (self.window + 1.0 / self.window.max(1.0) + 0.25).min(self.max as f32);
    }

    /// Nothing of a delivery went through.
    pub(crate) fn failed(&mut self) {
        self.window = (self.window - 0.5).max(1.0);
    }

    /// Whether it may be forgotten.
    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.runs == 0 && self.down.is_none()
    }
}

impl Destinations {
    /// The number of a destination, given out if need be. Counts one more job for it.
    pub(crate) fn add_job(&mut self, kind: Kind, name: &Destination) -> DestId {
        let number = match self.numbers.get(&(kind, name.clone())) {
            Some(&number) => number,
            None => {
                let number = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(None);
                    DestId::try_from(self.slots.len() - 1).unwrap_or(DestId::MAX)
                });
                if let Some(slot) = self.slots.get_mut(number as usize) {
                    *slot = Some(Dest { kind, name: name.clone(), jobs: 0, active: None });
                }
                self.numbers.insert((kind, name.clone()), number);
                number
            }
        };
        if let Some(dest) = self.get_mut(number) {
            dest.jobs += 1;
        }
        number
    }

    /// Counts one more job for a destination that has some.
    pub(crate) fn count_job(&mut self, number: DestId) {
        if let Some(dest) = self.get_mut(number) {
            dest.jobs += 1;
        }
    }

    /// One job less; the last one takes the destination with it.
    pub(crate) fn remove_job(&mut self, number: DestId) {
        if let Some(dest) = self.get_mut(number) {
            dest.jobs = dest.jobs.saturating_sub(1);
        }
        self.tidy(number);
    }

    /// Drops what is no longer needed of a destination.
    pub(crate) fn tidy(&mut self, number: DestId) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        let Some(dest) = slot else { return };
        let unused = dest.jobs == 0;
        // With nothing queued, whether it is down is of no interest, and what is in the line may be stale.
        if dest.active.as_ref().is_some_and(|a| a.is_idle() || (unused && a.runs == 0)) {
            dest.active = None;
        }
        if unused && dest.active.is_none() {
            self.numbers.remove(&(dest.kind, dest.name.clone()));
            *slot = None;
            self.free.push(number);
        }
    }

    pub(crate) fn get(&self, number: DestId) -> Option<&Dest> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: DestId) -> Option<&mut Dest> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// The active part, if there is one.
    pub(crate) fn active(&mut self, number: DestId) -> Option<&mut Active> {
        self.get_mut(number)?.active.as_deref_mut()
    }

    /// The active part, made if need be; `max` is asked for the transport's limit then.
    pub(crate) fn activate(&mut self, number: DestId, max: impl FnOnce(Kind, &Destination) -> usize) -> Option<&mut Active> {
        let dest = self.get_mut(number)?;
        if dest.active.is_none() {
            dest.active = Some(Box::new(Active::new(dest.kind, max(dest.kind, &dest.name))));
        }
        dest.active.as_deref_mut()
    }

    /// The number of a destination that something is queued for.
    pub(crate) fn find(&self, kind: Kind, name: &Destination) -> Option<DestId> {
        self.numbers.get(&(kind, name.clone())).copied()
    }

    /// Whether it is known to be down, and what it said.
    pub(crate) fn down(&self, number: DestId) -> Option<&Down> {
        self.get(number)?.active.as_ref()?.down.as_ref()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DestId, &Dest)> {
        (0..).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// The clock went back by `by`: probes come as much earlier.
    pub(crate) fn clock_went_back(&mut self, by: UnixMillis) {
        for down in self.slots.iter_mut().flatten().filter_map(|d| d.active.as_mut()?.down.as_mut()) {
            down.next_probe = down.next_probe.saturating_sub(by);
            down.since = down.since.saturating_sub(by);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::QueueId;

    fn name(text: &str) -> Destination {
        Destination(text.into())
    }

    #[test]
    fn a_destination_lives_as_long_as_its_jobs() {
        let mut all = Destinations::default();
        let a = all.add_job(Kind::Relay, &name("mx:a"));
        assert_eq!(all.add_job(Kind::Relay, &name("mx:a")), a);
        assert_ne!(all.add_job(Kind::Mailbox, &name("mx:a")), a);
        all.remove_job(a);
        assert!(all.get(a).is_some());
        all.remove_job(a);
        assert!(all.get(a).is_none());
        assert_eq!(all.len(), 1);
        assert_eq!(all.add_job(Kind::Relay, &name("mx:b")), a, "numbers are used again");
    }

    #[test]
    fn the_window_grows_with_success_and_shrinks_with_failure() {
        let mut active = Active::new(Kind::Relay, 10);
        assert_eq!(active.allowed(), 2);
        (0..50).for_each(|_| active.succeeded());
        assert_eq!(active.allowed(), 10);
        (0..50).for_each(|_| active.failed());
        assert_eq!(active.allowed(), 1);
        assert_eq!(Active::new(Kind::Mailbox, 4).allowed(), 4);
        assert_eq!(Active::new(Kind::Relay, 0).allowed(), 1);
    }

    #[test]
    fn one_that_is_down_gets_one_probe() {
        let mut active = Active::new(Kind::Relay, 10);
        active.ready.push(0, 1, QueueId(1));
        active.ready.push(0, 1, QueueId(2));
        let mut down = Down { reply: Reply::plain(421, "x"), since: 0, failures: 1, next_probe: 5, probe: Probe::Waiting };
        active.down = Some(down.clone());
        assert!(!active.wants_run());
        down.probe = Probe::Due;
        active.down = Some(down);
        assert!(active.wants_run());
        active.runs = 1;
        assert!(!active.wants_run());
        active.succeeded();
        assert!(active.wants_run());
    }
}
