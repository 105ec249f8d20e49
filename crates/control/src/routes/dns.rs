//! `/v1/dns`, `/v1/dkim`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use pillarbox_screen::dkim::{self, RotateError};
use pillarbox_smtp::Domain;
use serde::Deserialize;
use time::OffsetDateTime;

use super::domains::domain;
use super::input::{Asked, Named};
use crate::admin::Admin;
use crate::api::{DkimInfo, DkimRotated, DnsLine, now_millis, rfc3339};
use crate::dns::{Facts, ZoneRecord, check, records};
use crate::error::{ApiError, ApiResult};

/// How long new keys wait before they sign: DNS must have learnt them, and people are slow.
const OVERLAP: Duration = Duration::from_secs(3 * 24 * 3600);

pub(super) async fn zone(State(admin): State<Arc<Admin>>, Named(name): Named<Domain>) -> ApiResult<axum::Json<Vec<ZoneRecord>>> {
    Ok(axum::Json(records(&facts(&admin, &name).await?)))
}

pub(super) async fn zone_check(State(admin): State<Arc<Admin>>, Named(name): Named<Domain>) -> ApiResult<axum::Json<Vec<DnsLine>>> {
    let facts = facts(&admin, &name).await?;
    Ok(axum::Json(check(&admin.config(), &facts).await?))
}

async fn facts(admin: &Admin, name: &Domain) -> ApiResult<Facts> {
    let (config, record) = (admin.config(), domain(admin, name).await?);
    tokio::task::spawn_blocking(move || Facts::gather(&config, &record)).await.map_err(|e| ApiError::unavailable(e.to_string()))
}

pub(super) async fn keys(State(admin): State<Arc<Admin>>, Named(name): Named<Domain>) -> ApiResult<axum::Json<Vec<DkimInfo>>> {
    let record = domain(&admin, &name).await?;
    let now = rfc3339(now_millis());
    Ok(axum::Json(record.dkim.iter().map(|key| DkimInfo::new(&name, key, &now)).collect()))
}

#[derive(Deserialize)]
pub(super) struct Rotate {
    /// The new keys sign at once.
    #[serde(default)]
    now: bool,
}

pub(super) async fn rotate(
    State(admin): State<Arc<Admin>>,
    Named(name): Named<Domain>,
    Asked(how): Asked<Rotate>,
) -> ApiResult<axum::Json<DkimRotated>> {
    let record = domain(&admin, &name).await?;
    // The first keys have nothing to overlap with: unsigned mail is no better than a signature that nobody can check yet.
    let overlap = if how.now || record.dkim.is_empty() { Duration::ZERO } else { OVERLAP };
    let done = make_keys(&admin, &name, overlap).await?;
    Ok(axum::Json(DkimRotated { publish: done.publish, active_from: done.active_from, retiring: done.retiring, remove: done.remove }))
}

/// New keys for a domain, which sign after `overlap`.
pub(super) async fn make_keys(admin: &Admin, name: &Domain, overlap: Duration) -> ApiResult<dkim::Rotation> {
    let config = admin.config();
    // Where several nodes share the keys, they are kept in the directory.
    let state = admin.directory.registry().is_none().then_some(config.paths.state.as_path());
    dkim::rotate(admin.directory.as_ref(), state, name, overlap, OffsetDateTime::now_utc()).await.map_err(|e| match e {
        RotateError::NoDomain(_) => ApiError::not_found(e.to_string()),
        RotateError::Directory(error) => error.into(),
        other => ApiError::unavailable(other.to_string()),
    })
}
