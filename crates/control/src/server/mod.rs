//! The server on `<runtime>/control.sock`: HTTP/1.1 for those whose credentials the kernel vouches for.

mod stall;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::peer;

/// Connections served at once; further ones wait in the listen queue.
const CONNECTIONS: usize = 64;
/// Longest wait for a whole request header, and for the next request on an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time in which a client takes nothing of its answer.
const STALL: Duration = Duration::from_secs(30);
/// Largest request header, octets.
const HEADER_SIZE: usize = 16 * 1024;
/// Most header fields of a request.
const HEADER_FIELDS: usize = 64;
/// How long open requests may go on after shut-down began.
const GRACE: Duration = Duration::from_secs(10);

/// The socket's path.
pub fn socket_path(runtime: &Path) -> PathBuf {
    runtime.join("control.sock")
}

/// Makes the socket, mode 0660 and the group `pillarbox` where the system has it and lets us. A socket left by a dead daemon is replaced; one that
/// still answers is not (`AddrInUse`). Nobody can connect before the mode is right: it is bound under another name and renamed.
pub fn bind(runtime: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(runtime)?;
    let path = socket_path(runtime);
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists and is not a socket", path.display())));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(&path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another daemon answers on {}", path.display())));
        }
        _ => {}
    }
    let fresh = runtime.join(format!(".control.{}.sock", std::process::id()));
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
    if let Some(gid) = peer::group_id() {
        // Fails for a daemon that is not in the group; then root and its own user administer it.
        let _ = std::os::unix::fs::chown(&fresh, None, Some(gid));
    }
    std::fs::rename(&fresh, &path)?;
    Ok(listener)
}

/// Serves until `shutdown`, then lets open requests finish for a short while.
pub async fn serve(admin: Arc<Admin>, listener: UnixListener, shutdown: CancellationToken) -> io::Result<()> {
    serve_router(crate::routes::router(admin), listener, shutdown, peer::may_speak).await
}

/// [`serve`] for any router and any rule about peers.
pub(crate) async fn serve_router(
    router: Router,
    listener: UnixListener,
    shutdown: CancellationToken,
    may_speak: fn(&tokio::net::unix::UCred) -> bool,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = permits.clone().acquire_owned() => match permit { Ok(permit) => permit, Err(_) => break },
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: waiting is all that helps.
                    tracing::warn!(%error, "control socket: cannot accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _permit = permit;
            connection(stream, router, shutdown, may_speak).await;
        });
    }
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("control socket: requests were still open at shut-down");
    }
    Ok(())
}

async fn connection(stream: UnixStream, router: Router, shutdown: CancellationToken, may_speak: fn(&tokio::net::unix::UCred) -> bool) {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%error, "control socket: the peer's credentials cannot be had");
            return;
        }
    };
    if !tokio::task::spawn_blocking(move || may_speak(&peer)).await.unwrap_or(false) {
        tracing::warn!(uid = peer.uid(), gid = peer.gid(), "control socket: refused");
        refuse(stream).await;
        return;
    }
    let service = TowerToHyperService::new(router);
    let io = TokioIo::new(stall::Stall::new(stream, STALL));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_SIZE)
        .max_headers(HEADER_FIELDS)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "control socket: connection ended");
    }
}

async fn refuse(mut stream: UnixStream) {
    const BODY: &str = "{\"error\":{\"kind\":\"denied\",\"message\":\"only root, the daemon's user and members of the group pillarbox may administer this server\"}}";
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let _ = tokio::time::timeout(HEADER_TIMEOUT, async {
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        // Until the stranger has gone, or said too much: a socket closed before its request was read shows it an error in place of the reason.
        let _ = tokio::io::copy(&mut (&mut stream).take(HEADER_SIZE as u64), &mut tokio::io::sink()).await;
    })
    .await;
}
