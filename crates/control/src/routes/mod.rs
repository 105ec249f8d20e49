//! The routes of the API, one file a noun.

mod domains;
mod input;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::admin::Admin;
use crate::error::ApiError;

/// The whole API over `admin`.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/v1/domains", get(domains::list).post(domains::add))
        .route("/v1/domains/{name}", get(domains::show).delete(domains::remove))
        .route("/v1/status", get(status::status))
        .route("/v1/reload", post(status::reload))
        .fallback(|uri: axum::http::Uri| async move { ApiError::not_found(format!("there is no {}", input::shown(uri.path()))) })
        .method_not_allowed_fallback(|| async { ApiError::usage("this path does not take that method") })
        .with_state(admin)
}
