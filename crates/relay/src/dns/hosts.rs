//! Which hosts take a domain's mail, in the order to try them (RFC 5321 §5.1, RFC 7505).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::future::join_all;
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::MX;
use ipnet::IpNet;
use pillarbox_smtp::{Domain, Reply};
use rand::Rng;
use rand::seq::SliceRandom;

use super::{Answer, Owned, Resolver, interleave};
use crate::ourselves::Ourselves;
use crate::replies;

/// Hosts looked at for one domain; a domain with a thousand MX records costs no more than one with ten.
pub const MAX_HOSTS: usize = 10;
/// Addresses tried of one host.
pub const MAX_ADDRESSES: usize = 6;

/// What decides which addresses may be used.
pub struct AddressPolicy<'a> {
    /// `relay.deny_networks`.
    pub deny: &'a [IpNet],
    /// Whether IPv6 comes first; otherwise it serves hosts that have nothing else.
    pub prefer_v6: bool,
    /// Who we are.
    pub ourselves: &'a Ourselves,
    /// The port that will be used.
    pub port: u16,
}

/// A host that takes mail.
#[derive(Debug, Clone)]
pub struct MailHost {
    /// Its name, A-labels without trailing dot; an address literal stands in brackets.
    pub name: String,
    /// MX preference, lower first.
    pub preference: u16,
    /// Addresses in the order to try them.
    pub addresses: Vec<IpAddr>,
    /// DNSSEC proves the addresses.
    pub secure: bool,
    /// Where CNAMEs led, when they led elsewhere by secure steps (RFC 7672 §2.2.2).
    pub expanded: Option<String>,
    /// Why there is no address.
    pub trouble: Option<Reply>,
}

/// A domain's hosts in the order to try them.
#[derive(Debug, Clone)]
pub struct MailHosts {
    /// Best first.
    pub hosts: Vec<MailHost>,
    /// DNSSEC proves the MX records.
    pub mx_secure: bool,
    /// There is no MX record: the domain's own addresses serve.
    pub implicit: bool,
}

impl Resolver {
    /// Finds the hosts for a domain. The error is the reply to give: 5xx for what will not change, 4xx for the rest.
    pub async fn mail_hosts(&self, domain: &Domain, policy: &AddressPolicy<'_>) -> Result<MailHosts, Reply> {
        if let Some(ip) = domain.ip() {
            return literal(domain, ip, policy);
        }
        let name = domain.as_str();
        let (records, mut mx_secure) = match self.mx(domain).await {
            Answer::Secure(owned) => (owned.records, true),
            Answer::Insecure(owned) => (owned.records, false),
            Answer::NoData => (Vec::new(), true),
            Answer::NxDomain => return Err(replies::no_such_domain(name)),
            Answer::Bogus => return Err(replies::bogus(name)),
            Answer::TempFail(why) => return Err(replies::dns_failure(name, &why)),
        };
        if is_null_mx(&records) {
            return Err(replies::null_mx(name));
        }
        let implicit = records.is_empty();
        let mut ranked = if implicit { vec![(0, name.to_owned())] } else { rank(&records, &mut rand::rng()) };
        let best_own = ranked.iter().filter(|(_, host)| policy.ourselves.is_our_name(host)).map(|(preference, _)| *preference).min();
        drop_from(&mut ranked, best_own, |(preference, _)| *preference);
        if ranked.is_empty() {
            return Err(replies::loops_back(name));
        }
        ranked.truncate(MAX_HOSTS);
        let mut denied = 0;
        let mut hosts = Vec::new();
        let mut best_own = None;
        for found in join_all(ranked.into_iter().map(|(preference, host)| self.host(host, preference, policy))).await {
            if found.ours {
                best_own = Some(best_own.unwrap_or(u16::MAX).min(found.host.preference));
            }
            denied += usize::from(found.denied && found.host.addresses.is_empty());
            hosts.push(found.host);
        }
        drop_from(&mut hosts, best_own, |host| host.preference);
        if hosts.is_empty() {
            return Err(replies::loops_back(name));
        }
        if hosts.iter().all(|host| host.addresses.is_empty()) {
            // A failure that may pass outweighs those that will not.
            let passing = hosts.iter().filter_map(|host| host.trouble.clone()).find(|reply| (400..500).contains(&reply.code));
            return Err(match passing {
                Some(reply) => reply,
                None if denied > 0 => replies::denied(name),
                None => replies::no_host(name),
            });
        }
        if implicit {
            mx_secure = hosts.first().is_some_and(|host| host.secure);
        }
        Ok(MailHosts { hosts, mx_secure, implicit })
    }

