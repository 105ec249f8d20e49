//! A directory that can be moved into another store while it is in use.
//!
//! [`Movable::migrate`] copies everything, brings over what changed meanwhile, and from then on makes every change in both stores, until
//! [`Movable::switch`] puts the other one in this one's place, or the process ends and is started with another configuration. Writes wait
//! only while the last few changes are brought over; reads never do.

pub(crate) mod touched;

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pillarbox_config::DirectoryConfig;
use pillarbox_smtp::{Domain, Mailbox};
use tokio::sync::{Notify, RwLock, watch};

use crate::open::Place;
use crate::postgres::{NodeState, Registry};
use crate::records::{Addressee, AliasAddress, AliasRecord, Change, CredentialRecord, DomainRecord, UserRecord};
use crate::state::StateRow;
use crate::store::{Directory, DirectoryError, Result};
use crate::transfer::{Adapt, Copy, Transferred};
use touched::Touches;

/// So few changes left, and writes wait while they are brought over.
const FEW: usize = 100;
/// Rounds until there are so few; then writes wait however many are left.
const MAX_ROUNDS: usize = 20;

/// Told records copied so far, and about how many there are.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A store and where it is.
struct Store {
    directory: Arc<dyn Directory>,
    place: Place,
    /// Added to the store's own generation, so that it grows across a switch.
    offset: u64,
}

/// How far a move is.
enum Stage {
    /// None is under way.
    Alone,
    /// A copy is being made; changes are noted.
    Copying(Arc<Touches>),
    /// Both are alike; every change is made in both.
    Mirrored(Arc<Mirror>),
}

/// The store that is to take this one's place.
struct Mirror {
    directory: Arc<dyn Directory>,
    place: Place,
    adapt: Arc<dyn Adapt>,
    /// Changes are made in both in one order.
    order: tokio::sync::Mutex<()>,
}

/// The directory in use, wherever it is kept.
pub struct Movable {
    store: ArcSwap<Store>,
    /// Held for reading by every write, for writing while the stage changes.
    stage: RwLock<Stage>,
    /// One move at a time.
    moving: tokio::sync::Mutex<()>,
    /// Why the mirror no longer is like the first.
    behind: Mutex<Option<String>>,
    generation: watch::Sender<u64>,
    /// Wakes the task that passes news on.
    switched: Arc<Notify>,
}

impl Movable {
    /// Over an open store. Needs a tokio runtime.
    pub fn new(directory: Arc<dyn Directory>, place: Place) -> Arc<Self> {
        let generation = watch::Sender::new(directory.generation());
        let this = Arc::new(Self {
            store: ArcSwap::from_pointee(Store { directory, place, offset: 0 }),
            stage: RwLock::new(Stage::Alone),
            moving: tokio::sync::Mutex::default(),
            behind: Mutex::default(),
            generation,
            switched: Arc::default(),
        });
        tokio::spawn(forward(Arc::downgrade(&this)));
        this
    }

    /// Where it is kept now.
    pub fn place(&self) -> Place {
        self.store.load().place.clone()
    }

    /// Where every change is made as well, since a move there is complete but for the switch.
    pub async fn mirror(&self) -> Option<Place> {
        match &*self.stage.read().await {
            Stage::Mirrored(mirror) => Some(mirror.place.clone()),
            _ => None,
        }
    }

    /// Makes `to` like this directory and keeps it so. `replace`: what `to` holds already may be changed and removed.
    /// `config` says how a database is used; `progress` hears how far it is.
    ///
    /// # Errors
    /// `Refused` when another move is under way, or when other nodes use this store and `to` is for one machine; otherwise when a store
    /// does not answer. `to` is then partly filled; the move may be repeated.
    pub async fn migrate(
        &self,
        to: &Place,
        config: &DirectoryConfig,
        replace: bool,
        adapt: Arc<dyn Adapt>,
        progress: Progress,
    ) -> Result<Transferred> {
        let Ok(_one) = self.moving.try_lock() else {
            return Err(DirectoryError::Refused("the directory is being moved already".into()));
        };
        let store = self.store.load_full();
        if store.place == *to {
            return Err(DirectoryError::Refused(format!("the directory is in {to} already")));
        }
        self.forget_mirror().await;
        others_are_gone(store.directory.as_ref(), to).await?;
        let target = to.open(config).await?;
        let there = target.domains().await?.len();
        if there > 0 && !replace {
            return Err(DirectoryError::Occupied { place: to.to_string(), domains: there });
        }
        let touches = Arc::new(Touches::default());
        *self.stage.write().await = Stage::Copying(Arc::clone(&touches));
        let total = count(store.directory.as_ref()).await?;
        let report = |done| progress(done, total);
        let copy =
            Copy { from: store.directory.as_ref(), to: target.as_ref(), adapt: adapt.as_ref(), touches: &touches, progress: &report };
        let copied = self.copy(&copy).await;
        let mut stage = self.stage.write().await;
        let settled = match copied {
            // Nobody writes now: what was touched last is the last.
            Ok(done) => copy.catch_up().await.map(|_| done),
            Err(error) => Err(error),
        };
        match settled {
            Ok(done) => {
                let mirror = Mirror { directory: Arc::clone(&target), place: to.clone(), adapt, order: Default::default() };
                *stage = Stage::Mirrored(Arc::new(mirror));
                tracing::info!(%to, users = done.users, aliases = done.aliases, "the directory was copied; every change is made in both from now on");
                Ok(done)
            }
            Err(error) => {
                *stage = Stage::Alone;
                Err(error)
            }
        }
    }

