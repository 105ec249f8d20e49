//! Reaching a host: of several addresses the first that answers, each with a head start over the next (RFC 8305 §5); and connections that
//! notice when the far end is gone.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

/// The head start of an address over the next. A second is the time after which a lost SYN is sent again; the quarter of one that browsers
/// allow would greet distant hosts twice, and mail has no one watching.
pub(crate) const HEAD_START: Duration = Duration::from_secs(1);

/// What was sent and stays unacknowledged for so long ends the connection (RFC 5482); so does silence to questions whether anyone is there.
const UNACKNOWLEDGED: Duration = Duration::from_secs(180);
/// A connection on which nothing was said for so long is asked whether anyone is there. Replies may take ten minutes, a dead host need not.
const ASK_AFTER_SECONDS: u32 = 60;
/// And again.
const ASK_EVERY_SECONDS: u32 = 30;

/// What became of several attempts, each named by its place in their order.
#[derive(Debug)]
pub(crate) struct Reached<T> {
    /// The first that came to a connection.
    pub(crate) first: Option<(usize, T)>,
    /// Those that failed, and why.
    pub(crate) failed: Vec<(usize, io::Error)>,
    /// Those that had a head start and were overtaken all the same. They were given up.
    pub(crate) slow: Vec<usize>,
}

/// Begins the attempts one after the other, the next when one fails or the latest has had its head start, and takes the first that succeeds.
/// The others are dropped.
pub(crate) async fn first<T>(attempts: Vec<impl Future<Output = io::Result<T>>>, head_start: Duration) -> Reached<T> {
    let mut waiting = attempts.into_iter().enumerate().peekable();
    let mut running = FuturesUnordered::new();
    let mut failed: Vec<(usize, io::Error)> = Vec::new();
    loop {
        if let Some((n, attempt)) = waiting.next() {
            running.push(async move { (n, attempt.await) });
        }
        let overtake = sleep_until(Instant::now() + head_start);
        let more = waiting.peek().is_some();
        tokio::select! {
            ended = running.next() => match ended {
                Some((winner, Ok(reached))) => {
                    let slow = (0..winner).filter(|n| failed.iter().all(|(other, _)| other != n)).collect();
                    return Reached { first: Some((winner, reached)), failed, slow };
                }
                Some((n, Err(error))) => failed.push((n, error)),
                None => return Reached { first: None, failed, slow: Vec::new() },
            },
            () = overtake, if more => {}
        }
    }
}

/// A connection to one address, from `source` where one is given.
pub(crate) async fn tcp(address: SocketAddr, source: Option<IpAddr>, wait: Duration) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = timeout(wait, socket.connect(address)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    watch(&stream)?;
    Ok(stream)
}

/// Lets the kernel find out when the far end is gone.
fn watch(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::TcpUserTimeout, &u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX))?;
    setsockopt(stream, sockopt::TcpKeepIdle, &ASK_AFTER_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &ASK_EVERY_SECONDS)?;
    Ok(setsockopt(stream, sockopt::KeepAlive, &true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;
    use tokio::sync::Notify;

    /// Longer than any test runs.
    const NEVER: Duration = Duration::from_secs(100_000);
    const AT_ONCE: Duration = Duration::ZERO;

    /// What an attempt does.
    #[derive(Clone, Copy)]
    enum Does {
        Answer,
        Refuse,
        Nothing,
        /// Answers once another attempt was begun.
        AnswerLate,
        /// Lets those that are late answer, and does nothing else.
        Begin,
    }

    /// The winner, those that failed, and those that were too slow.
    async fn race(attempts: &[Does], head_start: Duration) -> (Option<usize>, Vec<usize>, Vec<usize>) {
        let begun = Notify::new();
        let one = async |what: &Does| match what {
            Does::Answer => Ok(()),
            Does::Refuse => Err(io::ErrorKind::ConnectionRefused.into()),
            Does::Nothing => std::future::pending().await,
            Does::AnswerLate => {
                begun.notified().await;
                Ok(())
            }
            Does::Begin => {
                begun.notify_one();
                std::future::pending().await
            }
        };
        let Reached { first, failed, slow } = first(attempts.iter().map(one).collect(), head_start).await;
        (first.map(|(n, ())| n), failed.into_iter().map(|(n, _)| n).collect(), slow)
    }

    #[tokio::test]
    async fn the_first_that_answers_is_it() {
        use Does::{Answer, AnswerLate, Begin, Nothing};
        assert_eq!(race(&[], NEVER).await, (None, vec![], vec![]));
        assert_eq!(race(&[Answer, Answer], NEVER).await, (Some(0), vec![], vec![]));
        assert_eq!(race(&[Nothing, Nothing, Answer], AT_ONCE).await, (Some(2), vec![], vec![0, 1]));
        // Late, and still the first.
        assert_eq!(race(&[AnswerLate, Begin], AT_ONCE).await, (Some(0), vec![], vec![]));
    }

    #[tokio::test]
    async fn a_refusal_ends_a_head_start() {
        use Does::{Answer, Nothing, Refuse};
        assert_eq!(race(&[Refuse, Refuse, Answer], NEVER).await, (Some(2), vec![0, 1], vec![]));
        assert_eq!(race(&[Refuse, Refuse], NEVER).await, (None, vec![0, 1], vec![]));
        assert_eq!(race(&[Nothing, Refuse, Answer], AT_ONCE).await, (Some(2), vec![1], vec![0]));
    }

    #[tokio::test]
    async fn a_dead_host_is_noticed_by_the_kernel() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tcp(listener.local_addr().unwrap(), Some("127.0.0.1".parse().unwrap()), NEVER).await.unwrap();
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 180_000);
        assert_eq!((getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), getsockopt(&stream, sockopt::TcpKeepInterval).unwrap()), (60, 30));
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap() && stream.nodelay().unwrap());
    }
}
