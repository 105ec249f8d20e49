//! `pillarbox export`, `pillarbox apply`, `pillarbox user import`, `pillarbox user export`.

use std::path::Path;
use std::time::Duration;

use hyper::Method;
use pillarbox_control::api::{ApplyInfo, ImportInfo};
use pillarbox_control::escaped;

use crate::failure::Failure;
use crate::out::safe;
use crate::progress::Progress;
use crate::prompt::{consent, text_of};
use crate::session::Session;

/// A million users take their time.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(crate) async fn export(session: &Session) -> Result<(), Failure> {
    let text = session.api().await?.text("/v1/export").await?;
    if !session.out.json {
        return session.out.bytes(text.as_bytes());
    }
    let value: toml::Value = toml::from_str(&text).map_err(|e| Failure::failed(e.to_string()))?;
    session.out.value(&value)
}

pub(crate) async fn apply(session: &Session, file: &Path, dry_run: bool, prune: bool, yes: bool) -> Result<(), Failure> {
    let text = text_of(file)?;
    let api = session.api().await?;
    let ask = async |dry_run: bool| -> Result<ApplyInfo, Failure> {
        let path = format!("/v1/apply?dry_run={dry_run}&prune={prune}");
        Ok(api.json(Method::POST, &path, text.clone().into(), PATIENCE).await?)
    };
    if prune && !dry_run && !yes {
        let plan = ask(true).await?;
        let removals = plan.changes.iter().filter(|c| c.starts_with("remove ")).count();
        if removals > 0 {
            consent(false, &format!("{} changes, {removals} of them removals. Go ahead?", plan.changes.len()))?;
        }
    }
    let wheel = Progress::wheel("comparing and changing");
    let done = ask(dry_run).await?;
    drop(wheel);
    if session.out.json {
        return session.out.value(&done);
    }
    for change in &done.changes {
        session.out.line(safe(change))?;
    }
    match (done.changes.len(), dry_run) {
        (0, _) => session.out.line("Everything is as the file says already."),
        (n, true) => session.out.line(format!("{n} changes would be made.")),
        (n, false) => session.out.line(format!("{n} changes made.")),
    }
}

pub(crate) async fn import_users(session: &Session, file: &Path, format: Option<&str>, domain: Option<&str>) -> Result<(), Failure> {
    let text = text_of(file)?;
    let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let mut path = format!("/v1/users/import?name={}", escaped(name));
    if let Some(format) = format {
        path.push_str(&format!("&format={}", escaped(format)));
    }
    if let Some(domain) = domain {
        path.push_str(&format!("&domain={}", escaped(domain)));
    }
    let api = session.api().await?;
    let wheel = Progress::wheel("adding users");
    let done: ImportInfo = api.json(Method::POST, &path, text.into(), PATIENCE).await?;
    drop(wheel);
    if session.out.json {
        session.out.value(&done)?;
    } else {
        session.out.line(format!("{} users and {} aliases added, {} were there already.", done.users, done.aliases, done.existing))?;
        for line in &done.refused {
            anstream::eprintln!("pillarbox: {}", safe(line));
        }
    }
    if done.refused.is_empty() { Ok(()) } else { Err(Failure::said()) }
}

pub(crate) async fn export_users(session: &Session) -> Result<(), Failure> {
    let text = session.api().await?.text("/v1/users/export").await?;
    if session.out.json {
        let lines: Vec<&str> = text.lines().collect();
        return session.out.value(&lines);
    }
    session.out.bytes(text.as_bytes())
}