    async fn copy(&self, copy: &Copy<'_>) -> Result<Transferred> {
        let done = copy.everything().await?;
        for _ in 0..MAX_ROUNDS {
            if copy.catch_up().await? <= FEW {
                break;
            }
        }
        Ok(done)
    }

    /// A move that is begun anew ends the earlier one.
    async fn forget_mirror(&self) {
        *self.stage.write().await = Stage::Alone;
        *self.behind.lock() = None;
    }

    /// Puts the store that was moved to in this one's place; nobody who holds this directory notices.
    ///
    /// # Errors
    /// `Refused` when no move to that place is complete.
    pub async fn switch(&self, to: &Place) -> Result<()> {
        let _one = self.moving.lock().await;
        let mirror = match &*self.stage.read().await {
            Stage::Mirrored(mirror) if mirror.place == *to => Arc::clone(mirror),
            _ => {
                return Err(DirectoryError::Refused(format!(
                    "the directory has not been moved to {to}; `pillarbox directory migrate` does it, or a restart takes what is there"
                )));
            }
        };
        let store = self.store.load_full();
        // What was counted and remembered since the copy. The rest of it happens while this runs, and is little.
        let touches = Touches::default();
        let copy = Copy {
            from: store.directory.as_ref(),
            to: mirror.directory.as_ref(),
            adapt: mirror.adapt.as_ref(),
            touches: &touches,
            progress: &|_| {},
        };
        copy.state().await?;
        let mut stage = self.stage.write().await;
        if let Some(why) = &*self.behind.lock() {
            return Err(DirectoryError::Refused(why.clone()));
        }
        let before = self.generation();
        let offset = before.wrapping_add(1).wrapping_sub(mirror.directory.generation());
        self.store.store(Arc::new(Store { directory: Arc::clone(&mirror.directory), place: mirror.place.clone(), offset }));
        *stage = Stage::Alone;
        drop(stage);
        self.tell();
        self.switched.notify_one();
        tracing::info!(%to, "the directory is used from its new place");
        Ok(())
    }

    /// Tells subscribers when there is something new.
    fn tell(&self) {
        let now = self.generation();
        self.generation.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    fn inner(&self) -> Arc<dyn Directory> {
        Arc::clone(&self.store.load().directory)
    }
}

impl Mirror {
    /// Makes a change that was made in the first store.
    async fn follow(&self, changes: &[Change]) -> Result<()> {
        let mut adapted = Vec::with_capacity(changes.len());
        for change in changes {
            adapted.push(match change {
                Change::PutDomain(record) => Change::PutDomain(self.adapt.domain(record.clone()).await?),
                other => other.clone(),
            });
        }
        self.directory.apply(adapted).await
    }
}

/// A store for one machine cannot take the place of one that other nodes go on changing.
async fn others_are_gone(from: &dyn Directory, to: &Place) -> Result<()> {
    let (Some(registry), Place::Sled(_)) = (from.registry(), to) else { return Ok(()) };
    let live: Vec<String> =
        registry.nodes().await?.into_iter().filter(|node| node.state == NodeState::Live).map(|node| node.name).collect();
    if live.len() > 1 {
        let names = live.join(", ");
        return Err(DirectoryError::Refused(format!(
            "{} nodes use this directory ({names}), and one in a folder is for one of them; stop the others first",
            live.len()
        )));
    }
    Ok(())
}

/// Users and aliases.
async fn count(directory: &dyn Directory) -> Result<u64> {
    let mut total = 0u64;
    for domain in directory.domains().await? {
        let (users, aliases) = directory.counts(&domain.name).await?;
        total = total.saturating_add(users).saturating_add(aliases);
    }
    Ok(total)
}

/// Passes the store's news on, whichever store it is. Holds neither while it waits, or their files would stay open.
async fn forward(movable: Weak<Movable>) {
    loop {
        let Some(this) = movable.upgrade() else { return };
        let (mut news, switched) = (this.inner().watch(), Arc::clone(&this.switched));
        this.tell();
        drop(this);
        loop {
            let other_store = tokio::select! {
                changed = news.changed() => changed.is_err(),
                () = switched.notified() => true,
            };
            if other_store {
                break;
            }
            match movable.upgrade() {
                Some(this) => this.tell(),
                None => return,
            }
        }
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        self.switched.notify_one();
    }
}

#[async_trait::async_trait]
impl Directory for Movable {
    async fn domain(&self, name: &Domain) -> Result<Option<DomainRecord>> {
        self.inner().domain(name).await
    }

