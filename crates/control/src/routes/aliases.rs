//! `/v1/aliases`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use pillarbox_directory::{AliasAddress, AliasRecord, Change};
use pillarbox_smtp::{Domain, Mailbox};
use serde::Deserialize;

use super::domains;
use super::input::{Asked, Json, Named, shown};
use super::users::PAGE;
use crate::admin::Admin;
use crate::api::{AliasInfo, NewAlias, now_millis, rfc3339};
use crate::error::{ApiError, ApiResult};

/// Most targets of one alias.
const TARGETS: usize = 1000;

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
    domains::domain(&admin, new.address.domain()).await?;
    let _changing = admin.changing().await;
    let there = admin.directory.alias(&new.address).await?;
    let mut record = match there {
        Some(record) => record,
        None => AliasRecord { address: new.address.clone(), targets: vec![], created: rfc3339(now_millis()) },
    };
    let before = record.targets.len();
    for target in new.targets {
        if !record.targets.iter().any(|t| t.same_as(&target)) {
            record.targets.push(target);
        }
    }
    if record.targets.len() == before && before > 0 {
        return Err(ApiError::exists(format!("the alias {} has these targets already", record.address)));
    }
    if record.targets.len() > TARGETS {
        return Err(ApiError::refused(format!("an alias has at most {TARGETS} targets; use a mailing list manager for more")));
    }
    admin.directory.apply(vec![Change::PutAlias(record.clone())]).await?;
    Ok((StatusCode::CREATED, axum::Json(record.into())))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(address): Named<AliasAddress>) -> ApiResult<axum::Json<AliasInfo>> {
    Ok(axum::Json(alias(&admin, &address).await?.into()))
}

/// Removes the alias, or only the targets named by `?target=…&target=…`.
pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<AliasAddress>,
    RawQuery(query): RawQuery,
) -> ApiResult<StatusCode> {
    let targets = targets(query.as_deref().unwrap_or(""))?;
    let _changing = admin.changing().await;
    let mut record = alias(&admin, &address).await?;
    for target in &targets {
        let before = record.targets.len();
        record.targets.retain(|t| !t.same_as(target));
        if record.targets.len() == before {
            return Err(ApiError::not_found(format!("{target} is no target of {}", record.address)));
        }
    }
    let change =
        if targets.is_empty() || record.targets.is_empty() { Change::RemoveAlias(record.address) } else { Change::PutAlias(record) };
    admin.directory.apply(vec![change]).await?;
    Ok(StatusCode::NO_CONTENT)
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

async fn alias(admin: &Admin, address: &AliasAddress) -> ApiResult<AliasRecord> {
    let found = admin.directory.alias(address).await?;
    found.ok_or_else(|| {
        ApiError::not_found(format!("there is no alias {address}; `pillarbox alias list {}` shows those there are", address.domain()))
    })
}
