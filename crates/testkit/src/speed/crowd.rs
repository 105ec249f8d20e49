//! Connections that are open, greeted and silent: what each costs the server in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::{Access, Connection};

/// Connections being opened at once.
const AT_ONCE: usize = 16;

/// Longest wait for a connection to be greeted.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that stay open until this is dropped.
pub struct Crowd {
    connections: Vec<Connection>,
    /// Why those that are missing were not opened: the first cause.
    pub failure: Option<String>,
}

impl Crowd {
    /// Opens so many, up to the answer to EHLO (after TLS, where `access` has it).
    pub async fn gather(access: &Access, count: usize) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut opening = JoinSet::new();
        for _ in 0..count {
            let (access, places) = (access.clone(), Arc::clone(&places));
            opening.spawn(async move {
                let _place = places.acquire().await.map_err(io::Error::other)?;
                let opened = tokio::time::timeout(PATIENCE, Connection::open(&access)).await;
                opened.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no greeting came")))
            });
        }
        let mut this = Self { connections: Vec::with_capacity(count), failure: None };
        while let Some(opened) = opening.join_next().await {
            match opened.map_err(io::Error::other).and_then(|opened| opened) {
                Ok(connection) => this.connections.push(connection),
                Err(error) => _ = this.failure.get_or_insert_with(|| error.to_string()),
            }
        }
        this
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sink;

    #[tokio::test]
    async fn all_are_open_at_once() {
        let sink = Sink::start().await;
        let crowd = Crowd::gather(&Access::new(sink.address()), 50).await;
        assert_eq!((crowd.len(), crowd.failure.clone(), sink.connections()), (50, None, 50));
    }
}
