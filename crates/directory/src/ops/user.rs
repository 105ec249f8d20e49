//! Users: add, remove, and each thing that can be set.

use std::time::SystemTime;

use pillarbox_config::Argon2Cost;
use pillarbox_smtp::{Mailbox, Secret};

use super::{OpsError, Result, blocking, turn, user};
use crate::clock::rfc3339;
use crate::password;
use crate::records::{AliasAddress, AliasRecord, Change, CredentialRecord, Quota, ScramKeys, UserRecord, Vacation};
use crate::store::Directory;

/// A user to be added.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its address.
    pub address: Mailbox,
    /// Its password; without one it gets mail and cannot log in.
    pub password: Option<Secret>,
    /// Display name.
    pub name: Option<String>,
    /// Own quota; `None`: the configured default.
    pub quota: Option<Quota>,
    /// Keep SCRAM-SHA-256 keys too.
    pub scram: bool,
}

impl NewUser {
    /// With nothing but an address and a password.
    pub fn new(address: Mailbox, password: Option<Secret>) -> Self {
        Self { address, password, name: None, quota: None, scram: false }
    }
}

/// Adds a user.
///
/// # Errors
/// `NotFound` when its domain is not hosted; `Exists`; `Refused` for an unfit password or a name that is another user's login.
pub async fn add_user(directory: &dyn Directory, new: NewUser, cost: &Argon2Cost, now: SystemTime) -> Result<UserRecord> {
    let NewUser { address, password, name, quota, scram } = new;
    if !directory.has_domain(&address.domain).await? {
        return Err(OpsError::NotFound(format!("there is no domain {}; add it first", address.domain)));
    }
    if directory.user(&address).await?.is_some() {
        return Err(OpsError::Exists(format!("the user {address} exists already")));
    }
    let credential = match password {
        Some(password) => hashed(password, *cost, scram).await?,
        None => CredentialRecord::default(),
    };
    let _turn = turn().await;
    if directory.user(&address).await?.is_some() {
        return Err(OpsError::Exists(format!("the user {address} exists already")));
    }
    let record = UserRecord { quota, name: name.filter(|n| !n.trim().is_empty()), ..UserRecord::new(address.clone(), rfc3339(now)) };
    directory.apply(vec![Change::PutUser(record.clone()), Change::PutCredential(address, credential)]).await?;
    Ok(record)
}

async fn hashed(password: Secret, cost: Argon2Cost, scram: bool) -> Result<CredentialRecord> {
    blocking(move || {
        let hash = password::hash(&password, &cost)?;
        Ok(CredentialRecord { password: Some(hash), scram: scram.then(|| ScramKeys::generate(&password)), app: Vec::new() })
    })
    .await
}

/// What is left behind by a user that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedUser {
    /// Aliases that still name the address: their mail for it will be refused.
    pub aliases: Vec<AliasRecord>,
}

/// Removes a user with its credentials. Its mail stays on disk. Its forwarding, if it has one, stays without the copy.
///
/// # Errors
/// `NotFound`.
pub async fn remove_user(directory: &dyn Directory, address: &Mailbox) -> Result<RemovedUser> {
    let _turn = turn().await;
    let record = user(directory, address).await?;
    let mut changes = vec![Change::RemoveUser(record.address.clone())];
    let own = AliasAddress::Mailbox(record.address.clone());
    if let Some(mut forwarding) = directory.alias(&own).await? {
        forwarding.targets.retain(|target| !target.same_as(&record.address));
        changes.push(if forwarding.targets.is_empty() { Change::RemoveAlias(own.clone()) } else { Change::PutAlias(forwarding) });
    }
    directory.apply(changes).await?;
    let aliases = directory.aliases_to(&record.address).await?.into_iter().filter(|a| !a.address.same_as(&own)).collect();
    Ok(RemovedUser { aliases })
}

async fn edit(directory: &dyn Directory, address: &Mailbox, edit: impl FnOnce(&mut UserRecord)) -> Result<UserRecord> {
    let _turn = turn().await;
    let mut record = user(directory, address).await?;
    let before = record.clone();
    edit(&mut record);
    if record != before {
        directory.apply(vec![Change::PutUser(record.clone())]).await?;
    }
    Ok(record)
}

