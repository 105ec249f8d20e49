//! What would happen to mail for an address, for `pillarbox route`: hosts in order and what each must show. Nothing is sent.

use std::net::IpAddr;

use pillarbox_smtp::{Domain, Reply, ReversePath};
use serde::Serialize;

use crate::path::{HostPolicy, NoPath, Path};
use crate::route::{LmtpHop, NextHop};
use crate::shared::Shared;
use crate::tls::{Policy, Reason};

/// The way of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The queue's name for where it goes: `mx:example.net`, `smarthost:host:587`, `lmtp:…`.
    pub destination: String,
    /// One sentence a step.
    pub steps: Vec<String>,
    /// Hosts in the order they would be tried; equals of one preference may come in another order next time.
    pub hosts: Vec<HostView>,
    /// There is no way, for this reason: 5xx fails at once, 4xx waits.
    pub refusal: Option<Reply>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// MX preference.
    pub preference: u16,
    /// Addresses in the order they would be tried.
    pub addresses: Vec<IpAddr>,
    /// `opportunistic`, `encrypted`, `verified`, `mta-sts` or `dane`.
    pub policy: &'static str,
    /// Why it would not be used.
    pub skipped: Option<String>,
}

pub(crate) async fn explain(shared: &Shared, domain: &Domain, sender: &ReversePath) -> Explanation {
    let destination = shared.routes.choose(domain, sender);
    let mut told = Explanation { destination: destination.to_string(), steps: vec![], hosts: vec![], refusal: None };
    let Some(hop) = shared.routes.hop(&destination) else { return told };
    told.steps.push(match &hop {
        NextHop::Mx(domain) => format!("{domain} is not ours: its own mail hosts get the mail"),
        NextHop::Host(hop) => {
            let login = hop.user.as_ref().map(|user| format!(", logged in as {user}")).unwrap_or_default();
            format!("the configuration sends it to {} port {}{login}", hop.host, hop.port)
        }
        NextHop::Lmtp(hop) => match hop.as_ref() {
            LmtpHop::Tcp { host, port } => format!("the configuration sends it by LMTP to {host} port {port}"),
            LmtpHop::Unix(path) => format!("the configuration sends it by LMTP to {}", path.display()),
        },
    });
    let path = match Path::find(shared, &hop).await {
        Ok(path) => path,
        Err(NoPath::Never(reply)) => {
            told.steps.push(format!("it would fail at once: {reply}"));
            told.refusal = Some(reply);
            return told;
        }
        Err(NoPath::Down(reply)) => {
            told.steps.push(format!("it would wait: {reply}"));
            told.refusal = Some(reply);
            return told;
        }
    };
    if path.is_mx() && shared.config.dane {
        told.steps.push(match (path.mx_secure(), crate::health::health(shared).dnssec) {
            (true, _) => "DNSSEC proves its MX records, so TLSA records count".to_owned(),
            (false, "unavailable") => "the name servers pass no DNSSEC on, so DANE is not used".to_owned(),
            (false, _) => "its MX records are not signed, so DANE is not used".to_owned(),
        });
    }
    for host in &path.hosts {
        let (policy, skipped, note) = match path.policy(shared, host).await {
            HostPolicy::Use(demand) => (demand.policy, None, demand.note),
            HostPolicy::Skip(reply, demand) => (demand.policy, Some(reply.to_string()), None),
        };
        let skipped = skipped.or_else(|| match (&host.trouble, host.addresses.is_empty() && path.is_mx()) {
            (Some(reply), true) => Some(reply.to_string()),
            (None, true) => Some("all its addresses are in denied networks".to_owned()),
            _ => None,
        });
        told.steps.push(sentence(&host.name, host.preference, &host.addresses, &policy, skipped.as_deref(), path.is_mx()));
        if let Some(trouble) = note {
            told.steps.push(format!("{}: {} ({})", host.name, trouble.detail, trouble.result));
        }
        let (name, preference, addresses, policy) = (host.name.clone(), host.preference, host.addresses.clone(), policy.name());
        told.hosts.push(HostView { name, preference, addresses, policy, skipped });
    }
    told
}

fn sentence(name: &str, preference: u16, addresses: &[IpAddr], policy: &Policy, skipped: Option<&str>, is_mx: bool) -> String {
    let mut text = if is_mx { format!("MX {preference} {name}") } else { name.to_owned() };
    if !addresses.is_empty() {
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        text = format!("{text} [{}]", list.join(", "));
    }
    let demand = match policy {
        _ if skipped.is_some() => "not used",
        Policy::Opportunistic => "TLS where offered, any certificate",
        Policy::Encrypted => "TLS demanded, any certificate (its TLSA records are unusable)",
        Policy::Verified(Reason::MtaSts) => "TLS demanded with a valid certificate (MTA-STS)",
        Policy::Verified(_) => "TLS demanded with a valid certificate",
        Policy::Dane(_) => "TLS demanded with a certificate that matches its TLSA records (DANE)",
    };
    match skipped {
        Some(why) => format!("{text}: {demand}: {why}"),
        None => format!("{text}: {demand}"),
    }
}
