//! What all deliveries share: settings, resolver, TLS configurations, and what was found out about ourselves.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use pillarbox_config::{Config, Relay as RelayConfig};
use pillarbox_smtp::Domain;

use crate::RelayError;
use crate::dns::Resolver;
use crate::health::Ipv6;
use crate::ourselves::Ourselves;
use crate::route::Routes;
use crate::session::Timeouts;
use crate::tls::TlsClients;

/// One state of the configuration, and what hangs on it.
pub(crate) struct Shared {
    pub(crate) config: RelayConfig,
    pub(crate) routes: Routes,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) tls: TlsClients,
    pub(crate) ourselves: Arc<Ourselves>,
    /// What we say in EHLO.
    pub(crate) helo: Domain,
    pub(crate) timeouts: Timeouts,
    /// Whether our IPv6 address is one that others will take mail from.
    pub(crate) ipv6: Arc<RwLock<Ipv6>>,
}

impl Shared {
    pub(crate) fn new(config: &Config, timeouts: Timeouts, before: Option<&Shared>) -> Result<Self, RelayError> {
        let relay = config.relay.clone();
        let resolver = Resolver::new(&config.dns.servers, relay.dane, &config.dns.trust_anchor)?;
        let helo = Domain::new(&config.hostname).unwrap_or_else(|_| Domain::literal(IpAddr::from([127, 0, 0, 1])));
        let timeouts = Timeouts { connect: relay.connect_timeout, ..timeouts };
        Ok(Self {
            routes: Routes::new(&relay)?,
            resolver: Arc::new(resolver),
            tls: TlsClients::new(&relay.ca_file)?,
            ourselves: Arc::new(Ourselves::new(config)),
            helo,
            timeouts,
            ipv6: before.map_or_else(Arc::default, |before| before.ipv6.clone()),
            config: relay,
        })
    }

    /// Our configured address for a family.
    pub(crate) fn source_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.config.source_addresses.iter().copied().find(|source| source.is_ipv4() == address.is_ipv4())
    }

    /// IPv6 comes first unless others would refuse it for want of a PTR record.
    pub(crate) fn prefers_v6(&self) -> bool {
        !matches!(*self.ipv6.read(), Ipv6::NoPtr { .. })
    }
}
