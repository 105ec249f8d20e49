//! The schema, in numbered steps that one node at a time applies, and the statements over it.

use deadpool_postgres::Object;

use super::unavailable;
use crate::store::{DirectoryError, Result};

/// Steps in order; a step is never edited once it was released, only followed by another.
const MIGRATIONS: &[&str] = &[
    // 1: rows, the number of the last commit, which rows each commit changed, and state.
    "CREATE TABLE pillarbox.rows (tbl int2 NOT NULL, key bytea NOT NULL, record bytea NOT NULL, PRIMARY KEY (tbl, key));
     CREATE TABLE pillarbox.revision (id int2 PRIMARY KEY, revision int8 NOT NULL, trimmed int8 NOT NULL);
     INSERT INTO pillarbox.revision (id, revision, trimmed) VALUES (1, 1, 1);
     CREATE TABLE pillarbox.changes (revision int8 NOT NULL, tbl int2 NOT NULL, key bytea NOT NULL, PRIMARY KEY (revision, tbl, key));
     CREATE TABLE pillarbox.state (tbl text NOT NULL, key bytea NOT NULL, value bytea, count int8, expires int8 NOT NULL, PRIMARY KEY (tbl, key));
     CREATE INDEX state_expires ON pillarbox.state (expires);",
    // 2: the nodes that share the database, and their questions to each other. Times are milliseconds since 1970 by the database's clock.
    "CREATE TABLE pillarbox.nodes (id text PRIMARY KEY, process text NOT NULL, name text NOT NULL, place text NOT NULL, folder text NOT NULL,
       version text NOT NULL, state text NOT NULL, seen int8 NOT NULL, lease int8 NOT NULL, messages int8 NOT NULL DEFAULT 0,
       recipients int8 NOT NULL DEFAULT 0, adopter text);
     CREATE TABLE pillarbox.questions (id text PRIMARY KEY, node text NOT NULL, asked int8 NOT NULL, question text NOT NULL, answer text);",
];

/// Any number, the same on every node: one migrates at a time.
const LOCK: i64 = 0x7069_6c6c_6172;

pub(super) const GET: &str = "SELECT record FROM pillarbox.rows WHERE tbl = $1 AND key = $2";
pub(super) const GET_MANY: &str = "SELECT r.tbl, r.key, r.record FROM pillarbox.rows r JOIN UNNEST($1::int2[], $2::bytea[]) AS w(tbl, key) ON r.tbl = w.tbl AND r.key = w.key";
pub(super) const SCAN: &str = "SELECT key, record FROM pillarbox.rows \
     WHERE tbl = $1 AND (key > $2 OR ($3 AND key = $2)) AND key < $4 ORDER BY key LIMIT $5";
pub(super) const PUT_MANY: &str = "INSERT INTO pillarbox.rows (tbl, key, record) SELECT * FROM UNNEST($1::int2[], $2::bytea[], $3::bytea[]) \
     ON CONFLICT (tbl, key) DO UPDATE SET record = EXCLUDED.record";
pub(super) const REMOVE_MANY: &str =
    "DELETE FROM pillarbox.rows r USING UNNEST($1::int2[], $2::bytea[]) AS w(tbl, key) WHERE r.tbl = w.tbl AND r.key = w.key";
/// The row lock on `revision` makes commits one at a time, so that the rules between records hold over all nodes.
pub(super) const NEXT_REVISION: &str = "UPDATE pillarbox.revision SET revision = revision + 1 WHERE id = 1 RETURNING revision";
pub(super) const LOG_MANY: &str = "INSERT INTO pillarbox.changes (revision, tbl, key) SELECT $1, * FROM UNNEST($2::int2[], $3::bytea[])";
pub(super) const REVISION: &str = "SELECT revision, trimmed FROM pillarbox.revision WHERE id = 1";
pub(super) const CHANGED_SINCE: &str = "SELECT tbl, key FROM pillarbox.changes WHERE revision > $1 LIMIT $2";
pub(super) const TRIM_MARK: &str =
    "UPDATE pillarbox.revision SET trimmed = revision - $1 WHERE id = 1 AND revision - $1 > trimmed RETURNING trimmed";
pub(super) const TRIM: &str = "DELETE FROM pillarbox.changes WHERE revision <= $1";

/// Readable views for people and for other programs' look-ups, such as a Dovecot SQL passdb. An engine without these functions does
/// without the views.
const VIEWS: &str = "
    CREATE OR REPLACE VIEW pillarbox.users AS
      SELECT u.v ->> 'address' AS address, coalesce((u.v ->> 'suspended')::bool, false) AS suspended, u.v ->> 'name' AS name,
             u.v ->> 'created' AS created, c.v ->> 'password' AS password
      FROM (SELECT key, convert_from(record, 'UTF8')::jsonb -> 'is' AS v FROM pillarbox.rows WHERE tbl = 1 AND get_byte(record, 0) = 123) u
      LEFT JOIN (SELECT key, convert_from(record, 'UTF8')::jsonb -> 'is' AS v FROM pillarbox.rows WHERE tbl = 3 AND get_byte(record, 0) = 123) c
        ON c.key = u.key;
    CREATE OR REPLACE VIEW pillarbox.aliases AS
      SELECT a.v ->> 'address' AS address, jsonb_array_elements_text(a.v -> 'targets') AS target
      FROM (SELECT convert_from(record, 'UTF8')::jsonb -> 'is' AS v FROM pillarbox.rows WHERE tbl = 2 AND get_byte(record, 0) = 123) a;
    CREATE OR REPLACE VIEW pillarbox.domains AS
      SELECT d.v ->> 'name' AS name, d.v ->> 'created' AS created
      FROM (SELECT convert_from(record, 'UTF8')::jsonb -> 'is' AS v FROM pillarbox.rows WHERE tbl = 0 AND get_byte(record, 0) = 123) d;";

/// Brings the schema up to date.
pub(super) async fn migrate(client: &mut Object) -> Result<()> {
    let failed = |e: tokio_postgres::Error| unavailable(&e);
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(failed)?;
    let outcome = steps(client, known).await;
    // The lock belongs to the connection, which goes back to the pool.
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await.map_err(failed)?;
    outcome
}

async fn steps(client: &mut Object, known: u32) -> Result<()> {
    let failed = |e: tokio_postgres::Error| unavailable(&e);
    let exists = client
        .query_opt("SELECT 1 FROM information_schema.tables WHERE table_schema = 'pillarbox' AND table_name = 'migrations'", &[])
        .await
        .map_err(failed)?;
    if exists.is_none() {
        client
            .batch_execute("CREATE SCHEMA IF NOT EXISTS pillarbox; CREATE TABLE pillarbox.migrations (version int4 PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())")
            .await
            .map_err(failed)?;
    }
    let row = client.query_one("SELECT coalesce(max(version), 0)::int4 FROM pillarbox.migrations", &[]).await.map_err(failed)?;
    let found = u32::try_from(row.get::<_, i32>(0)).unwrap_or(0);
    if found > known {
        return Err(DirectoryError::Newer { found, known });
    }
    for (step, sql) in (1i32..).zip(MIGRATIONS).skip(found as usize) {
        let transaction = client.transaction().await.map_err(failed)?;
        transaction.batch_execute(sql).await.map_err(failed)?;
        transaction.execute("INSERT INTO pillarbox.migrations (version) VALUES ($1)", &[&step]).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        tracing::info!("the directory's schema is at version {step}");
    }
    if found < known
        && let Err(error) = client.batch_execute(VIEWS).await
    {
        tracing::info!("this database engine does without the readable views: {error}");
    }
    Ok(())
}
