//! TLS handshakes a second by STARTTLS, full or resumed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::connection::{Access, Connection};
use crate::certificates::trusting_client_config;

/// A client configuration that believes any certificate and keeps no sessions, or keeps them.
pub fn config(resume: bool) -> Arc<ClientConfig> {
    let mut config = (*trusting_client_config()).clone();
    config.resumption = if resume { Resumption::in_memory_sessions(64) } else { Resumption::disabled() };
    Arc::new(config)
}

/// Longest wait for one of them.
const OPENING: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Handshakes {
    /// Handshakes done.
    pub done: u64,
    /// Those of them that were resumed.
    pub resumed: u64,
    /// Time for all.
    pub elapsed: Duration,
    /// The first failure.
    pub failure: Option<String>,
}

/// Opens sessions up to the second EHLO, so many at once, until the time is up and each has had one. Each of them resumes its own, or
/// none; the full handshake that gives it something to resume is neither counted nor timed.
pub async fn run(access: &Access, resume: bool, sessions: usize, time: Duration) -> Handshakes {
    let (done, resumed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let ready = Arc::new(Barrier::new(sessions.saturating_add(1)));
    let mut tasks = JoinSet::new();
    for _ in 0..sessions {
        let access = access.clone().tls(config(resume));
        let (done, resumed, ready) = (Arc::clone(&done), Arc::clone(&resumed), Arc::clone(&ready));
        tasks.spawn(async move {
            let first = if resume { session(&access).await.map(drop) } else { Ok(()) };
            ready.wait().await;
            first?;
            let began = Instant::now();
            loop {
                let was_resumed = session(&access).await?;
                done.fetch_add(1, Ordering::Relaxed);
                resumed.fetch_add(u64::from(was_resumed), Ordering::Relaxed);
                if began.elapsed() >= time {
                    return io::Result::Ok(());
                }
            }
        });
    }
    ready.wait().await;
    let began = Instant::now();
    let mut failure = None;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.map_err(io::Error::other).and_then(|result| result) {
            failure.get_or_insert_with(|| error.to_string());
        }
    }
    Handshakes { done: done.load(Ordering::Relaxed), resumed: resumed.load(Ordering::Relaxed), elapsed: began.elapsed(), failure }
}

/// One session; whether its handshake was resumed.
async fn session(access: &Access) -> io::Result<bool> {
    let late = |what: &'static str| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
    let mut connection = tokio::time::timeout(OPENING, Connection::open(access)).await.map_err(late("no handshake came about"))??;
    let resumed = connection.resumed();
    connection.send(b"QUIT\r\n").await?;
    tokio::time::timeout(OPENING, connection.expect(221)).await.map_err(late("no answer came"))??;
    Ok(resumed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Sink, SinkTls};

    #[tokio::test]
    async fn sessions_are_resumed_when_they_are_kept() {
        let issued = crate::certificates::self_signed(&["mx.bench.test"]);
        let sink = Sink::builder().tls(SinkTls::StartTls(issued.server_config())).start().await;
        for resume in [false, true] {
            let made = run(&Access::new(sink.address()), resume, 1, Duration::from_millis(200)).await;
            assert_eq!(made.failure, None);
            assert!(made.done > 0, "{made:?}");
            assert_eq!(made.resumed, if resume { made.done } else { 0 }, "{made:?}");
        }
    }
}
