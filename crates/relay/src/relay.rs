//! The door: [`Relay`], the transport for everyone who is not ours.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_config::Config;
use pillarbox_queue::{Destination, Envelope, Feed, Recipient, Transport};
use pillarbox_smtp::{Domain, ReversePath};
use rand::Rng;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::check::{self, HostCheck};
use crate::dns::ResolverError;
use crate::explain::{self, Explanation};
use crate::health::{self, RelayHealth};
use crate::mta_sts::SharedPolicies;
use crate::route::BadRoute;
use crate::run;
use crate::session::Timeouts;
use crate::shared::Shared;
use crate::tls::TlsSetupError;
use crate::tlsrpt::{self, Received, Report, Submit};

/// Why the relay cannot be set up or reconfigured.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The name servers.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// A smarthost or route.
    #[error(transparent)]
    Route(#[from] BadRoute),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
}

/// Why a message gave no TLS report.
#[derive(Debug, thiserror::Error)]
pub enum TlsReportError {
    /// There is none in it.
    #[error(transparent)]
    Report(#[from] tlsrpt::ReportError),
    /// It cannot be kept.
    #[error("the report cannot be kept: {0}")]
    Io(#[from] std::io::Error),
}

/// How often counts for TLS reports go to the disk.
const SAVE_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// Delivers to the world.
pub struct Relay {
    shared: ArcSwap<Shared>,
    timeouts: Timeouts,
    /// Held while TLS reports are sent, so that none is sent twice.
    reporting: tokio::sync::Mutex<()>,
}

impl Relay {
    /// Sets up with the configuration's `hostname`, `[relay]`, `[dns]` and `paths.state`. Needs a tokio runtime.
    pub fn new(config: &Config) -> Result<Arc<Self>, RelayError> {
        Self::with_timeouts(config, Timeouts::default())
    }

    /// The same with other waits than the RFC's, as tests want them.
    pub fn with_timeouts(config: &Config, timeouts: Timeouts) -> Result<Arc<Self>, RelayError> {
        let shared = Shared::new(config, timeouts, None)?;
        Ok(Arc::new(Self { shared: ArcSwap::from_pointee(shared), timeouts, reporting: tokio::sync::Mutex::default() }))
    }

    /// Shares MTA-STS policies with other nodes from now on. Only the first call counts.
    pub fn share_policies(&self, shelf: Arc<dyn SharedPolicies>) {
        _ = self.shared.load().shelf.set(shelf);
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

    /// What would happen to mail for `domain` from `sender`, without sending any.
    pub async fn explain(&self, domain: &Domain, sender: &ReversePath) -> Explanation {
        explain::explain(&self.shared(), domain, sender).await
    }

    /// Every next hop that the configuration names (smarthost and routes), to be given to [`Relay::check`].
    pub fn named_hops(&self) -> Vec<Destination> {
        let mut named: Vec<Destination> = self.shared.load().routes.named().map(|(destination, _)| destination.clone()).collect();
        named.sort();
        named
    }

    /// Connects to each address of a destination, says EHLO, starts TLS, logs in where that is configured, and hangs up.
    pub async fn check(&self, destination: &Destination) -> Vec<HostCheck> {
        check::check(&self.shared(), destination).await
    }

    /// Keeps and sends TLS reports until `stop`; returns at once when `relay.tls_reports` is off. Reports go out by `submit`
    /// some hours after midnight UTC.
    pub async fn background(self: Arc<Self>, stop: CancellationToken, submit: Submit) {
        // RFC 8460 §4.1: spread over some hours, so that not everyone reports at midnight.
        let delay = time::Duration::seconds(rand::rng().random_range(0..4 * 3600));
        loop {
            let stopping = tokio::time::timeout(SAVE_EVERY, stop.cancelled()).await.is_ok();
            let shared = self.shared();
            if let Some(counter) = shared.counter.clone() {
                let saving = counter.clone();
                if let Err(error) = tlsrpt::off_reactor(move || saving.save()).await {
                    tracing::warn!(%error, "counts for TLS reports could not be saved");
                }
                let now = OffsetDateTime::now_utc();
                if !stopping && now - delay >= now.date().midnight().assume_utc() {
                    match self.send_tls_reports(now, &submit).await {
                        Ok(0) => {}
                        Ok(sent) => tracing::info!(sent, "TLS reports were sent"),
                        Err(error) => tracing::warn!(%error, "TLS reports could not be sent"),
                    }
                }
            }
            if stopping {
                return;
            }
        }
    }

    /// Sends the TLS reports of the days before `now` and answers how many went out; what fails waits for the next call.
    pub async fn send_tls_reports(&self, now: OffsetDateTime, submit: &Submit) -> std::io::Result<usize> {
        let _one_at_a_time = self.reporting.lock().await;
        let shared = self.shared();
        let Some(counter) = &shared.counter else { return Ok(0) };
        let (means, hostname) = (shared.means(), shared.ourselves.hostname().to_owned());
        tlsrpt::send_finished(counter, &means, &hostname, now, submit).await
    }

    /// Takes a message that may hold TLS reports from others, and keeps them for [`Relay::received_tls_reports`]. Returns how many.
    pub async fn take_tls_report(&self, message: bytes::Bytes) -> Result<usize, TlsReportError> {
        let folder = self.received_folder();
        let kept = tlsrpt::off_reactor(move || {
            let reports = match tlsrpt::from_message(&message) {
                Ok(reports) => reports,
                Err(error) => return Ok(Err(error)),
            };
            let received = Received::new(folder);
            reports.iter().try_for_each(|report| received.keep(report))?;
            Ok(Ok(reports.len()))
        });
        Ok(kept.await??)
    }

    /// The reports that others sent us, oldest first.
    pub async fn received_tls_reports(&self) -> std::io::Result<Vec<Report>> {
        let folder = self.received_folder();
        tlsrpt::off_reactor(move || Received::new(folder).list()).await
    }

    /// What was counted on a UTC day (`2026-11-24`) and is not reported yet: sections by domain.
    pub fn counted_tls_sessions(&self, day: &str) -> tlsrpt::Day {
        self.shared.load().counter.as_ref().and_then(|counter| counter.day(day)).unwrap_or_default()
    }

    fn received_folder(&self) -> std::path::PathBuf {
        self.shared.load().state.join("tlsrpt").join("received")
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
