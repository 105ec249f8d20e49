//! The register of nodes that share the database: who is there, a lease on each queue folder, and questions from one node to another.
//!
//! A queue folder has an id of its own (a file in it), so that it is known wherever its disk is mounted. The lease is counted by the
//! database's clock. Whoever holds it renews it; a folder whose lease has run out, or whose node was stopped, may be taken over by
//! exactly one other node, and is never its former owner's again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Shared, timed};
use crate::store::{DirectoryError, Result};

/// How long an unanswered question is kept for its node.
const QUESTION_KEPT: i64 = 120_000;
/// Between two looks for an answer where the engine does not notify.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Milliseconds since 1970 by the database's clock.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::int8"
    };
}

const ENTER: &str = concat!(
    "INSERT INTO pillarbox.nodes AS n (id, process, name, place, folder, version, state, seen, lease) \
     VALUES ($1, $2, $3, $4, $5, $6, 'live', ",
    now!(),
    ", ",
    now!(),
    " + $7) ON CONFLICT (id) DO UPDATE SET process = EXCLUDED.process, name = EXCLUDED.name, place = EXCLUDED.place, \
     folder = EXCLUDED.folder, version = EXCLUDED.version, state = 'live', seen = EXCLUDED.seen, lease = EXCLUDED.lease \
     WHERE n.state = 'stopped' OR (n.state = 'live' AND (n.lease <= EXCLUDED.seen OR ($8 AND n.place = EXCLUDED.place))) RETURNING 1"
);
const BEAT: &str = concat!(
    "UPDATE pillarbox.nodes SET seen = ",
    now!(),
    ", lease = ",
    now!(),
    " + $3, messages = $4, recipients = $5 WHERE id = $1 AND process = $2 AND state = 'live' RETURNING 1"
);
const LEAVE: &str = concat!(
    "UPDATE pillarbox.nodes SET state = 'stopped', seen = ",
    now!(),
    ", lease = 0, messages = $3, recipients = $4 WHERE id = $1 AND process = $2 AND state = 'live' RETURNING 1"
);
const CLAIM: &str = concat!(
    "UPDATE pillarbox.nodes SET state = 'adopting', adopter = $2 WHERE id = $1 AND id <> $2 \
     AND (state = 'stopped' OR (state = 'live' AND lease <= ",
    now!(),
    ") OR (state = 'adopting' AND adopter = $2)) RETURNING 1"
);
const FINISH: &str = "UPDATE pillarbox.nodes SET state = 'evacuated', messages = 0, recipients = 0 \
     WHERE id = $1 AND adopter = $2 AND state = 'adopting' RETURNING 1";
/// What the evacuated node had begun to take over itself is now for its adopter to finish: the messages are there.
const INHERIT: &str = "UPDATE pillarbox.nodes SET adopter = $2 WHERE adopter = $1 AND state = 'adopting' RETURNING 1";
/// Not while it is named as an adopter, which the list shows by its name and an interrupted evacuation by its id.
const WITHDRAW: &str = "DELETE FROM pillarbox.nodes n WHERE n.id = $1 AND n.process = $2 AND n.state = 'live' \
     AND NOT EXISTS (SELECT 1 FROM pillarbox.nodes a WHERE a.adopter = $1) RETURNING 1";
const REMOVE: &str = concat!(
    "DELETE FROM pillarbox.nodes n WHERE n.id = $1 AND (n.state = 'stopped' OR (n.state = 'live' AND n.lease <= ",
    now!(),
    ")) AND NOT EXISTS (SELECT 1 FROM pillarbox.nodes a WHERE a.adopter = $1 AND a.state = 'adopting') RETURNING 1"
);
const LIST: &str = concat!(
    "SELECT n.id, n.name, n.folder, n.version, n.state, ",
    now!(),
    " - n.seen, n.lease > ",
    now!(),
    ", n.messages, n.recipients, n.adopter, a.name FROM pillarbox.nodes n LEFT JOIN pillarbox.nodes a ON a.id = n.adopter ORDER BY n.name, n.id"
);
const ASK: &str = concat!("INSERT INTO pillarbox.questions (id, node, asked, question) VALUES ($1, $2, ", now!(), ", $3) RETURNING 1");
const NOTIFY: &str = "SELECT pg_notify($1, $2)";
const QUESTIONS: &str = "SELECT id, question FROM pillarbox.questions WHERE node = $1 AND answer IS NULL ORDER BY asked LIMIT 100";
const ANSWER: &str = "UPDATE pillarbox.questions SET answer = $2 WHERE id = $1 RETURNING 1";
const ANSWERED: &str = "SELECT answer FROM pillarbox.questions WHERE id = $1 AND answer IS NOT NULL";
const FORGET: &str = "DELETE FROM pillarbox.questions WHERE id = $1";
const SWEEP: &str = concat!("DELETE FROM pillarbox.questions WHERE asked < ", now!(), " - $1");

/// Where questions wake their node.
pub(super) const ASK_CHANNEL: &str = "pillarbox_ask";
/// Where answers wake whoever asked.
pub(super) const ANSWER_CHANNEL: &str = "pillarbox_answer";

