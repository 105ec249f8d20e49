//! Reading records out of tables.

use pillarbox_smtp::{Domain, Mailbox};
use serde::de::DeserializeOwned;

use super::{Row, Rows, Table, Tables, keys, values};
use crate::records::{AliasAddress, AliasRecord, CredentialRecord, DomainRecord, UserRecord};
use crate::store::Result;

/// The record at a key.
pub(crate) fn record<R: DeserializeOwned, T: Rows + ?Sized>(tables: &T, table: Table, key: &[u8]) -> Result<Option<R>> {
    values::get(tables, table, key)?.map(|bytes| values::decode(table, key, &bytes)).transpose()
}

pub(crate) fn domain<T: Rows + ?Sized>(tables: &T, name: &Domain) -> Result<Option<DomainRecord>> {
    record(tables, Table::Domains, name.as_str().as_bytes())
}

pub(crate) fn domains<T: Tables + ?Sized>(tables: &T) -> Result<Vec<DomainRecord>> {
    list(tables, Table::Domains, b"", None, usize::MAX)
}

pub(crate) fn user<T: Rows + ?Sized>(tables: &T, address: &Mailbox) -> Result<Option<UserRecord>> {
    record(tables, Table::Users, &keys::mailbox(address))
}

pub(crate) fn user_by_login<T: Rows + ?Sized>(tables: &T, login: &Mailbox) -> Result<Option<UserRecord>> {
    let key = keys::mailbox(login);
    if let Some(user) = record(tables, Table::Users, &key)? {
        return Ok(Some(user));
    }
    match tables.get(Table::Logins, &key)? {
        Some(user_key) => record(tables, Table::Users, &user_key),
        None => Ok(None),
    }
}

pub(crate) fn users<T: Tables + ?Sized>(
    tables: &T,
    domain: Option<&Domain>,
    after: Option<&Mailbox>,
    limit: usize,
) -> Result<Vec<UserRecord>> {
    let prefix = domain.map(keys::domain_prefix).unwrap_or_default();
    list(tables, Table::Users, &prefix, after.map(keys::mailbox).as_deref(), limit)
}

pub(crate) fn credential<T: Rows + ?Sized>(tables: &T, address: &Mailbox) -> Result<Option<CredentialRecord>> {
    record(tables, Table::Credentials, &keys::mailbox(address))
}

pub(crate) fn alias<T: Rows + ?Sized>(tables: &T, address: &AliasAddress) -> Result<Option<AliasRecord>> {
    record(tables, Table::Aliases, &keys::alias(address))
}

pub(crate) fn aliases<T: Tables + ?Sized>(
    tables: &T,
    domain: Option<&Domain>,
    after: Option<&AliasAddress>,
    limit: usize,
) -> Result<Vec<AliasRecord>> {
    let prefix = domain.map(keys::domain_prefix).unwrap_or_default();
    list(tables, Table::Aliases, &prefix, after.map(keys::alias).as_deref(), limit)
}

pub(crate) fn aliases_to<T: Tables + ?Sized>(tables: &T, target: &Mailbox) -> Result<Vec<AliasRecord>> {
    let prefix = keys::target_prefix(target);
    let mut found = Vec::new();
    for (key, _) in tables.scan(Table::AliasesTo, &prefix, None, usize::MAX)? {
        let alias_key = key.get(prefix.len()..).unwrap_or_default();
        found.extend(record(tables, Table::Aliases, alias_key)?);
    }
    Ok(found)
}

/// (users, aliases) of a domain.
pub(crate) fn counts<T: Rows + ?Sized>(tables: &T, domain: &Domain) -> Result<(u64, u64)> {
    Ok(tables.get(Table::Counts, domain.as_str().as_bytes())?.map_or((0, 0), |row| decode_counts(&row)))
}

pub(crate) fn decode_counts(row: &[u8]) -> (u64, u64) {
    let number = |at: usize| row.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    (number(0), number(8))
}

pub(crate) fn encode_counts((users, aliases): (u64, u64)) -> Vec<u8> {
    [users.to_be_bytes(), aliases.to_be_bytes()].concat()
}

fn list<R: DeserializeOwned, T: Tables + ?Sized>(
    tables: &T,
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<R>> {
    let mut records = Vec::new();
    for (key, row) in tables.scan(table, prefix, after, limit)? {
        let bytes = match values::join(tables, row)? {
            Some(bytes) => bytes,
            // Replaced between the scan and here: read it as it is now, or leave it out when it is gone.
            None => match values::get(tables, table, &key)? {
                Some(bytes) => bytes,
                None => continue,
            },
        };
        records.push(values::decode(table, &key, &bytes)?);
    }
    Ok(records)
}

/// Takes at most `limit` rows out of an ordered iterator of keys that start with `prefix`.
pub(crate) fn take_rows<E>(
    rows: impl Iterator<Item = std::result::Result<Row, E>>,
    prefix: &[u8],
    limit: usize,
) -> std::result::Result<Vec<Row>, E> {
    rows.take_while(|row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix))).take(limit).collect()
}
