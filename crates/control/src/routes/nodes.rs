//! `/v1/nodes`, `/v1/queue/evacuate`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::input::{Asked, Json, Named};
use super::news;
use super::queue::{Filter, entries};
use crate::admin::Admin;
use crate::api::{EvacuateFrom, NodeInfo, NodeLine, NodeState, QueueEntry};
use crate::error::{ApiError, ApiResult};
use crate::nodes::{self, Answer, Question};

/// How long a node is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> ApiResult<axum::Json<Vec<NodeLine>>> {
    let nodes = admin.registry()?.nodes().await?;
    Ok(axum::Json(nodes.into_iter().map(|node| NodeLine { this: admin.node.as_deref() == Some(&node.id), node }).collect()))
}

/// Takes a node out of the register, by its id or its name.
pub(super) async fn remove(State(admin): State<Arc<Admin>>, Named(which): Named<String>) -> ApiResult<StatusCode> {
    let registry = admin.registry()?;
    let mut found: Vec<NodeInfo> = registry.nodes().await?.into_iter().filter(|node| node.id == which || node.name == which).collect();
    if found.len() > 1 {
        // Of several with one name the one that can be removed is meant.
        found.retain(|node| matches!(node.state, NodeState::Silent | NodeState::Stopped));
    }
    match found.as_slice() {
        [node] => {
            registry.remove(&node.id).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        [] => Err(ApiError::not_found(format!("no node {which} can be removed; `pillarbox node list --all` shows them"))),
        _ => Err(ApiError::usage(format!("several nodes are called {which}; give the id, which `pillarbox --json node list` shows"))),
    }
}

/// One page of a node's queue: our own at once, another's through the database.
pub(super) async fn queue(
    State(admin): State<Arc<Admin>>,
    Named(id): Named<String>,
    Asked(filter): Asked<Filter>,
) -> ApiResult<axum::Json<Vec<QueueEntry>>> {
    if let (Some(me), Some(queue)) = (&admin.node, &admin.queue)
        && *me == id
    {
        return Ok(axum::Json(entries(queue, filter).await));
    }
    let question = serde_json::to_string(&Question::List(filter)).map_err(|e| ApiError::usage(e.to_string()))?;
    let answer = admin.registry()?.ask(&id, &question, PATIENCE).await?;
    let answer = answer.ok_or_else(|| ApiError::unavailable(format!("the node did not answer within {} s", PATIENCE.as_secs())))?;
    match serde_json::from_str(&answer) {
        Ok(Answer::List(page)) => Ok(axum::Json(page)),
        Ok(Answer::Unknown) | Err(_) => {
            Err(ApiError::unavailable("the node runs another version, and the two do not understand each other"))
        }
    }
}

/// Answers with lines of JSON, see [`crate::api::News`].
pub(super) async fn evacuate(State(admin): State<Arc<Admin>>, Json(from): Json<EvacuateFrom>) -> Response {
    news::of(|progress| async move { nodes::evacuate(&admin, &from.folder, &*progress).await })
}
