//! `pillarbox alias`.

use hyper::Method;
use pillarbox_control::api::{AliasInfo, NewAlias};
use pillarbox_control::escaped;
use pillarbox_directory::AliasAddress;
use pillarbox_smtp::Mailbox;

use super::{pages, parsed};
use crate::args::AliasVerb;
use crate::failure::{EXISTS, Failure};
use crate::prompt::consent;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: AliasVerb) -> Result<(), Failure> {
    match verb {
        AliasVerb::Add { address, targets, if_missing } => {
            add(session, parsed("address or @DOMAIN", &address)?, mailboxes(&targets)?, if_missing).await
        }
        AliasVerb::Remove { address, targets, yes } => {
            remove(session, parsed("address or @DOMAIN", &address)?, mailboxes(&targets)?, yes).await
        }
        AliasVerb::List { domain } => list(session, domain.as_deref()).await,
    }
}

fn mailboxes(texts: &[String]) -> Result<Vec<Mailbox>, Failure> {
    texts.iter().map(|t| parsed("address", t)).collect()
}

async fn add(session: &Session, address: AliasAddress, targets: Vec<Mailbox>, if_missing: bool) -> Result<(), Failure> {
    let api = session.api().await?;
    match api.send::<_, AliasInfo>(Method::POST, "/v1/aliases", &NewAlias { address: address.clone(), targets }).await {
        Ok(info) if session.out.json => session.out.value(&info),
        Ok(info) => session.out.line(format!("{} goes to {}.", info.address, joined(&info.targets))),
        Err(error) => {
            let failure = Failure::from(error);
            if failure.code != EXISTS || !if_missing {
                return Err(failure);
            }
            if session.out.json { session.out.value(&api.get::<AliasInfo>(&path(&address)).await?) } else { Ok(()) }
        }
    }
}

async fn remove(session: &Session, address: AliasAddress, targets: Vec<Mailbox>, yes: bool) -> Result<(), Failure> {
    let api = session.api().await?;
    let info: AliasInfo = api.get(&path(&address)).await?;
    let what = if targets.is_empty() { info.targets } else { targets.clone() };
    consent(yes, &format!("Send mail for {address} no longer to {}?", joined(&what)))?;
    let query: Vec<String> = targets.iter().map(|t| format!("target={}", escaped(&t.to_string()))).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    api.done(Method::DELETE, &format!("{}{query}", path(&address))).await?;
    session.out.done(format!("{address} no longer goes to {}.", joined(&what)))
}

async fn list(session: &Session, domain: Option<&str>) -> Result<(), Failure> {
    let api = session.api().await?;
    let found: Vec<AliasInfo> = pages::all(&api, "aliases", domain, |a: &AliasInfo| a.address.to_string()).await?;
    session.out.list(&found, &["ADDRESS", "GOES TO"], |a| vec![a.address.to_string(), joined(&a.targets)])
}

fn joined(targets: &[Mailbox]) -> String {
    targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn path(address: &AliasAddress) -> String {
    format!("/v1/aliases/{}", escaped(&address.to_string()))
}
