//! `/v1/domains`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use pillarbox_directory::{Change, DomainRecord};
use pillarbox_smtp::Domain;
use serde::Deserialize;

use super::input::{Asked, Json, Named};
use crate::admin::Admin;
use crate::api::{DomainInfo, NewDomain, now_millis, rfc3339};
use crate::error::{ApiError, ApiResult};

/// How many users or aliases are removed in one go.
const BATCH: usize = 500;

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<DomainInfo>>> {
    let mut found = Vec::new();
    for record in admin.directory.domains().await? {
        let counts = admin.directory.counts(&record.name).await?;
        found.push(DomainInfo::new(record, counts));
    }
    Ok(axum::Json(found))
}

pub(super) async fn add(State(admin): State<Arc<Admin>>, Json(new): Json<NewDomain>) -> ApiResult<(StatusCode, axum::Json<DomainInfo>)> {
    if new.name.ip().is_some() {
        return Err(ApiError::refused(format!("{} is an address; a hosted domain needs a name", new.name)));
    }
    if admin.directory.domain(&new.name).await?.is_some() {
        return Err(ApiError::exists(format!("the domain {} is there already", new.name)));
    }
    let record = DomainRecord { name: new.name, created: rfc3339(now_millis()), deliver_to: None, dkim: vec![] };
    admin.directory.apply(vec![Change::PutDomain(record.clone())]).await?;
    Ok((StatusCode::CREATED, axum::Json(DomainInfo::new(record, (0, 0)))))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(name): Named<Domain>) -> ApiResult<axum::Json<DomainInfo>> {
    let record = domain(&admin, &name).await?;
    let counts = admin.directory.counts(&name).await?;
    Ok(axum::Json(DomainInfo::new(record, counts)))
}

#[derive(Deserialize)]
pub(super) struct Removal {
    /// Remove its users and aliases with it.
    #[serde(default)]
    cascade: bool,
}

pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Named(name): Named<Domain>,
    Asked(how): Asked<Removal>,
) -> ApiResult<StatusCode> {
    domain(&admin, &name).await?;
    let (users, aliases) = admin.directory.counts(&name).await?;
    if users + aliases > 0 && !how.cascade {
        return Err(ApiError::refused(format!(
            "{name} still has {users} users and {aliases} aliases; remove them first, or ask for all of it (cascade)"
        )));
    }
    loop {
        let aliases = admin.directory.aliases(Some(&name), None, BATCH).await?;
        let users = admin.directory.users(Some(&name), None, BATCH).await?;
        let last = aliases.len() < BATCH && users.len() < BATCH;
        let mut changes: Vec<Change> = aliases.into_iter().map(|a| Change::RemoveAlias(a.address)).collect();
        changes.extend(users.into_iter().map(|u| Change::RemoveUser(u.address)));
        if last {
            changes.push(Change::RemoveDomain(name.clone()));
        }
        admin.directory.apply(changes).await?;
        if last {
            return Ok(StatusCode::NO_CONTENT);
        }
    }
}

/// The record of a domain that must be there.
pub(super) async fn domain(admin: &Admin, name: &Domain) -> ApiResult<DomainRecord> {
    admin
        .directory
        .domain(name)
        .await?
        .ok_or_else(|| ApiError::not_found(format!("{name} is no domain of this server; `pillarbox domain list` shows those that are")))
}
