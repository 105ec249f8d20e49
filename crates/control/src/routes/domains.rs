//! `/v1/domains`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use pillarbox_directory::{DomainRecord, ops};
use pillarbox_smtp::Domain;
use serde::Deserialize;

use super::input::{Asked, Json, Named};
use crate::admin::Admin;
use crate::api::{DomainInfo, NewDomain};
use crate::error::{ApiError, ApiResult};

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<DomainInfo>>> {
    let mut found = Vec::new();
    for record in admin.directory.domains().await? {
        let counts = admin.directory.counts(&record.name).await?;
        found.push(DomainInfo::new(record, counts));
    }
    Ok(axum::Json(found))
}

pub(super) async fn add(State(admin): State<Arc<Admin>>, Json(new): Json<NewDomain>) -> ApiResult<(StatusCode, axum::Json<DomainInfo>)> {
    ops::add_domain(admin.directory.as_ref(), &new.name, SystemTime::now()).await?;
    // Its mail is signed from the first message on; until the keys are published nobody can tell, and nobody is worse off.
    super::dns::make_keys(&admin, &new.name, Duration::ZERO).await?;
    let record = domain(&admin, &new.name).await?;
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
    ops::remove_domain(admin.directory.as_ref(), &name, how.cascade).await?;
    // Mail that waited for users who are gone goes back to its senders.
    crate::held::resume_all(&admin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The record of a domain that must be there.
pub(super) async fn domain(admin: &Admin, name: &Domain) -> ApiResult<DomainRecord> {
    let found = admin.directory.domain(name).await?;
    found.ok_or_else(|| ApiError::not_found(format!("{name} is no domain of this server; `pillarbox domain list` shows those that are")))
}
