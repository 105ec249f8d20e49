//! Which records changed while a directory was being copied.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use pillarbox_smtp::{Domain, Mailbox};

use crate::records::{AliasAddress, Change};

/// A record that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touched {
    Domain(Domain),
    /// Its credentials too.
    User(Mailbox),
    Alias(AliasAddress),
}

impl Touched {
    fn by(change: &Change) -> Self {
        match change {
            Change::PutDomain(record) => Self::Domain(record.name.clone()),
            Change::RemoveDomain(name) => Self::Domain(name.clone()),
            Change::PutUser(record) => Self::User(record.address.clone()),
            Change::RemoveUser(address)
            | Change::PutCredential(address, _)
            | Change::UpgradePassword { address, .. }
            | Change::TouchAppPassword { address, .. } => Self::User(address.clone()),
            Change::PutAlias(record) => Self::Alias(record.address.clone()),
            Change::RemoveAlias(address) => Self::Alias(address.clone()),
        }
    }
}

/// All that changed since the last look.
#[derive(Default)]
pub(crate) struct Touches(Mutex<BTreeSet<Touched>>);

impl Touches {
    /// To be called once the changes are made, so that whoever takes them reads the records as they are since.
    pub(crate) fn note(&self, touched: Vec<Touched>) {
        self.0.lock().extend(touched);
    }

    /// What these changes touch.
    pub(crate) fn of(changes: &[Change]) -> Vec<Touched> {
        changes.iter().map(Touched::by).collect()
    }

    /// Takes all of them; domains come first, in the order of the enum.
    pub(crate) fn take(&self) -> Vec<Touched> {
        std::mem::take(&mut *self.0.lock()).into_iter().collect()
    }

    /// They were not brought over after all.
    pub(crate) fn put_back(&self, touched: &[Touched]) {
        self.0.lock().extend(touched.iter().cloned());
    }
}
