//! Names: the resolver, this host's address and its way back, and the records of each domain.

use std::net::IpAddr;

use pillarbox_config::Config;
use pillarbox_control::api::{DnsLine, Probe};
use pillarbox_control::dns::public_addresses;
use pillarbox_control::{Client, escaped};
use pillarbox_relay::dns::{Answer, Dnssec, Resolver};
use pillarbox_smtp::Domain;

use crate::failure::Failure;

/// The probe that everything about names stands on.
pub(crate) const NAME_SERVERS: &str = "name servers";

fn resolver(config: &Config, validate: bool) -> Result<Resolver, Probe> {
    Resolver::new(&config.dns.servers, validate, &config.dns.trust_anchor)
        .map_err(|e| Probe::fail(NAME_SERVERS, e.to_string(), "correct dns.servers or /etc/resolv.conf"))
}

/// Whether anybody answers, and whether signatures come through.
pub(crate) async fn name_servers(config: &Config) -> Vec<Probe> {
    let resolver = match resolver(config, true) {
        Ok(resolver) => resolver,
        Err(probe) => return vec![probe],
    };
    // A plain question first: when nobody answers it, nobody has signatures either, and asking for them takes longer.
    if let Ok(plain) = self::resolver(config, false)
        && matches!(plain.ipv4(&config.hostname()).await, Answer::TempFail(_))
    {
        let fix = "correct dns.servers or /etc/resolv.conf: no mail can leave without names";
        return vec![Probe::fail(NAME_SERVERS, "nobody answers", fix)];
    }
    match resolver.probe_dnssec().await {
        Dnssec::Available => vec![Probe::ok(NAME_SERVERS, "they answer, and DNSSEC signatures come through")],
        Dnssec::Unavailable | Dnssec::Unknown => vec![Probe::warn(
            NAME_SERVERS,
            "they answer, but pass no DNSSEC signatures on",
            "install a validating resolver (such as unbound) and name it in dns.servers; without DNSSEC there is no DANE",
        )],
    }
}

/// This host's addresses: of its interfaces, or behind a router what its name says.
pub(crate) async fn addresses(config: &Config) -> (Vec<IpAddr>, Probe) {
    let hostname = config.hostname();
    let own = public_addresses(config);
    let named = match resolver(config, false) {
        Ok(resolver) => named(&resolver, &hostname).await,
        Err(probe) => return (own, probe),
    };
    let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let name = "address";
    if own.is_empty() {
        let fix = format!("publish an A record of {hostname} with the public address of the router, and forward port 25 to this machine");
        return match named.is_empty() {
            true => (vec![], Probe::fail(name, format!("this machine has no public address, and {hostname} has none in DNS"), fix)),
            false => {
                let found =
                    format!("{hostname} is {}; this machine has private addresses only, so a router must forward port 25", list(&named));
                (named, Probe::warn(name, found, "try it from outside: `nc HOST 25` must show this server's greeting"))
            }
        };
    }
    let strange: Vec<IpAddr> = named.iter().copied().filter(|ip| !own.contains(ip)).collect();
    let probe = match (named.is_empty(), strange.is_empty()) {
        (true, _) => Probe::fail(name, format!("{hostname} is not in DNS"), format!("publish its address records: {}", list(&own))),
        (false, true) => Probe::ok(name, format!("{hostname} is {}", list(&named))),
        (false, false) => Probe::fail(
            name,
            format!("{hostname} points to {}, which is not this machine ({})", list(&strange), list(&own)),
            "correct the address records of the hostname",
        ),
    };
    (own, probe)
}

async fn named(resolver: &Resolver, hostname: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    if let Some(answer) = resolver.ipv4(hostname).await.records() {
        found.extend(answer.records.iter().map(|ip| IpAddr::V4(*ip)));
    }
    if let Some(answer) = resolver.ipv6(hostname).await.records() {
        found.extend(answer.records.iter().map(|ip| IpAddr::V6(*ip)));
    }
    found
}

/// The way back from each address to the hostname; many servers refuse mail without it.
pub(crate) async fn reverse_names(config: &Config, addresses: &[IpAddr]) -> Vec<Probe> {
    let hostname = config.hostname();
    let resolver = match resolver(config, false) {
        Ok(resolver) => resolver,
        Err(_) => return vec![],
    };
    let mut probes = Vec::new();
    for ip in addresses {
        let names = resolver.ptr(*ip).await.records().cloned().unwrap_or_default();
        let name = format!("reverse name of {ip}");
        let fix = format!("set it to {hostname} where you rent the machine or the line");
        probes.push(match names.first() {
            Some(found) if names.iter().any(|n| n.eq_ignore_ascii_case(&hostname)) => Probe::ok(name, found.clone()),
            Some(found) => Probe::fail(name, format!("it is {found}, not {hostname}"), fix),
            None => Probe::fail(name, "there is none; many servers refuse mail from such an address", fix),
        });
    }
    probes
}

/// The records of a hosted domain, one probe each.
pub(super) async fn domain(api: &Client, domain: &Domain) -> Result<Vec<Probe>, Failure> {
    let lines: Vec<DnsLine> = api.get(&format!("/v1/dns/{}/check", escaped(domain.as_str()))).await?;
    // Reverse names belong to the host and are probed once.
    Ok(lines.iter().filter(|l| l.kind != "PTR").map(probe).collect())
}

fn probe(line: &DnsLine) -> Probe {
    let name = format!("{} {}", line.name, line.kind);
    let why = if line.why.is_empty() { String::new() } else { format!(": {}", line.why) };
    match line.state.as_str() {
        "ok" => Probe::ok(name, if line.why.is_empty() { "published".to_owned() } else { line.why.clone() }),
        "optional" => Probe::warn(name, format!("not published{why}"), ""),
        "missing" => Probe::fail(name, format!("missing{why}"), format!("publish: {}", line.wanted)),
        _ => Probe::fail(name, format!("wrong: {}{why}", line.found.join(" | ")), format!("publish: {}", line.wanted)),
    }
}
