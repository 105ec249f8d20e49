//! `/v1/aliases`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use pillarbox_directory::{AliasAddress, ops};
use pillarbox_smtp::{Domain, Mailbox};
use serde::Deserialize;

use super::domains;
use super::input::{Asked, Json, Named, shown};
use super::users::PAGE;
use crate::admin::Admin;
use crate::api::{AliasInfo, NewAlias};
use crate::error::{ApiError, ApiResult};

#[derive(Deserialize)]
pub(super) struct Page {
    domain: Option<Domain>,
    after: Option<AliasAddress>,
    limit: Option<usize>,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Asked(page): Asked<Page>) -> ApiResult<axum::Json<Vec<AliasInfo>>> {
    if let Some(domain) = &page.domain {
        domains::domain(&admin, domain).await?;
    }
    let limit = page.limit.unwrap_or(PAGE).min(PAGE);
    let found = admin.directory.aliases(page.domain.as_ref(), page.after.as_ref(), limit).await?;
    Ok(axum::Json(found.into_iter().map(AliasInfo::from).collect()))
}

/// Adds targets to those that are there. 409 when all of them are there already.
pub(super) async fn add(State(admin): State<Arc<Admin>>, Json(new): Json<NewAlias>) -> ApiResult<(StatusCode, axum::Json<AliasInfo>)> {
    let record = ops::add_alias(admin.directory.as_ref(), &new.address, &new.targets, SystemTime::now()).await?;
    Ok((StatusCode::CREATED, axum::Json(record.into())))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(address): Named<AliasAddress>) -> ApiResult<axum::Json<AliasInfo>> {
    let found = admin.directory.alias(&address).await?;
    found.map(|record| axum::Json(record.into())).ok_or_else(|| ApiError::not_found(format!("there is no alias {address}")))
}

/// Removes the alias, or only the targets named by `?target=…&target=…`. Answers with what is left, `null` for nothing.
pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<AliasAddress>,
    RawQuery(query): RawQuery,
) -> ApiResult<axum::Json<Option<AliasInfo>>> {
    let targets = targets(query.as_deref().unwrap_or(""))?;
    let left = ops::remove_alias(admin.directory.as_ref(), &address, &targets).await?;
    Ok(axum::Json(left.map(AliasInfo::from)))
}

fn targets(query: &str) -> ApiResult<Vec<Mailbox>> {
    let mut found = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let value = pair.strip_prefix("target=").ok_or_else(|| ApiError::usage(format!("{} is not target=ADDRESS", shown(pair))))?;
        let text = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        found.push(text.parse().map_err(|e| ApiError::usage(format!("{}: {e}", shown(&text))))?);
    }
    Ok(found)
}
