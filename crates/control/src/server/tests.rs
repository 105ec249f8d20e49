//! What a hostile or broken client can do to the socket: nothing that keeps others from it.

use std::path::Path;

use pillarbox_config::Config;
use pillarbox_directory::MemoryDirectory;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use super::*;
use crate::client::{Client, ClientError};
use crate::error::Kind;

/// A served socket. Time is paused in these tests: it jumps ahead whenever everybody waits, so that no time-out is really waited for.
struct Socket {
    folder: TempDir,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

impl Socket {
    fn open(router: Router, may_speak: fn(&tokio::net::unix::UCred) -> bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let listener = bind(folder.path()).unwrap();
        let served = tokio::spawn(serve_router(router, listener, shutdown.clone(), may_speak));
        Self { folder, shutdown, served }
    }

    fn api() -> Self {
        let config = Config { hostname: "mail.example.test".into(), ..Config::default() };
        let admin = Admin::new(Arc::new(arc_swap::ArcSwap::from_pointee(config)), Arc::new(MemoryDirectory::new()));
        Self::open(crate::routes::router(Arc::new(admin)), |_| true)
    }

    fn path(&self) -> PathBuf {
        socket_path(self.folder.path())
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path()).await.unwrap()
    }

    /// Sends octets and reads until the server closes.
    async fn say(&self, octets: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may have closed before all of it was taken.
        let _ = stream.write_all(octets).await;
        rest(&mut stream).await
    }

    async fn client(&self) -> Client {
        Client::daemon(&self.path()).await.unwrap().unwrap()
    }

    async fn answers(&self) {
        let status: Value = self.client().await.get("/v1/status").await.unwrap();
        assert_eq!(status.get("hostname").and_then(Value::as_str), Some("mail.example.test"));
    }
}

async fn rest(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_and_others_are_served() {
    let socket = Socket::api();
    for garbage in
        [&b"\0\x01\x02\xff\xfe\r\n\r\n"[..], b"EHLO me\r\n", b"GET /v1/status HTTP/9.9\r\n\r\n", &[b'x'; 100_000], b"\r\n\r\n\r\n"]
    {
        let answer = socket.say(garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    socket.answers().await;
}

#[tokio::test(start_paused = true)]
async fn sizes_are_bounded() {
    let socket = Socket::api();
    let long_header = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    assert!(socket.say(long_header.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many_headers = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000));
    assert!(socket.say(many_headers.as_bytes()).await.starts_with("HTTP/1.1 431"));
    // A body that claims to be huge and is: cut off at the bound.
    let mut stream = socket.connect().await;
    stream.write_all(b"POST /v1/domains HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n").await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move { while writer.write_all(&[b'x'; 65536]).await.is_ok() {} });
    let mut answer = [0; 12];
    reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    flood.abort();
    let impossible = b"POST /v1/domains HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\n{}";
    assert!(socket.say(impossible).await.starts_with("HTTP/1.1 400"));
    socket.answers().await;
}

#[tokio::test(start_paused = true)]
async fn slow_clients_are_given_up() {
    let socket = Socket::api();
    // Half a header, and nothing more.
    let answer = socket.say(b"GET /v1/sta").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // Half a body, and nothing more.
    let answer = socket.say(b"POST /v1/domains HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"na").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("took longer"), "{answer}");
    // An octet at a time.
    let mut stream = socket.connect().await;
    let mut sent = 0;
    for octet in b"GET /v1/status HTTP/1.1\r\nX: ".iter().chain([b'y'; 1000].iter()) {
        if stream.write_all(&[*octet]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(sent < 60, "{sent}");
    socket.answers().await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_hold_nobody_up_for_ever() {
    let socket = Socket::api();
    let mut idle = Vec::new();
    for _ in 0..3 * CONNECTIONS {
        idle.push(socket.connect().await);
    }
    socket.answers().await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_told_so_and_gets_nothing() {
    let router = Router::new().route(
        "/",
        axum::routing::get(|| async {
            if true {
                panic!("a stranger was served")
            }
        }),
    );
    let socket = Socket::open(router, |_| false);
    match socket.client().await.get::<Value>("/").await {
        Err(ClientError::Api(error)) => assert_eq!(error.kind, Kind::Denied),
        // The refusal may come before the request has been written.
        Err(ClientError::Unreachable { .. }) => {}
        other => panic!("{other:?}"),
    }
    let answer = socket.say(b"").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("\"denied\""), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_connection() {
    let router = Router::new()
        .route(
            "/panic",
            axum::routing::get(|| async {
                if true {
                    panic!("on purpose")
                }
            }),
        )
        .route("/fine", axum::routing::get(|| async { axum::Json(1) }));
    let socket = Socket::open(router, |_| true);
    assert!(socket.client().await.get::<Value>("/panic").await.is_err());
    assert_eq!(socket.client().await.get::<u8>("/fine").await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_waits_for_what_is_being_answered() {
    let router = Router::new().route(
        "/slow",
        axum::routing::get(|| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            axum::Json(1)
        }),
    );
    let socket = Socket::open(router, |_| true);
    let client = socket.client().await;
    let answer = tokio::spawn(async move { client.get::<u8>("/slow").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    socket.shutdown.cancel();
    assert_eq!(answer.await.unwrap().unwrap(), 1);
    socket.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_socket_in_use_and_a_file_in_its_place_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_path(folder.path());
    let first = bind(folder.path()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(bind(folder.path()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(first);
    // Left behind by a daemon that died.
    bind(folder.path()).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(bind(folder.path()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert!(Client::daemon(Path::new("/nowhere/control.sock")).await.unwrap().is_none());
}
