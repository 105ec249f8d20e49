//! Values: versioned JSON, cut into pieces when long.
//!
//! sled keeps up to 17 rows in a page and moves pages over 128 KiB into files that it never syncs; rows of at most 6 KiB keep every
//! page below that, so a long value becomes a short head and pieces in the table `Chunks`.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Row, Rows, Table};
use crate::store::{DirectoryError, Result};

/// Version of the JSON inside the values that this program writes, and the newest it reads.
pub(crate) const VALUE_VERSION: u32 = 1;
/// Longest row value in octets.
pub(crate) const MAX_ROW: usize = 6 * 1024;
/// Longest value in octets: an alias of 1,000 targets at full length fits.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;
/// First octet of a head; JSON never starts with it.
const HEAD: u8 = 1;
const HEAD_LEN: usize = 1 + 8 + 4;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    is: T,
}

#[derive(Deserialize)]
struct OnlyVersion {
    v: u32,
}

/// JSON of a record, with its version.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(&Versioned { v: VALUE_VERSION, is: record })
        .map_err(|e| DirectoryError::Refused(format!("the record cannot be written as JSON: {e}")))?;
    if bytes.len() > MAX_VALUE {
        return Err(DirectoryError::Refused(format!("the record is {} octets long; {MAX_VALUE} are allowed", bytes.len())));
    }
    Ok(bytes)
}

/// The record back from its JSON.
pub(crate) fn decode<T: DeserializeOwned>(table: Table, key: &[u8], bytes: &[u8]) -> Result<T> {
    match serde_json::from_slice::<Versioned<T>>(bytes) {
        Ok(value) if value.v <= VALUE_VERSION => Ok(value.is),
        Ok(value) => Err(DirectoryError::Newer { found: value.v, known: VALUE_VERSION }),
        Err(why) => match serde_json::from_slice::<OnlyVersion>(bytes) {
            Ok(value) if value.v > VALUE_VERSION => Err(DirectoryError::Newer { found: value.v, known: VALUE_VERSION }),
            _ => Err(damaged(table, key, &why.to_string())),
        },
    }
}

/// A value that cannot be read, with its key in print.
pub(crate) fn damaged(table: Table, key: &[u8], why: &str) -> DirectoryError {
    DirectoryError::Damaged { key: format!("{}/{}", table.name(), key.escape_ascii()), why: why.to_owned() }
}

/// Where the pieces of a long value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    id: u64,
    pieces: u32,
}

impl Head {
    /// Reads a head; `None` when the row is the value itself.
    pub(crate) fn parse(row: &[u8]) -> Option<Self> {
        if row.len() != HEAD_LEN || row.first() != Some(&HEAD) {
            return None;
        }
        let id = u64::from_be_bytes(row.get(1..9)?.try_into().ok()?);
        let pieces = u32::from_be_bytes(row.get(9..13)?.try_into().ok()?);
        (pieces as usize <= MAX_VALUE.div_ceil(MAX_ROW)).then_some(Self { id, pieces })
    }

    fn row(self) -> Vec<u8> {
        let mut row = Vec::with_capacity(HEAD_LEN);
        row.push(HEAD);
        row.extend_from_slice(&self.id.to_be_bytes());
        row.extend_from_slice(&self.pieces.to_be_bytes());
        row
    }

    /// Keys of the pieces in order.
    pub(crate) fn piece_keys(self) -> impl Iterator<Item = Vec<u8>> {
        (0..self.pieces).map(move |n| {
            let mut key = self.id.to_be_bytes().to_vec();
            key.extend_from_slice(&n.to_be_bytes());
            key
        })
    }
}

/// Cuts a value: the row to store at its key, and the rows for `Chunks`. `id` must be new for each long value.
pub(crate) fn split(value: Vec<u8>, id: impl FnOnce() -> u64) -> (Vec<u8>, Vec<Row>) {
    if value.len() <= MAX_ROW && value.first() != Some(&HEAD) {
        return (value, Vec::new());
    }
    let head = Head { id: id(), pieces: u32::try_from(value.len().div_ceil(MAX_ROW).max(1)).unwrap_or(u32::MAX) };
    let pieces = head.piece_keys().zip(value.chunks(MAX_ROW).map(<[u8]>::to_vec)).collect();
    (head.row(), pieces)
}

/// Puts a value together again. `None` when a piece is missing: the value was replaced meanwhile and is read again by the caller.
pub(crate) fn join<T: Rows + ?Sized>(tables: &T, row: Vec<u8>) -> Result<Option<Vec<u8>>> {
    let Some(head) = Head::parse(&row) else { return Ok(Some(row)) };
    let mut value = Vec::new();
    for key in head.piece_keys() {
        match tables.get(Table::Chunks, &key)? {
            Some(piece) => value.extend_from_slice(&piece),
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// Reads a whole value: row, and pieces where there are any.
pub(crate) fn get<T: Rows + ?Sized>(tables: &T, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
    // A reader can meet a value between two versions; the writer is never more than a moment away.
    for _ in 0..8 {
        let Some(row) = tables.get(table, key)? else { return Ok(None) };
        if let Some(value) = join(tables, row)? {
            return Ok(Some(value));
        }
    }
    Err(damaged(table, key, "a piece of the value is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_values_are_refused_by_name() {
        let error = decode::<String>(Table::Users, b"x", br#"{"v":2,"is":{"unknown":true}}"#).unwrap_err();
        assert!(matches!(error, DirectoryError::Newer { found: 2, known: 1 }), "{error}");
        let error = decode::<String>(Table::Users, b"a\x00b", b"{").unwrap_err();
        assert!(error.to_string().contains("users/a\\x00b"), "{error}");
    }

    #[test]
    fn long_values_become_rows_of_bounded_size() {
        let value: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let (row, pieces) = split(value.clone(), || 7);
        assert!(pieces.len() == 4 && pieces.iter().all(|(_, v)| v.len() <= MAX_ROW));
        let head = Head::parse(&row).unwrap();
        assert!(head.piece_keys().eq(pieces.iter().map(|(k, _)| k.clone())));
        assert_eq!(pieces.into_iter().flat_map(|(_, v)| v).collect::<Vec<_>>(), value);
        let (row, pieces) = split(vec![1; HEAD_LEN], || 8);
        assert!(pieces.len() == 1 && Head::parse(&row).is_some(), "a value that looks like a head is cut too");
    }
}
