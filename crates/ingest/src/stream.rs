//! One type for every kind of connection, read without a buffer of its own while nothing arrives.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A client's connection, before or after TLS.
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP; boxed, since most idle connections are plain.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
    /// Between `STARTTLS` and the end of the handshake, and after it failed.
    Gone,
}

/// Octets read at once while commands are exchanged.
const COMMAND_READ: usize = 16 * 1024;
/// Octets read at once while a message streams in.
const BODY_READ: usize = 64 * 1024;

thread_local! {
    /// Where commands are read before it is known that there are any: an idle connection holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; COMMAND_READ].into_boxed_slice());
}

impl Stream {
    /// Waits for octets and appends them to `input`. Returns how many; 0 is the end of the stream.
    pub(crate) async fn read_commands(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut *self).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) => {
                        input.extend_from_slice(buffer.filled());
                        Poll::Ready(Ok(buffer.filled().len()))
                    }
                    Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                    Poll::Pending => Poll::Pending,
                }
            })
        })
        .await
    }

    /// Writes the last octets. On TCP the kernel may hold them back until the stream is shut down, which the caller does next.
    pub(crate) async fn write_last(&mut self, octets: &[u8]) -> io::Result<()> {
        let mut rest = octets;
        if let Self::Tcp(tcp) = self {
            let flags = rustix::net::SendFlags::MORE | rustix::net::SendFlags::NOSIGNAL;
            let send = || rustix::net::send(&*tcp, rest, flags).map_err(io::Error::from);
            // What cannot be written now is written the usual way.
            let written = tcp.try_io(tokio::io::Interest::WRITABLE, send).unwrap_or(0);
            rest = rest.get(written..).unwrap_or_default();
        }
        if rest.is_empty() {
            return Ok(());
        }
        self.write_all(rest).await?;
        self.flush().await
    }

    /// As [`Self::read_commands`], straight into `input`: for large bodies.
    pub(crate) async fn read_body(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        input.reserve(BODY_READ);
        tokio::io::AsyncReadExt::read_buf(self, input).await
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buffer),
            Self::Tls(s) => {
                let read = Pin::new(s.as_mut()).poll_read(cx, buffer);
                // What TLS itself answers (no renegotiation, a new key) goes out with our next words otherwise, for which the client may wait.
                if read.is_pending() && s.get_ref().1.wants_write() {
                    let _ = Pin::new(s.as_mut()).poll_flush(cx);
                }
                read
            }
            Self::Unix(s) => Pin::new(s).poll_read(cx, buffer),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, data),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, data),
            Self::Unix(s) => Pin::new(s).poll_write(cx, data),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
