//! `/v1/check/relay`: whether mail can leave, tried by the deliverer itself.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use pillarbox_config::Config;
use pillarbox_queue::Destination;
use pillarbox_relay::HostCheck;
use pillarbox_relay::dns::Resolver;
use tokio::io::AsyncReadExt;

use crate::admin::Admin;
use crate::api::Probe;
use crate::error::ApiResult;

/// A domain whose mail hosts answer everybody on port 25: when they cannot be reached, the network in between is the reason.
const ANSWERS_EVERYBODY: &str = "gmail.com";
/// Longest wait for its greeting.
const GREETING: Duration = Duration::from_secs(10);

pub(super) async fn relay(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<Probe>>> {
    let (relay, config) = (admin.relay()?, admin.config());
    let mut probes = Vec::new();
    for destination in relay.named_hops() {
        let found = relay.check(&destination).await;
        if found.is_empty() {
            probes.push(Probe::fail(
                format!("relay {destination}"),
                "no address was found",
                "correct the name in [relay] of the configuration",
            ));
        }
        probes.extend(found.iter().map(|one| named(&destination, one)));
    }
    if config.relay.smarthost.is_empty() {
        probes.push(direct(&config).await);
    }
    Ok(axum::Json(probes))
}

/// A next hop that the configuration names must work.
fn named(destination: &Destination, check: &HostCheck) -> Probe {
    let name = format!("relay {destination}");
    match (&check.connected, &check.refusal) {
        (Some(session), None) => {
            let tls = if session.tls.is_empty() { "without TLS" } else { &session.tls };
            let login = if session.authenticated { ", logged in" } else { "" };
            let found = format!("{} answers, {tls}{login}", check.host);
            match &session.tls_trouble {
                Some(trouble) => Probe::warn(name, found, format!("its certificate cannot be verified ({trouble}); ask its operator")),
                None => Probe::ok(name, found),
            }
        }
        (_, Some(reply)) => {
            let fix = "correct relay.smarthost, its password file or relay.routes, or ask the operator of that host";
            Probe::fail(name, format!("{}: {reply}", check.host), fix)
        }
        (None, None) => Probe::fail(name, format!("{} does not answer", check.host), "see whether a firewall stands between"),
    }
}

/// Whether port 25 goes out, which many networks block.
async fn direct(config: &Config) -> Probe {
    let name = "relay port 25";
    let port = config.relay.port;
    let untried =
        |why: &str| Probe::warn(name, format!("could not be tried: {why}"), "see to the name servers first (`pillarbox check dns`)");
    let Some(address) = far_host(config).await else {
        return untried(&format!("the mail hosts of {ANSWERS_EVERYBODY} cannot be looked up"));
    };
    match tokio::time::timeout(GREETING, greeting(address, port)).await {
        Ok(Ok(())) => Probe::ok(name, format!("port {port} goes out: a mail host of {ANSWERS_EVERYBODY} answers")),
        Ok(Err(error)) => blocked(name, port, &error.to_string()),
        Err(_) => blocked(name, port, "no answer"),
    }
}

fn blocked(name: &str, port: u16, why: &str) -> Probe {
    Probe::fail(
        name,
        format!("port {port} does not go out ({why})"),
        "ask the provider to open it, or set relay.smarthost to a host that takes your mail on port 465 or 587",
    )
}

async fn far_host(config: &Config) -> Option<IpAddr> {
    let resolver = Resolver::new(&config.dns.servers, false, Path::new("")).ok()?;
    let domain = ANSWERS_EVERYBODY.parse().ok()?;
    let exchangers = resolver.mx(&domain).await;
    let host = exchangers.records()?.records.iter().min_by_key(|mx| mx.preference)?.exchange.to_ascii();
    let addresses = resolver.ipv4(host.trim_end_matches('.')).await;
    addresses.records()?.records.first().copied().map(IpAddr::V4)
}

async fn greeting(address: IpAddr, port: u16) -> std::io::Result<()> {
    let mut stream = tokio::net::TcpStream::connect((address, port)).await?;
    let mut code = [0; 3];
    stream.read_exact(&mut code).await?;
    if &code == b"220" { Ok(()) } else { Err(std::io::Error::other("something else than a mail server answers")) }
}
