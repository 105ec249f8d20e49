//! What a command works with: the configuration, the way to the API, and the way to print.

use std::path::PathBuf;

use pillarbox_config::Config;
use pillarbox_control::{Client, ConnectError, connect};

use crate::failure::{Failure, UNAVAILABLE};
use crate::out::Out;

/// What a command works with. Nothing is opened before it is asked for.
pub(crate) struct Session {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// How to print.
    pub(crate) out: Out,
}

impl Session {
    /// The configuration in force.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.file.as_deref())?)
    }

    /// The API: the daemon's, or this process's own. Files that only root can read must be read before.
    pub(crate) async fn api(&self) -> Result<Client, Failure> {
        self.api_of(&self.config()?).await
    }

    /// The same for a configuration in hand.
    pub(crate) async fn api_of(&self, config: &Config) -> Result<Client, Failure> {
        connect(config).await.map_err(|error| match error {
            ConnectError::Locked { .. } => Failure::new(UNAVAILABLE, error.to_string()),
            other => Failure::failed(other.to_string()),
        })
    }
}
