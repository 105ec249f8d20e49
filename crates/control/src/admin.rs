//! What the API stands on: configuration, directory, and in the daemon also its queue and itself.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_config::{ByteSize, Config};
use pillarbox_directory::Directory;

use crate::daemon::DaemonInfo;
use crate::error::{ApiError, ApiResult};

/// What the API stands on. The daemon makes one with everything, the command without a daemon one with the directory alone.
pub struct Admin {
    /// The configuration in force; a reload replaces it.
    pub config: Arc<ArcSwap<Config>>,
    /// Domains, users, aliases, credentials.
    pub directory: Arc<dyn Directory>,
    /// The daemon itself, when this is it.
    pub daemon: Option<Arc<dyn DaemonInfo>>,
}

impl Admin {
    /// With the directory alone.
    pub fn new(config: Arc<ArcSwap<Config>>, directory: Arc<dyn Directory>) -> Self {
        Self { config, directory, daemon: None }
    }

    /// Adds the daemon.
    #[must_use]
    pub fn with_daemon(mut self, daemon: Arc<dyn DaemonInfo>) -> Self {
        self.daemon = Some(daemon);
        self
    }

    /// The configuration at this moment.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    pub(crate) fn daemon(&self) -> ApiResult<&Arc<dyn DaemonInfo>> {
        self.daemon.as_ref().ok_or_else(|| ApiError::unavailable("the daemon is not running; start it with `systemctl start pillarbox`"))
    }

    /// Octets of `mailbox.default_quota`; `None` for none.
    pub(crate) fn default_quota(&self) -> Option<u64> {
        self.config().mailbox.default_quota.parse::<ByteSize>().ok().map(ByteSize::bytes)
    }
}
