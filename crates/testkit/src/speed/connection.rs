//! A client's connection that keeps its buffers and reads replies without building them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a server is spoken to before the first message.
#[derive(Clone)]
pub struct Access {
    /// Where it listens.
    pub address: SocketAddr,
    /// Handshake by STARTTLS; the session cache in it decides whether handshakes are resumed.
    pub tls: Option<Arc<ClientConfig>>,
    /// The command `AUTH PLAIN …` with its line end.
    auth: Option<Arc<[u8]>>,
    /// Groups of commands where the server offers PIPELINING (RFC 2920), as senders do; `false`: one command, one wait.
    pub pipelining: bool,
    /// QUIT waits for the answer to the message: not every server that offers PIPELINING reads what comes right behind the dot.
    pub quit_apart: bool,
}

impl Access {
    /// Without TLS or a login, pipelining where it is offered.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, tls: None, auth: None, pipelining: true, quit_apart: false }
    }

    /// The same by STARTTLS.
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The same with a login.
    pub fn login(mut self, user: &str, password: &str) -> Self {
        let response = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        self.auth = Some(format!("AUTH PLAIN {response}\r\n").into_bytes().into());
        self
    }

    /// The same with one command at a time.
    pub fn step_by_step(mut self) -> Self {
        self.pipelining = false;
        self
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// While a handshake goes on, and after it failed.
    Gone,
}

/// One connection.
pub(super) struct Connection {
    io: Io,
    input: Box<[u8; 4096]>,
    start: usize,
    end: usize,
    /// The server offers PIPELINING and we want it.
    pub(super) pipelining: bool,
}

impl Connection {
    /// Connects, greets, and does what `access` asks for.
    pub(super) async fn open(access: &Access) -> io::Result<Self> {
        let plain = TcpStream::connect(access.address).await?;
        plain.set_nodelay(true)?;
        let mut this = Self { io: Io::Plain(plain), input: Box::new([0; 4096]), start: 0, end: 0, pipelining: false };
        this.expect(220).await?;
        let mut offered = this.hello().await?;
        if let Some(config) = &access.tls {
            this.send(b"STARTTLS\r\n").await?;
            this.expect(220).await?;
            this.handshake(config).await?;
            offered = this.hello().await?;
        }
        if let Some(auth) = &access.auth {
            this.send(auth).await?;
            this.expect(235).await?;
        }
        this.pipelining = access.pipelining && offered;
        Ok(this)
    }

    /// EHLO; whether PIPELINING is offered.
    async fn hello(&mut self) -> io::Result<bool> {
        self.send(b"EHLO client.test\r\n").await?;
        let mut offered = false;
        loop {
            let (code, last) = self.line(|text| offered |= text.eq_ignore_ascii_case(b"PIPELINING")).await?;
            match (code, last) {
                (250, true) => return Ok(offered),
                (250, false) => {}
                _ => return Err(unexpected(250, code)),
            }
        }
    }

    async fn handshake(&mut self, config: &Arc<ClientConfig>) -> io::Result<()> {
        let name = ServerName::try_from("mx.bench.test").map_err(io::Error::other)?;
        let Io::Plain(plain) = std::mem::replace(&mut self.io, Io::Gone) else {
            return Err(io::Error::other("TLS is on already"));
        };
        self.io = Io::Tls(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, plain).await?));
        Ok(())
    }

    /// Whether the handshake was one of a resumed session.
    pub(super) fn resumed(&self) -> bool {
        match &self.io {
            Io::Tls(tls) => tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            Io::Plain(_) | Io::Gone => false,
        }
    }

    pub(super) async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.io.write_all(octets).await?;
        self.io.flush().await
    }

    /// Reads a reply and wants this code.
    pub(super) async fn expect(&mut self, wanted: u16) -> io::Result<()> {
        loop {
            match self.line(|_| ()).await? {
                (code, true) if code == wanted => return Ok(()),
                (code, false) if code == wanted => {}
                (code, _) => return Err(unexpected(wanted, code)),
            }
        }
    }

    /// Reads one line: its code, and whether it is the reply's last.
    async fn line(&mut self, mut text: impl FnMut(&[u8])) -> io::Result<(u16, bool)> {
        loop {
            let unread = self.input.get(self.start..self.end).unwrap_or_default();
            if let Some(length) = memchr::memchr(b'\n', unread) {
                let line = unread.get(..length).unwrap_or_default();
                let code = line.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0);
                let last = line.get(3) != Some(&b'-');
                text(line.get(4..).unwrap_or_default().trim_ascii_end());
                self.start += length + 1;
                return Ok((code, last));
            }
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let room = self.input.get_mut(self.end..).filter(|room| !room.is_empty());
            let room = room.ok_or_else(|| io::Error::other("the server sends a line without end"))?;
            let read = self.io.read(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.end += read;
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buffer),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_write(cx, octets),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, octets),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

fn unexpected(wanted: u16, got: u16) -> io::Error {
    io::Error::other(format!("the server said {got} where {wanted} was due"))
}
