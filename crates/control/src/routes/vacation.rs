//! `/v1/vacation`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use pillarbox_directory::Vacation;
use pillarbox_directory::ops::{self, OpsError};
use pillarbox_smtp::Mailbox;

use super::input::{Json, Named};
use crate::admin::Admin;
use crate::api::VacationInfo;
use crate::error::{ApiError, ApiResult};

/// Longest text of a reply, octets.
const TEXT: usize = 64 * 1024;
/// Longest subject, characters.
const SUBJECT: usize = 250;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<VacationInfo>> {
    let record = ops::user(admin.directory.as_ref(), &address).await?;
    match record.vacation {
        Some(vacation) => Ok(axum::Json(VacationInfo { address: record.address, vacation })),
        None => Err(ApiError::not_found(format!("{} has no vacation reply", record.address))),
    }
}

pub(super) async fn set(
    State(admin): State<Arc<Admin>>,
    Named(address): Named<Mailbox>,
    Json(vacation): Json<Vacation>,
) -> ApiResult<axum::Json<VacationInfo>> {
    if vacation.subject.trim().is_empty() || vacation.subject.chars().count() > SUBJECT {
        return Err(ApiError::usage(format!("the subject has 1 to {SUBJECT} characters")));
    }
    if vacation.text.trim().is_empty() || vacation.text.len() > TEXT {
        return Err(ApiError::usage(format!("the text of the reply has 1 to {TEXT} octets")));
    }
    let record = ops::set_vacation(admin.directory.as_ref(), &address, vacation.clone()).await.map_err(|error| match error {
        // Dates that are none, or the wrong way round.
        OpsError::Refused(why) => ApiError::usage(why),
        other => other.into(),
    })?;
    Ok(axum::Json(VacationInfo { address: record.address, vacation }))
}

pub(super) async fn clear(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<StatusCode> {
    ops::clear_vacation(admin.directory.as_ref(), &address).await?;
    Ok(StatusCode::NO_CONTENT)
}
