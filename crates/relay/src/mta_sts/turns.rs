//! One at a time for each domain: who comes while a policy is fetched waits for it instead of fetching it again.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pillarbox_smtp::Domain;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// The domains about which somebody asks.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Domain, Weak<Turn<()>>>>);

impl Turns {
    /// Waits until nobody else is at it. The turn ends when the answer is dropped.
    pub(super) async fn take(&self, domain: &Domain) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            // As many as deliveries are under way, at most.
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(domain).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let fresh = Arc::new(Turn::new(()));
                turns.insert(domain.clone(), Arc::downgrade(&fresh));
                fresh
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_domain_has_one_turn_at_a_time_and_leaves_nothing_behind() {
        let turns = Turns::default();
        let [a, b] = ["a.test", "b.test"].map(|name| Domain::new(name).unwrap());
        let first = turns.take(&a).await;
        assert!(turns.take(&a).now_or_never().is_none());
        let other = turns.take(&b).await;
        drop(first);
        drop(turns.take(&a).await);
        drop(other);
        let _last = turns.take(&b).await;
        assert_eq!(turns.0.lock().len(), 1);
    }
}
