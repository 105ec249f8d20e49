//! DNS block and allow lists (RFC 5782): the client's address, reversed, under each configured zone.
//!
//! Only the configured return codes count. The answers 127.255.255.x, with which lists refuse public resolvers, and addresses outside
//! 127.0.0.0/8, with which hijacked or expired zones answer everything, never do.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};
use ipnet::{IpNet, Ipv4Net};
use pillarbox_config::Dnsbl;
use pillarbox_smtp::Domain;

use crate::dns::{Answer, Dns};

/// Longest wait for all zones together; those that have not answered by then do not count.
const ALL_ZONES: Duration = Duration::from_secs(8);
/// Octets of a list's own explanation that are passed on to the client.
const REASON: usize = 200;

/// A zone that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadZone {
    /// Not a domain name.
    #[error("screen.dnsbl: {0:?} is not a zone name")]
    Name(String),
    /// An action other than reject, score and allow.
    #[error("screen.dnsbl: zone {zone} has the action {action:?}; use \"reject\", \"score\" or \"allow\"")]
    Action {
        /// Its zone.
        zone: String,
        /// The action as configured.
        action: String,
    },
}

/// What a listing leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ZoneAction {
    Reject,
    Score(f64),
    Allow,
}

struct Zone {
    name: String,
    action: ZoneAction,
    codes: Vec<IpNet>,
}

/// One zone that lists the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The zone.
    pub zone: String,
    /// What it answered.
    pub code: Ipv4Addr,
    /// The list's own words, printable and cut.
    pub text: Option<String>,
}

/// What all zones together say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listings {
    /// An allow list names the client: the block lists do not count.
    pub allowed: Option<Listing>,
    /// The first zone with action "reject" that lists it.
    pub reject: Option<Listing>,
    /// Zones with action "score" and their points.
    pub scored: Vec<(Listing, f64)>,
}

/// The configured zones.
pub struct DnsLists {
    zones: Vec<Zone>,
}

impl DnsLists {
    /// Reads `screen.dnsbl`.
    pub fn new(config: &[Dnsbl]) -> Result<Self, BadZone> {
        let zones = config.iter().map(|entry| {
            let name = Domain::new(entry.zone.trim_matches('.')).map_err(|_| BadZone::Name(entry.zone.clone()))?;
            let action = match entry.action.as_str() {
                "reject" => ZoneAction::Reject,
                "score" => ZoneAction::Score(entry.score),
                "allow" => ZoneAction::Allow,
                other => return Err(BadZone::Action { zone: entry.zone.clone(), action: other.to_owned() }),
            };
            Ok(Zone { name: name.as_str().to_owned(), action, codes: entry.codes.clone() })
        });
        Ok(Self { zones: zones.collect::<Result<_, _>>()? })
    }

    /// Whether there is anything to ask about this client: zones, and an address that a list could know.
    pub fn concerns(&self, client: IpAddr) -> bool {
        !self.zones.is_empty() && is_global(client)
    }

    /// Asks all zones at once.
    pub async fn check(&self, dns: &Dns, client: IpAddr) -> Listings {
        let mut listings = Listings::default();
        if !self.concerns(client) {
            return listings;
        }
        let prefix = reversed(client);
        let asked =
            self.zones.iter().map(|zone| async { tokio::time::timeout(ALL_ZONES, zone.listing(dns, &prefix)).await.ok().flatten() });
        for (zone, listing) in self.zones.iter().zip(futures::future::join_all(asked).await) {
            let Some(listing) = listing else { continue };
            metrics::counter!("pillarbox_screen_dnsbl_listed_total", "zone" => zone.name.clone()).increment(1);
            match zone.action {
                ZoneAction::Allow => listings.allowed = listings.allowed.or(Some(listing)),
                ZoneAction::Reject => listings.reject = listings.reject.or(Some(listing)),
                ZoneAction::Score(points) => listings.scored.push((listing, points)),
            }
        }
        if listings.allowed.is_some() {
            listings.reject = None;
            listings.scored.clear();
        }
        listings
    }
}