    async fn has_domain(&self, name: &Domain) -> Result<bool> {
        self.inner().has_domain(name).await
    }

    async fn domains(&self) -> Result<Vec<DomainRecord>> {
        self.inner().domains().await
    }

    async fn user(&self, address: &Mailbox) -> Result<Option<UserRecord>> {
        self.inner().user(address).await
    }

    async fn addressee(&self, address: &Mailbox) -> Result<Option<Addressee>> {
        self.inner().addressee(address).await
    }

    async fn user_by_login(&self, login: &Mailbox) -> Result<Option<UserRecord>> {
        self.inner().user_by_login(login).await
    }

    async fn users(&self, domain: Option<&Domain>, after: Option<&Mailbox>, limit: usize) -> Result<Vec<UserRecord>> {
        self.inner().users(domain, after, limit).await
    }

    async fn credential(&self, address: &Mailbox) -> Result<Option<CredentialRecord>> {
        self.inner().credential(address).await
    }

    async fn alias(&self, address: &AliasAddress) -> Result<Option<AliasRecord>> {
        self.inner().alias(address).await
    }

    async fn aliases(&self, domain: Option<&Domain>, after: Option<&AliasAddress>, limit: usize) -> Result<Vec<AliasRecord>> {
        self.inner().aliases(domain, after, limit).await
    }

    async fn aliases_to(&self, target: &Mailbox) -> Result<Vec<AliasRecord>> {
        self.inner().aliases_to(target).await
    }

    async fn counts(&self, domain: &Domain) -> Result<(u64, u64)> {
        self.inner().counts(domain).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        let stage = self.stage.read().await;
        match &*stage {
            Stage::Alone => self.inner().apply(changes).await,
            Stage::Copying(touches) => {
                let touched = Touches::of(&changes);
                let done = self.inner().apply(changes).await;
                // After a failure too: it may have been made all the same.
                touches.note(touched);
                done
            }
            Stage::Mirrored(mirror) => {
                let _in_order = mirror.order.lock().await;
                let done = self.inner().apply(changes.clone()).await;
                let followed = match &done {
                    Ok(()) => mirror.follow(&changes).await,
                    Err(DirectoryError::Refused(_)) => Ok(()),
                    Err(error) => Err(DirectoryError::Unavailable(format!("it is not known whether a change was made: {error}"))),
                };
                if let Err(error) = followed {
                    let why = error.to_string();
                    tracing::error!(to = %mirror.place, "a change was not made in the directory's new place; repeat `pillarbox directory migrate`: {why}");
                    *self.behind.lock() =
                        Some(format!("the directory in {} has missed a change: {why}; repeat `pillarbox directory migrate`", mirror.place));
                }
                done
            }
        }
    }

    fn generation(&self) -> u64 {
        let store = self.store.load();
        store.directory.generation().wrapping_add(store.offset)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn health(&self) -> std::result::Result<(), String> {
        self.inner().health()?;
        self.behind.lock().clone().map_or(Ok(()), Err)
    }

    fn repaired(&self) -> Option<String> {
        self.inner().repaired()
    }

    async fn state_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner().state_get(table, key).await
    }

    async fn state_put(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<()> {
        self.inner().state_put(table, key, value, keep).await
    }

    async fn state_put_new(&self, table: &str, key: &[u8], value: &[u8], keep: Duration) -> Result<bool> {
        self.inner().state_put_new(table, key, value, keep).await
    }

    async fn state_add(&self, table: &str, key: &[u8], amount: u64, keep: Duration) -> Result<u64> {
        self.inner().state_add(table, key, amount, keep).await
    }

    async fn state_remove(&self, table: &str, key: &[u8]) -> Result<()> {
        self.inner().state_remove(table, key).await
    }

    async fn state_list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner().state_list(table).await
    }

    async fn state_page(&self, after: Option<(&str, &[u8])>, limit: usize) -> Result<Vec<StateRow>> {
        self.inner().state_page(after, limit).await
    }

    async fn state_flush(&self) {
        self.inner().state_flush().await;
    }

    fn registry(&self) -> Option<Registry> {
        self.inner().registry()
    }
}

#[cfg(test)]
mod tests;
