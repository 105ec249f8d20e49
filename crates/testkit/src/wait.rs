//! Waiting for things to happen, without sleeping.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

/// How long a test waits for something before it fails. Generous: a slow machine is not a bug.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a program says on `stream` that it is ready; panics with its words when it ends or [`PATIENCE`] does. What it says
/// later goes nowhere, but is read: a full pipe would stop it.
pub async fn until_it_says(program: &str, stream: impl AsyncRead + Unpin + Send + 'static, is_ready: impl Fn(&str) -> bool) {
    let mut lines = BufReader::new(stream).lines();
    let mut said = Vec::new();
    let ready = async {
        while let Ok(Some(line)) = lines.next_line().await {
            let ready = is_ready(&line);
            said.push(line);
            if ready {
                return true;
            }
        }
        false
    };
    let ready = tokio::time::timeout(PATIENCE, ready).await.unwrap_or(false);
    assert!(ready, "{program} did not start:\n{}", said.join("\n"));
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

/// Counts changes; whoever waits looks again after each.
#[derive(Debug, Clone)]
pub struct Changes {
    sender: watch::Sender<u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { sender: watch::Sender::new(0) }
    }
}

impl Changes {
    /// Something changed.
    pub fn note(&self) {
        self.sender.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Waits until `look` finds something. Panics after [`PATIENCE`], with `what` was awaited and `state` as it was then.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>, state: impl FnOnce() -> String) -> T {
        let mut receiver = self.sender.subscribe();
        let waiting = async {
            loop {
                receiver.mark_unchanged();
                if let Some(found) = look() {
                    return found;
                }
                // The sender lives as long as `self`.
                let _ = receiver.changed().await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("waited {} s for {what}; {}", PATIENCE.as_secs(), state()),
        }
    }
}
