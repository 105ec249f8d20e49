//! `/v1/directory`: where it is kept, and moving it elsewhere while it is in use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use pillarbox_directory::{Adapt, Directory, Movable, Place};
use pillarbox_screen::dkim::Carry;
use tokio::sync::mpsc;

use super::input::Json;
use crate::admin::Admin;
use crate::api::{DirectoryPlace, MoveNews, MoveTo, Moved};
use crate::error::{ApiError, ApiResult};

/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

fn movable(admin: &Admin) -> ApiResult<&Arc<Movable>> {
    admin.movable.as_ref().ok_or_else(|| ApiError::refused("this directory cannot be moved"))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<DirectoryPlace>> {
    let movable = movable(&admin)?;
    let mut out = DirectoryPlace {
        place: movable.place().to_string(),
        mirror: movable.mirror().await.map(|place| place.to_string()),
        trouble: movable.health().err(),
        domains: 0,
        users: 0,
        aliases: 0,
    };
    for domain in movable.domains().await? {
        let (users, aliases) = movable.counts(&domain.name).await?;
        out.domains = out.domains.saturating_add(1);
        out.users = out.users.saturating_add(users);
        out.aliases = out.aliases.saturating_add(aliases);
    }
    Ok(axum::Json(out))
}

/// Answers with lines of JSON, see [`MoveNews`].
pub(super) async fn migrate(State(admin): State<Arc<Admin>>, Json(wanted): Json<MoveTo>) -> ApiResult<Response> {
    let config = admin.config();
    let state = config.paths.state.clone();
    let to = Place::parse(&wanted.to, &state)?;
    let movable = Arc::clone(movable(&admin)?);
    let adapt: Arc<dyn Adapt> = Arc::new(match &to {
        Place::Postgres(_) => Carry::IntoRecords(state.clone()),
        Place::Sled(path) => Carry::IntoFiles(path.parent().map_or_else(|| state.clone(), PathBuf::from)),
    });
    // Few lines wait at a time; progress that nobody reads is dropped, the end is not.
    let (tell, news) = mpsc::channel::<MoveNews>(16);
    let mirrored = admin.daemon.is_some();
    tokio::spawn(async move {
        let (last, telling) = (Mutex::new(Instant::now()), tell.clone());
        let progress = move |done, total| {
            let mut last = last.lock();
            if last.elapsed() >= TELL_EVERY {
                *last = Instant::now();
                let _ = telling.try_send(MoveNews::Progress { done, total });
            }
        };
        let moved = movable.migrate(&to, config.directory.serve_stale, wanted.replace, adapt, Arc::new(progress)).await;
        let end = match moved {
            Ok(copied) => MoveNews::Moved(Moved { to: to.to_string(), copied, settings: to.settings(&state), mirrored }),
            Err(error) => MoveNews::Error(ApiError::from(error)),
        };
        let _ = tell.send(end).await;
    });
    let lines = futures::stream::unfold(news, async |mut news| {
        let line = news.recv().await?;
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        Some((Ok::<_, std::convert::Infallible>(text), news))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}
