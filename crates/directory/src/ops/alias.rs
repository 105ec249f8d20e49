//! Aliases: targets are added to those that are there, and removed one by one or all.

use std::time::SystemTime;

use pillarbox_smtp::Mailbox;

use super::{OpsError, Result, turn};
use crate::clock::rfc3339;
use crate::records::{AliasAddress, AliasRecord, Change};
use crate::store::Directory;

/// Targets of one alias.
const MAX_TARGETS: usize = 1000;

/// Adds targets to an alias, which is made when it is not there.
///
/// # Errors
/// `NotFound` when the domain is not hosted; `Exists` when all targets are there already; `Refused` for none, too many, or a loop.
pub async fn add_alias(directory: &dyn Directory, address: &AliasAddress, targets: &[Mailbox], now: SystemTime) -> Result<AliasRecord> {
    if directory.domain(address.domain()).await?.is_none() {
        return Err(OpsError::NotFound(format!("there is no domain {}; add it first", address.domain())));
    }
    if targets.is_empty() {
        return Err(OpsError::Refused(format!("no target was given for {address}")));
    }
    let _turn = turn().await;
    let old = directory.alias(address).await?;
    let is_new = old.is_none();
    let mut record = old.unwrap_or_else(|| AliasRecord { address: address.clone(), targets: Vec::new(), created: rfc3339(now) });
    let before = record.targets.len();
    for target in targets {
        if !record.targets.iter().any(|t| t.same_as(target)) {
            record.targets.push(target.clone());
        }
    }
    if record.targets.len() == before && !is_new {
        return Err(OpsError::Exists(format!("{address} goes to all of these already")));
    }
    if record.targets.len() > MAX_TARGETS {
        return Err(OpsError::Refused(format!("{address} would have {} targets; {MAX_TARGETS} are allowed", record.targets.len())));
    }
    if let AliasAddress::Mailbox(own) = address
        && leads_only_back(directory, own, &record.targets).await?
    {
        return Err(OpsError::Refused(format!("{address} would lead only to itself")));
    }
    directory.apply(vec![Change::PutAlias(record.clone())]).await?;
    Ok(record)
}

/// Whether following aliases from `targets` ends nowhere but at `own`, which is no user.
async fn leads_only_back(directory: &dyn Directory, own: &Mailbox, targets: &[Mailbox]) -> Result<bool> {
    let (mut waiting, mut seen) = (targets.to_vec(), vec![own.key()]);
    while let Some(address) = waiting.pop() {
        let key = address.key();
        if address.same_as(own) {
            if directory.user(own).await?.is_some() {
                return Ok(false);
            }
            continue;
        }
        if seen.contains(&key) {
            continue;
        }
        if seen.len() > MAX_TARGETS {
            return Ok(false);
        }
        seen.push(key);
        match directory.alias(&AliasAddress::Mailbox(address.clone())).await? {
            Some(alias) => waiting.extend(alias.targets),
            // An end of its own: a user, somewhere else, or nobody, of which resolution will tell.
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Removes targets, or with none given the alias; an alias without targets goes. Returns what is left.
///
/// # Errors
/// `NotFound` when there is no such alias, or it does not have one of the targets; then nothing is changed.
pub async fn remove_alias(directory: &dyn Directory, address: &AliasAddress, targets: &[Mailbox]) -> Result<Option<AliasRecord>> {
    let _turn = turn().await;
    let Some(mut record) = directory.alias(address).await? else {
        return Err(OpsError::NotFound(format!("there is no alias {address}")));
    };
    for target in targets {
        let before = record.targets.len();
        record.targets.retain(|t| !t.same_as(target));
        if record.targets.len() == before {
            return Err(OpsError::NotFound(format!("{address} does not go to {target}")));
        }
    }
    if targets.is_empty() || record.targets.is_empty() {
        directory.apply(vec![Change::RemoveAlias(address.clone())]).await?;
        return Ok(None);
    }
    directory.apply(vec![Change::PutAlias(record.clone())]).await?;
    Ok(Some(record))
}
