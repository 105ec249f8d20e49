//! What the records of a domain are made from.

use std::net::IpAddr;

use pillarbox_config::Config;
use pillarbox_directory::DomainRecord;
use pillarbox_screen::dkim;
use pillarbox_smtp::Domain;
use time::OffsetDateTime;

use super::certificates;

/// What the records of a domain are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The domain.
    pub domain: Domain,
    /// This host's name.
    pub hostname: String,
    /// Its addresses that the world can reach; empty behind a router that translates.
    pub addresses: Vec<IpAddr>,
    /// TXT records of the DKIM keys, by owner name.
    pub dkim: Vec<(String, String)>,
    /// SHA-256 of the public key that is served, hex.
    pub spki_sha256: Option<String>,
    /// The certificate is signed by someone else, so that an MTA-STS policy may be enforced.
    pub verifiable: bool,
    /// The MTA-STS policy and autoconfig are served: HTTPS is listened on, or HTTP where a web server with TLS may stand before it. Port 80 alone serves
    /// no policy; it is there for ACME.
    pub http: bool,
    /// Ports of services, as configured (the usual ones where the configuration names sockets of systemd).
    pub submission: Option<u16>,
    /// TLS from the first byte.
    pub submissions: Option<u16>,
}

impl Facts {
    /// Looks at configuration, keys, certificate file and interfaces. Blocking, briefly.
    pub fn gather(config: &Config, record: &DomainRecord) -> Self {
        let certificate = certificates::read(&certificates::certificate_file(config));
        Self {
            domain: record.name.clone(),
            hostname: config.hostname(),
            addresses: public_addresses(config),
            dkim: dkim::records(record, OffsetDateTime::now_utc()),
            verifiable: certificate.as_ref().is_some_and(|c| c.signed_by_other),
            spki_sha256: certificate.map(|c| c.spki_sha256),
            http: !config.listen.https.is_empty() || config.listen.http.iter().any(|listen| !listen.ends_with(":80")),
            submission: port(&config.listen.submission, 587),
            submissions: port(&config.listen.submissions, 465),
        }
    }
}

/// The port that the world connects to: the first TCP one, or the usual one where systemd holds the socket.
fn port(listen: &[String], usual: u16) -> Option<u16> {
    let first = listen.first()?;
    match first.parse() {
        Ok(pillarbox_config::ListenAddress::Tcp(address)) => Some(address.port()),
        _ => Some(usual),
    }
}

/// Addresses that the world can reach: those the configuration names, and those of the interfaces.
pub fn public_addresses(config: &Config) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let listened = config.listen.smtp.iter().filter_map(|l| match l.parse() {
        Ok(pillarbox_config::ListenAddress::Tcp(address)) => Some(address.ip()),
        _ => None,
    });
    for ip in config.relay.source_addresses.iter().copied().chain(listened).chain(interface_addresses()) {
        if is_public(ip) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found.sort();
    found
}

fn interface_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    interfaces.filter_map(|i| i.address.and_then(address)).collect()
}

/// Neither private (RFC 1918, RFC 4193), shared (RFC 6598), link-local, loopback, unspecified, multicast nor for documentation.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(v6) => {
            v6.segments().first().is_some_and(|first| (0x2000..0x4000).contains(first)) && !matches!(v6.segments(), [0x2001, 0xdb8, ..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_the_world_reaches_are_public() {
        for (text, public) in [
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("192.0.2.1", false),
            ("127.0.0.1", false),
            ("2a01:4f8::1", true),
            ("2001:db8::1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }
}
