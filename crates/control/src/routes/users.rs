//! `/v1/users`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use pillarbox_config::{ByteSize, Config};
use pillarbox_directory::{Quota, UserRecord, ops};
use pillarbox_smtp::{Domain, Mailbox, Secret};
use serde::Deserialize;

use super::domains;
use super::input::{Asked, Json, Named};
use crate::admin::Admin;
use crate::api::{NewPassword, NewUser, UserChange, UserInfo};
use crate::error::{ApiError, ApiResult};
use crate::held;
use crate::usage::used_bytes;

/// Most records in one answer, and how many when nobody says.
pub(super) const PAGE: usize = 1000;

#[derive(Deserialize)]
pub(super) struct Page {
    domain: Option<Domain>,
    after: Option<Mailbox>,
    limit: Option<usize>,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Asked(page): Asked<Page>) -> ApiResult<axum::Json<Vec<UserInfo>>> {
    if let Some(domain) = &page.domain {
        domains::domain(&admin, domain).await?;
    }
    let limit = page.limit.unwrap_or(PAGE).min(PAGE);
    let mut found = Vec::new();
    for record in admin.directory.users(page.domain.as_ref(), page.after.as_ref(), limit).await? {
        found.push(info(&admin, record).await);
    }
    Ok(axum::Json(found))
}

pub(super) async fn add(State(admin): State<Arc<Admin>>, Json(new): Json<NewUser>) -> ApiResult<(StatusCode, axum::Json<UserInfo>)> {
    let config = admin.config();
    let address = new.address;
    let user = ops::NewUser {
        address: address.clone(),
        password: new.password.map(Secret::new),
        name: new.name,
        quota: new.quota.as_deref().map(quota).transpose()?.flatten(),
        scram: offers_scram(&config),
    };
    let mut record = ops::add_user(admin.directory.as_ref(), user, &config.auth.argon2, SystemTime::now()).await?;
    for login in &new.logins {
        record = ops::add_login(admin.directory.as_ref(), &address, login).await?;
    }
    Ok((StatusCode::CREATED, axum::Json(info(&admin, record).await)))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<UserInfo>> {
    let record = ops::user(admin.directory.as_ref(), &address).await?;
    Ok(axum::Json(info(&admin, record).await))
}

pub(super) async fn change(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<Mailbox>,
    Json(change): Json<UserChange>,
) -> ApiResult<axum::Json<UserInfo>> {
    let directory = admin.directory.as_ref();
    let mut record = ops::user(directory, &address).await?;
    // All is understood before anything is changed.
    let quota = change.quota.as_deref().map(quota).transpose()?;
    if let Some(logins) = change.logins {
        let (old, same) = (record.logins.clone(), |list: &[Mailbox], one: &Mailbox| list.iter().any(|l| l.same_as(one)));
        for login in logins.iter().filter(|l| !same(&old, l)) {
            record = ops::add_login(directory, &address, login).await?;
        }
        for login in old.iter().filter(|l| !same(&logins, l)) {
            record = ops::remove_login(directory, &address, login).await?;
        }
    }
    if let Some(name) = change.name {
        record = ops::set_name(directory, &address, Some(name)).await?;
    }
    if let Some(quota) = quota {
        record = ops::set_quota(directory, &address, quota).await?;
    }
    if let Some(suspended) = change.suspended {
        record = ops::set_suspended(directory, &address, suspended).await?;
        if !suspended {
            held::resume(&admin, &address).await;
        }
    }
    Ok(axum::Json(info(&admin, record).await))
}

/// Answers with the aliases that still name the user.
pub(super) async fn remove(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<serde_json::Value>> {
    let removed = ops::remove_user(admin.directory.as_ref(), &address).await?;
    // Its senders hear that nobody will read it.
    held::resume(&admin, &address).await;
    let aliases: Vec<String> = removed.aliases.iter().map(|a| a.address.to_string()).collect();
    Ok(axum::Json(serde_json::json!({ "aliases": aliases })))
}

/// Sets the main password; app-passwords stay.
pub(super) async fn password(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<Mailbox>,
    Json(new): Json<NewPassword>,
) -> ApiResult<StatusCode> {
    let config = admin.config();
    ops::set_password(admin.directory.as_ref(), &address, Secret::new(new.password), &config.auth.argon2, offers_scram(&config)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn info(admin: &Admin, record: UserRecord) -> UserInfo {
    let used = used_bytes(admin, &record.address).await;
    UserInfo::new(record, admin.default_quota(), used)
}

fn offers_scram(config: &Config) -> bool {
    config.auth.mechanisms.iter().any(|m| m.starts_with("SCRAM-"))
}

/// A size, `none`, or `default` (which is no quota of the user's own).
fn quota(text: &str) -> ApiResult<Option<Quota>> {
    match text {
        "default" | "" => Ok(None),
        "none" => Ok(Some(Quota::None)),
        size => match size.parse::<ByteSize>() {
            Ok(ByteSize(0)) => Err(ApiError::usage("a quota of 0 would refuse all mail; use `user suspend` for that")),
            Ok(ByteSize(octets)) => Ok(Some(Quota::Bytes(octets))),
            Err(why) => Err(ApiError::usage(format!("{why}, or none, or default"))),
        },
    }
}