/// Suspends (`true`) or resumes a user.
///
/// # Errors
/// `NotFound`.
pub async fn set_suspended(directory: &dyn Directory, address: &Mailbox, suspended: bool) -> Result<UserRecord> {
    edit(directory, address, |user| user.suspended = suspended).await
}

/// Sets the quota; `None`: the configured default.
///
/// # Errors
/// `NotFound`.
pub async fn set_quota(directory: &dyn Directory, address: &Mailbox, quota: Option<Quota>) -> Result<UserRecord> {
    edit(directory, address, |user| user.quota = quota).await
}

/// Sets or clears the display name.
///
/// # Errors
/// `NotFound`; `Refused` for control characters.
pub async fn set_name(directory: &dyn Directory, address: &Mailbox, name: Option<String>) -> Result<UserRecord> {
    if name.as_ref().is_some_and(|n| n.chars().any(char::is_control)) {
        return Err(OpsError::Refused("a name cannot hold control characters".into()));
    }
    edit(directory, address, |user| user.name = name.filter(|n| !n.trim().is_empty())).await
}

/// Sets the vacation reply.
///
/// # Errors
/// `NotFound`; `Refused` when subject or dates are malformed, or the end is before the beginning.
pub async fn set_vacation(directory: &dyn Directory, address: &Mailbox, vacation: Vacation) -> Result<UserRecord> {
    if vacation.subject.chars().any(char::is_control) {
        return Err(OpsError::Refused("the subject must be one line".into()));
    }
    let format = time::macros::format_description!("[year]-[month]-[day]");
    for date in vacation.from.iter().chain(&vacation.until) {
        time::Date::parse(date, format).map_err(|_| OpsError::Refused(format!("{date:?} is not a date: write YYYY-MM-DD")))?;
    }
    if let (Some(from), Some(until)) = (&vacation.from, &vacation.until)
        && from > until
    {
        return Err(OpsError::Refused(format!("the vacation would end ({until}) before it begins ({from})")));
    }
    edit(directory, address, |user| user.vacation = Some(vacation)).await
}

/// Clears the vacation reply.
///
/// # Errors
/// `NotFound` when there is no such user or no vacation reply.
pub async fn clear_vacation(directory: &dyn Directory, address: &Mailbox) -> Result<UserRecord> {
    if user(directory, address).await?.vacation.is_none() {
        return Err(OpsError::NotFound(format!("{address} has no vacation reply")));
    }
    edit(directory, address, |user| user.vacation = None).await
}

/// Adds a name under which the user may log in.
///
/// # Errors
/// `NotFound`; `Exists`; `Refused` when another user has it.
pub async fn add_login(directory: &dyn Directory, address: &Mailbox, login: &Mailbox) -> Result<UserRecord> {
    let record = user(directory, address).await?;
    if record.address.same_as(login) || record.logins.iter().any(|l| l.same_as(login)) {
        return Err(OpsError::Exists(format!("{login} can log in as {} already", record.address)));
    }
    edit(directory, address, |user| user.logins.push(login.clone())).await
}

/// Removes a login name.
///
/// # Errors
/// `NotFound`.
pub async fn remove_login(directory: &dyn Directory, address: &Mailbox, login: &Mailbox) -> Result<UserRecord> {
    let record = user(directory, address).await?;
    if !record.logins.iter().any(|l| l.same_as(login)) {
        return Err(OpsError::NotFound(format!("{} has no login name {login}", record.address)));
    }
    edit(directory, address, |user| user.logins.retain(|l| !l.same_as(login))).await
}

/// Sets the main password. SCRAM keys are made anew where the user has them, or `scram` asks for them.
///
/// # Errors
/// `NotFound`; `Refused` for an unfit password.
pub async fn set_password(directory: &dyn Directory, address: &Mailbox, password: Secret, cost: &Argon2Cost, scram: bool) -> Result<()> {
    let record = user(directory, address).await?;
    let scram = scram || directory.credential(&record.address).await?.is_some_and(|c| c.scram.is_some());
    let fresh = hashed(password, *cost, scram).await?;
    let _turn = turn().await;
    // Read again: app-passwords may have changed while the hash was made.
    let app = directory.credential(&record.address).await?.unwrap_or_default().app;
    directory.apply(vec![Change::PutCredential(record.address, CredentialRecord { app, ..fresh })]).await?;
    Ok(())
}
