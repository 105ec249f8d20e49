//! The messages that may go to one destination now: by priority, and within a priority each sender in turn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::id::QueueId;

/// Stands for a sender; equal for the same logged-in user, or else the same reverse path.
pub(crate) type SenderKey = u32;

/// What waits for one destination.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    levels: BTreeMap<Reverse<i8>, Level>,
    len: usize,
}

/// One priority. A sender with 100,000 messages gets one of them sent for each one of another sender.
#[derive(Debug, Default)]
struct Level {
    queues: HashMap<SenderKey, VecDeque<QueueId>>,
    /// Senders with something waiting, the next one first.
    turns: VecDeque<SenderKey>,
}

impl Ready {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a message behind those of its sender and priority.
    pub(crate) fn push(&mut self, priority: i8, sender: SenderKey, id: QueueId) {
        let level = self.levels.entry(Reverse(priority)).or_default();
        let queue = level.queues.entry(sender).or_default();
        if queue.is_empty() {
            level.turns.push_back(sender);
        }
        queue.push_back(id);
        self.len += 1;
    }

    /// The next message.
    pub(crate) fn pop(&mut self) -> Option<QueueId> {
        let mut first = self.levels.first_entry()?;
        let level = first.get_mut();
        let sender = level.turns.pop_front()?;
        let queue = level.queues.get_mut(&sender)?;
        let id = queue.pop_front()?;
        if queue.is_empty() {
            level.queues.remove(&sender);
            if level.turns.is_empty() {
                first.remove();
            }
        } else {
            level.turns.push_back(sender);
        }
        self.len -= 1;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.pop()).map(|id| id.0).collect()
    }

    #[test]
    fn one_senders_thousands_do_not_delay_anothers_one() {
        let mut ready = Ready::default();
        for n in 0..1000 {
            ready.push(0, 1, QueueId(n));
        }
        ready.push(0, 2, QueueId(5000));
        assert_eq!(ready.len(), 1001);
        let order = drain(&mut ready);
        assert_eq!(order.iter().position(|&id| id == 5000), Some(1));
        assert!(ready.is_empty());
    }

    #[test]
    fn higher_priorities_go_first() {
        let mut ready = Ready::default();
        for (priority, id) in [(0, 1), (-9, 2), (9, 3), (0, 4), (9, 5)] {
            ready.push(priority, 1, QueueId(id));
        }
        assert_eq!(drain(&mut ready), [3, 5, 1, 4, 2]);
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_and_in_its_senders_order(pushes in proptest::collection::vec((-2i8..3, 0u32..4), 0..200)) {
            let mut ready = Ready::default();
            for (n, (priority, sender)) in pushes.iter().enumerate() {
                ready.push(*priority, *sender, QueueId(n as u64));
            }
            let order = drain(&mut ready);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..pushes.len() as u64).collect::<Vec<_>>());
            let of = |id: &u64| pushes[*id as usize];
            for pair in order.windows(2) {
                prop_assert!(of(&pair[0]).0 >= of(&pair[1]).0);
            }
            for key in order.iter().map(of).collect::<std::collections::HashSet<_>>() {
                let own: Vec<u64> = order.iter().copied().filter(|id| of(id) == key).collect();
                prop_assert!(own.is_sorted());
            }
        }
    }
}
