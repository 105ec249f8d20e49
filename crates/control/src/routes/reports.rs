//! `/v1/trace`, `/v1/reports`, `/v1/tls`.

use std::sync::Arc;

use axum::extract::State;
use pillarbox_relay::tlsrpt::Report;
use pillarbox_screen::reports::{self, ReceivedReport};
use serde::Deserialize;
use serde_json::Value;

use super::input::Asked;
use crate::admin::Admin;
use crate::api::{CertificateInfo, ReportsSent};
use crate::error::{ApiError, ApiResult};
use crate::eventlog::{self, Trace};

/// Most events in one answer.
const EVENTS: usize = 100_000;

#[derive(Deserialize)]
pub(super) struct Traced {
    /// A queue id, a Message-ID or an address.
    what: String,
    limit: Option<usize>,
}

pub(super) async fn trace(State(admin): State<Arc<Admin>>, Asked(asked): Asked<Traced>) -> ApiResult<axum::Json<Vec<Value>>> {
    let folder = admin.config().paths.state.join("events");
    let limit = asked.limit.unwrap_or(1000).clamp(1, EVENTS);
    let wanted = Trace::parse(&asked.what);
    let found = tokio::task::spawn_blocking(move || eventlog::trace(&folder, &wanted, limit)).await;
    let found = found.map_err(|e| ApiError::unavailable(e.to_string()))?;
    let found = found.map_err(|e| ApiError::unavailable(format!("the event log cannot be read: {e}")))?;
    if found.is_empty() {
        return Err(ApiError::not_found(format!("no event of {} is known (any more)", super::input::shown(&asked.what))));
    }
    Ok(axum::Json(found))
}

pub(super) async fn dmarc(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<ReceivedReport>>> {
    Ok(axum::Json(reports::list(admin.directory.as_ref()).await?))
}

pub(super) async fn tls(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<Report>>> {
    let found = admin.relay()?.received_tls_reports().await;
    Ok(axum::Json(found.map_err(|e| ApiError::unavailable(format!("the TLS reports cannot be read: {e}")))?))
}

/// Answers with how many went out.
pub(super) async fn send_tls(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<ReportsSent>> {
    let sent = admin.daemon()?.send_tls_reports().await;
    Ok(axum::Json(ReportsSent { sent: sent.map_err(|e| ApiError::unavailable(format!("TLS reports could not be sent: {e}")))? }))
}

pub(super) async fn certificates(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<CertificateInfo>>> {
    Ok(axum::Json(admin.daemon()?.certificates()))
}

/// Answers with the names ordered.
pub(super) async fn renew(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<String>>> {
    Ok(axum::Json(admin.daemon()?.renew_certificates().await.map_err(ApiError::refused)?))
}
