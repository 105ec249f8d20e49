//! What a node does for and with others: answering their questions, taking over a dead one's queue.

use std::path::{Path, PathBuf};

use pillarbox_queue::{AdoptError, Queue, known_folder_id};
use serde::{Deserialize, Serialize};

use crate::admin::Admin;
use crate::api::{Evacuated, QueueEntry};
use crate::error::{ApiError, ApiResult};
use crate::routes::{Filter, entries};

/// A question from node to node.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// One page of the queue.
    List(Filter),
}

/// Its answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The page.
    List(Vec<QueueEntry>),
    /// The question is not understood; it comes from a newer program.
    Unknown,
}

/// Answers another node's question. Whoever can write into the database may ask; nothing but listings is told.
pub async fn answer(queue: &Queue, question: &str) -> String {
    let answer = match serde_json::from_str(question) {
        Ok(Question::List(filter)) => Answer::List(entries(queue, filter).await),
        Err(_) => Answer::Unknown,
    };
    serde_json::to_string(&answer).unwrap_or_default()
}

/// Takes over the queue of a node that is gone.
pub(crate) async fn evacuate(admin: &Admin, given: &Path, progress: &(dyn Fn(u64, u64) + Send + Sync)) -> ApiResult<Evacuated> {
    let (registry, queue) = (admin.registry()?, admin.queue()?);
    let me = admin.node.as_deref().ok_or_else(|| ApiError::unavailable("this node is not registered"))?;
    let Some(folder) = queue_folder(given) else {
        return finish_renamed(admin, given).await;
    };
    let read = folder.clone();
    let id = tokio::task::spawn_blocking(move || known_folder_id(&read)).await.map_err(|e| ApiError::unavailable(e.to_string()))?;
    let id = id.map_err(|e| unreadable(&folder, &e))?.ok_or_else(|| {
        ApiError::refused(format!(
            "{} has no file `node`: no node that shares this directory left it. Start Pillarbox on it instead",
            folder.display()
        ))
    })?;
    let claim = async { registry.claim(&id, me).await.map_err(|error| format!("{}: {error}", folder.display())) };
    let adopted = queue.adopt(&folder, claim, progress).await.map_err(|error| match error {
        AdoptError::Claim(why) => ApiError::refused(why),
        AdoptError::Open(error) => ApiError::refused(error.to_string()),
        error @ AdoptError::Accept { .. } => ApiError::unavailable(format!("{error}; the same command again goes on from there")),
    })?;
    registry.finish(&id, me).await?;
    let folder = adopted.folder.display().to_string();
    Ok(Evacuated { id, messages: adopted.messages, known: adopted.known, damaged: adopted.damaged, folder })
}

/// An evacuation that ended between putting the folder away and telling the register.
async fn finish_renamed(admin: &Admin, given: &Path) -> ApiResult<Evacuated> {
    let (registry, me) = (admin.registry()?, admin.node.as_deref().unwrap_or_default());
    let nothing = || ApiError::not_found(format!("{} is neither a state folder nor a queue folder", given.display()));
    let (above, of) = (given.to_path_buf(), given.parent().map(Path::to_path_buf));
    let found =
        tokio::task::spawn_blocking(move || put_away(&above).into_iter().chain(of.iter().flat_map(|p| put_away(p))).collect::<Vec<_>>());
    for (folder, id) in found.await.map_err(|e| ApiError::unavailable(e.to_string()))? {
        if registry.is_claimed_by(&id, me).await? && registry.finish(&id, me).await? {
            return Ok(Evacuated { id, messages: 0, known: 0, damaged: Vec::new(), folder: folder.display().to_string() });
        }
    }
    Err(nothing())
}

/// Folders in `above` that were put away after an adoption, with their ids.
fn put_away(above: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(above).into_iter().flatten().flatten();
    let adopted = entries.filter(|e| e.file_name().to_str().is_some_and(|name| name.contains(".adopted")));
    adopted.filter_map(|e| Some((e.path(), known_folder_id(&e.path()).ok()??))).collect()
}

/// The queue folder that a path means: itself, or the one in a state folder.
fn queue_folder(given: &Path) -> Option<PathBuf> {
    [given.join("queue"), given.to_path_buf()].into_iter().find(|folder| folder.join("journal").is_dir())
}

fn unreadable(folder: &Path, error: &std::io::Error) -> ApiError {
    let why = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "; it must be the daemon's user's, and below the state folder or one of security.folders",
        _ => "",
    };
    ApiError::refused(format!("{}: {error}{why}", folder.display()))
}
