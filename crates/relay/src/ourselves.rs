//! Who we are: names and addresses under which mail would come back to this server (RFC 5321 §5.1, loop check).

use std::net::{IpAddr, SocketAddr};

use parking_lot::RwLock;
use pillarbox_config::Config;
use pillarbox_config::endpoint::ListenAddress;

/// Our own name, listeners and addresses.
#[derive(Debug)]
pub struct Ourselves {
    /// Lower-case host name.
    hostname: String,
    /// Ports of our MTA listeners; `None` listens on every address.
    listeners: Vec<(Option<IpAddr>, u16)>,
    /// Addresses of the interfaces, and those that our name resolves to.
    addresses: RwLock<Vec<IpAddr>>,
}

impl Ourselves {
    /// Reads names and listeners from the configuration and addresses from the interfaces.
    pub fn new(config: &Config) -> Self {
        let listeners = config.listen.smtp.iter().filter_map(|text| match text.parse() {
            Ok(ListenAddress::Tcp(at)) => Some(at),
            // A socket that systemd passes is on the port that others reach us at.
            Ok(ListenAddress::Systemd(_)) => Some(SocketAddr::from(([0, 0, 0, 0], 25))),
            _ => None,
        });
        let listeners = listeners.map(|at| ((!at.ip().is_unspecified()).then(|| at.ip().to_canonical()), at.port())).collect();
        let hostname = config.hostname.trim_end_matches('.').to_ascii_lowercase();
        Self { hostname, listeners, addresses: RwLock::new(interface_addresses()) }
    }

    /// Nobody: for next hops that the operator named, which may well be on this machine.
    pub(crate) fn nobody() -> Self {
        Self { hostname: String::new(), listeners: Vec::new(), addresses: RwLock::default() }
    }

    /// For tests: exactly these.
    #[cfg(test)]
    pub(crate) fn fixed(hostname: &str, listeners: &[(Option<IpAddr>, u16)], addresses: &[IpAddr]) -> Self {
        Self { hostname: hostname.to_owned(), listeners: listeners.to_vec(), addresses: RwLock::new(addresses.to_vec()) }
    }

    /// Our host name, lower case.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Adds addresses under which we are known outside, such as the router's in front of us.
    pub fn learn(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut known = self.addresses.write();
        for address in addresses {
            let address = address.to_canonical();
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }

    /// Whether this name is ours.
    pub fn is_our_name(&self, name: &str) -> bool {
        !self.hostname.is_empty() && name.trim_end_matches('.').eq_ignore_ascii_case(&self.hostname)
    }

    /// Whether a connection to this address and port would reach our own MTA service.
    pub fn is_our_socket(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.listeners.iter().any(|&(ip, p)| {
            p == port
                && match ip {
                    Some(ip) => ip == address,
                    None => address.is_unspecified() || self.addresses.read().contains(&address),
                }
        })
    }
}

fn interface_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found = Vec::new();
    for interface in interfaces {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            found.push(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            found.push(IpAddr::V6(v6.ip()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_listeners_count() {
        let mut config = Config { hostname: "Mail.Example.org".into(), ..Config::default() };
        config.listen.smtp = vec!["127.0.0.1:2525".into(), "[::]:25".into(), "unix:/run/x".into()];
        let me = Ourselves::new(&config);
        assert!(me.is_our_name("mail.example.ORG."));
        assert!(!me.is_our_name("example.org"));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(me.is_our_socket(ip("127.0.0.1"), 2525));
        assert!(!me.is_our_socket(ip("127.0.0.1"), 2526));
        assert!(!me.is_our_socket(ip("127.0.0.2"), 2525));
        assert!(!me.is_our_socket(ip("198.51.100.7"), 25));
        me.learn([ip("::ffff:198.51.100.7")]);
        assert!(me.is_our_socket(ip("198.51.100.7"), 25));
    }
}
