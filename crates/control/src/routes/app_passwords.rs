//! `/v1/app-passwords`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use pillarbox_directory::{AppPassword, ops};
use pillarbox_smtp::{Mailbox, Secret};

use super::input::{Json, Named, shown};
use crate::admin::Admin;
use crate::api::{AppPasswordInfo, NewAppPassword};
use crate::error::{ApiError, ApiResult};

pub(super) async fn list(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<Vec<AppPasswordInfo>>> {
    let found = ops::list_app_passwords(admin.directory.as_ref(), &address).await?;
    Ok(axum::Json(found.into_iter().map(|a| info(a, None)).collect()))
}

/// Makes one; the answer is the only place where the password ever stands.
pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<Mailbox>,
    Json(new): Json<NewAppPassword>,
) -> ApiResult<(StatusCode, axum::Json<AppPasswordInfo>)> {
    let (made, password) = ops::add_app_password(admin.directory.as_ref(), &address, &new.label, SystemTime::now()).await?;
    Ok((StatusCode::CREATED, axum::Json(info(made, Some(password)))))
}

pub(super) async fn revoke(State(admin): State<Arc<Admin>>, Path((address, label)): Path<(String, String)>) -> ApiResult<StatusCode> {
    let address: Mailbox = address.parse().map_err(|e| ApiError::usage(format!("{}: {e}", shown(&address))))?;
    ops::revoke_app_password(admin.directory.as_ref(), &address, &label).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn info(app: AppPassword, password: Option<Secret>) -> AppPasswordInfo {
    let password = password.map(|p| p.expose().to_owned());
    AppPasswordInfo { label: app.label, created: app.created, last_used: app.last_used, password }
}
