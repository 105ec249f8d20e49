//! `/v1/directory`: where it is kept, and moving it elsewhere while it is in use.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use pillarbox_directory::{Adapt, Directory, Movable, Place};
use pillarbox_screen::dkim::Carry;

use super::input::Json;
use super::news;
use crate::admin::Admin;
use crate::api::{DirectoryPlace, MoveTo, Moved};
use crate::error::{ApiError, ApiResult};

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

/// Answers with lines of JSON, see [`crate::api::News`].
pub(super) async fn migrate(State(admin): State<Arc<Admin>>, Json(wanted): Json<MoveTo>) -> ApiResult<Response> {
    let config = admin.config();
    let state = config.paths.state.clone();
    let to = Place::parse(&wanted.to, &state)?;
    let movable = Arc::clone(movable(&admin)?);
    let adapt: Arc<dyn Adapt> = Arc::new(match &to {
        Place::Postgres(_) => Carry::IntoRecords(state.clone()),
        Place::Sled(path) => Carry::IntoFiles(path.parent().map_or_else(|| state.clone(), PathBuf::from)),
    });
    let mirrored = admin.daemon.is_some();
    Ok(news::of(|progress| async move {
        let copied = movable.migrate(&to, &config.directory, wanted.replace, adapt, progress).await?;
        Ok(Moved { to: to.to_string(), copied, settings: to.settings(&state), mirrored })
    }))
}
