//! An SMTP client that speaks raw octets and checks what comes back.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stream::{BoxedIo, TlsFacts, connect_tls};
use crate::wait::PATIENCE;

/// A reply as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplyLines {
    /// Each line without its end, codes and all.
    pub lines: Vec<String>,
}

impl ReplyLines {
    /// The three digits.
    pub fn code(&self) -> &str {
        self.lines.first().and_then(|l| l.get(..3)).unwrap_or_default()
    }

    /// Whether some line's text (behind code and separator) matches the pattern.
    pub fn has(&self, pattern: &str) -> bool {
        self.texts().any(|text| crate::pattern::matches(pattern, text))
    }

    /// Each line's text.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|l| l.get(4..).unwrap_or_default())
    }
}

impl fmt::Display for ReplyLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join(" / "))
    }
}

/// One connection. Methods that expect something panic with the whole dialogue when it does not come.
pub struct Client {
    io: Option<BoxedIo>,
    input: BytesMut,
    /// What was said so far, for the message of a failure.
    pub transcript: Vec<String>,
    /// Octets a write; 0 for as many as there are.
    pub split: usize,
    /// TLS, once it is on.
    pub tls: Option<TlsFacts>,
}

impl Client {
    /// Connects, without reading a greeting.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    /// Connects, without reading a greeting; for hosts that may be down.
    pub async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Box::new(stream)))
    }

    /// Speaks over any connection, such as a Unix socket.
    pub fn over(io: BoxedIo) -> Self {
        Self { io: Some(io), input: BytesMut::new(), transcript: Vec::new(), split: 0, tls: None }
    }

    /// Does the handshake now: behind the 220 of STARTTLS, or first of all.
    pub async fn start_tls(&mut self, config: Arc<rustls::ClientConfig>, name: &str) -> io::Result<()> {
        if !self.input.is_empty() {
            return Err(io::Error::other(format!("plain octets before the handshake: {:?}", self.input)));
        }
        let io = self.io.take().ok_or_else(gone)?;
        let (io, facts) = patient("a TLS handshake", connect_tls(io, config, name)).await?;
        self.transcript.push(format!("T: {} {}", facts.version, facts.cipher));
        self.tls = Some(facts);
        self.io = Some(io);
        Ok(())
    }

    /// Sends octets as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        if let Err(e) = self.try_send(bytes).await {
            self.fail(&format!("cannot send {:?}: {e}", String::from_utf8_lossy(bytes)));
        }
    }

    /// Sends octets as they are; the other side may be gone.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let shown = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).escape_debug().to_string();
        self.transcript.push(format!("C: {shown}"));
        let split = if self.split == 0 { bytes.len().max(1) } else { self.split };
        let io = self.io.as_mut().ok_or_else(gone)?;
        for piece in bytes.chunks(split) {
            io.write_all(piece).await?;
            io.flush().await?;
            // The next piece should find this one gone: with Nagle off, each write is a segment.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Sends a line.
    pub async fn line(&mut self, line: &str) {
        self.send(format!("{line}\r\n").as_bytes()).await;
    }

    /// Sends a line and expects a reply whose code begins so.
    pub async fn command(&mut self, line: &str, code: &str) -> ReplyLines {
        self.line(line).await;
        self.expect(code).await
    }

    /// Reads a reply.
    pub async fn reply(&mut self) -> ReplyLines {
        match self.try_reply().await {
            Ok(reply) => reply,
            Err(e) => self.fail(&format!("a reply was to come: {e}")),
        }
    }

    /// Reads a reply whose code begins so.
    pub async fn expect(&mut self, code: &str) -> ReplyLines {
        let reply = self.reply().await;
        if !reply.code().starts_with(code) {
            self.fail(&format!("expected {code}, got {reply}"));
        }
        reply
    }

    /// Reads a reply, or says why there is none.
    pub async fn try_reply(&mut self) -> io::Result<ReplyLines> {
        let mut reply = ReplyLines::default();
        loop {
            let line = self.try_line().await?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            reply.lines.push(line);
            if last {
                return Ok(reply);
            }
        }
    }

    /// Makes a reply that was read the next one to be read.
    pub fn put_back(&mut self, reply: &ReplyLines) {
        let mut again = BytesMut::new();
        for line in &reply.lines {
            again.extend_from_slice(line.as_bytes());
            again.extend_from_slice(b"\r\n");
        }
        again.extend_from_slice(&self.input);
        self.input = again;
    }

    /// Reads one line, without its CRLF; a line that ends in a bare LF is an error.
    pub async fn try_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.input) {
                let line = self.input.split_to(at + 1);
                let line = String::from_utf8_lossy(&line).into_owned();
                let Some(text) = line.strip_suffix("\r\n") else {
                    return Err(io::Error::other(format!("a reply line ends in a bare LF: {line:?}")));
                };
                self.transcript.push(format!("S: {text}"));
                return Ok(text.to_owned());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits for the other side to close; true when it says nothing more before.
    pub async fn closed(&mut self) -> bool {
        loop {
            match self.fill().await {
                Ok(0) | Err(_) => return self.input.is_empty(),
                Ok(_) => {}
            }
        }
    }

    /// Whether nothing comes for this long. The only thing here that takes time; for proofs that a server keeps silent.
    pub async fn silent_for(&mut self, span: Duration) -> bool {
        if !self.input.is_empty() {
            return false;
        }
        tokio::time::timeout(span, self.fill()).await.is_err()
    }

    /// Ends the sending direction and leaves the other open.
    pub async fn shut_down(&mut self) {
        if let Some(io) = &mut self.io {
            let _ = io.shutdown().await;
        }
    }

    /// What came and was not read as a reply yet.
    pub fn unread(&self) -> &[u8] {
        &self.input
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let io = self.io.as_mut().ok_or_else(gone)?;
        patient("the server", io.read_buf(&mut self.input)).await
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\nthe dialogue so far:\n{}", self.transcript.join("\n"))
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// Bounds a wait for the network.
async fn patient<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing from {what} for {} s", PATIENCE.as_secs()))),
    }
}
