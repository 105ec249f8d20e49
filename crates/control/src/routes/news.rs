//! Answers to what takes its time: lines of JSON that say how far it is, and how it ended.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use pillarbox_directory::Progress;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::api::News;
use crate::error::ApiResult;

/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Does `work` and tells of it. It goes on when whoever asked goes away.
pub(super) fn of<T, W>(work: impl FnOnce(Progress) -> W) -> Response
where
    T: Serialize + Send + Sync + 'static,
    W: Future<Output = ApiResult<T>> + Send + 'static,
{
    // Few lines wait at a time; progress that nobody reads is dropped, the end is not.
    let (tell, lines) = mpsc::channel::<News<T>>(16);
    let (last, telling) = (Mutex::new(None::<Instant>), tell.clone());
    let progress: Progress = Arc::new(move |done, total| {
        let mut last = last.lock();
        if last.is_none_or(|last| last.elapsed() >= TELL_EVERY) {
            *last = Some(Instant::now());
            let _ = telling.try_send(News::Progress { done, total });
        }
    });
    let work = tokio::spawn(work(progress));
    tokio::spawn(async move {
        let end = match work.await {
            Ok(Ok(done)) => News::Done(done),
            Ok(Err(error)) => News::Error(error),
            Err(error) => News::Error(crate::error::ApiError::unavailable(error.to_string())),
        };
        let _ = tell.send(end).await;
    });
    let lines = futures::stream::unfold(lines, async |mut lines| {
        let line = lines.recv().await?;
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        Some((Ok::<_, Infallible>(text), lines))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
