//! Which way the mail of each domain takes, kept at hand so that the queue can group recipients without asking the directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pillarbox_directory::{Directory, DirectoryError};
use pillarbox_smtp::Domain;

use crate::way::Way;

/// At most this often the domains are read again, however many changes come.
const PAUSE: Duration = Duration::from_millis(200);
/// How soon a directory that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// The ways that domains of the directory have of their own.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    of: ArcSwap<HashMap<Domain, Arc<Way>>>,
}

impl Ways {
    /// Reads the directory, then follows its changes for as long as someone else holds the result.
    pub(crate) async fn follow(directory: Arc<dyn Directory>) -> Arc<Self> {
        let ways = Arc::new(Self::default());
        let mut changes = directory.watch();
        let mut read = ways.read(directory.as_ref()).await;
        let weak = Arc::downgrade(&ways);
        tokio::spawn(async move {
            loop {
                match &read {
                    Ok(()) => {
                        tokio::time::sleep(PAUSE).await;
                        if changes.changed().await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "how domains want their mail delivered could not be read; as known before until it can");
                        tokio::time::sleep(RETRY).await;
                    }
                }
                let Some(ways) = weak.upgrade() else { return };
                read = ways.read(directory.as_ref()).await;
            }
        });
        ways
    }

    /// The way of a domain, unless it goes by the configuration.
    pub(crate) fn of(&self, domain: &Domain) -> Option<Arc<Way>> {
        self.of.load().get(domain).cloned()
    }

    async fn read(&self, directory: &dyn Directory) -> Result<(), DirectoryError> {
        let mut of = HashMap::new();
        for domain in directory.domains().await? {
            let Some(text) = &domain.deliver_to else { continue };
            match Way::new(text) {
                Some(way) => _ = of.insert(domain.name, Arc::new(way)),
                None => {
                    tracing::warn!(domain = %domain.name, deliver_to = text, "the domain's deliver_to is not understood; the configured way is taken")
                }
            }
        }
        self.of.store(Arc::new(of));
        Ok(())
    }
}
