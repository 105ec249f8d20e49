//! `/v1/users`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use pillarbox_config::ByteSize;
use pillarbox_directory::{Change, CredentialRecord, Quota, UserRecord};
use pillarbox_smtp::{Domain, Mailbox, Secret};
use serde::Deserialize;

use super::input::{Asked, Json, Named};
use super::{domains, secrets};
use crate::admin::Admin;
use crate::api::{NewPassword, NewUser, UserChange, UserInfo, now_millis, rfc3339};
use crate::error::{ApiError, ApiResult};
use crate::usage::used_bytes;

/// Most users in one answer, and how many when nobody says.
pub(crate) const PAGE: usize = 1000;

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
    let quota = new.quota.as_deref().map(quota).transpose()?.flatten();
    let credential = match new.password {
        Some(password) => secrets::credential(&admin, Secret::new(password)).await?,
        None => CredentialRecord::default(),
    };
    let _changing = admin.changing().await;
    if let Some(there) = admin.directory.user(&new.address).await? {
        return Err(ApiError::exists(format!("the user {} is there already", there.address)));
    }
    domains::domain(&admin, &new.address.domain).await?;
    let record = UserRecord {
        address: new.address.clone(),
        created: rfc3339(now_millis()),
        suspended: false,
        quota,
        logins: new.logins,
        vacation: None,
        name: new.name.filter(|n| !n.is_empty()),
    };
    admin.directory.apply(vec![Change::PutUser(record.clone()), Change::PutCredential(new.address, credential)]).await?;
    Ok((StatusCode::CREATED, axum::Json(info(&admin, record).await)))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<UserInfo>> {
    let record = user(&admin, &address).await?;
    Ok(axum::Json(info(&admin, record).await))
}

pub(super) async fn change(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<Mailbox>,
    Json(change): Json<UserChange>,
) -> ApiResult<axum::Json<UserInfo>> {
    let _changing = admin.changing().await;
    let mut record = user(&admin, &address).await?;
    if let Some(suspended) = change.suspended {
        record.suspended = suspended;
    }
    if let Some(text) = change.quota {
        record.quota = quota(&text)?;
    }
    if let Some(name) = change.name {
        record.name = Some(name).filter(|n| !n.is_empty());
    }
    if let Some(logins) = change.logins {
        record.logins = logins;
    }
    admin.directory.apply(vec![Change::PutUser(record.clone())]).await?;
    Ok(axum::Json(info(&admin, record).await))
}

pub(super) async fn remove(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<StatusCode> {
    let _changing = admin.changing().await;
    let record = user(&admin, &address).await?;
    admin.directory.apply(vec![Change::RemoveUser(record.address)]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets the main password; app-passwords stay.
pub(super) async fn password(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<Mailbox>,
    Json(new): Json<NewPassword>,
) -> ApiResult<StatusCode> {
    let record = user(&admin, &address).await?;
    let fresh = secrets::credential(&admin, Secret::new(new.password)).await?;
    let _changing = admin.changing().await;
    let app = admin.directory.credential(&record.address).await?.map(|c| c.app).unwrap_or_default();
    admin.directory.apply(vec![Change::PutCredential(record.address, CredentialRecord { app, ..fresh })]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The record of a user that must be there.
pub(super) async fn user(admin: &Admin, address: &Mailbox) -> ApiResult<UserRecord> {
    match admin.directory.user(address).await? {
        Some(record) => Ok(record),
        None => {
            Err(ApiError::not_found(format!("there is no user {address}; `pillarbox user list {}` shows those there are", address.domain)))
        }
    }
}

async fn info(admin: &Admin, record: UserRecord) -> UserInfo {
    let used = used_bytes(admin, &record.address).await;
    UserInfo::new(record, admin.default_quota(), used)
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
