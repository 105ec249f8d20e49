//! `pillarbox user`.

use hyper::Method;
use pillarbox_control::api::{NewPassword, NewUser, UserChange, UserInfo};
use pillarbox_control::{Client, escaped};
use pillarbox_smtp::Mailbox;

use super::domain::day;
use super::{pages, parsed, transfer};
use crate::args::{PasswordSource, UserVerb};
use crate::failure::{EXISTS, Failure};
use crate::out::size;
use crate::prompt::{self, consent};
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: UserVerb) -> Result<(), Failure> {
    match verb {
        UserVerb::Add { address, password, quota, name, logins, if_missing } => {
            let new = NewUser {
                address: parsed("address", &address)?,
                password: None,
                quota,
                name,
                logins: logins.iter().map(|l| parsed("address", l)).collect::<Result<_, _>>()?,
            };
            add(session, new, password, if_missing).await
        }
        UserVerb::Show { address } => show(session, &parsed("address", &address)?).await,
        UserVerb::Remove { address, yes } => remove(session, &parsed("address", &address)?, yes).await,
        UserVerb::Suspend { address } => suspend(session, &parsed("address", &address)?, true).await,
        UserVerb::Resume { address } => suspend(session, &parsed("address", &address)?, false).await,
        UserVerb::List { domain } => list(session, domain.as_deref()).await,
        UserVerb::Passwd { address, password } => passwd(session, &parsed("address", &address)?, password).await,
        UserVerb::Import { file, format, domain } => transfer::import_users(session, &file, format.as_deref(), domain.as_deref()).await,
        UserVerb::Export => transfer::export_users(session).await,
        UserVerb::Quota { address, size } => quota(session, &parsed("address", &address)?, size).await,
    }
}

async fn add(session: &Session, mut new: NewUser, source: PasswordSource, if_missing: bool) -> Result<(), Failure> {
    let api = session.api().await?;
    // Nobody is asked for a password that will not be used.
    match find(&api, &new.address).await {
        Ok(there) if if_missing => return if session.out.json { session.out.value(&there) } else { Ok(()) },
        Ok(there) => {
            let hint = "change it with `pillarbox user passwd`, `quota`, `suspend`";
            return Err(Failure::new(EXISTS, format!("the user {} is there already; {hint}", there.address)));
        }
        Err(failure) if failure.code == crate::failure::NOT_FOUND => {}
        Err(failure) => return Err(failure),
    }
    let chosen = prompt::password(source, &new.address.to_string())?;
    new.password = Some(chosen.password.expose().to_owned());
    let info: UserInfo = api.send(Method::POST, "/v1/users", &new).await?;
    if session.out.json {
        let mut value = serde_json::to_value(&info).map_err(|e| Failure::failed(e.to_string()))?;
        if let (true, Some(fields)) = (chosen.generated, value.as_object_mut()) {
            fields.insert("password".into(), chosen.password.expose().into());
        }
        return session.out.value(&value);
    }
    session.out.line(format!("Added the user {}.", info.address))?;
    shown_once(session, &chosen)
}

async fn show(session: &Session, address: &Mailbox) -> Result<(), Failure> {
    let info = find(&session.api().await?, address).await?;
    let logins = info.logins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let fields = [
        ("address", info.address.to_string()),
        ("name", info.name.clone().unwrap_or_default()),
        ("logs in as", if logins.is_empty() { info.address.to_string() } else { format!("{}, {logins}", info.address) }),
        ("suspended", if info.suspended { "yes".into() } else { "no".into() }),
        ("quota", quota_text(&info)),
        ("used", size(info.used_bytes)),
        ("vacation reply", if info.vacation { "yes".into() } else { "no".into() }),
        ("added", info.created.clone()),
    ];
    session.out.record(&info, &fields)
}

async fn remove(session: &Session, address: &Mailbox, yes: bool) -> Result<(), Failure> {
    let api = session.api().await?;
    let info = find(&api, address).await?;
    consent(yes, &format!("Remove the user {} and all its passwords? Stored mail stays.", info.address))?;
    api.done(Method::DELETE, &path(address)).await?;
    session.out.done(format!("Removed the user {}.", info.address))
}

async fn suspend(session: &Session, address: &Mailbox, suspended: bool) -> Result<(), Failure> {
    let change = UserChange { suspended: Some(suspended), ..UserChange::default() };
    let info: UserInfo = session.api().await?.send(Method::PATCH, &path(address), &change).await?;
    if session.out.json {
        return session.out.value(&info);
    }
    session.out.line(if suspended {
        format!("{} can no longer log in.", info.address)
    } else {
        format!("{} can log in again.", info.address)
    })
}

async fn list(session: &Session, domain: Option<&str>) -> Result<(), Failure> {
    let api = session.api().await?;
    let found: Vec<UserInfo> = pages::all(&api, "users", domain, |u: &UserInfo| u.address.to_string()).await?;
    session.out.list(&found, &["ADDRESS", "USED", "QUOTA", "STATE", "ADDED"], |u| {
        let state = if u.suspended { "suspended" } else { "" };
        vec![u.address.to_string(), size(u.used_bytes), quota_text(u), state.into(), day(&u.created)]
    })
}

async fn passwd(session: &Session, address: &Mailbox, source: PasswordSource) -> Result<(), Failure> {
    let api = session.api().await?;
    find(&api, address).await?;
    let chosen = prompt::password(source, &address.to_string())?;
    let body = NewPassword { password: chosen.password.expose().to_owned() };
    api.send::<_, ()>(Method::PUT, &format!("{}/password", path(address)), &body).await?;
    if session.out.json && chosen.generated {
        return session.out.value(&serde_json::json!({ "address": address, "password": chosen.password.expose() }));
    }
    session.out.done(format!("Set the password of {address}."))?;
    if session.out.json { Ok(()) } else { shown_once(session, &chosen) }
}

async fn quota(session: &Session, address: &Mailbox, text: String) -> Result<(), Failure> {
    let change = UserChange { quota: Some(text), ..UserChange::default() };
    let info: UserInfo = session.api().await?.send(Method::PATCH, &path(address), &change).await?;
    if session.out.json {
        return session.out.value(&info);
    }
    session.out.line(format!("The quota of {} is {}.", info.address, quota_text(&info)))
}

async fn find(api: &Client, address: &Mailbox) -> Result<UserInfo, Failure> {
    Ok(api.get(&path(address)).await?)
}

fn shown_once(session: &Session, chosen: &prompt::Chosen) -> Result<(), Failure> {
    if !chosen.generated {
        return Ok(());
    }
    session.out.line(format!("Password: {}", chosen.password.expose()))
}

fn quota_text(info: &UserInfo) -> String {
    info.quota_bytes.map_or_else(|| "none".into(), size)
}

fn path(address: &Mailbox) -> String {
    format!("/v1/users/{}", escaped(&address.to_string()))
}
