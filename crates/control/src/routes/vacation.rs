//! `/v1/vacation`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use pillarbox_directory::{Change, Vacation};
use pillarbox_smtp::Mailbox;
use time::Date;
use time::macros::format_description;

use super::input::{Json, Named};
use super::users::user;
use crate::admin::Admin;
use crate::api::VacationInfo;
use crate::error::{ApiError, ApiResult};

/// Longest text of a reply, octets.
const TEXT: usize = 64 * 1024;
/// Longest subject, characters.
const SUBJECT: usize = 250;

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<axum::Json<VacationInfo>> {
    let record = user(&admin, &address).await?;
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
    check(&vacation)?;
    let _changing = admin.changing().await;
    let mut record = user(&admin, &address).await?;
    record.vacation = Some(vacation.clone());
    admin.directory.apply(vec![Change::PutUser(record.clone())]).await?;
    Ok(axum::Json(VacationInfo { address: record.address, vacation }))
}

pub(super) async fn clear(State(admin): State<Arc<Admin>>, Named(address): Named<Mailbox>) -> ApiResult<StatusCode> {
    let _changing = admin.changing().await;
    let mut record = user(&admin, &address).await?;
    if record.vacation.take().is_none() {
        return Err(ApiError::not_found(format!("{} has no vacation reply", record.address)));
    }
    admin.directory.apply(vec![Change::PutUser(record)]).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(vacation: &Vacation) -> ApiResult<()> {
    if vacation.subject.trim().is_empty() || vacation.subject.chars().count() > SUBJECT || vacation.subject.chars().any(char::is_control) {
        return Err(ApiError::usage(format!("the subject has 1 to {SUBJECT} characters, none of them a control character")));
    }
    if vacation.text.trim().is_empty() || vacation.text.len() > TEXT {
        return Err(ApiError::usage(format!("the text of the reply has 1 to {TEXT} octets")));
    }
    let day = |name: &str, text: &Option<String>| match text {
        Some(text) => Date::parse(text, format_description!("[year]-[month]-[day]"))
            .map(Some)
            .map_err(|_| ApiError::usage(format!("{name} {:?} is not a day; write YYYY-MM-DD", super::input::shown(text)))),
        None => Ok(None),
    };
    if let (Some(from), Some(until)) = (day("from", &vacation.from)?, day("until", &vacation.until)?)
        && from > until
    {
        return Err(ApiError::usage(format!("the last day ({until}) is before the first ({from})")));
    }
    Ok(())
}