    /// One host by name, as for a smarthost: no MX, no loop check, no denied networks.
    pub async fn single_host(&self, name: &str, prefer_v6: bool) -> Result<MailHost, Reply> {
        let nobody = Ourselves::nobody();
        let policy = AddressPolicy { deny: &[], prefer_v6, ourselves: &nobody, port: 0 };
        let host = self.host(name.to_owned(), 0, &policy).await.host;
        match host.trouble.clone() {
            Some(reply) if host.addresses.is_empty() => Err(reply),
            _ => Ok(host),
        }
    }

    async fn host(&self, name: String, preference: u16, policy: &AddressPolicy<'_>) -> Found {
        let (v4, v6) = tokio::join!(self.ipv4(&name), self.ipv6(&name));
        let trouble = [trouble(&name, &v4), trouble(&name, &v6)].into_iter().flatten().min_by_key(|reply| reply.code);
        // Every address used must be proved; a family that gave none says nothing, so dropping its answers downgrades nobody.
        let secure = [proved(&v4), proved(&v6)];
        let secure = secure.contains(&Some(true)) && !secure.contains(&Some(false));
        let owner = v4.records().map(|o| &o.owner).or_else(|| v6.records().map(|o| &o.owner));
        let expanded = owner.filter(|_| secure).map(host_text).filter(|owner| *owner != name);
        let v4: Vec<Ipv4Addr> = v4.records().map(|o| o.records.clone()).unwrap_or_default();
        let v6: Vec<Ipv6Addr> = v6.records().map(|o| o.records.clone()).unwrap_or_default();
        let mut addresses = interleave(&v4, &v6, policy.prefer_v6);
        let ours = addresses.iter().any(|&ip| policy.ourselves.is_our_socket(ip, policy.port));
        let before = addresses.len();
        addresses.retain(|&ip| !is_denied(policy.deny, ip));
        let denied = addresses.len() < before;
        addresses.truncate(MAX_ADDRESSES);
        Found { host: MailHost { name, preference, addresses, secure, expanded, trouble }, ours, denied }
    }
}

struct Found {
    host: MailHost,
    ours: bool,
    denied: bool,
}

/// `[192.0.2.1]` is its own host (RFC 5321 §4.1.3).
fn literal(domain: &Domain, ip: IpAddr, policy: &AddressPolicy<'_>) -> Result<MailHosts, Reply> {
    if policy.ourselves.is_our_socket(ip, policy.port) {
        return Err(replies::loops_back(domain.as_str()));
    }
    if is_denied(policy.deny, ip) {
        return Err(replies::denied(domain.as_str()));
    }
    let name = domain.as_str().to_owned();
    let host = MailHost { name, preference: 0, addresses: vec![ip], secure: false, expanded: None, trouble: None };
    Ok(MailHosts { hosts: vec![host], mx_secure: false, implicit: true })
}

/// Whether an address may never be relayed to: a configured network, or no address of one host.
pub fn is_denied(deny: &[IpNet], ip: IpAddr) -> bool {
    let plain = ip.to_canonical();
    plain.is_unspecified() || plain.is_multicast() || deny.iter().any(|net| net.contains(&plain) || net.contains(&ip))
}

