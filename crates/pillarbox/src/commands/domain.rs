//! `pillarbox domain`.

use hyper::Method;
use pillarbox_control::api::{DomainInfo, NewDomain};
use pillarbox_control::escaped;
use pillarbox_smtp::Domain;

use super::parsed;
use crate::args::DomainVerb;
use crate::failure::{EXISTS, Failure};
use crate::prompt::consent;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: DomainVerb) -> Result<(), Failure> {
    match verb {
        DomainVerb::Add { domain, if_missing } => add(session, parsed("domain", &domain)?, if_missing).await,
        DomainVerb::Show { domain } => show(session, parsed("domain", &domain)?).await,
        DomainVerb::Remove { domain, yes } => remove(session, parsed("domain", &domain)?, yes).await,
        DomainVerb::List => list(session).await,
    }
}

async fn add(session: &Session, name: Domain, if_missing: bool) -> Result<(), Failure> {
    let api = session.api().await?;
    match api.send::<_, DomainInfo>(Method::POST, "/v1/domains", &NewDomain { name: name.clone() }).await {
        Ok(info) if session.out.json => session.out.value(&info),
        Ok(info) => {
            session.out.line(format!("Added the domain {}. See `pillarbox dns records {}` for what to publish.", info.name, info.name))
        }
        Err(error) => {
            let failure = Failure::from(error);
            if failure.code != EXISTS || !if_missing {
                return Err(failure);
            }
            if session.out.json { session.out.value(&api.get::<DomainInfo>(&path(&name)).await?) } else { Ok(()) }
        }
    }
}

async fn show(session: &Session, name: Domain) -> Result<(), Failure> {
    let info: DomainInfo = session.api().await?.get(&path(&name)).await?;
    let unicode = name.to_unicode();
    let shown = if unicode == name.as_str() { unicode } else { format!("{name} ({unicode})") };
    let fields = [
        ("domain", shown),
        ("users", info.users.to_string()),
        ("aliases", info.aliases.to_string()),
        ("added", info.created.clone()),
        ("delivers to", info.deliver_to.clone().unwrap_or_else(|| "as configured (mailbox.deliver_to)".into())),
        ("DKIM keys", if info.dkim.is_empty() { "none; `pillarbox dkim rotate` makes them".into() } else { info.dkim.join(", ") }),
    ];
    session.out.record(&info, &fields)
}

async fn remove(session: &Session, name: Domain, yes: bool) -> Result<(), Failure> {
    let api = session.api().await?;
    let info: DomainInfo = api.get(&path(&name)).await?;
    let question = format!("Remove {name} with its {} users and {} aliases? Stored mail stays.", info.users, info.aliases);
    consent(yes, &question)?;
    api.done(Method::DELETE, &format!("{}?cascade=true", path(&name))).await?;
    session.out.done(format!("Removed the domain {name}."))
}

async fn list(session: &Session) -> Result<(), Failure> {
    let found: Vec<DomainInfo> = session.api().await?.get("/v1/domains").await?;
    session.out.list(&found, &["DOMAIN", "USERS", "ALIASES", "ADDED"], |d| {
        vec![d.name.to_string(), d.users.to_string(), d.aliases.to_string(), day(&d.created)]
    })
}

fn path(name: &Domain) -> String {
    format!("/v1/domains/{}", escaped(name.as_str()))
}

/// The day of an RFC 3339 time.
pub(super) fn day(time: &str) -> String {
    time.split('T').next().unwrap_or(time).to_owned()
}
