//! Copying a whole directory into another store, while the first one goes on being used.

use pillarbox_smtp::Mailbox;

use crate::movable::touched::{Touched, Touches};
use crate::records::{Change, DomainRecord};
use crate::store::{Directory, DirectoryError, Result};

/// Records copied at a time.
const PAGE: usize = 1000;
/// Entries of state written at once.
const AT_ONCE: usize = 8;
/// Attempts at a page that contradicts what the target holds: a change made meanwhile is brought over first.
const MAX_ATTEMPTS: usize = 5;

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Transferred {
    /// Domains.
    pub domains: u64,
    /// Users with their credentials.
    pub users: u64,
    /// Aliases.
    pub aliases: u64,
    /// Entries of state: what greylisting, vacation replies and rates remember, settings, reports.
    pub state: u64,
    /// Records that were in the target and not in the source, and were removed.
    pub removed: u64,
}

/// Brings what lies beside a record along: private DKIM keys are files with one store and in the records of the other.
#[async_trait::async_trait]
pub trait Adapt: Send + Sync + 'static {
    /// The record of a domain as the other store is to have it.
    async fn domain(&self, record: DomainRecord) -> Result<DomainRecord>;
}

/// One copy from store to store.
pub(crate) struct Copy<'a> {
    pub(crate) from: &'a dyn Directory,
    pub(crate) to: &'a dyn Directory,
    pub(crate) adapt: &'a dyn Adapt,
    /// Hears of every change of `from` meanwhile.
    pub(crate) touches: &'a Touches,
    /// Called with the number of records so far.
    pub(crate) progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl Copy<'_> {
    /// Makes `to` like `from` but for what is touched meanwhile, which [`Copy::catch_up`] brings over.
    pub(crate) async fn everything(&self) -> Result<Transferred> {
        let mut done = Transferred { state: self.state().await?, ..Transferred::default() };
        let domains = self.from.domains().await?;
        done.domains = domains.len() as u64;
        let mut changes = Vec::with_capacity(domains.len());
        for domain in &domains {
            changes.push(Change::PutDomain(self.adapt.domain(domain.clone()).await?));
        }
        self.to.apply(changes).await?;
        // Removed first: a login name may have moved from a user that is gone.
        done.removed = self.remove_extra().await?;
        let mut after = None;
        loop {
            let page = self.users_after(after.as_ref()).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            done.users = done.users.saturating_add(page.len() as u64);
            (self.progress)(done.users);
        }
        let mut after = None;
        loop {
            let page = self.from.aliases(None, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.address.clone());
            done.aliases = done.aliases.saturating_add(page.len() as u64);
            self.put(page.into_iter().map(Change::PutAlias).collect()).await?;
            (self.progress)(done.users.saturating_add(done.aliases));
        }
        let mut gone = Vec::new();
        for domain in self.to.domains().await? {
            if !self.from.has_domain(&domain.name).await? {
                gone.push(Change::RemoveDomain(domain.name));
            }
        }
        done.removed = done.removed.saturating_add(gone.len() as u64);
        if !gone.is_empty() {
            self.to.apply(gone).await?;
        }
        Ok(done)
    }

    /// Copies one page of users; answers with their addresses.
    async fn users_after(&self, after: Option<&Mailbox>) -> Result<Vec<Mailbox>> {
        let page = self.from.users(None, after, PAGE).await?;
        let addresses: Vec<_> = page.iter().map(|user| user.address.clone()).collect();
        let mut changes = Vec::with_capacity(page.len().saturating_mul(2));
        for user in page {
            // A user removed since the page was read is among the touched.
            let credential = self.from.credential(&user.address).await?.unwrap_or_default();
            changes.push(Change::PutCredential(user.address.clone(), credential));
            changes.push(Change::PutUser(user));
        }
        self.put(changes).await?;
        Ok(addresses)
    }

    /// Writes a page. Where the target's rules refuse it, what was changed meanwhile is brought over first: a login name that moved, a new domain.
    async fn put(&self, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        for _ in 0..MAX_ATTEMPTS {
            match self.to.apply(changes.clone()).await {
                Err(DirectoryError::Refused(why)) => {
                    tracing::debug!("a page of the directory is copied again: {why}");
                    let touched = self.catch_up().await?;
                    if touched == 0 {
                        return Err(DirectoryError::Refused(why));
                    }
                }
                done => return done,
            }
        }
        self.to.apply(changes).await
    }

    /// Brings over what was touched so far; answers how much that was.
    pub(crate) async fn catch_up(&self) -> Result<usize> {
        let touched = self.touches.take();
        for chunk in touched.chunks(PAGE) {
            if let Err(error) = self.bring(chunk).await {
                self.touches.put_back(&touched);
                return Err(error);
            }
        }
        Ok(touched.len())
    }

    async fn bring(&self, touched: &[Touched]) -> Result<()> {
        let mut changes = Vec::new();
        for one in touched {
            match one {
                Touched::Domain(name) => changes.push(match self.from.domain(name).await? {
                    Some(record) => Change::PutDomain(self.adapt.domain(record).await?),
                    None => Change::RemoveDomain(name.clone()),
                }),
                Touched::User(address) => match self.from.user(address).await? {
                    Some(user) => {
                        let credential = self.from.credential(address).await?.unwrap_or_default();
                        changes.push(Change::PutCredential(user.address.clone(), credential));
                        changes.push(Change::PutUser(user));
                    }
                    None => changes.push(Change::RemoveUser(address.clone())),
                },
                Touched::Alias(address) => changes.push(match self.from.alias(address).await? {
                    Some(alias) => Change::PutAlias(alias),
                    None => Change::RemoveAlias(address.clone()),
                }),
            }
        }
        self.to.apply(changes).await
    }

    /// Copies the state, each entry for as long as it has left.
    pub(crate) async fn state(&self) -> Result<u64> {
        let mut copied = 0u64;
        let mut after: Option<(String, Vec<u8>)> = None;
        loop {
            let page = self.from.state_page(after.as_ref().map(|(table, key)| (table.as_str(), key.as_slice())), PAGE).await?;
            let Some(last) = page.last() else { return Ok(copied) };
            after = Some((last.table.clone(), last.key.clone()));
            copied = copied.saturating_add(page.len() as u64);
            for rows in page.chunks(AT_ONCE) {
                let mut writes = Vec::with_capacity(AT_ONCE);
                for row in rows {
                    writes.push(self.to.state_put(&row.table, &row.key, &row.value, row.keep));
                }
                futures::future::try_join_all(writes).await?;
            }
        }
    }

    /// Removes users and aliases that only the target has.
    async fn remove_extra(&self) -> Result<u64> {
        let mut removed = 0u64;
        let mut after = None;
        loop {
            let page = self.to.users(None, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.address.clone());
            let mut gone = Vec::new();
            for user in page {
                if self.from.user(&user.address).await?.is_none() {
                    gone.push(Change::RemoveUser(user.address));
                }
            }
            removed = removed.saturating_add(self.remove(gone).await?);
        }
        let mut after = None;
        loop {
            let page = self.to.aliases(None, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.address.clone());
            let mut gone = Vec::new();
            for alias in page {
                if self.from.alias(&alias.address).await?.is_none() {
                    gone.push(Change::RemoveAlias(alias.address));
                }
            }
            removed = removed.saturating_add(self.remove(gone).await?);
        }
        Ok(removed)
    }

    async fn remove(&self, gone: Vec<Change>) -> Result<u64> {
        let count = gone.len() as u64;
        if count > 0 {
            self.to.apply(gone).await?;
        }
        Ok(count)
    }
}
