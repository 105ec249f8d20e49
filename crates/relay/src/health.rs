//! What `status` shows of this room, and the questions asked once at start.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use serde::Serialize;

use crate::dns::{Answer, Dnssec};
use crate::shared::Shared;

/// Whether others will take mail from our IPv6 address: many large receivers refuse it without a matching PTR record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Ipv6 {
    /// Not asked yet.
    #[default]
    Unknown,
    /// This machine has no IPv6 way out.
    None,
    /// The address has a PTR record whose name leads back to it.
    Good {
        /// Our address.
        address: Ipv6Addr,
        /// Its name.
        name: String,
    },
    /// It has none: IPv6 is used only for hosts that have no IPv4 address.
    NoPtr {
        /// Our address.
        address: Ipv6Addr,
    },
}

/// This room's part of `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelayHealth {
    /// Our IPv6 address and its PTR record.
    pub ipv6: Ipv6,
    /// DANE is asked for, and this is whether the name servers pass DNSSEC on: "available", "unavailable", "unknown", "off".
    pub dnssec: &'static str,
    /// One sentence each on what should be put right.
    pub warnings: Vec<String>,
}

/// A host on the Internet's backbone. Nothing is sent to it: connecting a datagram socket only asks the routing table.
const FAR_AWAY: &str = "[2001:503:ba3e::2:30]:53";

/// Our IPv6 address as others would see it.
fn source_v6(shared: &Shared) -> Option<Ipv6Addr> {
    let configured = shared.config.source_addresses.iter().find_map(|ip| match ip {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    });
    configured.or_else(|| {
        let socket = UdpSocket::bind("[::]:0").ok()?;
        socket.connect(FAR_AWAY).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unspecified() => Some(v6),
            _ => None,
        }
    })
}

/// Asks what must be known before the first mail: our addresses as the DNS knows them, our PTR record, DNSSEC.
pub(crate) async fn probe(shared: &Shared) {
    let name = shared.ourselves.hostname().to_owned();
    if !name.is_empty() {
        let (v4, v6) = tokio::join!(shared.resolver.ipv4(&name), shared.resolver.ipv6(&name));
        let v4 = v4.records().map(|o| o.records.clone()).unwrap_or_default();
        let v6 = v6.records().map(|o| o.records.clone()).unwrap_or_default();
        shared.ourselves.learn(v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)));
    }
    let found = match source_v6(shared) {
        None => Ipv6::None,
        Some(address) => ptr(shared, address).await,
    };
    if let Ipv6::NoPtr { address } = &found {
        tracing::warn!(%address, "our IPv6 address has no matching PTR record; mail goes by IPv4 where it can");
    }
    *shared.ipv6.write() = found;
    if shared.config.dane && shared.resolver.probe_dnssec().await == Dnssec::Unavailable {
        tracing::warn!("the name servers pass no DNSSEC on, so DANE is not used; a validating resolver on this machine would do");
    }
}

/// Whether the address's PTR names lead back to it, as receivers check.
async fn ptr(shared: &Shared, address: Ipv6Addr) -> Ipv6 {
    match shared.resolver.ptr(IpAddr::V6(address)).await {
        Answer::Secure(names) | Answer::Insecure(names) => {
            for name in names.into_iter().take(5) {
                let forward = shared.resolver.ipv6(&name).await;
                if forward.records().is_some_and(|owned| owned.records.contains(&address)) {
                    return Ipv6::Good { address, name: pillarbox_smtp::printable(name.as_bytes()) };
                }
            }
            Ipv6::NoPtr { address }
        }
        Answer::NxDomain | Answer::NoData => Ipv6::NoPtr { address },
        // No answer is no reason to give IPv6 up.
        Answer::Bogus | Answer::TempFail(_) => Ipv6::Unknown,
    }
}

pub(crate) fn health(shared: &Shared) -> RelayHealth {
    let ipv6 = shared.ipv6.read().clone();
    let dnssec = match (shared.config.dane, shared.resolver.dnssec()) {
        (false, _) => "off",
        (true, Dnssec::Unknown) => "unknown",
        (true, Dnssec::Available) => "available",
        (true, Dnssec::Unavailable) => "unavailable",
    };
    let mut warnings = Vec::new();
    if let Ipv6::NoPtr { address } = &ipv6 {
        warnings.push(format!(
            "{address} has no PTR record that leads back to it: set one with your provider, or mail by IPv6 will be refused"
        ));
    }
    if dnssec == "unavailable" {
        warnings
            .push("the name servers pass no DNSSEC on, so DANE is not used: run a validating resolver and name it in dns.servers".into());
    }
    RelayHealth { ipv6, dnssec, warnings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timeouts;
    use crate::session::Endpoint;
    use crate::testing::{FakeDns, config};

    #[tokio::test]
    async fn a_ptr_name_must_lead_back() {
        let dns = FakeDns::start().await;
        dns.0.ptr("2001:db8::1", "mail.test").ptr("2001:db8::2", "other.test").ptr("2001:db8::4", "lost.test");
        dns.add("mail.test AAAA 2001:db8::1").add("other.test AAAA 2001:db8::99");
        let shared = Shared::new(&config(&dns, 25), Timeouts::default(), None).unwrap();
        let ask = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        assert_eq!(ptr(&shared, ask(1)).await, Ipv6::Good { address: ask(1), name: "mail.test".into() });
        for bad in [2, 3, 4] {
            assert_eq!(ptr(&shared, ask(bad)).await, Ipv6::NoPtr { address: ask(bad) });
        }
        assert!(shared.prefers_v6());
        *shared.ipv6.write() = Ipv6::NoPtr { address: ask(3) };
        assert!(!shared.prefers_v6());
        assert!(health(&shared).warnings.iter().any(|w| w.contains("2001:db8::3 has no PTR record")));
    }

    #[tokio::test]
    async fn a_source_address_in_the_configuration_is_the_one_that_counts() {
        let dns = FakeDns::start().await;
        let mut config = config(&dns, 25);
        config.relay.source_addresses = vec!["2001:db8::5".parse().unwrap(), "192.0.2.5".parse().unwrap()];
        dns.add("relay.test A 198.51.100.9");
        config.listen.smtp = vec!["[::]:25".into()];
        let shared = Shared::new(&config, Timeouts::default(), None).unwrap();
        probe(&shared).await;
        assert_eq!(*shared.ipv6.read(), Ipv6::NoPtr { address: "2001:db8::5".parse().unwrap() });
        assert_eq!(shared.source_for(&Endpoint::Tcp("203.0.113.1:25".parse().unwrap())), Some("192.0.2.5".parse().unwrap()));
        // Our name's address counts as ours, though no interface has it (a router in front of us does).
        assert!(shared.ourselves.is_our_socket("198.51.100.9".parse().unwrap(), 25));
    }
}
