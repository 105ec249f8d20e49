//! `pillarbox dkim`.

use hyper::Method;
use pillarbox_control::api::{DkimInfo, DkimRotated};
use pillarbox_control::escaped;
use pillarbox_smtp::Domain;

use super::domain::day;
use super::parsed;
use crate::args::DkimVerb;
use crate::failure::Failure;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: DkimVerb) -> Result<(), Failure> {
    match verb {
        DkimVerb::List { domain } => list(session, &parsed("domain", &domain)?).await,
        DkimVerb::Rotate { domain, now } => rotate(session, &parsed("domain", &domain)?, now).await,
    }
}

async fn list(session: &Session, domain: &Domain) -> Result<(), Failure> {
    let found: Vec<DkimInfo> = session.api().await?.get(&format!("/v1/dkim/{}", escaped(domain.as_str()))).await?;
    if found.is_empty() && !session.out.json {
        return session.out.line(format!("{domain} has no DKIM keys; `pillarbox dkim rotate {domain}` makes them."));
    }
    session.out.list(&found, &["SELECTOR", "ALGORITHM", "STATE", "MADE"], |k| {
        let state = match (k.state.as_str(), &k.active_from, &k.retired) {
            ("waiting", Some(from), _) => format!("signs from {} on", day(from)),
            ("retired", _, Some(at)) => format!("retired {}", day(at)),
            (state, ..) => state.to_owned(),
        };
        vec![k.selector.clone(), k.algorithm.clone(), state, day(&k.created)]
    })
}

async fn rotate(session: &Session, domain: &Domain, now: bool) -> Result<(), Failure> {
    let path = format!("/v1/dkim/{}/rotate?now={now}", escaped(domain.as_str()));
    let done: DkimRotated = session.api().await?.send(Method::POST, &path, &()).await?;
    if session.out.json {
        return session.out.value(&done);
    }
    let out = session.out;
    out.line(format!("New keys of {domain} sign from {} on. Publish:", done.active_from))?;
    for (name, text) in &done.publish {
        out.line(zone_line(name, text))?;
    }
    if !done.retiring.is_empty() {
        out.line(format!("Until then {} signs; leave its record for another two weeks.", done.retiring.join(", ")))?;
    }
    for name in &done.remove {
        out.line(format!("No longer needed: {name}. TXT"))?;
    }
    Ok(())
}

/// TXT data in strings of at most 255 octets; keys hold no character that needs escaping.
fn zone_line(name: &str, text: &str) -> String {
    let mut strings = Vec::new();
    let mut rest = text;
    while rest.len() > 255 {
        let (head, tail) = rest.split_at_checked(255).unwrap_or((rest, ""));
        strings.push(format!("\"{head}\""));
        rest = tail;
    }
    strings.push(format!("\"{rest}\""));
    format!("{name}. IN TXT {}", strings.join(" "))
}
