//! Changes become row writes: index rows, counters and the rules between records are kept here, once for every table store.

use std::collections::BTreeSet;

use pillarbox_smtp::{Domain, Mailbox};
use serde::de::DeserializeOwned;

use super::{Rows, Table, Writes, keys, read, values};
use crate::records::{AliasAddress, AliasRecord, Change, CredentialRecord, DomainRecord, UserRecord};
use crate::store::{DirectoryError, Result};

/// Row writes in hand, over tables that do not change meanwhile. `None` removes.
pub(crate) struct Stage<'a, T: Rows> {
    base: &'a T,
    writes: Writes,
    /// Users whose record or credentials were given: they are held against the rules.
    users: BTreeSet<Vec<u8>>,
    /// Users put or removed: their login names are indexed anew.
    named: BTreeSet<Vec<u8>>,
    aliases: BTreeSet<Vec<u8>>,
    gone: BTreeSet<Domain>,
}

impl<T: Rows> Rows for Stage<'_, T> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.writes.get(&(table, key.to_vec())) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(table, key),
        }
    }
}

/// Turns changes into row writes that belong together, or says why they contradict what is there.
pub(crate) fn stage<T: Rows>(base: &T, changes: &[Change]) -> Result<Writes> {
    let mut stage = Stage {
        base,
        writes: Writes::new(),
        users: BTreeSet::new(),
        named: BTreeSet::new(),
        aliases: BTreeSet::new(),
        gone: BTreeSet::new(),
    };
    for change in changes {
        stage.change(change)?;
    }
    stage.index_logins()?;
    // Rules are checked against the outcome, so that the order inside a batch does not matter.
    stage.check()?;
    Ok(stage.writes)
}

