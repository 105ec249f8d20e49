//! The memory that message bodies may take, shared by all sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory that all message bodies together may take, and each of them.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    largest: u64,
    used: AtomicU64,
}

impl Budget {
    /// `limit` octets for all, `largest` for one.
    pub(crate) fn new(limit: u64, largest: u64) -> Arc<Self> {
        Arc::new(Self { limit, largest, used: AtomicU64::new(0) })
    }

    /// Octets taken.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether more than half is taken, so that what can be read again should not be kept.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.limit / 2
    }

    /// A lease of so many octets, if there are as many.
    pub(crate) fn lease_of(self: &Arc<Self>, octets: u64) -> Option<Lease> {
        let mut lease = self.lease();
        lease.grow_to(octets).then_some(lease)
    }

    /// An empty lease, to be grown.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        Lease { budget: Arc::clone(self), octets: 0 }
    }
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<Budget>,
    octets: u64,
}

impl Lease {
    /// Takes what is missing to `octets` in all; false, and nothing taken, when the budget has not got it or gives no one so much.
    pub(crate) fn grow_to(&mut self, octets: u64) -> bool {
        let more = octets.saturating_sub(self.octets);
        if more == 0 {
            return true;
        }
        if octets > self.budget.largest {
            return false;
        }
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.budget.limit {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.octets = octets;
        true
    }

    /// Gives back what is above `octets`.
    pub(crate) fn shrink_to(&mut self, octets: u64) {
        let surplus = self.octets.saturating_sub(octets);
        self.budget.used.fetch_sub(surplus, Ordering::Relaxed);
        self.octets -= surplus;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_gets_back_what_was_lent() {
        let budget = Budget::new(1000, 900);
        let mut a = budget.lease();
        let mut b = budget.lease();
        assert!(a.grow_to(600));
        assert!(!b.grow_to(500));
        assert!(b.grow_to(400));
        assert!(budget.is_tight());
        a.shrink_to(100);
        assert!(!b.grow_to(901));
        assert!(b.grow_to(900));
        drop((a, b));
        assert_eq!(budget.used(), 0);
    }
}
