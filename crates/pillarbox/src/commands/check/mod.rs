//! `pillarbox check`: every probe, each line ok, warn or FAIL with the fix in one sentence.

mod dns;
mod dovecot;
mod ports;
mod system;
mod tls;

use hyper::Method;
use pillarbox_config::Config;
use pillarbox_control::Client;
use pillarbox_control::api::{DomainInfo, Grade, Probe};
use pillarbox_smtp::Domain;

pub(super) use dns::{NAME_SERVERS, addresses, name_servers, reverse_names};
pub(super) use ports::listeners;

use crate::failure::Failure;
use crate::out::{Mood, Out, mood, safe};
use crate::session::Session;

/// The parts by name.
pub(crate) const PARTS: [&str; 5] = ["system", "dns", "tls", "relay", "dovecot"];

pub(crate) async fn run(session: &Session, what: Option<&str>) -> Result<(), Failure> {
    let config = session.config()?;
    let domain: Option<Domain> = match what {
        Some(word) if !PARTS.contains(&word) => Some(domain_or_part(word)?),
        _ => None,
    };
    let wants = |part: &str| domain.is_none() && what.is_none_or(|w| w == part);
    let mut probes = Vec::new();
    // Before the API is asked: without a daemon, root is given up there.
    if wants("system") {
        probes.extend(system::probes(&config));
    }
    let api = match session.api_of(&config).await {
        Ok(api) => api,
        // The rest of the checks asks the directory; what was found so far and this are what counts now.
        Err(failure) if wants("system") => {
            probes.push(system::directory(&config, &failure));
            return print(session.out, &probes);
        }
        Err(failure) => return Err(failure),
    };
    if wants("system") {
        probes.extend(system::daemon(&api).await?);
        if !api.is_daemon() {
            probes.extend(listeners(&config));
        }
    }
    let mut names = true;
    if wants("dns") {
        let found = name_servers(&config).await;
        names = found.iter().all(|p| p.grade != Grade::Fail);
        probes.extend(found);
    }
    // Without name servers every further question would wait in vain.
    if wants("dns") && names {
        let (addresses, found) = addresses(&config).await;
        probes.push(found);
        probes.extend(reverse_names(&config, &addresses).await);
    }
    if wants("tls") {
        probes.extend(tls::probes(&config, &api).await?);
    }
    if wants("relay") && names {
        probes.extend(relay(&api).await?);
    }
    if wants("dovecot") {
        probes.extend(dovecot::probes(&config).await);
    }
    match &domain {
        Some(domain) => probes.extend(dns::domain(&api, domain).await?),
        None if wants("dns") && names => {
            for hosted in api.get::<Vec<DomainInfo>>("/v1/domains").await? {
                probes.extend(dns::domain(&api, &hosted.name).await?);
            }
        }
        None => {}
    }
    print(session.out, &probes)
}

/// A word that is no part must be a domain; one without a dot was probably meant as a part.
fn domain_or_part(word: &str) -> Result<Domain, Failure> {
    let near = pillarbox_config::reference::nearest_word(word, &PARTS);
    match (word.parse(), near) {
        (Ok(domain), _) if word.contains('.') => Ok(domain),
        (_, Some(near)) => Err(Failure::usage(format!("{word:?} is neither a part nor a domain; did you mean {near}?"))),
        _ => Err(Failure::usage(format!("{word:?} is neither a domain nor one of {}", PARTS.join(", ")))),
    }
}

/// The daemon's deliverer tries its next hops; without a daemon this process does.
pub(super) async fn relay(api: &Client) -> Result<Vec<Probe>, Failure> {
    Ok(api.send(Method::POST, "/v1/check/relay", &()).await?)
}

fn print(out: Out, probes: &[Probe]) -> Result<(), Failure> {
    if out.json {
        out.value(&probes)?;
    } else {
        for probe in probes {
            print_probe(out, probe)?;
        }
    }
    if probes.iter().any(|p| p.grade == Grade::Fail) { Err(Failure::said()) } else { Ok(()) }
}

/// One line, and below it the fix.
pub(super) fn print_probe(out: Out, probe: &Probe) -> Result<(), Failure> {
    let grade = match probe.grade {
        Grade::Ok => mood("ok  ", Mood::Good),
        Grade::Warn => mood("warn", Mood::Middling),
        Grade::Fail => mood("FAIL", Mood::Bad),
    };
    out.line(format!("{grade} {}: {}", probe.name, safe(&probe.found)))?;
    if probe.fix.is_empty() { Ok(()) } else { out.line(format!("       {}", safe(&probe.fix))) }
}

/// The system's own words about a configuration that a part cannot do without.
fn socket_addresses(listen: &[String]) -> Vec<std::net::SocketAddr> {
    let tcp = |text: &String| match text.parse() {
        Ok(pillarbox_config::ListenAddress::Tcp(address)) => Some(address),
        _ => None,
    };
    listen.iter().filter_map(tcp).collect()
}

/// Every TCP address of the configuration with its service.
fn services(config: &Config) -> Vec<(&'static str, std::net::SocketAddr)> {
    config.listen.services().into_iter().flat_map(|(name, list)| socket_addresses(list).into_iter().map(move |a| (name, a))).collect()
}
