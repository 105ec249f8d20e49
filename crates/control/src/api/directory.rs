//! Domains, users, aliases and their secrets as the API shows and takes them.

use pillarbox_directory::{AliasAddress, AliasRecord, DkimKeyRecord, DomainRecord, Quota, UserRecord, Vacation};
use pillarbox_smtp::{Domain, Mailbox};
use serde::{Deserialize, Serialize};

/// `domain list`, `domain show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainInfo {
    /// Its name in A-labels.
    pub name: Domain,
    /// How many users it has.
    pub users: u64,
    /// How many aliases it has.
    pub aliases: u64,
    /// When it was added.
    pub created: String,
    /// Who stores its mail, where that differs from the configuration.
    pub deliver_to: Option<String>,
    /// Selectors of its DKIM keys, newest first.
    pub dkim: Vec<String>,
}

impl DomainInfo {
    /// From the record and the two counts.
    pub fn new(record: DomainRecord, (users, aliases): (u64, u64)) -> Self {
        let dkim = record.dkim.iter().map(|k| k.selector.clone()).collect();
        Self { name: record.name, users, aliases, created: record.created, deliver_to: record.deliver_to, dkim }
    }
}

/// `POST /v1/domains`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDomain {
    /// Its name.
    pub name: Domain,
}

/// `user list`, `user show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserInfo {
    /// The address.
    pub address: Mailbox,
    /// Logins refused.
    pub suspended: bool,
    /// The quota in force, from the user or the configuration; `null`: none.
    pub quota_bytes: Option<u64>,
    /// What the mailbox holds, as its quota file says.
    pub used_bytes: u64,
    /// When it was added.
    pub created: String,
    /// Further names that log in as this user.
    #[serde(default)]
    pub logins: Vec<Mailbox>,
    /// Display name.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether a vacation reply is set.
    #[serde(default)]
    pub vacation: bool,
}

impl UserInfo {
    /// From the record, the configured default quota and what the mailbox holds.
    pub fn new(record: UserRecord, default_quota: Option<u64>, used_bytes: u64) -> Self {
        let quota_bytes = match record.quota {
            Some(Quota::Bytes(n)) => Some(n),
            Some(Quota::None) => None,
            None => default_quota,
        };
        Self {
            address: record.address,
            suspended: record.suspended,
            quota_bytes,
            used_bytes,
            created: record.created,
            logins: record.logins,
            name: record.name,
            vacation: record.vacation.is_some(),
        }
    }
}

/// `POST /v1/users`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The address.
    pub address: Mailbox,
    /// The password; without one nobody can log in until `passwd`.
    #[serde(default)]
    pub password: Option<String>,
    /// A size, `"none"`, or absent for the configured default.
    #[serde(default)]
    pub quota: Option<String>,
    /// Display name.
    #[serde(default)]
    pub name: Option<String>,
    /// Further names that log in as this user.
    #[serde(default)]
    pub logins: Vec<Mailbox>,
}

/// `PATCH /v1/users/ADDRESS`: what is absent stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserChange {
    /// Refuse logins, or allow them again.
    pub suspended: Option<bool>,
    /// A size, `"none"`, or `"default"`.
    pub quota: Option<String>,
    /// Display name; empty removes it.
    pub name: Option<String>,
    /// Further names that log in as this user.
    pub logins: Option<Vec<Mailbox>>,
}

/// `PUT /v1/users/ADDRESS/password`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The password.
    pub password: String,
}

/// `alias list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AliasInfo {
    /// The address, or `@domain` for a catch-all.
    pub address: AliasAddress,
    /// Where its mail goes.
    pub targets: Vec<Mailbox>,
    /// When it was added.
    pub created: String,
}

impl From<AliasRecord> for AliasInfo {
    fn from(record: AliasRecord) -> Self {
        Self { address: record.address, targets: record.targets, created: record.created }
    }
}

/// `POST /v1/aliases`: targets are added to those that are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAlias {
    /// The address, or `@domain` for a catch-all.
    pub address: AliasAddress,
    /// Where its mail goes.
    pub targets: Vec<Mailbox>,
}

/// `app-password list`; `password` only in the answer to `add`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AppPasswordInfo {
    /// What the user calls the device.
    pub label: String,
    /// When it was made.
    pub created: String,
    /// The day it was last used.
    pub last_used: Option<String>,
    /// The password, shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `POST /v1/app-passwords/ADDRESS`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAppPassword {
    /// What the user calls the device.
    pub label: String,
}

/// `vacation show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VacationInfo {
    /// Whose.
    pub address: Mailbox,
    /// The reply and its days.
    #[serde(flatten)]
    pub vacation: Vacation,
}

/// `dkim list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DkimInfo {
    /// Selector.
    pub selector: String,
    /// "rsa-sha256" or "ed25519-sha256".
    pub algorithm: String,
    /// When it was made.
    pub created: String,
    /// "signing", "waiting" (until `active_from`) or "retired".
    pub state: String,
    /// Signs from then on.
    pub active_from: Option<String>,
    /// No longer signs since then.
    pub retired: Option<String>,
    /// Owner name of the TXT record.
    pub record_name: String,
    /// Text of the TXT record.
    pub record: String,
}

impl DkimInfo {
    /// How a key stands at `now` (RFC 3339 UTC, which sorts as text).
    pub fn new(domain: &Domain, key: &DkimKeyRecord, now: &str) -> Self {
        let state = match (&key.retired, &key.active_from) {
            (Some(_), _) => "retired",
            (None, Some(from)) if from.as_str() > now => "waiting",
            _ => "signing",
        };
        let k = if key.algorithm.starts_with("ed25519") { "ed25519" } else { "rsa" };
        Self {
            selector: key.selector.clone(),
            algorithm: key.algorithm.clone(),
            created: key.created.clone(),
            state: state.into(),
            active_from: key.active_from.clone(),
            retired: key.retired.clone(),
            record_name: format!("{}._domainkey.{domain}", key.selector),
            record: format!("v=DKIM1; k={k}; p={}", key.public),
        }
    }
}

/// `apply`: what was or would be done.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApplyInfo {
    /// One sentence a change.
    pub changes: Vec<String>,
    /// Whether they were made.
    pub applied: bool,
}

/// `user import`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportInfo {
    /// Users added.
    pub users: u64,
    /// Aliases added or extended.
    pub aliases: u64,
    /// Users and aliases that were there already and were left.
    pub existing: u64,
    /// Lines that were refused, and why.
    pub refused: Vec<String>,
}

/// `dkim rotate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DkimRotated {
    /// Records to publish now, as name and text.
    pub publish: Vec<(String, String)>,
    /// When the new keys begin to sign.
    pub active_from: String,
    /// Selectors that sign until then.
    pub retiring: Vec<String>,
    /// Names whose records may leave DNS now.
    pub remove: Vec<String>,
}

macro_rules! hidden {
    ($($type:ident),*) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($type), "(…)"))
            }
        }
    )*};
}
hidden!(NewUser, NewPassword, AppPasswordInfo);
