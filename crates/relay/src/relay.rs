//! The door: [`Relay`], the transport for everyone who is not ours.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_config::Config;
use pillarbox_queue::{Destination, Envelope, Feed, Recipient, Transport};

use crate::dns::ResolverError;
use crate::health::{self, RelayHealth};
use crate::route::BadHop;
use crate::run;
use crate::session::Timeouts;
use crate::shared::Shared;
use crate::tls::TlsSetupError;

/// Why the relay cannot be set up or reconfigured.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The name servers.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// A smarthost or route.
    #[error(transparent)]
    Route(#[from] BadHop),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
}

/// Delivers to the world.
pub struct Relay {
    shared: ArcSwap<Shared>,
    timeouts: Timeouts,
}

impl Relay {
    /// Sets up with the configuration's `hostname`, `[relay]`, `[dns]` and `paths.state`. Needs a tokio runtime.
    pub fn new(config: &Config) -> Result<Arc<Self>, RelayError> {
        Self::with_timeouts(config, Timeouts::default())
    }

    /// The same with other waits than the RFC's, as tests want them.
    pub fn with_timeouts(config: &Config, timeouts: Timeouts) -> Result<Arc<Self>, RelayError> {
        let shared = Shared::new(config, timeouts, None)?;
        Ok(Arc::new(Self { shared: ArcSwap::from_pointee(shared), timeouts }))
    }

    /// Takes a new configuration; runs under way finish with the old one. On an error the old one stays.
    pub fn reload(&self, config: &Config) -> Result<(), RelayError> {
        let fresh = Shared::new(config, self.timeouts, Some(&self.shared.load()))?;
        self.shared.store(Arc::new(fresh));
        Ok(())
    }

    /// Asks once at start what the DNS knows of us: addresses, PTR record of our IPv6 address, DNSSEC. Bounded in time.
    pub async fn probe(&self) {
        health::probe(&self.shared.load_full()).await;
    }

    /// For `status`.
    pub fn health(&self) -> RelayHealth {
        health::health(&self.shared.load())
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.load_full()
    }
}

#[async_trait::async_trait]
impl Transport for Relay {
    fn destination(&self, envelope: &Envelope, recipient: &Recipient) -> Destination {
        self.shared.load().routes.destination(envelope, recipient)
    }

    fn concurrency(&self, _destination: &Destination) -> usize {
        self.shared.load().config.per_destination.max(1)
    }

    async fn run(&self, destination: Destination, feed: Feed) {
        run::run(self.shared(), destination, feed).await;
    }
}
