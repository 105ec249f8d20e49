//! Following others' commits: woken by NOTIFY, or by the second; and knowing when the database is away.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Config};

use super::commit::table_of;
use super::tls::Connector;
use super::{Shared, registry, schema, timed, unavailable};
use crate::clock::millis;
use crate::store::Result;

/// Between two questions without a NOTIFY, and between attempts to reconnect.
const EVERY: Duration = Duration::from_secs(1);
/// Changed rows taken one by one; beyond, the whole cache is forgotten.
const MAX_ROWS: i64 = 50_000;
/// Between two removals of expired state; one node's is enough, several do no harm.
const SWEEP_EVERY: u64 = 60_000;

impl Shared {
    /// Takes out of the cache what was committed since the last time, here or elsewhere, and tells subscribers.
    pub(super) async fn catch_up(&self, client: &tokio_postgres::Client) -> Result<()> {
        let _one = self.catching_up.lock().await;
        let known = self.cache.revision();
        let row = timed(self.patience, client.query_one(schema::REVISION, &[])).await?;
        let revision = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
        let trimmed = u64::try_from(row.get::<_, i64>(1)).unwrap_or(0);
        if revision != known {
            let since = i64::try_from(known).unwrap_or(i64::MAX);
            // Behind what is remembered here: the database was restored from a backup.
            if known == 0 || revision < known || known < trimmed {
                self.cache.clear();
            } else {
                let rows = timed(self.patience, client.query(schema::CHANGED_SINCE, &[&since, &MAX_ROWS])).await?;
                if i64::try_from(rows.len()).unwrap_or(MAX_ROWS) >= MAX_ROWS {
                    self.cache.clear();
                } else {
                    self.cache.forget_all(rows.iter().filter_map(|row| Some((table_of(row.get(0))?, row.get(1)))));
                }
            }
        }
        self.cache.agree(revision);
        if revision != known {
            self.generation.send_replace(revision);
        }
        Ok(())
    }

    fn set_away(&self, why: Option<String>) {
        let was = self.away.swap(why.is_some(), Ordering::AcqRel);
        metrics::gauge!("pillarbox_directory_away").set(if why.is_some() { 1.0 } else { 0.0 });
        match (&why, was) {
            (Some(why), false) => tracing::error!("the directory's database is away; known users are served from memory: {why}"),
            (None, true) => tracing::info!("the directory's database is back"),
            _ => {}
        }
        *self.away_why.write() = why;
    }
}

/// Runs until the directory is dropped.
pub(super) async fn follow(shared: Weak<Shared>, config: Config, tls: Connector, patience: Duration) {
    loop {
        let outcome = connected(&shared, &config, &tls, patience).await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = outcome {
            shared.set_away(Some(error.to_string()));
        }
        drop(shared);
        tokio::time::sleep(EVERY).await;
    }
}

/// One connection's life; returns when it fails, or with `Ok` when the directory was dropped.
async fn connected(shared: &Weak<Shared>, config: &Config, tls: &Connector, patience: Duration) -> Result<()> {
    let connect = async { config.connect(tls.clone()).await };
    let (client, mut connection) = timed(patience, connect).await?;
    let woken = Arc::new(Notify::new());
    let (wake, to_wake) = (Arc::clone(&woken), Weak::clone(shared));
    // Queries and notifications arrive on one stream, which has to be driven beside us.
    let driver = tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match message {
                Ok(AsyncMessage::Notification(note)) => match (note.channel(), to_wake.upgrade()) {
                    (registry::ASK_CHANNEL, Some(shared)) => shared.asked.send_modify(|n| *n = n.wrapping_add(1)),
                    (registry::ANSWER_CHANNEL, Some(shared)) => shared.answered.send_modify(|n| *n = n.wrapping_add(1)),
                    _ => wake.notify_one(),
                },
                Ok(_) => {}
                Err(error) => return Some(error),
            }
        }
        None
    });
    let outcome = watch(shared, &client, &woken, patience).await;
    drop(client);
    driver.abort();
    match driver.await {
        // The driver saw the cause, the query only that the connection was gone.
        Ok(Some(error)) if outcome.is_err() => Err(unavailable(&error)),
        _ => outcome,
    }
}

async fn watch(shared: &Weak<Shared>, client: &tokio_postgres::Client, woken: &Notify, patience: Duration) -> Result<()> {
    let mut notifies = true;
    for channel in ["pillarbox", registry::ASK_CHANNEL, registry::ANSWER_CHANNEL] {
        if let Err(error) = timed(patience, client.batch_execute(&format!("LISTEN {channel}"))).await {
            if client.is_closed() {
                return Err(error);
            }
            tracing::info!("this database engine does not notify; it is asked every second: {error}");
            notifies = false;
            break;
        }
    }
    let (mut sweep_at, mut first) = (0, true);
    loop {
        {
            let Some(shared) = shared.upgrade() else { return Ok(()) };
            shared.catch_up(client).await?;
            shared.set_away(None);
            metrics::gauge!("pillarbox_directory_cache_octets").set(shared.cache.octets() as f64);
            // What was asked while nobody listened.
            if std::mem::take(&mut first) || !notifies {
                shared.asked.send_modify(|n| *n = n.wrapping_add(1));
            }
            let now = millis(shared.clock.now());
            if sweep_at <= now {
                sweep_at = now.saturating_add(SWEEP_EVERY);
                for swept in [shared.sweep(client).await, shared.sweep_questions(client).await] {
                    if let Err(error) = swept {
                        tracing::warn!("expired state could not be removed: {error}");
                    }
                }
            }
        }
        let _ = tokio::time::timeout(EVERY, woken.notified()).await;
    }
}
