//! Domains: add and remove.

use std::time::SystemTime;

use pillarbox_smtp::Domain;

use super::{OpsError, Result};
use crate::clock::rfc3339;
use crate::records::{Change, DomainRecord};
use crate::store::Directory;

/// Records read or removed at a time.
const PAGE: usize = 1000;

/// Adds a domain.
///
/// # Errors
/// `Exists`; `Refused` for an address literal.
pub async fn add_domain(directory: &dyn Directory, name: &Domain, now: SystemTime) -> Result<DomainRecord> {
    if name.ip().is_some() {
        return Err(OpsError::Refused(format!("{name} is an address, not a domain")));
    }
    if directory.domain(name).await?.is_some() {
        return Err(OpsError::Exists(format!("the domain {name} exists already")));
    }
    let record = DomainRecord { name: name.clone(), created: rfc3339(now), deliver_to: None, dkim: Vec::new() };
    directory.apply(vec![Change::PutDomain(record.clone())]).await?;
    Ok(record)
}

/// What went with a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedDomain {
    /// Users; their mail stays on disk.
    pub users: u64,
    /// Aliases.
    pub aliases: u64,
}

/// Removes a domain; with `cascade`, its users and aliases too.
///
/// # Errors
/// `NotFound`; `Refused` while it has users or aliases and `cascade` is off.
pub async fn remove_domain(directory: &dyn Directory, name: &Domain, cascade: bool) -> Result<RemovedDomain> {
    if directory.domain(name).await?.is_none() {
        return Err(OpsError::NotFound(format!("there is no domain {name}")));
    }
    let (users, aliases) = directory.counts(name).await?;
    if !cascade && (users > 0 || aliases > 0) {
        return Err(OpsError::Refused(format!(
            "the domain {name} still has {users} users and {aliases} aliases; remove them first, or ask for their removal too"
        )));
    }
    // The last step takes the domain itself, so that one that was interrupted can be repeated.
    loop {
        let mut changes: Vec<Change> =
            directory.users(Some(name), None, PAGE).await?.into_iter().map(|u| Change::RemoveUser(u.address)).collect();
        changes.extend(directory.aliases(Some(name), None, PAGE).await?.into_iter().map(|a| Change::RemoveAlias(a.address)));
        let last = changes.len() < PAGE;
        if last {
            changes.push(Change::RemoveDomain(name.clone()));
        }
        directory.apply(changes).await?;
        if last {
            return Ok(RemovedDomain { users, aliases });
        }
    }
}
