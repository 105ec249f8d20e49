//! What all deliveries share: settings, resolver, TLS configurations, and what was found out about ourselves.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use pillarbox_config::{Config, Relay as RelayConfig};
use pillarbox_smtp::Domain;
use time::OffsetDateTime;

use crate::RelayError;
use crate::dns::Resolver;
use crate::health::Ipv6;
use crate::https::Means;
use crate::mta_sts::{PolicyCache, Shelf};
use crate::ourselves::Ourselves;
use crate::route::Routes;
use crate::session::{Endpoint, Timeouts};
use crate::tls::TlsClients;
use crate::tlsrpt::Counter;

/// Unreachable addresses remembered.
const UNREACHABLE: usize = 4096;
/// How long.
const UNREACHABLE_FOR: Duration = Duration::from_secs(300);

/// One state of the configuration, and what hangs on it.
pub(crate) struct Shared {
    pub(crate) config: RelayConfig,
    pub(crate) routes: Routes,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) tls: TlsClients,
    pub(crate) ourselves: Arc<Ourselves>,
    /// `paths.state`.
    pub(crate) state: PathBuf,
    /// What we say in EHLO.
    pub(crate) helo: Domain,
    pub(crate) timeouts: Timeouts,
    /// Policies of other domains; `None`: MTA-STS is off.
    pub(crate) sts: Option<Arc<PolicyCache>>,
    /// Where other nodes keep theirs.
    pub(crate) shelf: Shelf,
    /// Counts for TLS reports; `None`: nobody gets any.
    pub(crate) counter: Option<Arc<Counter>>,
    /// Addresses that gave no connection lately, or were overtaken, and when.
    unreachable: quick_cache::sync::Cache<IpAddr, Instant>,
    /// Whether our IPv6 address is one that others will take mail from.
    pub(crate) ipv6: Arc<RwLock<Ipv6>>,
}

impl Shared {
    pub(crate) fn new(config: &Config, timeouts: Timeouts, before: Option<&Shared>) -> Result<Self, RelayError> {
        let relay = config.relay.clone();
        let resolver = Resolver::new(&config.dns.servers, relay.dane, &config.dns.trust_anchor)?;
        let helo = Domain::new(&config.hostname).unwrap_or_else(|_| Domain::literal(IpAddr::from([127, 0, 0, 1])));
        let timeouts = Timeouts { connect: relay.connect_timeout, ..timeouts };
        let state = &config.paths.state;
        let shelf = before.map_or_else(Shelf::default, |before| before.shelf.clone());
        let sts = || Arc::new(PolicyCache::new(state.join("mta-sts"), shelf.clone(), relay.mta_sts_port));
        let counter = || Arc::new(Counter::open(state.join("tlsrpt"), OffsetDateTime::now_utc()));
        let kept = |of: Option<&Shared>| (of.and_then(|s| s.sts.clone()), of.and_then(|s| s.counter.clone()));
        let (old_sts, old_counter) =
            kept(before.filter(|before| before.state == *state && before.config.mta_sts_port == relay.mta_sts_port));
        Ok(Self {
            sts: relay.mta_sts.then(|| old_sts.unwrap_or_else(sts)),
            shelf,
            counter: relay.tls_reports.then(|| old_counter.unwrap_or_else(counter)),
            state: state.clone(),
            routes: Routes::new(&relay)?,
            resolver: Arc::new(resolver),
            tls: TlsClients::new(&relay.ca_file)?,
            ourselves: Arc::new(Ourselves::new(config)),
            helo,
            unreachable: quick_cache::sync::Cache::new(UNREACHABLE),
            timeouts,
            ipv6: before.map_or_else(Arc::default, |before| before.ipv6.clone()),
            config: relay,
        })
    }

    /// For HTTPS requests.
    pub(crate) fn means(&self) -> Means<'_> {
        Means { resolver: &self.resolver, tls: &self.tls, deny: &self.config.deny_networks }
    }

    /// Our configured address for an endpoint's family.
    pub(crate) fn source_for(&self, endpoint: &Endpoint) -> Option<IpAddr> {
        let address = endpoint.ip()?;
        self.config.source_addresses.iter().copied().find(|source| source.is_ipv4() == address.is_ipv4())
    }

    /// Whether an address gave no connection lately: it is tried after the others, so that a dead one costs its time once.
    pub(crate) fn was_unreachable(&self, endpoint: &Endpoint) -> bool {
        endpoint.ip().and_then(|ip| self.unreachable.get(&ip)).is_some_and(|at| at.elapsed() < UNREACHABLE_FOR)
    }

    /// Remembers that an address gave no connection, or not in time.
    pub(crate) fn note_unreachable(&self, endpoint: &Endpoint) {
        endpoint.ip().into_iter().for_each(|address| self.unreachable.insert(address, Instant::now()));
    }

    /// IPv6 comes first unless others would refuse it for want of a PTR record; then it serves hosts that have nothing else.
    pub(crate) fn prefers_v6(&self) -> bool {
        !matches!(*self.ipv6.read(), Ipv6::NoPtr { .. })
    }
}
