//! HTTP over the control socket, as `curl --unix-socket` would speak it.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::wait::PATIENCE;

/// An answer of the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{}: no JSON ({e}): {}", self.status, self.body))
    }
}

/// One request over one connection.
pub(super) async fn request(socket: &Path, method: &str, path: &str, body: Option<&serde_json::Value>) -> Response {
    let body = body.map(ToString::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        // In one piece: a route that takes no body may answer and close before a second one is written.
        stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(answer)) => parse(&answer).unwrap_or_else(|| panic!("{method} {path}: no HTTP: {}", String::from_utf8_lossy(&answer))),
        Ok(Err(e)) => panic!("{method} {path}: {e}"),
        Err(_) => panic!("{method} {path}: no answer"),
    }
}

fn parse(answer: &[u8]) -> Option<Response> {
    let split = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..split)?).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let raw = answer.get(split + 4..)?;
    let body = if head.contains("transfer-encoding: chunked") { unchunk(raw)? } else { raw.to_vec() };
    Some(Response { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunk(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(raw, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(raw.get(..end)?).ok()?.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(end + 2..end + 2 + size)?);
        raw = raw.get(end + 4 + size..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!((plain.status, plain.json()), (200, serde_json::json!({})));
        let chunked = parse(b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap();
        assert_eq!(chunked, Response { status: 404, body: "abcde".into() });
    }
}
