//! Looking the records up and comparing.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_resolver::proto::rr::{RData, RecordType};
use pillarbox_config::Config;
use pillarbox_relay::dns::Resolver;
use pillarbox_screen::Dns;
use pillarbox_screen::auth::{AuthResult, check_spf};
use pillarbox_screen::dns::Answer;
use pillarbox_smtp::{Mailbox, ReversePath, printable};

use super::facts::{Facts, is_public};
use super::judge::{State, judge};
use super::records::{Role, ZoneRecord, records};
use crate::api::DnsLine;
use crate::error::{ApiError, ApiResult};

/// Values of one answer that are shown.
const SHOWN: usize = 10;

/// Looks every record of the domain up through `dns.servers`; one line each, and one for each address's PTR record.
pub async fn check(config: &Config, facts: &Facts) -> ApiResult<Vec<DnsLine>> {
    let dns = Dns::new(&config.dns).map_err(|e| ApiError::unavailable(e.to_string()))?;
    let mut lines = Vec::new();
    for record in records(facts) {
        // Each question takes its time when nobody answers, and none of the others would fare better.
        if dns.is_down() {
            return Err(ApiError::unavailable("the name servers do not answer; see dns.servers and /etc/resolv.conf"));
        }
        lines.push(one(&dns, config, facts, record).await);
    }
    if facts.addresses.is_empty() {
        lines.insert(0, behind_a_router(&dns, facts).await);
    }
    let mut addresses = facts.addresses.clone();
    if addresses.is_empty() {
        addresses = resolve(&dns, &facts.hostname).await;
    }
    for ip in addresses {
        lines.push(reverse(&dns, facts, ip).await);
    }
    Ok(lines)
}

async fn one(dns: &Dns, config: &Config, facts: &Facts, record: ZoneRecord) -> DnsLine {
    // A name that is an alias is followed by resolvers, so asking for its address would not show the CNAME itself.
    let found = look(dns, &record.name, &record.kind).await;
    let (mut state, mut why, found) = match found {
        Ok(found) => {
            let (state, why) = judge(&record, &found);
            (text(state), why, found)
        }
        Err(()) => ("missing", "the name servers do not answer".to_owned(), vec![]),
    };
    if state == "wrong" && record.role == Role::Spf && found.iter().filter(|f| f.to_ascii_lowercase().starts_with("v=spf1")).count() == 1 {
        (state, why) = spf(dns, facts).await;
    }
    if state != "ok"
        && matches!(record.role, Role::MtaStsHost | Role::Autoconfig)
        && same_addresses(dns, &record.name, &facts.hostname).await
    {
        // Address records instead of a CNAME do as well.
        (state, why) = ("ok", String::new());
    }
    if state == "missing" && record.role == Role::Tlsa && !is_signed(config, &facts.hostname).await {
        (state, why) = ("optional", "the zone is not signed with DNSSEC, so nobody may use it".into());
    }
    let found = found.iter().take(SHOWN).map(|f| printable(f.as_bytes())).collect();
    DnsLine { name: record.name, kind: record.kind.into_owned(), wanted: record.value, found, state: state.into(), why }
}

/// A policy of other words is fine when it lets this server pass.
async fn spf(dns: &Dns, facts: &Facts) -> (&'static str, String) {
    let Ok(sender) = format!("postmaster@{}", facts.domain).parse::<Mailbox>() else {
        return ("wrong", "differs".into());
    };
    let addresses = if facts.addresses.is_empty() { resolve(dns, &facts.hostname).await } else { facts.addresses.clone() };
    if addresses.is_empty() {
        return ("wrong", "differs, and this server's address is not known, so it cannot be tried".into());
    }
    for ip in addresses {
        let result = check_spf(dns, ip, &facts.hostname, &ReversePath::Mailbox(sender.clone()), &facts.hostname).await.result;
        if result != AuthResult::Pass {
            return ("wrong", format!("mail from {ip} would get the result {}", result.as_str()));
        }
    }
    ("ok", String::new())
}

/// Without a public address of its own the host must at least have one in the DNS.
async fn behind_a_router(dns: &Dns, facts: &Facts) -> DnsLine {
    let found = resolve(dns, &facts.hostname).await;
    let public = found.iter().any(|ip| is_public(*ip));
    let (state, why) = match (found.is_empty(), public) {
        (true, _) => ("missing", "publish the address under which the world reaches this server"),
        (false, true) => ("ok", "this machine has private addresses only, so it cannot tell whether this is its own"),
        (false, false) => ("wrong", "the address is a private one, which the world cannot reach"),
    };
    DnsLine {
        name: facts.hostname.clone(),
        kind: "A".into(),
        wanted: "the public address of this server".into(),
        found: found.iter().map(ToString::to_string).collect(),
        state: state.into(),
        why: why.into(),
    }
}

async fn reverse(dns: &Dns, facts: &Facts, ip: IpAddr) -> DnsLine {
    let name = hickory_resolver::proto::rr::Name::from(ip).to_ascii();
    let name = name.trim_end_matches('.').to_owned();
    let found = look(dns, &name, "PTR").await.unwrap_or_default();
    let is_host = |f: &String| f.trim_end_matches('.').eq_ignore_ascii_case(&facts.hostname);
    let (state, why) = if found.iter().any(is_host) {
        ("ok", String::new())
    } else {
        let state = if found.is_empty() { "missing" } else { "wrong" };
        (state, format!("set the reverse name of {ip} at the provider of the machine; many servers refuse mail without it"))
    };
    let found = found.iter().take(SHOWN).map(|f| printable(f.as_bytes())).collect();
    DnsLine { name, kind: "PTR".into(), wanted: format!("{}.", facts.hostname), found, state: state.into(), why }
}

fn text(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Missing => "missing",
        State::Wrong => "wrong",
    }
}

/// Data of all records of the type; `Err` when nobody answers.
async fn look(dns: &Dns, name: &str, kind: &str) -> Result<Vec<String>, ()> {
    let Ok(kind) = RecordType::from_str(kind) else { return Err(()) };
    match dns.lookup(name, kind).await {
        Answer::Found(lookup) => Ok(lookup.answers().iter().filter(|r| r.record_type() == kind).map(|r| presented(&r.data)).collect()),
        Answer::NoData | Answer::NxDomain => Ok(vec![]),
        Answer::Unknown => Err(()),
    }
}

/// Zone-file form, but TXT joined and unquoted.
fn presented(data: &RData) -> String {
    match data {
        RData::TXT(txt) => txt.txt_data.iter().map(|s| String::from_utf8_lossy(s)).collect(),
        other => other.to_string(),
    }
}

async fn resolve(dns: &Dns, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for kind in ["A", "AAAA"] {
        let answers = look(dns, host, kind).await.unwrap_or_default();
        found.extend(answers.iter().filter_map(|a| a.parse::<IpAddr>().ok()));
    }
    found
}

async fn same_addresses(dns: &Dns, name: &str, host: &str) -> bool {
    let (mut a, mut b) = (resolve(dns, name).await, resolve(dns, host).await);
    a.sort();
    b.sort();
    !a.is_empty() && a == b
}

/// Whether DNSSEC proves the host's address.
async fn is_signed(config: &Config, host: &str) -> bool {
    let Ok(resolver) = Resolver::new(&config.dns.servers, true, &config.dns.trust_anchor) else { return false };
    resolver.ipv4(host).await.is_secure() || resolver.ipv6(host).await.is_secure()
}
