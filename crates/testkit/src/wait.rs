//! Waiting for things to happen, without sleeping.

use std::time::Duration;

use tokio::sync::watch;

/// How long a test waits for something before it fails. Generous: a slow machine is not a bug.
pub const PATIENCE: Duration = Duration::from_secs(60);

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
