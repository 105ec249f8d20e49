//! A stream that fails when its peer takes nothing for a while, so that one that reads no answer holds no connection for ever.
//!
//! Reading has no such bound here: while a request is being answered the client has nothing to say. Heads and bodies have their own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Wraps a stream; when writing makes no progress for `patience`, it fails with `TimedOut`.
pub(crate) struct Stall<S> {
    inner: S,
    patience: Duration,
    write: Option<Pin<Box<Sleep>>>,
}

impl<S> Stall<S> {
    pub(crate) fn new(inner: S, patience: Duration) -> Self {
        Self { inner, patience, write: None }
    }
}

/// Arms the timer on the first `Pending` and disarms it on progress.
fn watch<T>(
    timer: &mut Option<Pin<Box<Sleep>>>,
    patience: Duration,
    cx: &mut Context<'_>,
    poll: Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    if poll.is_ready() {
        *timer = None;
        return poll;
    }
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(patience)));
    match timer.as_mut().poll(cx) {
        Poll::Ready(()) => {
            timer.as_mut().reset(Instant::now() + patience);
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        }
        Poll::Pending => Poll::Pending,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_write(cx, buf);
        watch(&mut this.write, this.patience, cx, poll)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_flush(cx);
        watch(&mut this.write, this.patience, cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut stalling = Stall::new(ours, Duration::from_secs(30));
        stalling.write_all(b"hello").await.unwrap();
        let mut buffer = [0u8; 5];
        theirs.read_exact(&mut buffer).await.unwrap();
        assert_eq!(stalling.write_all(&[0; 64]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
