//! Accept loops: a task a connection, within the bounds of `limits`, after the PROXY header where one is due.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pillarbox_smtp::replies;
use pillarbox_smtp::server::Role;
use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

use crate::admission::Full;
use crate::connection::{Connection, Peer};
use crate::listener::{Accepted, Listener};
use crate::proxy::{self, Proxied};
use crate::service::{Ingest, is_proxy};
use crate::stream::Stream;

/// Longest wait for a PROXY header, which a balancer sends at once.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait after a failed accept: the usual cause is that descriptors are gone, and only time brings them back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often such a failure is logged.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Serves one listener until shut-down. Sessions are tracked by `sessions`, so that the daemon can wait for them.
pub async fn serve(ingest: Arc<Ingest>, listener: Listener, role: Role, sessions: TaskTracker) {
    let address = listener.address();
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ingest.shutdown.cancelled() => return,
        };
        match accepted {
            Ok(accepted) => {
                let ingest = ingest.clone();
                sessions.spawn(async move { greet(ingest, accepted, role).await });
            }
            Err(error) => {
                metrics::counter!("pillarbox_ingest_accept_errors_total").increment(1);
                // Ten lines a second would fill the disk on top of it.
                if told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
                    tracing::warn!(%address, %error, "connections cannot be accepted at the moment; they wait");
                    told = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Finds out who connected, takes a place for it, and runs the session.
async fn greet(ingest: Arc<Ingest>, accepted: Accepted, role: Role) {
    let settings = ingest.settings();
    let unix = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut stream, mut client, mut local) = match accepted {
        Accepted::Tcp(stream, peer) => {
            let local = stream.local_addr().unwrap_or(unix);
            (Stream::Tcp(stream), Some(peer), local)
        }
        Accepted::Unix(stream) => (Stream::Unix(stream), None, unix),
    };
    if let Some(peer) = client
        && is_proxy(&settings.config, peer.ip())
    {
        match tokio::time::timeout(PROXY_TIMEOUT, proxy::read_header(&mut stream)).await {
            Ok(Ok(Proxied::Client { source, destination })) => {
                client = Some(source);
                local = destination;
            }
            Ok(Ok(Proxied::Local)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%peer, %error, "connection closed");
                return;
            }
            Err(_) => {
                tracing::warn!(%peer, "connection closed: no PROXY header came in time");
                return;
            }
        }
    }
    let client = client.map(|c| SocketAddr::new(c.ip().to_canonical(), c.port()));
    let limits = &settings.config.limits;
    let permit = match ingest.admission.enter(client.map(|c| c.ip()), limits.connections, limits.connections_per_client) {
        Ok(permit) => permit,
        Err(full) => return turn_away(&mut stream, role, full, client).await,
    };
    let connection = Connection::new(ingest.clone(), settings, stream, Peer { client, local }, role);
    connection.run().await;
    drop(permit);
}

/// 421 for a connection beyond the bounds. On a port where TLS comes first nobody could read it, so that one is just closed.
async fn turn_away(stream: &mut Stream, role: Role, full: Full, client: Option<SocketAddr>) {
    metrics::counter!("pillarbox_ingest_connections_refused_total").increment(1);
    let reply = match full {
        Full::Server => replies::too_many_connections(),
        Full::Client => replies::too_many_connections_from_you(),
    };
    let client = client.map(|c| c.ip().to_string()).unwrap_or_default();
    tracing::info!(target: "pillarbox::event", event = "reject", client, status = "connection", reply = %reply);
    if role != Role::SubmissionTls {
        let mut out = bytes::BytesMut::new();
        reply.write_to(&mut out);
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&out)).await;
        let _ = stream.shutdown().await;
    }
}
