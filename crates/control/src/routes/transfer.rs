//! `/v1/export`, `/v1/apply`: the whole directory as readable TOML, and back.

use std::sync::Arc;

use axum::extract::State;
use pillarbox_directory::export::{self, ApplyOptions, ExportError};
use serde::Deserialize;

use super::input::{Asked, Text};
use crate::admin::Admin;
use crate::api::ApplyInfo;
use crate::error::{ApiError, ApiResult};

pub(super) async fn export(State(admin): State<Arc<Admin>>) -> ApiResult<String> {
    export::render(admin.directory.as_ref()).await.map_err(refusal)
}

#[derive(Deserialize)]
pub(super) struct Apply {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    prune: bool,
}

pub(super) async fn apply(State(admin): State<Arc<Admin>>, Asked(how): Asked<Apply>, Text(text): Text) -> ApiResult<axum::Json<ApplyInfo>> {
    let options = ApplyOptions { dry_run: how.dry_run, prune: how.prune, cost: admin.config().auth.argon2 };
    let plan = export::apply(admin.directory.as_ref(), &text, &options).await.map_err(refusal)?;
    if !how.dry_run {
        crate::held::resume_all(&admin).await?;
    }
    let changes = plan.changes.iter().map(ToString::to_string).collect();
    Ok(axum::Json(ApplyInfo { changes, applied: !how.dry_run }))
}

fn refusal(error: ExportError) -> ApiError {
    match error {
        ExportError::Directory(error) => error.into(),
        other => ApiError::refused(other.to_string()),
    }
}
