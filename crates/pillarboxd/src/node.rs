//! This node among those that share a directory: its lease on its queue folder, and its answers to the others.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pillarbox_config::Config;
use pillarbox_directory::{Directory, DirectoryError, NodeEntry, Registry};
use pillarbox_queue::{Queue, folder_id, since_boot};
use tokio_util::sync::CancellationToken;

/// The lease is renewed this many times before it would run out.
const BEATS: u32 = 4;

/// This node. Where the directory is of one machine it has nothing to do, until that is moved to a database.
pub(crate) struct Node {
    entry: NodeEntry,
    directory: Arc<dyn Directory>,
    lease: Duration,
    /// Without a lease the queue rests.
    stops: bool,
    /// Where it is entered; another directory may be in force by now.
    entered: Option<Registry>,
    /// When it last asked for the lease and got it, since boot.
    vouched: Duration,
}

impl Node {
    /// Takes the lease of the queue folder, which must not be opened before.
    pub(crate) async fn enter(config: &Config, directory: Arc<dyn Directory>) -> anyhow::Result<Self> {
        let folder = config.paths.state.join("queue");
        let shown = folder.display().to_string();
        let id = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || folder_id(&folder)).await?.with_context(|| format!("cannot use {shown}"))?
        };
        // Two machines may have one path; one of them that was cloned from the other is told apart by its later start.
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let entry = NodeEntry {
            id,
            process: format!("{:016x}", rand::random::<u64>()),
            name: config.hostname(),
            place: format!("{}:{}", machine.trim(), std::fs::canonicalize(&folder).unwrap_or(folder).display()),
            folder: shown,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let stops = config.directory.without_lease == "stop";
        let mut node = Self { entry, directory, lease: config.directory.node_lease, stops, entered: None, vouched: Duration::ZERO };
        if let Some(registry) = node.directory.registry() {
            node.vouched = since_boot();
            registry.enter(&node.entry, node.lease, true).await?;
            node.entered = Some(registry);
        }
        Ok(node)
    }

    /// The id of the queue folder.
    pub(crate) fn id(&self) -> &str {
        &self.entry.id
    }

    /// Renews the lease and answers questions until the queue is `closed`, then gives the lease back. Cancels `lost` when the folder is
    /// another node's.
    pub(crate) async fn keep(mut self, queue: Arc<Queue>, closed: CancellationToken, lost: CancellationToken) {
        let mut tick = tokio::time::interval(self.lease / BEATS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asked = self.directory.registry().map(|registry| registry.asked());
        self.vouch(&queue);
        let mut rests = false;
        loop {
            tokio::select! {
                () = closed.cancelled() => break,
                _ = tick.tick() => {
                    if let Err(error) = self.beat(&queue).await {
                        match error {
                            DirectoryError::Refused(why) => {
                                tracing::error!("this node stops, since its queue is not its own any more: {why}");
                                lost.cancel();
                                return;
                            }
                            // The lease runs on; mail is taken and delivered meanwhile.
                            other => tracing::debug!("the register of nodes does not answer: {other}"),
                        }
                    }
                    match (rests, !queue.has_lease()) {
                        (false, true) => tracing::error!("the lease on the queue could not be renewed and has run out; no mail is taken or delivered until it is"),
                        (true, false) => tracing::info!("the lease on the queue is renewed; mail is taken and delivered again"),
                        _ => {}
                    }
                    rests = !queue.has_lease();
                    if asked.is_none() {
                        asked = self.directory.registry().map(|registry| registry.asked());
                    }
                }
                () = news(asked.as_mut()) => self.answer(&queue).await,
            }
        }
        let health = queue.health();
        if let Some(registry) = self.entered
            && let Err(error) = registry.leave(&self.entry, health.messages, health.recipients).await
        {
            tracing::warn!("the register of nodes was not told of the end: {error}; the lease runs out by itself");
        }
    }

    async fn beat(&mut self, queue: &Queue) -> Result<(), DirectoryError> {
        let registry = self.directory.registry();
        self.leave_former(registry.as_ref()).await;
        let Some(registry) = registry else {
            queue.leased_until(None);
            return Ok(());
        };
        let (health, asked) = (queue.health(), since_boot());
        if self.entered.is_none() || !registry.beat(&self.entry, self.lease, health.messages, health.recipients).await? {
            // The directory was just moved here, or was put back from a backup that does not know us.
            registry.enter(&self.entry, self.lease, self.entered.is_none()).await?;
        }
        self.entered = Some(registry);
        self.vouched = asked;
        self.vouch(queue);
        Ok(())
    }

    /// Tells the queue for how long it may go on without another word. The last quarter of the lease is for what is under way at its end.
    fn vouch(&self, queue: &Queue) {
        if self.stops && self.entered.is_some() {
            queue.leased_until(Some(self.vouched + self.lease / BEATS * (BEATS - 1)));
        }
    }

    /// Takes this node out of a register that is not its directory's any more.
    async fn leave_former(&mut self, now: Option<&Registry>) {
        let Some(former) = self.entered.take_if(|entered| !now.is_some_and(|now| now.is(entered))) else { return };
        match former.withdraw(&self.entry).await {
            Ok(()) => tracing::info!("this node left the register of its former directory"),
            Err(error) => tracing::warn!(
                "this node could not leave the register of its former directory: {error}; `pillarbox node remove` on another one does"
            ),
        }
    }

    async fn answer(&self, queue: &Queue) {
        let Some(registry) = self.directory.registry() else { return };
        let questions = match registry.questions(&self.entry.id).await {
            Ok(questions) => questions,
            Err(error) => return tracing::debug!("questions of other nodes cannot be read: {error}"),
        };
        for (id, question) in questions {
            let answer = pillarbox_control::nodes::answer(queue, &question).await;
            if let Err(error) = registry.answer(&id, &answer).await {
                tracing::debug!("another node was not answered: {error}");
            }
        }
    }
}

/// Waits for a question; for ever where nobody can ask.
async fn news(asked: Option<&mut tokio::sync::watch::Receiver<u64>>) {
    match asked {
        Some(asked) => {
            if asked.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}
