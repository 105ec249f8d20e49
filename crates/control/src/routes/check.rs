//! `/v1/check/relay`: whether mail can leave, tried by the deliverer itself.

use std::sync::Arc;

use axum::extract::State;
use pillarbox_queue::Destination;
use pillarbox_relay::HostCheck;

use crate::admin::Admin;
use crate::api::Probe;
use crate::error::ApiResult;

/// A domain whose mail hosts answer everybody on port 25: when they cannot be reached, the network in between is the reason.
const ANSWERS_EVERYBODY: &str = "gmail.com";

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
        probes.push(direct(&relay.check(&Destination::from(format!("mx:{ANSWERS_EVERYBODY}"))).await));
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
fn direct(checks: &[HostCheck]) -> Probe {
    let name = "relay port 25";
    if let Some(one) = checks.iter().find(|c| c.connected.is_some()) {
        return Probe::ok(name, format!("{} answers: mail can go to other servers directly", one.host));
    }
    match checks.first().and_then(|c| c.refusal.as_ref()) {
        Some(reply) if checks.iter().all(|c| c.host.contains('[')) => Probe::fail(
            name,
            format!("other servers cannot be reached: {reply}"),
            "ask the provider to open port 25 outwards, or set relay.smarthost to a host that takes your mail on port 465 or 587",
        ),
        Some(reply) => Probe::warn(name, format!("could not be tried: {reply}"), "see `pillarbox check dns` first"),
        None => Probe::warn(name, "could not be tried: no mail host was found", "see `pillarbox check dns` first"),
    }
}
