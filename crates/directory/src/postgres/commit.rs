//! Commits: the rules run over rows fetched inside the transaction, under the lock that makes commits one at a time.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use tokio_postgres::error::SqlState;

use super::{Shared, schema, unavailable};
use crate::records::Change;
use crate::store::{DirectoryError, Result};
use crate::tables::{Place, Rows, Table, Writes, stage};

/// Rounds of fetching what the rules ask for; three are usual.
const MAX_ROUNDS: usize = 16;
/// Attempts when the engine gives up a transaction for another's sake.
const MAX_ATTEMPTS: usize = 5;
/// Commits whose changed rows are kept; a node that missed more forgets its whole cache.
const KEPT_COMMITS: i64 = 10_000;

/// The rows known so far; what else was asked for is noted, to be fetched for the next round.
struct Known<'a> {
    rows: &'a HashMap<Place, Option<Vec<u8>>>,
    missing: RefCell<BTreeSet<Place>>,
}

impl Rows for Known<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let place = (table, key.to_vec());
        match self.rows.get(&place) {
            Some(row) => Ok(row.clone()),
            None => {
                self.missing.borrow_mut().insert(place);
                Ok(None)
            }
        }
    }
}

enum Failure {
    /// The engine gave the transaction up; the same again may succeed (SQLSTATE 40001, 40P01).
    Retry(DirectoryError),
    Final(DirectoryError),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let again = matches!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED));
        let error = unavailable(&error);
        if again { Self::Retry(error) } else { Self::Final(error) }
    }
}

impl Shared {
    pub(super) async fn apply(&self, changes: &[Change]) -> Result<()> {
        let mut last = None;
        for _ in 0..MAX_ATTEMPTS {
            let mut client = self.client().await?;
            match self.attempt(&mut client, changes).await {
                Ok(revision) => {
                    // Others are woken; an engine without NOTIFY is asked every second anyway.
                    if let Err(error) = client.execute("SELECT pg_notify('pillarbox', $1)", &[&revision.to_string()]).await {
                        tracing::debug!("other nodes could not be woken: {error}");
                    }
                    self.catch_up(&client).await?;
                    return Ok(());
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Retry(error)) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| DirectoryError::Unavailable("the database gave up".into())))
    }

    async fn attempt(&self, client: &mut deadpool_postgres::Object, changes: &[Change]) -> std::result::Result<i64, Failure> {
        let transaction = client.transaction().await?;
        let revision: i64 = transaction.query_one(schema::NEXT_REVISION, &[]).await?.get(0);
        let writes = stage_in(&transaction, changes).await?;
        write(&transaction, revision, &writes).await?;
        if revision % 1000 == 0
            && let Some(row) = transaction.query_opt(schema::TRIM_MARK, &[&KEPT_COMMITS]).await?
        {
            transaction.execute(schema::TRIM, &[&row.get::<_, i64>(0)]).await?;
        }
        transaction.commit().await?;
        Ok(revision)
    }
}

async fn stage_in(transaction: &Transaction<'_>, changes: &[Change]) -> std::result::Result<Writes, Failure> {
    let mut rows: HashMap<Place, Option<Vec<u8>>> = HashMap::new();
    for _ in 0..MAX_ROUNDS {
        let (outcome, missing) = {
            let known = Known { rows: &rows, missing: RefCell::default() };
            let outcome = stage::stage(&known, changes);
            (outcome, known.missing.into_inner())
        };
        // An outcome over incomplete rows means nothing, a refusal neither.
        if missing.is_empty() {
            return outcome.map_err(Failure::Final);
        }
        let (tables, keys) = columns(missing.iter());
        for row in transaction.query(schema::GET_MANY, &[&tables, &keys]).await? {
            if let Some(table) = table_of(row.get(0)) {
                rows.insert((table, row.get(1)), Some(row.get(2)));
            }
        }
        for place in missing {
            rows.entry(place).or_insert(None);
        }
    }
    Err(Failure::Final(DirectoryError::Unavailable("the change touches too much at once".into())))
}

async fn write(transaction: &Transaction<'_>, revision: i64, writes: &Writes) -> std::result::Result<(), Failure> {
    let (put, gone): (Vec<_>, Vec<_>) = writes.iter().partition(|(_, value)| value.is_some());
    if !put.is_empty() {
        let (tables, keys) = columns(put.iter().map(|(place, _)| *place));
        let records: Vec<&[u8]> = put.iter().filter_map(|(_, value)| value.as_deref()).collect();
        transaction.execute(schema::PUT_MANY, &[&tables, &keys, &records]).await?;
    }
    if !gone.is_empty() {
        let (tables, keys) = columns(gone.iter().map(|(place, _)| *place));
        transaction.execute(schema::REMOVE_MANY, &[&tables, &keys]).await?;
    }
    if !writes.is_empty() {
        let (tables, keys) = columns(writes.keys());
        transaction.execute(schema::LOG_MANY, &[&revision, &tables, &keys]).await?;
    }
    Ok(())
}

fn columns<'p>(places: impl Iterator<Item = &'p Place>) -> (Vec<i16>, Vec<&'p [u8]>) {
    places.map(|(table, key)| (*table as i16, key.as_slice())).unzip()
}

/// The table of a number in `tbl`; a newer program's tables are none of ours.
pub(super) fn table_of(number: i16) -> Option<Table> {
    usize::try_from(number).ok().and_then(|at| Table::ALL.get(at).copied())
}
