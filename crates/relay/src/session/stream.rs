//! What a session talks through: TCP, TLS over TCP, or a Unix socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A connection to a host.
pub(crate) enum Stream {
    /// Plain text.
    Tcp(TcpStream),
    /// After STARTTLS, or TLS from the first byte.
    Tls(Box<TlsStream<TcpStream>>),
    /// LMTP on this machine.
    Unix(UnixStream),
}

macro_rules! each {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Tls($inner) => {
                let $inner = &mut **$inner;
                $call
            }
            Stream::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Self::Tls(tls) = self.as_mut().get_mut() {
            let read = Pin::new(tls.as_mut()).poll_read(cx, buf);
            // What TLS itself answers (no renegotiation, a new key) goes out with our next words otherwise, for which the host may wait.
            if read.is_pending() && tls.get_ref().1.wants_write() {
                let _ = Pin::new(tls.as_mut()).poll_flush(cx);
            }
            return read;
        }
        each!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