/// How a running node enters itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// The id of its queue folder.
    pub id: String,
    /// This run of the program: a later one on the same folder supersedes it.
    pub process: String,
    /// What people call it: its `hostname`.
    pub name: String,
    /// Machine and path of the folder. A run at the same place may take the lease before it runs out, since the folder's lock keeps two of
    /// them apart.
    pub place: String,
    /// The queue folder as the node sees it.
    pub folder: String,
    /// Version of the program.
    pub version: String,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The id of its queue folder.
    pub id: String,
    /// Its `hostname`.
    pub name: String,
    /// The queue folder as the node sees it.
    pub folder: String,
    /// Version of the program.
    pub version: String,
    /// How it is.
    pub state: NodeState,
    /// Seconds since it was heard of.
    pub seen_seconds: u64,
    /// Messages in its queue when it was heard of.
    pub messages: u64,
    /// Recipients they still had to reach.
    pub recipients: u64,
    /// The node that took its queue over, by name, or is about to.
    pub adopter: Option<String>,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It renews its lease.
    Live,
    /// Its lease ran out, though nobody stopped it.
    Silent,
    /// It was stopped in order.
    Stopped,
    /// Another node is taking its queue over.
    Adopting,
    /// Another node has taken its queue over.
    Evacuated,
}

/// The register, in the database of a [`super::PostgresDirectory`].
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl Registry {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn one(&self, sql: &str, params: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Result<bool> {
        let client = self.shared.client().await?;
        Ok(!self.shared.query(&client, sql, params).await?.is_empty())
    }

    /// Takes the lease of a queue folder for so long. `first`: this run enters for the first time, and so may supersede an earlier one at the same
    /// place; later only what nobody else has is taken, so that two machines cloned from one find each other out.
    ///
    /// # Errors
    /// `Refused` when another node has the lease, or has taken the folder over; `Unavailable` when the database does not answer.
    pub async fn enter(&self, entry: &NodeEntry, lease: Duration, first: bool) -> Result<()> {
        let lease = millis(lease);
        let NodeEntry { id, process, name, place, folder, version } = entry;
        if self.one(ENTER, &[id, process, name, place, folder, version, &lease, &first]).await? {
            return Ok(());
        }
        Err(DirectoryError::Refused(match self.find(id).await? {
            Some(node) if matches!(node.state, NodeState::Adopting | NodeState::Evacuated) => format!(
                "the queue in {folder} was taken over by the node {}; what is in it is delivered from there. Move the folder away, and this node \
                 begins with an empty queue",
                node.adopter.unwrap_or_default()
            ),
            Some(node) => format!(
                "the queue in {folder} is in use by the node {} ({}), heard of {} s ago; a copy of a queue must not run beside it",
                node.name, node.folder, node.seen_seconds
            ),
            None => format!("the queue in {folder} could not be registered"),
        }))
    }

    /// Renews the lease and tells how full the queue is. `false`: it is lost, another node has the folder or a later process its lease.
    ///
    /// # Errors
    /// When the database does not answer; the lease then runs on.
    pub async fn beat(&self, entry: &NodeEntry, lease: Duration, messages: u64, recipients: u64) -> Result<bool> {
        self.one(BEAT, &[&entry.id, &entry.process, &millis(lease), &signed(messages), &signed(recipients)]).await
    }

    /// Gives the lease back at an orderly end, so that nobody has to wait for it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn leave(&self, entry: &NodeEntry, messages: u64, recipients: u64) -> Result<()> {
        self.one(LEAVE, &[&entry.id, &entry.process, &signed(messages), &signed(recipients)]).await.map(drop)
    }

    /// Whether it is the same register.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Takes a node out whose directory is elsewhere now. One that has taken over a queue stays, as stopped.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn withdraw(&self, entry: &NodeEntry) -> Result<()> {
        if self.one(WITHDRAW, &[&entry.id, &entry.process]).await? { Ok(()) } else { self.leave(entry, 0, 0).await }
    }

    /// Takes a node out that will not come back, by its id. Its queue folder cannot be evacuated any more then.
    ///
    /// # Errors
    /// `Refused` while it is alive or takes a queue over, and when its own was: that it is known keeps an old copy of it from being used.
    pub async fn remove(&self, id: &str) -> Result<()> {
        if self.one(REMOVE, &[&id]).await? {
            return Ok(());
        }
        Err(DirectoryError::Refused(match self.find(id).await? {
            None => "there is no such node".to_owned(),
            Some(NodeInfo { name, state: NodeState::Live, seen_seconds, .. }) => {
                format!("the node {name} is alive, heard of {seen_seconds} s ago; stop it first")
            }
            Some(NodeInfo { name, state: NodeState::Adopting | NodeState::Evacuated, .. }) => {
                format!("the queue of {name} was taken over; the entry stays, so that an old copy of that queue is never used again")
            }
            Some(NodeInfo { name, .. }) => {
                format!("{name} has begun to take over another node's queue and not ended; evacuate {name} first")
            }
        }))
    }

    /// Claims the queue folder `id` for the node `adopter`. Atomic: of several nodes one succeeds, and it again as often as it likes.
    ///
    /// # Errors
    /// `Refused` while the lease is alive, when another node was first, or when no node of this database had the folder.
    pub async fn claim(&self, id: &str, adopter: &str) -> Result<()> {
        if self.one(CLAIM, &[&id, &adopter]).await? {
            return Ok(());
        }
        Err(DirectoryError::Refused(match self.find(id).await? {
            None => "no node that shares this directory left this folder".to_owned(),
            Some(_) if id == adopter => "this is the queue of this very node".to_owned(),
            Some(node) => match (node.state, node.adopter) {
                (NodeState::Evacuated, Some(by)) => format!("the node {by} has taken it over already"),
                (NodeState::Adopting, Some(by)) => {
                    format!("the node {by} is taking it over; repeat the command there, or evacuate that node first if it is gone too")
                }
                _ => format!(
                    "the node {} is alive, heard of {} s ago; stop it, or wait until its lease has run out",
                    node.name, node.seen_seconds
                ),
            },
        }))
    }

    /// Notes that everything in the folder `id` was taken over. `false`: `adopter` had no claim.
    ///
    /// # Errors
    /// When the database does not answer; to be repeated.
    pub async fn finish(&self, id: &str, adopter: &str) -> Result<bool> {
        let done = self.one(FINISH, &[&id, &adopter]).await?;
        if done {
            self.one(INHERIT, &[&id, &adopter]).await?;
        }
        Ok(done)
    }

    /// All nodes ever heard of, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        let client = self.shared.client().await?;
        let rows = self.shared.query(&client, LIST, &[]).await?;
        Ok(rows.iter().map(info).collect())
    }

    async fn find(&self, id: &str) -> Result<Option<NodeInfo>> {
        Ok(self.nodes().await?.into_iter().find(|node| node.id == id))
    }

    /// Whether `adopter` has begun to take the folder `id` over and not ended.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_claimed_by(&self, id: &str, adopter: &str) -> Result<bool> {
        let client = self.shared.client().await?;
        let sql = "SELECT 1 FROM pillarbox.nodes WHERE id = $1 AND adopter = $2 AND state = 'adopting'";
        Ok(!self.shared.query(&client, sql, &[&id, &adopter]).await?.is_empty())
    }

    /// Asks a node; `None` when it does not answer within `patience`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ask(&self, node: &str, question: &str, patience: Duration) -> Result<Option<String>> {
        let id = format!("{:032x}", rand::random::<u128>());
        let mut answered = self.shared.answered.subscribe();
        self.one(ASK, &[&id, &node, &question]).await?;
        self.notify(ASK_CHANNEL, node).await;
        let waiting = async {
            loop {
                answered.mark_unchanged();
                let rows = {
                    let client = self.shared.client().await?;
                    self.shared.query(&client, ANSWERED, &[&id]).await?
                };
                if let Some(row) = rows.first() {
                    return Ok(row.get::<_, String>(0));
                }
                let _ = tokio::time::timeout(LOOK_EVERY, answered.changed()).await;
            }
        };
        let answer = tokio::time::timeout(patience, waiting).await;
        let _ = self.one(FORGET, &[&id]).await;
        answer.ok().transpose()
    }

    /// Woken when there may be questions.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.shared.asked.subscribe()
    }

    /// Questions to a node that nobody has answered yet: id and text.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn questions(&self, node: &str) -> Result<Vec<(String, String)>> {
        let client = self.shared.client().await?;
        let rows = self.shared.query(&client, QUESTIONS, &[&node]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Answers a question.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn answer(&self, question: &str, answer: &str) -> Result<()> {
        self.one(ANSWER, &[&question, &answer]).await?;
        self.notify(ANSWER_CHANNEL, "").await;
        Ok(())
    }

    /// Wakes others; an engine without NOTIFY is asked now and then anyway.
    async fn notify(&self, channel: &str, text: &str) {
        if let Err(error) = self.one(NOTIFY, &[&channel, &text]).await {
            tracing::debug!("other nodes could not be woken: {error}");
        }
    }
}

impl Shared {
    /// Removes questions that nobody came back for.
    pub(super) async fn sweep_questions(&self, client: &tokio_postgres::Client) -> Result<()> {
        timed(self.patience, client.execute(SWEEP, &[&QUESTION_KEPT])).await.map(drop)
    }
}

fn info(row: &tokio_postgres::Row) -> NodeInfo {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let leased: bool = row.get(6);
    let (by, by_name): (Option<String>, Option<String>) = (row.get(9), row.get(10));
    NodeInfo {
        id: row.get(0),
        name: row.get(1),
        folder: row.get(2),
        version: row.get(3),
        state: match row.get::<_, &str>(4) {
            "live" if leased => NodeState::Live,
            "live" => NodeState::Silent,
            "stopped" => NodeState::Stopped,
            "adopting" => NodeState::Adopting,
            _ => NodeState::Evacuated,
        },
        seen_seconds: count(row.get(5)) / 1000,
        messages: count(row.get(7)),
        recipients: count(row.get(8)),
        adopter: by_name.or(by),
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
