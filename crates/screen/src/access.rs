//! The configured allow and deny lists: by network, HELO name, sender address and sender domain.

use std::net::IpAddr;

use ipnet::IpNet;
use pillarbox_smtp::{Domain, Mailbox};

/// An entry that is none of the forms a list takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is neither a network, an address, an @domain nor a domain name")]
pub struct BadEntry {
    /// The entry as configured.
    pub entry: String,
}

/// A list of networks, addresses and domains.
#[derive(Debug, Clone, Default)]
pub struct AccessList {
    networks: Vec<IpNet>,
    /// Folded `local@domain`.
    addresses: std::collections::HashSet<String>,
    /// Names that match themselves; with a leading dot those below.
    domains: std::collections::HashSet<String>,
}

impl AccessList {
    /// Reads `192.0.2.0/24`, `2001:db8::1`, `user@host`, `@host`, `host` and `.host` (all names below it).
    pub fn new(entries: &[String]) -> Result<Self, BadEntry> {
        let mut list = Self::default();
        for entry in entries {
            let bad = || BadEntry { entry: entry.clone() };
            let text = entry.trim();
            if let Ok(network) = text.parse::<IpNet>() {
                list.networks.push(network.trunc());
            } else if let Ok(ip) = text.parse::<IpAddr>() {
                list.networks.push(IpNet::from(ip.to_canonical()));
            } else if let Some(domain) = text.strip_prefix('@') {
                list.domains.insert(Domain::new(domain).map_err(|_| bad())?.as_str().to_owned());
            } else if text.contains('@') {
                list.addresses.insert(text.parse::<Mailbox>().map_err(|_| bad())?.key());
            } else if let Some(domain) = text.strip_prefix('.') {
                list.domains.insert(format!(".{}", Domain::new(domain).map_err(|_| bad())?));
            } else {
                list.domains.insert(Domain::new(text).map_err(|_| bad())?.as_str().to_owned());
            }
        }
        Ok(list)
    }

    /// Whether a network holds this address.
    pub fn has_client(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.networks.iter().any(|network| network.contains(&client))
    }

    /// Whether the sender or its domain is listed.
    pub fn has_sender(&self, sender: &Mailbox) -> bool {
        (!self.addresses.is_empty() && self.addresses.contains(&sender.key())) || self.has_domain(sender.domain.as_str())
    }

    /// Whether the name is listed, by itself or through `.parent`. Case does not matter.
    pub fn has_domain(&self, name: &str) -> bool {
        if self.domains.is_empty() {
            return false;
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.domains.contains(&name)
            || name.match_indices('.').any(|(dot, _)| name.get(dot..).is_some_and(|tail| self.domains.contains(tail)))
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.addresses.is_empty() && self.domains.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AccessList {
        AccessList::new(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn networks_match_both_families_and_mapped_addresses() {
        let list = list(&["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]);
        for ip in ["192.0.2.9", "::ffff:192.0.2.9", "2001:db8:1::1", "198.51.100.7"] {
            assert!(list.has_client(ip.parse().unwrap()), "{ip}");
        }
        assert!(!list.has_client("198.51.100.8".parse().unwrap()));
    }

    #[test]
    fn senders_match_by_address_domain_and_parent() {
        let list = list(&["Bob@Example.org", "@spam.example", ".bulk.example"]);
        for sender in ["bob@example.org", "x@spam.example", "x@a.b.bulk.example"] {
            assert!(list.has_sender(&sender.parse().unwrap()), "{sender}");
        }
        for sender in ["eve@example.org", "x@a.spam.example", "x@bulk.example", "x@notbulk.example"] {
            assert!(!list.has_sender(&sender.parse().unwrap()), "{sender}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(AccessList::new(&["a b".into()]).unwrap_err().entry, "a b");
        assert!(AccessList::new(&["300.1.1.1/99".into()]).is_err());
    }
}
