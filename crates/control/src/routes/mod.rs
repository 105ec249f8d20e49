//! The routes of the API, one file a noun.

mod aliases;
mod app_passwords;
mod check;
mod dns;
mod domains;
mod import;
mod input;
mod move_directory;
mod news;
mod nodes;
mod queue;
mod reports;
mod route;
mod status;
mod transfer;
mod users;
mod vacation;

pub(crate) use queue::{Filter, entries};

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post, put};

use crate::admin::Admin;
use crate::error::ApiError;

/// The whole API over `admin`.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/v1/domains", get(domains::list).post(domains::add))
        .route("/v1/domains/{name}", get(domains::show).delete(domains::remove))
        .route("/v1/users", get(users::list).post(users::add))
        .route("/v1/users/import", post(import::import))
        .route("/v1/users/export", get(import::export))
        .route("/v1/users/{address}", get(users::show).patch(users::change).delete(users::remove))
        .route("/v1/users/{address}/password", put(users::password))
        .route("/v1/aliases", get(aliases::list).post(aliases::add))
        .route("/v1/aliases/{address}", get(aliases::show).delete(aliases::remove))
        .route("/v1/app-passwords/{address}", get(app_passwords::list).post(app_passwords::add))
        .route("/v1/app-passwords/{address}/{label}", delete(app_passwords::revoke))
        .route("/v1/vacation/{address}", get(vacation::show).put(vacation::set).delete(vacation::clear))
        .route("/v1/dns/{domain}/records", get(dns::zone))
        .route("/v1/dns/{domain}/check", get(dns::zone_check))
        .route("/v1/dkim/{domain}", get(dns::keys))
        .route("/v1/dkim/{domain}/rotate", post(dns::rotate))
        .route("/v1/queue", get(queue::list))
        .route("/v1/queue/summary", get(queue::summary))
        .route("/v1/queue/retry", post(queue::retry))
        .route("/v1/queue/hold", post(queue::hold))
        .route("/v1/queue/release", post(queue::release))
        .route("/v1/queue/remove", post(queue::remove))
        .route("/v1/queue/evacuate", post(nodes::evacuate))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", delete(nodes::remove))
        .route("/v1/nodes/{id}/queue", get(nodes::queue))
        .route("/v1/directory", get(move_directory::show))
        .route("/v1/directory/migrate", post(move_directory::migrate))
        .route("/v1/queue/{id}", get(queue::show))
        .route("/v1/queue/{id}/envelope", get(queue::envelope))
        .route("/v1/queue/{id}/message", get(queue::message))
        .route("/v1/submit", post(queue::submit))
        .route("/v1/trace", get(reports::trace))
        .route("/v1/reports/dmarc", get(reports::dmarc))
        .route("/v1/reports/tls", get(reports::tls))
        .route("/v1/reports/tls/send", post(reports::send_tls))
        .route("/v1/tls", get(reports::certificates))
        .route("/v1/tls/renew", post(reports::renew))
        .route("/v1/check/relay", post(check::relay))
        .route("/v1/export", get(transfer::export))
        .route("/v1/apply", post(transfer::apply))
        .route("/v1/route/{address}", get(route::route))
        .route("/v1/status", get(status::status))
        .route("/v1/reload", post(status::reload))
        .fallback(|uri: axum::http::Uri| async move { ApiError::not_found(format!("there is no {}", input::shown(uri.path()))) })
        .method_not_allowed_fallback(|| async { ApiError::usage("this path does not take that method") })
        .with_state(admin)
}