impl<T: Rows> Stage<'_, T> {
    fn change(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::PutDomain(record) => {
                self.gone.remove(&record.name);
                self.put(Table::Domains, record.name.as_str().as_bytes().to_vec(), record)
            }
            Change::RemoveDomain(name) => {
                self.gone.insert(name.clone());
                self.remove(Table::Domains, name.as_str().as_bytes())
            }
            Change::PutUser(record) => self.put_user(record),
            Change::RemoveUser(address) => self.remove_user(address),
            Change::PutCredential(address, record) => {
                let key = keys::mailbox(address);
                self.users.insert(key.clone());
                self.put(Table::Credentials, key, record)
            }
            Change::PutAlias(record) => self.put_alias(record),
            Change::RemoveAlias(address) => self.remove_alias(address),
            Change::UpgradePassword { address, from, to } => self.edit_credential(address, |c| {
                let current = c.password.as_ref() == Some(from);
                if current {
                    c.password = Some(to.clone());
                }
                current
            }),
            Change::TouchAppPassword { address, label, day } => self.edit_credential(address, |c| {
                let app = c.app.iter_mut().find(|a| a.label == *label && a.last_used.as_ref() != Some(day));
                app.map(|a| a.last_used = Some(day.clone())).is_some()
            }),
        }
    }

    fn put_user(&mut self, record: &UserRecord) -> Result<()> {
        let key = keys::mailbox(&record.address);
        if self.get(Table::Users, &key)?.is_none() {
            self.count(&record.address.domain, 1, 0)?;
        }
        self.users.insert(key.clone());
        self.named.insert(key.clone());
        self.put(Table::Users, key, record)
    }

    fn remove_user(&mut self, address: &Mailbox) -> Result<()> {
        let key = keys::mailbox(address);
        if self.get(Table::Users, &key)?.is_some() {
            self.count(&address.domain, -1, 0)?;
        }
        self.remove(Table::Users, &key)?;
        self.remove(Table::Credentials, &key)?;
        self.named.insert(key);
        Ok(())
    }

    /// Indexes the login names of the users at hand by what they have in the end: who had a name meanwhile, and lost or
    /// gave it up again, leaves no trace.
    fn index_logins(&mut self) -> Result<()> {
        let named = std::mem::take(&mut self.named);
        for key in &named {
            let Some(old) = read::record::<UserRecord, _>(self.base, Table::Users, key)? else { continue };
            for login in &old.logins {
                self.writes.insert((Table::Logins, keys::mailbox(login)), None);
            }
        }
        for key in &named {
            let Some(user) = self.record::<UserRecord>(Table::Users, key)? else { continue };
            for login in &user.logins {
                let login_key = keys::mailbox(login);
                if self.get(Table::Logins, &login_key)?.is_some_and(|owner| owner != *key) {
                    return Err(taken(login));
                }
                self.writes.insert((Table::Logins, login_key), Some(key.clone()));
            }
        }
        Ok(())
    }

    fn put_alias(&mut self, record: &AliasRecord) -> Result<()> {
        let key = keys::alias(&record.address);
        match read::record::<AliasRecord, _>(self, Table::Aliases, &key)? {
            None => self.count(record.address.domain(), 0, 1)?,
            Some(old) => self.index_targets(&old, &key, None),
        }
        self.index_targets(record, &key, Some(Vec::new()));
        self.aliases.insert(key.clone());
        self.put(Table::Aliases, key, record)
    }

    fn remove_alias(&mut self, address: &AliasAddress) -> Result<()> {
        let key = keys::alias(address);
        if let Some(old) = read::record::<AliasRecord, _>(self, Table::Aliases, &key)? {
            self.count(address.domain(), 0, -1)?;
            self.index_targets(&old, &key, None);
        }
        self.remove(Table::Aliases, &key)
    }

    fn index_targets(&mut self, alias: &AliasRecord, key: &[u8], value: Option<Vec<u8>>) {
        for target in &alias.targets {
            self.writes.insert((Table::AliasesTo, keys::target_alias(target, key)), value.clone());
        }
    }

    fn edit_credential(&mut self, address: &Mailbox, edit: impl FnOnce(&mut CredentialRecord) -> bool) -> Result<()> {
        let key = keys::mailbox(address);
        let Some(mut record) = read::record::<CredentialRecord, _>(self, Table::Credentials, &key)? else { return Ok(()) };
        if edit(&mut record) { self.put(Table::Credentials, key, &record) } else { Ok(()) }
    }

    fn count(&mut self, domain: &Domain, users: i64, aliases: i64) -> Result<()> {
        let (u, a) = read::counts(self, domain)?;
        let counts = (u.saturating_add_signed(users), a.saturating_add_signed(aliases));
        let row = (counts != (0, 0)).then(|| read::encode_counts(counts));
        self.writes.insert((Table::Counts, domain.as_str().as_bytes().to_vec()), row);
        Ok(())
    }

    fn put<R: serde::Serialize>(&mut self, table: Table, key: Vec<u8>, record: &R) -> Result<()> {
        self.drop_pieces(table, &key)?;
        let (row, pieces) = values::split(values::encode(record)?, rand::random);
        for (key, piece) in pieces {
            self.writes.insert((Table::Chunks, key), Some(piece));
        }
        self.writes.insert((table, key), Some(row));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<()> {
        self.drop_pieces(table, key)?;
        self.writes.insert((table, key.to_vec()), None);
        Ok(())
    }

    fn drop_pieces(&mut self, table: Table, key: &[u8]) -> Result<()> {
        if let Some(head) = self.get(table, key)?.as_deref().and_then(values::Head::parse) {
            for key in head.piece_keys() {
                self.writes.insert((Table::Chunks, key), None);
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        for key in &self.users {
            self.check_user(key)?;
        }
        for key in &self.aliases {
            let Some(alias) = self.record::<AliasRecord>(Table::Aliases, key)? else { continue };
            self.check_domain(alias.address.domain(), &alias.address)?;
            if let AliasAddress::Mailbox(m) = &alias.address {
                check_local(m)?;
            }
            if alias.targets.is_empty() {
                return Err(DirectoryError::Refused(format!("the alias {} has no target", alias.address)));
            }
            let own = |m: &Mailbox| alias.targets.iter().all(|t| t.same_as(m));
            if let AliasAddress::Mailbox(m) = &alias.address
                && own(m)
                && self.get(Table::Users, key)?.is_none()
            {
                return Err(DirectoryError::Refused(format!("the alias {m} points only to itself")));
            }
        }
        for domain in &self.gone {
            let (users, aliases) = read::counts(self, domain)?;
            if users > 0 || aliases > 0 {
                return Err(DirectoryError::Refused(format!(
                    "the domain {domain} still has {users} users and {aliases} aliases; remove them first"
                )));
            }
        }
        Ok(())
    }

    fn check_user(&self, key: &[u8]) -> Result<()> {
        let Some(user) = self.record::<UserRecord>(Table::Users, key)? else {
            if self.get(Table::Credentials, key)?.is_some() {
                let name = String::from_utf8_lossy(key).replace('\0', " ");
                return Err(DirectoryError::Refused(format!("a password was given for a user that does not exist ({name})")));
            }
            return Ok(());
        };
        self.check_domain(&user.address.domain, &user.address)?;
        check_local(&user.address)?;
        if let Some(owner) = self.get(Table::Logins, key)?
            && owner != *key
        {
            return Err(DirectoryError::Refused(format!("{} is a login name of another user", user.address)));
        }
        for login in &user.logins {
            let login_key = keys::mailbox(login);
            if login_key != key && self.get(Table::Users, &login_key)?.is_some() {
                return Err(taken(login));
            }
        }
        Ok(())
    }

    fn check_domain(&self, domain: &Domain, of: &dyn std::fmt::Display) -> Result<()> {
        match self.record::<DomainRecord>(Table::Domains, domain.as_str().as_bytes())? {
            Some(_) => Ok(()),
            None => Err(DirectoryError::Refused(format!("{of} belongs to no domain of this server; add {domain} first"))),
        }
    }

    fn record<R: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<R>> {
        read::record(self, table, key)
    }
}

fn taken(login: &Mailbox) -> DirectoryError {
    DirectoryError::Refused(format!("the login name {login} belongs to another user"))
}

/// RFC 5321 §4.5.3.1.1: others need not take longer local parts, so an address of ours would not work everywhere.
fn check_local(address: &Mailbox) -> Result<()> {
    if address.local.is_hostable() {
        return Ok(());
    }
    Err(DirectoryError::Refused(format!("the part of {address} before the @ is longer than 64 octets")))
}