/// `MX 0 .` and nothing else (RFC 7505 §3).
fn is_null_mx(records: &[MX]) -> bool {
    !records.is_empty() && records.iter().all(|mx| mx.exchange.is_root())
}

/// Hosts by preference, equals in random order, repeated names and roots left out.
fn rank(records: &[MX], rng: &mut impl Rng) -> Vec<(u16, String)> {
    let mut ranked: Vec<(u16, String)> =
        records.iter().filter(|mx| !mx.exchange.is_root()).map(|mx| (mx.preference, host_text(&mx.exchange))).collect();
    ranked.shuffle(rng);
    ranked.sort_by_key(|(preference, _)| *preference);
    let mut seen = std::collections::HashSet::new();
    ranked.retain(|(_, host)| seen.insert(host.clone()));
    ranked
}

/// A name as we write it: lower case, no trailing dot.
fn host_text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// RFC 5321 §5.1: where we are in the list, hosts of our preference and worse are discarded.
fn drop_from<T>(hosts: &mut Vec<T>, own: Option<u16>, preference: impl Fn(&T) -> u16) {
    if let Some(own) = own {
        hosts.retain(|host| preference(host) < own);
    }
}

/// What stands in the way of an address, as a reply.
fn trouble<T>(name: &str, answer: &Answer<Owned<T>>) -> Option<Reply> {
    match answer {
        Answer::Secure(_) | Answer::Insecure(_) => None,
        Answer::Bogus => Some(replies::bogus(name)),
        Answer::TempFail(why) => Some(replies::dns_failure(name, why)),
        Answer::NxDomain | Answer::NoData => Some(replies::no_host(name)),
    }
}

/// Whether an answer is proved; `None` where it says nothing.
fn proved<T>(answer: &Answer<T>) -> Option<bool> {
    match answer {
        Answer::Secure(_) => Some(true),
        Answer::Insecure(_) => Some(false),
        Answer::Bogus | Answer::TempFail(_) | Answer::NxDomain | Answer::NoData => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::fqdn;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn mx(preference: u16, host: &str) -> MX {
        MX::new(preference, if host == "." { Name::root() } else { fqdn(host).unwrap() })
    }

    #[test]
    fn preference_rules_and_equals_are_shuffled() {
        let records = [mx(20, "c.test"), mx(10, "A.test"), mx(10, "b.test"), mx(30, "a.test"), mx(5, ".")];
        let mut firsts = std::collections::HashSet::new();
        for seed in 0..32 {
            let ranked = rank(&records, &mut StdRng::seed_from_u64(seed));
            assert_eq!(ranked.len(), 3);
            assert_eq!(ranked[2], (20, "c.test".to_owned()));
            firsts.insert(ranked[0].1.clone());
        }
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn null_mx_only_when_alone() {
        assert!(is_null_mx(&[mx(0, ".")]));
        assert!(!is_null_mx(&[mx(0, "."), mx(10, "a.test")]));
        assert!(!is_null_mx(&[]));
    }

    #[test]
    fn mapped_and_special_addresses_are_denied() {
        let deny: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        for text in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert!(is_denied(&deny, text.parse().unwrap()), "{text}");
        }
        assert!(!is_denied(&deny, "192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn literals_are_checked_like_hosts() {
        let me = Ourselves::fixed("mail.test", &[(None, 25)], &["192.0.2.9".parse().unwrap()]);
        let deny: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
        let policy = AddressPolicy { deny: &deny, prefer_v6: true, ourselves: &me, port: 25 };
        let code = |text: &str| {
            let domain = Domain::new(text).unwrap();
            literal(&domain, domain.ip().unwrap(), &policy).map(|h| h.hosts.len()).map_err(|r| r.status().to_string())
        };
        assert_eq!(code("[192.0.2.9]"), Err("5.4.6".into()));
        assert_eq!(code("[127.0.0.1]"), Err("5.4.4".into()));
        assert_eq!(code("[192.0.2.1]"), Ok(1));
    }
}
