//! `/v1/app-passwords`, and how any password becomes what the directory keeps.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use pillarbox_directory::password::{APP_PASSWORD_COST, app_password, hash};
use pillarbox_directory::{AppPassword, Change, CredentialRecord, ScramKeys};
use pillarbox_smtp::{Mailbox, Secret};

use super::input::{Json, Named, shown};
use super::users::user;
use crate::admin::Admin;
use crate::api::{AppPasswordInfo, NewAppPassword, now_millis, rfc3339};
use crate::error::{ApiError, ApiResult};

/// Most app-passwords of one user: each costs a login attempt a little time.
const MOST: usize = 50;
/// Longest label, characters.
const LABEL: usize = 64;

/// Hashes a password as configured, SCRAM keys included when SCRAM is switched on. Off the reactor: it takes tens of milliseconds.
pub(super) async fn credential(admin: &Admin, password: Secret) -> ApiResult<CredentialRecord> {
    let config = admin.config();
    let work = move || {
        let scram = config.auth.mechanisms.iter().any(|m| m.starts_with("SCRAM-")).then(|| ScramKeys::generate(&password));
        let hash = hash(&password, &config.auth.argon2).map_err(|e| ApiError::refused(e.to_string()))?;
        Ok(CredentialRecord { password: Some(hash), scram, app: vec![] })
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::unavailable("the password could not be hashed"))?
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<Vec<AppPasswordInfo>>> {
    let record = user(&admin, &address).await?;
    let app = admin.directory.credential(&record.address).await?.map(|c| c.app).unwrap_or_default();
    Ok(axum::Json(app.into_iter().map(|a| info(a, None)).collect()))
}

/// Makes one; the answer is the only place where the password ever stands.
pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<Mailbox>,
    Json(new): Json<NewAppPassword>,
) -> ApiResult<(StatusCode, axum::Json<AppPasswordInfo>)> {
    let label = new.label.trim().to_owned();
    if label.is_empty() || label.chars().count() > LABEL || label.chars().any(char::is_control) {
        return Err(ApiError::usage(format!("a label has 1 to {LABEL} characters, none of them a control character")));
    }
    let record = user(&admin, &address).await?;
    let password = app_password();
    let secret = password.clone();
    let hash = tokio::task::spawn_blocking(move || hash(&secret, &APP_PASSWORD_COST))
        .await
        .map_err(|_| ApiError::unavailable("the password could not be hashed"))?
        .map_err(|e| ApiError::refused(e.to_string()))?;
    let _changing = admin.changing().await;
    let mut credential = admin.directory.credential(&record.address).await?.unwrap_or_default();
    if credential.app.iter().any(|a| a.label == label) {
        return Err(ApiError::exists(format!(
            "{} has an app-password {label:?} already; revoke it first or choose another label",
            record.address
        )));
    }
    if credential.app.len() >= MOST {
        return Err(ApiError::refused(format!("{} has {MOST} app-passwords; revoke one first", record.address)));
    }
    let fresh = AppPassword { label, hash, created: rfc3339(now_millis()), last_used: None };
    credential.app.push(fresh.clone());
    admin.directory.apply(vec![Change::PutCredential(record.address, credential)]).await?;
    Ok((StatusCode::CREATED, axum::Json(info(fresh, Some(password)))))
}

pub(super) async fn revoke(State(admin): State<Arc<Admin>>, Path((address, label)): Path<(String, String)>) -> ApiResult<StatusCode> {
    let address: Mailbox = address.parse().map_err(|e| ApiError::usage(format!("{}: {e}", shown(&address))))?;
    let _changing = admin.changing().await;
    let record = user(&admin, &address).await?;
    let mut credential = admin.directory.credential(&record.address).await?.unwrap_or_default();
    let before = credential.app.len();
    credential.app.retain(|a| a.label != label);
    if credential.app.len() == before {
        return Err(ApiError::not_found(format!("{} has no app-password {:?}", record.address, shown(&label))));
    }
    admin.directory.apply(vec![Change::PutCredential(record.address, credential)]).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn info(app: AppPassword, password: Option<Secret>) -> AppPasswordInfo {
    AppPasswordInfo { label: app.label, created: app.created, last_used: app.last_used, password: password.map(|p| p.expose().to_owned()) }
}
