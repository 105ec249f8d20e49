//! Records as rows of ordered byte tables: the shape that the sled store and the memory store share.

pub(crate) mod keys;
pub(crate) mod read;
pub(crate) mod stage;
#[cfg(test)]
mod tests;
pub(crate) mod values;

use crate::store::Result;

/// The tables of records. State is apart, since it is written without a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// Domain name → `DomainRecord`.
    Domains,
    /// Mailbox key → `UserRecord`.
    Users,
    /// Alias key → `AliasRecord`.
    Aliases,
    /// Mailbox key → `CredentialRecord`.
    Credentials,
    /// Mailbox key of a login name → mailbox key of its user.
    Logins,
    /// Mailbox key of a target, 0x01, alias key → nothing: who points here.
    AliasesTo,
    /// Domain name → number of users and of aliases, each a big-endian u64.
    Counts,
    /// Pieces of values too large for one row.
    Chunks,
    /// `revision`: commits so far, a big-endian u64.
    Meta,
}

impl Table {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 9] = [
        Self::Domains,
        Self::Users,
        Self::Aliases,
        Self::Credentials,
        Self::Logins,
        Self::AliasesTo,
        Self::Counts,
        Self::Chunks,
        Self::Meta,
    ];

    /// Its name in the database.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Domains => "domains",
            Self::Users => "users",
            Self::Aliases => "aliases",
            Self::Credentials => "credentials",
            Self::Logins => "logins",
            Self::AliasesTo => "aliases_to",
            Self::Counts => "counts",
            Self::Chunks => "chunks",
            Self::Meta => "meta",
        }
    }
}

/// Where a row is.
pub(crate) type Place = (Table, Vec<u8>);

/// Row writes that belong together; `None` removes.
pub(crate) type Writes = std::collections::BTreeMap<Place, Option<Vec<u8>>>;

/// A row: key and value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Byte tables that can be read by key.
pub(crate) trait Rows {
    /// The value at a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

/// The same in order.
pub(crate) trait Tables: Rows {
    /// Rows whose key starts with `prefix` and is greater than `after`, in key order, at most `limit`.
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>>;
}
