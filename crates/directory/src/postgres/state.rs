//! Small state with expiry, shared by all nodes: every write is one statement, so that it is atomic.

use std::time::Duration;

use super::{Shared, timed};
use crate::clock::millis;
use crate::state::{StateRow, left};
use crate::store::{DirectoryError, Result};
use crate::tables::values::MAX_VALUE;

const GET: &str = "SELECT value, count FROM pillarbox.state WHERE tbl = $1 AND key = $2 AND expires > $3";
const LIST: &str = "SELECT key, value, count FROM pillarbox.state WHERE tbl = $1 AND expires > $2 ORDER BY key";
const PAGE: &str = "SELECT tbl, key, value, count, expires FROM pillarbox.state WHERE (tbl, key) > ($1, $2) AND expires > $3 \
     ORDER BY tbl, key LIMIT $4";
const PUT: &str = "INSERT INTO pillarbox.state AS s (tbl, key, value, count, expires) VALUES ($1, $2, $3, $6, $4) \
     ON CONFLICT (tbl, key) DO UPDATE SET value = EXCLUDED.value, count = EXCLUDED.count, expires = EXCLUDED.expires \
     WHERE s.expires <= $5 RETURNING 1";
const ADD: &str = "INSERT INTO pillarbox.state AS s (tbl, key, value, count, expires) VALUES ($1, $2, NULL, $3, $4) \
     ON CONFLICT (tbl, key) DO UPDATE SET value = NULL, \
       count = CASE WHEN s.expires > $5 THEN coalesce(s.count, 0) + EXCLUDED.count ELSE EXCLUDED.count END, \
       expires = CASE WHEN s.expires > $5 THEN s.expires ELSE EXCLUDED.expires END RETURNING count";
const REMOVE: &str = "DELETE FROM pillarbox.state WHERE tbl = $1 AND key = $2";
const SWEEP: &str =
    "DELETE FROM pillarbox.state WHERE (tbl, key) IN (SELECT tbl, key FROM pillarbox.state WHERE expires <= $1 LIMIT 10000)";

impl Shared {
    fn now(&self) -> i64 {
        i64::try_from(millis(self.clock.now())).unwrap_or(i64::MAX)
    }

    fn expiry(&self, keep: Duration) -> i64 {
        self.now().saturating_add(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX))
    }

    pub(super) async fn state_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let client = self.client().await?;
        let rows = self.query(&client, GET, &[&table, &key, &self.now()]).await?;
        Ok(rows.first().map(|row| value(row.get(0), row.get(1))))
    }

    /// Returns whether it wrote; with `only_new`, not over a live entry.
    pub(super) async fn state_put(&self, table: &str, key: &[u8], value: &[u8], keep: Duration, only_new: bool) -> Result<bool> {
        if value.len() > MAX_VALUE {
            return Err(DirectoryError::Refused(format!("a state value of {} octets is too long", value.len())));
        }
        // What expires up to here may be written over: all, or what has expired.
        let over = if only_new { self.now() } else { i64::MAX };
        // A number as a counter writes it is kept as one, so that it can be counted on.
        let count = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok().filter(|n| *n >= 0 && n.to_string() == text));
        let value = count.is_none().then_some(value);
        let client = self.client().await?;
        let rows = self.query(&client, PUT, &[&table, &key, &value, &self.expiry(keep), &over, &count]).await?;
        Ok(!rows.is_empty())
    }

    pub(super) async fn state_add(&self, table: &str, key: &[u8], amount: u64, keep: Duration) -> Result<u64> {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        let client = self.client().await?;
        let rows = self.query(&client, ADD, &[&table, &key, &amount, &self.expiry(keep), &self.now()]).await?;
        Ok(rows.first().and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok()).unwrap_or(0))
    }

    pub(super) async fn state_remove(&self, table: &str, key: &[u8]) -> Result<()> {
        let client = self.client().await?;
        self.query(&client, REMOVE, &[&table, &key]).await.map(drop)
    }

    pub(super) async fn state_list(&self, table: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let client = self.client().await?;
        let rows = self.query(&client, LIST, &[&table, &self.now()]).await?;
        Ok(rows.iter().map(|row| (row.get(0), value(row.get(1), row.get(2)))).collect())
    }

    pub(super) async fn state_page(&self, after: Option<(&str, &[u8])>, limit: usize) -> Result<Vec<StateRow>> {
        let (table, key) = after.unwrap_or_default();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let now = self.now();
        let client = self.client().await?;
        let rows = self.query(&client, PAGE, &[&table, &key, &now, &limit]).await?;
        let millis = |n: i64| u64::try_from(n).unwrap_or(0);
        let row = |row: &tokio_postgres::Row| StateRow {
            table: row.get(0),
            key: row.get(1),
            value: value(row.get(2), row.get(3)),
            keep: left(millis(row.get(4)), millis(now), millis(i64::MAX)),
        };
        Ok(rows.iter().map(row).collect())
    }

    pub(super) async fn sweep(&self, client: &tokio_postgres::Client) -> Result<()> {
        timed(self.patience, client.execute(SWEEP, &[&self.now()])).await.map(drop)
    }
}

fn value(value: Option<Vec<u8>>, count: Option<i64>) -> Vec<u8> {
    value.unwrap_or_else(|| count.unwrap_or(0).to_string().into_bytes())
}
