//! `/v1/queue`, `/v1/submit`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use pillarbox_queue::{Envelope, ListFilter, Queue, QueueId, RetryFilter};
use pillarbox_smtp::{Domain, ReversePath};
use serde::{Deserialize, Serialize};

use super::input::{Asked, Json, Named};
use crate::admin::Admin;
use crate::api::{QueueDone, QueueEntry, QueueIds, QueueSummary, RetryMany, Submitted, now_millis, rfc3339};
use crate::error::{ApiError, ApiResult};
use crate::local_mail;

/// Most messages in one answer, and how many when nobody says.
const PAGE: usize = 1000;

/// Which messages, and how many of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Filter {
    to: Option<Domain>,
    from: Option<ReversePath>,
    #[serde(default)]
    held: bool,
    after: Option<QueueId>,
    limit: Option<usize>,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Asked(filter): Asked<Filter>) -> ApiResult<axum::Json<Vec<QueueEntry>>> {
    Ok(axum::Json(entries(admin.queue()?, filter).await))
}

/// One page of a queue.
pub(crate) async fn entries(queue: &Queue, filter: Filter) -> Vec<QueueEntry> {
    let limit = filter.limit.unwrap_or(PAGE).min(PAGE);
    let wanted = ListFilter { to: filter.to, from: filter.from, held: filter.held };
    queue.list(&wanted, filter.after, limit).await.iter().map(QueueEntry::from).collect()
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Named(id): Named<QueueId>) -> ApiResult<axum::Json<QueueEntry>> {
    let envelope = admin.queue()?.show(id).await.ok_or_else(|| gone(&[id]))?;
    Ok(axum::Json(QueueEntry::from(&envelope)))
}

/// The whole envelope, for backups.
pub(super) async fn envelope(State(admin): State<Arc<Admin>>, Named(id): Named<QueueId>) -> ApiResult<axum::Json<Envelope>> {
    Ok(axum::Json(admin.queue()?.show(id).await.ok_or_else(|| gone(&[id]))?))
}

/// The message's octets as they will be sent on.
pub(super) async fn message(State(admin): State<Arc<Admin>>, Named(id): Named<QueueId>) -> ApiResult<Body> {
    let body = admin.queue()?.body(id).await.ok_or_else(|| gone(&[id]))?;
    Ok(Body::from_stream(body.chunks()))
}

/// With ids: those. With a domain: all mail to it. With neither: all.
pub(super) async fn retry(State(admin): State<Arc<Admin>>, Json(many): Json<RetryMany>) -> ApiResult<axum::Json<QueueDone>> {
    let queue = admin.queue()?;
    let filter = match (many.ids, many.to) {
        (Some(ids), _) => {
            all_there(&admin, &ids).await?;
            RetryFilter::Ids(ids)
        }
        (None, Some(domain)) => RetryFilter::To(domain),
        (None, None) => RetryFilter::All,
    };
    Ok(axum::Json(QueueDone { messages: queue.retry(&filter).await }))
}

pub(super) async fn hold(State(admin): State<Arc<Admin>>, Json(which): Json<QueueIds>) -> ApiResult<axum::Json<QueueDone>> {
    all_there(&admin, &which.ids).await?;
    Ok(axum::Json(QueueDone { messages: admin.queue()?.hold(&which.ids).await }))
}

pub(super) async fn release(State(admin): State<Arc<Admin>>, Json(which): Json<QueueIds>) -> ApiResult<axum::Json<QueueDone>> {
    all_there(&admin, &which.ids).await?;
    Ok(axum::Json(QueueDone { messages: admin.queue()?.release(&which.ids).await }))
}

pub(super) async fn remove(State(admin): State<Arc<Admin>>, Json(which): Json<QueueIds>) -> ApiResult<axum::Json<QueueDone>> {
    all_there(&admin, &which.ids).await?;
    Ok(axum::Json(QueueDone { messages: admin.queue()?.remove(&which.ids).await }))
}

pub(super) async fn summary(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<QueueSummary>>> {
    let now = now_millis();
    let lines = admin.queue()?.summary().await.into_iter().map(|line| QueueSummary {
        destination: line.destination,
        messages: line.messages,
        oldest_seconds: now.saturating_sub(line.oldest) / 1000,
        runs: line.runs,
        next_attempt: line.next_attempt.map(rfc3339),
        down_since: line.down_since.map(rfc3339),
        next_probe: line.next_probe.map(rfc3339),
        last_reply: line.last_reply.map(|r| r.to_string()),
    });
    Ok(axum::Json(lines.collect()))
}

/// A local message: a line of JSON, then the message. Answers when it is safe.
pub(super) async fn submit(State(admin): State<Arc<Admin>>, request: Request) -> ApiResult<axum::Json<Submitted>> {
    let accepted = local_mail::accept(&admin, request.into_body().into_data_stream(), None).await?;
    let refused = accepted.refused.into_iter().map(|r| local_mail::LocalError::Refused(r).to_string()).collect();
    Ok(axum::Json(Submitted { id: accepted.id, refused }))
}

async fn all_there(admin: &Admin, ids: &[QueueId]) -> ApiResult<()> {
    let queue = admin.queue()?;
    let mut missing = Vec::new();
    for id in ids {
        if queue.show(*id).await.is_none() {
            missing.push(*id);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(gone(&missing)) }
}

fn gone(ids: &[QueueId]) -> ApiError {
    let list: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ApiError::not_found(format!("{} is not in the queue (any more); `pillarbox trace` tells what became of it", list.join(", ")))
}
