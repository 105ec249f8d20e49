//! What the API stands on: configuration, directory, and in the daemon also its queue and itself.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_config::{ByteSize, Config};
use pillarbox_directory::{Directory, Movable, Registry};
use pillarbox_lda::QuotaCheck;
use pillarbox_queue::Queue;
use pillarbox_relay::Relay;

use crate::daemon::DaemonInfo;
use crate::error::{ApiError, ApiResult};
use crate::local_mail::LocalDoor;

/// What the API stands on. The daemon makes one with everything, the command without a daemon one with the directory alone.
pub struct Admin {
    /// The configuration in force; a reload replaces it.
    pub config: Arc<ArcSwap<Config>>,
    /// Domains, users, aliases, credentials.
    pub directory: Arc<dyn Directory>,
    /// The same, where it can be moved into another store.
    pub movable: Option<Arc<Movable>>,
    /// The id of this node's queue folder in the register of nodes.
    pub node: Option<String>,
    /// The queue of the daemon.
    pub queue: Option<Arc<Queue>>,
    /// The deliverer to the world; without the daemon one is made when asked for.
    pub relay: Option<Arc<Relay>>,
    /// What mailboxes hold, where the deliverer of this process keeps count.
    pub quota: Option<QuotaCheck>,
    /// Where mail that is handed in on this machine goes.
    pub local_door: Option<Arc<dyn LocalDoor>>,
    /// The daemon itself, when this is it.
    pub daemon: Option<Arc<dyn DaemonInfo>>,
}

impl Admin {
    /// With the directory alone.
    pub fn new(config: Arc<ArcSwap<Config>>, directory: Arc<dyn Directory>) -> Self {
        Self { config, directory, movable: None, node: None, queue: None, relay: None, quota: None, local_door: None, daemon: None }
    }

    /// Adds the way to move the directory.
    #[must_use]
    pub fn with_movable(mut self, movable: Arc<Movable>) -> Self {
        self.movable = Some(movable);
        self
    }

    /// Adds the id under which this node is registered.
    #[must_use]
    pub fn with_node(mut self, id: String) -> Self {
        self.node = Some(id);
        self
    }

    /// Adds the daemon.
    #[must_use]
    pub fn with_daemon(mut self, daemon: Arc<dyn DaemonInfo>) -> Self {
        self.daemon = Some(daemon);
        self
    }

    /// Adds the queue.
    #[must_use]
    pub fn with_queue(mut self, queue: Arc<Queue>) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Adds the deliverer to the world.
    #[must_use]
    pub fn with_relay(mut self, relay: Arc<Relay>) -> Self {
        self.relay = Some(relay);
        self
    }

    /// Adds the deliverer's account of what mailboxes hold.
    #[must_use]
    pub fn with_quota(mut self, quota: QuotaCheck) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Adds the door for mail handed in on this machine.
    #[must_use]
    pub fn with_local_door(mut self, door: Arc<dyn LocalDoor>) -> Self {
        self.local_door = Some(door);
        self
    }

    /// The configuration at this moment.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    pub(crate) fn daemon(&self) -> ApiResult<&Arc<dyn DaemonInfo>> {
        self.daemon.as_ref().ok_or_else(not_running)
    }

    pub(crate) fn queue(&self) -> ApiResult<&Arc<Queue>> {
        self.queue.as_ref().ok_or_else(not_running)
    }

    /// The register of nodes.
    pub(crate) fn registry(&self) -> ApiResult<Registry> {
        self.directory.registry().ok_or_else(|| {
            ApiError::refused("there are other nodes only where directory.backend is \"postgres\"; this directory is of one machine")
        })
    }

    pub(crate) fn local_door(&self) -> ApiResult<&Arc<dyn LocalDoor>> {
        self.local_door.as_ref().ok_or_else(not_running)
    }

    /// The daemon's deliverer, or one made for this question.
    pub(crate) fn relay(&self) -> ApiResult<Arc<Relay>> {
        match &self.relay {
            Some(relay) => Ok(relay.clone()),
            None => Relay::new(&self.config()).map_err(|e| ApiError::unavailable(e.to_string())),
        }
    }

    /// Octets of `mailbox.default_quota`; `None` for none.
    pub(crate) fn default_quota(&self) -> Option<u64> {
        self.config().mailbox.default_quota.parse::<ByteSize>().ok().map(ByteSize::bytes)
    }
}

fn not_running() -> ApiError {
    ApiError::unavailable("the daemon is not running; start it with `systemctl start pillarbox`")
}
