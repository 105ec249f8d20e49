//! An HTTPS server that gives one fixed answer and remembers what it was sent.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Issued;

/// The running server.
pub(crate) struct Https {
    pub(crate) port: u16,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Https {
    pub(crate) async fn start(issued: &Issued) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, requests) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let acceptor = tokio_rustls::TlsAcceptor::from(issued.server_config());
        let (told, seen) = (answer.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    request.extend_from_slice(&buffer[..n]);
                    if is_whole(&request) {
                        break;
                    }
                }
                seen.lock().push(request);
                let answer: Vec<u8> = told.lock().clone();
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, answer, requests }
    }

    /// From now on: this status line and content.
    pub(crate) fn say(&self, status: &str, kind: &str, content: &str) {
        let text = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{content}", content.len());
        *self.answer.lock() = text.into_bytes();
    }

    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.requests.lock().clone()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(request, b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
    request.len() >= end + 4 + length
}
