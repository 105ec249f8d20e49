//! What the shell offers after a Tab: domains, users and queue ids of the running server, keys of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use pillarbox_config::{Config, KEYS};
use pillarbox_control::api::{AliasInfo, DomainInfo, QueueEntry, UserInfo};
use pillarbox_control::{Client, socket_path};
use serde::de::DeserializeOwned;

/// Longest wait: a key press must not hang.
const PATIENCE: Duration = Duration::from_millis(800);
/// Most that is offered.
const MOST: usize = 1000;

/// Domains of the server.
pub(crate) fn domains() -> Vec<CompletionCandidate> {
    offered(ask::<DomainInfo>("/v1/domains").into_iter().map(|d| d.name.to_string()))
}

/// Users of the server.
pub(crate) fn users() -> Vec<CompletionCandidate> {
    offered(ask::<UserInfo>(&format!("/v1/users?limit={MOST}")).into_iter().map(|u| u.address.to_string()))
}

/// Aliases of the server.
pub(crate) fn aliases() -> Vec<CompletionCandidate> {
    offered(ask::<AliasInfo>(&format!("/v1/aliases?limit={MOST}")).into_iter().map(|a| a.address.to_string()))
}

/// Messages in the queue.
pub(crate) fn messages() -> Vec<CompletionCandidate> {
    offered(ask::<QueueEntry>(&format!("/v1/queue?limit={MOST}")).into_iter().map(|e| e.id.to_string()))
}

/// What `check` takes.
pub(crate) fn checks() -> Vec<CompletionCandidate> {
    let mut found = offered(crate::commands::check::PARTS.iter().map(|p| (*p).to_owned()));
    found.extend(domains());
    found
}

/// Keys of the configuration.
pub(crate) fn keys() -> Vec<CompletionCandidate> {
    KEYS.iter().map(|k| CompletionCandidate::new(k.path).help(Some(k.text.into()))).collect()
}

fn offered(values: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    values.map(CompletionCandidate::new).collect()
}

/// Asks the running daemon; without one nothing is offered, since a key press must neither open the database nor give up root.
fn ask<T: DeserializeOwned>(path: &str) -> Vec<T> {
    let file = std::env::var_os("PILLARBOX_CONFIG").map(PathBuf::from);
    let Ok(config) = Config::load(file.as_deref()) else { return vec![] };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return vec![] };
    let answer = async {
        let client = Client::daemon(&socket_path(&config.paths.runtime)).await.ok()??;
        client.get(path).await.ok()
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await }).ok().flatten().unwrap_or_default()
}