impl Zone {
    async fn listing(&self, dns: &Dns, prefix: &str) -> Option<Listing> {
        let name = format!("{prefix}{}.", self.name);
        let Answer::Found(lookup) = dns.lookup(&name, RecordType::A).await else { return None };
        let code = lookup.answers().iter().find_map(|record| match &record.data {
            RData::A(a) if self.counts(a.0) => Some(a.0),
            _ => None,
        })?;
        let text = match self.action {
            ZoneAction::Allow => None,
            _ => reason(dns, &name).await,
        };
        Some(Listing { zone: self.name.clone(), code, text })
    }

    /// Whether a return code is one of those configured; by default 127.0.0.2 to 127.0.0.254.
    fn counts(&self, code: Ipv4Addr) -> bool {
        let [a, b, c, d] = code.octets();
        if a != 127 || (b == 255 && c == 255) {
            return false;
        }
        if self.codes.is_empty() {
            b == 0 && c == 0 && (2..=254).contains(&d)
        } else {
            self.codes.iter().any(|n| n.contains(&IpAddr::V4(code)))
        }
    }
}

/// The TXT record beside a listing, as one printable line.
async fn reason(dns: &Dns, name: &str) -> Option<String> {
    let Answer::Found(lookup) = dns.lookup(name, RecordType::TXT).await else { return None };
    let text = lookup.answers().iter().find_map(|record| match &record.data {
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    })?;
    let line: String = String::from_utf8_lossy(&text).chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(REASON).collect();
    (!line.trim().is_empty()).then(|| line.trim().to_owned())
}

/// `2.0.0.127.` for 127.0.0.2, and the 32 nibbles of an IPv6 address (RFC 5782 §2.4).
pub(crate) fn reversed(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.")
        }
        IpAddr::V6(v6) => v6.octets().iter().rev().fold(String::with_capacity(64), |mut name, octet| {
            let _ = write!(name, "{:x}.{:x}.", octet & 15, octet >> 4);
            name
        }),
    }
}

/// Whether an address is one that strangers can come from; lists know no others.
fn is_global(client: IpAddr) -> bool {
    const SHARED: Option<Ipv4Net> = match Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 10) {
        Ok(net) => Some(net),
        Err(_) => None,
    };
    match client.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || SHARED.is_some_and(|net| net.contains(&v4)))
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(codes: &[&str]) -> Zone {
        Zone { name: "z.example".into(), action: ZoneAction::Reject, codes: codes.iter().map(|c| c.parse().unwrap()).collect() }
    }

    #[test]
    fn names_are_reversed() {
        assert_eq!(reversed("192.0.2.99".parse().unwrap()), "99.2.0.192.");
        assert_eq!(reversed("::ffff:192.0.2.99".parse().unwrap()), "99.2.0.192.");
        assert_eq!(
            reversed("2001:db8:1:2:3:4:567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2."
        );
    }

    #[test]
    fn only_real_listings_count() {
        let any = zone(&[]);
        for (code, counts) in [
            ("127.0.0.2", true),
            ("127.0.0.254", true),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("127.0.1.2", false),
            ("203.0.113.1", false),
        ] {
            assert_eq!(any.counts(code.parse().unwrap()), counts, "{code}");
        }
        let some = zone(&["127.0.0.4/32", "127.0.1.0/24", "127.255.255.0/24"]);
        for (code, counts) in [("127.0.0.2", false), ("127.0.0.4", true), ("127.0.1.9", true), ("127.255.255.1", false)] {
            assert_eq!(some.counts(code.parse().unwrap()), counts, "{code}");
        }
    }

    #[test]
    fn private_addresses_are_nobodys_business() {
        for ip in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "100.64.9.9", "::1", "fe80::1", "fd00::1"] {
            assert!(!is_global(ip.parse().unwrap()), "{ip}");
        }
        assert!(is_global("198.51.100.1".parse().unwrap()) && is_global("2001:db8::1".parse().unwrap()));
    }
}
