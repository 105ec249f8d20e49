//! Moving a whole directory into another store, while the first one goes on being used.

use crate::records::Change;
use crate::state::{FOREVER, SETTINGS};
use crate::store::{Directory, Result};

/// Records copied at a time.
const PAGE: usize = 1000;
/// Passes over a directory that changes all the while; the last pass is what counts.
const MAX_PASSES: usize = 10;

/// What was copied in the last pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Transferred {
    /// Domains.
    pub domains: u64,
    /// Users with their credentials.
    pub users: u64,
    /// Aliases.
    pub aliases: u64,
    /// Records that were in the target and not in the source, and were removed.
    pub removed: u64,
    /// Whether nothing changed in the source during the last pass, so that both are alike.
    pub settled: bool,
}

/// Makes `to` like `from`, settings included, other state not; repeated until a pass sees no change in `from`. Calls `progress` with the
/// number of records so far.
///
/// # Errors
/// When one of the two does not answer. The target is then partly filled; the transfer may be repeated.
pub async fn transfer(from: &dyn Directory, to: &dyn Directory, mut progress: impl FnMut(u64) + Send) -> Result<Transferred> {
    let mut done = Transferred::default();
    for _ in 0..MAX_PASSES {
        let before = from.generation();
        done = pass(from, to, &mut progress).await?;
        done.settled = from.generation() == before;
        if done.settled {
            break;
        }
    }
    Ok(done)
}

async fn pass(from: &dyn Directory, to: &dyn Directory, progress: &mut (dyn FnMut(u64) + Send)) -> Result<Transferred> {
    let mut done = Transferred::default();
    for (name, value) in from.state_list(SETTINGS).await? {
        to.state_put(SETTINGS, &name, &value, FOREVER).await?;
    }
    let domains = from.domains().await?;
    done.domains = domains.len() as u64;
    to.apply(domains.iter().cloned().map(Change::PutDomain).collect()).await?;
    // Removed first: a login name may have moved from a user that is gone.
    done.removed = remove_extra(from, to).await?;
    let mut after = None;
    loop {
        let page = from.users(None, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.address.clone());
        let mut changes = Vec::with_capacity(page.len().saturating_mul(2));
        for user in page {
            done.users = done.users.saturating_add(1);
            // A user removed since the page was read is removed from the target by the next pass.
            let credential = from.credential(&user.address).await?.unwrap_or_default();
            changes.push(Change::PutCredential(user.address.clone(), credential));
            changes.push(Change::PutUser(user));
        }
        to.apply(changes).await?;
        progress(done.users);
    }
    let mut after = None;
    loop {
        let page = from.aliases(None, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.address.clone());
        done.aliases = done.aliases.saturating_add(page.len() as u64);
        to.apply(page.into_iter().map(Change::PutAlias).collect()).await?;
        progress(done.users.saturating_add(done.aliases));
    }
    let mut gone = Vec::new();
    for domain in to.domains().await? {
        if !domains.iter().any(|d| d.name == domain.name) {
            gone.push(Change::RemoveDomain(domain.name));
        }
    }
    done.removed = done.removed.saturating_add(gone.len() as u64);
    if !gone.is_empty() {
        to.apply(gone).await?;
    }
    Ok(done)
}

/// Removes users and aliases that only the target has.
async fn remove_extra(from: &dyn Directory, to: &dyn Directory) -> Result<u64> {
    let mut removed = 0u64;
    let mut after = None;
    loop {
        let page = to.users(None, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.address.clone());
        let mut gone = Vec::new();
        for user in page {
            if from.user(&user.address).await?.is_none() {
                gone.push(Change::RemoveUser(user.address));
            }
        }
        removed = removed.saturating_add(gone.len() as u64);
        if !gone.is_empty() {
            to.apply(gone).await?;
        }
    }
    let mut after = None;
    loop {
        let page = to.aliases(None, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.address.clone());
        let mut gone = Vec::new();
        for alias in page {
            if from.alias(&alias.address).await?.is_none() {
                gone.push(Change::RemoveAlias(alias.address));
            }
        }
        removed = removed.saturating_add(gone.len() as u64);
        if !gone.is_empty() {
            to.apply(gone).await?;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::render;
    use crate::memory::MemoryDirectory;
    use crate::suite::build;

    #[tokio::test]
    async fn both_are_alike_afterwards() {
        let (from, to) = (MemoryDirectory::new(), MemoryDirectory::new());
        build(&from, &["example.org"]).await.user("bob@example.org").await.alias("@example.org", &["bob@example.org"]).await;
        from.state_put(SETTINGS, b"srs-secret", b"s", FOREVER).await.unwrap();
        from.state_put("greylist", b"k", b"v", FOREVER).await.unwrap();
        build(&to, &["example.org", "old.example"]).await.user("x@old.example").await.alias("y@example.org", &["x@old.example"]).await;
        let mut last = 0;
        let done = transfer(&from, &to, |n| last = n).await.unwrap();
        assert_eq!(done, Transferred { domains: 1, users: 1, aliases: 1, removed: 3, settled: true });
        assert_eq!(last, 2);
        assert_eq!(render(&to).await.unwrap(), render(&from).await.unwrap());
        assert!(to.state_list("greylist").await.unwrap().is_empty());
    }
}
