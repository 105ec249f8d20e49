//! One outbound connection: SMTP (RFC 5321) or LMTP (RFC 2033), from the first octet to QUIT.

mod content;
mod open;
mod stream;
mod timeouts;
mod transaction;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::FutureExt;
use pillarbox_smtp::client::{Capabilities, Command};
use pillarbox_smtp::{Reply, ReplyError, ReplyParser};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use content::Content;
pub(crate) use open::{Credentials, Dial, Endpoint, Refusal, TlsTrouble, open, open_on};
pub use timeouts::Timeouts;
pub(crate) use transaction::{Fate, Job, Rcpt};

pub(crate) use stream::Stream;

use crate::replies;

/// A connection on which transactions can run.
pub(crate) struct Session {
    stream: Stream,
    /// Octets from the host that are not yet part of a reply.
    input: BytesMut,
    /// Octets for the host that are not yet written.
    output: BytesMut,
    parser: ReplyParser,
    /// What the host offered last.
    pub(crate) capabilities: Capabilities,
    /// LMTP: a reply a recipient after the message.
    lmtp: bool,
    /// `mx.example.net[192.0.2.1]:25`.
    pub(crate) label: String,
    /// Where it goes, unless by a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// How it is protected.
    pub(crate) security: Security,
    timeouts: Timeouts,
    /// Transactions begun.
    transactions: u64,
    /// A transaction was left half done: RSET comes before the next.
    needs_reset: bool,
}

/// How a session is protected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Security {
    /// `TLSv1.3 dane`; empty without TLS.
    pub(crate) tls: String,
    /// The host proved to be who the policy says.
    pub(crate) authenticated: bool,
    /// Stays on this machine.
    pub(crate) local: bool,
    /// The certificate shown, DER.
    pub(crate) certificate: Option<Vec<u8>>,
    /// Why an accepted certificate would have failed verification (asked for by MTA-STS in mode `testing`).
    pub(crate) would_fail: Option<TlsTrouble>,
}

/// Why nothing more can be said on a connection.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The network's doing.
    Io(io::Error),
    /// The host closed.
    Closed,
    /// The host kept silent too long.
    Silent,
    /// The host said something that is no reply.
    Garbled(ReplyError),
    /// 421: the host closes by its own will.
    Bye(Reply),
}

impl Broken {
    /// As a reply, for the recipients that wait.
    pub(crate) fn reply(&self, host: &str, phase: &str) -> Reply {
        match self {
            Self::Io(error) => replies::lost(host, phase, &io_reason(error)),
            Self::Closed => replies::lost(host, phase, "closed by the host"),
            Self::Silent => replies::lost(host, phase, "no reply in time"),
            Self::Garbled(error) => replies::garbled(host, phase, &error.to_string()),
            Self::Bye(reply) => reply.clone(),
        }
    }
}

/// An error's reason in plain words, without the number that the system adds.
pub(crate) fn io_reason(error: &io::Error) -> String {
    use io::ErrorKind as K;
    match error.kind() {
        K::ConnectionRefused => "connection refused".into(),
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => "connection reset".into(),
        K::TimedOut => "no answer in time".into(),
        K::NetworkUnreachable => "network unreachable".into(),
        K::HostUnreachable => "host unreachable".into(),
        K::AddrNotAvailable => "the source address is not available".into(),
        K::UnexpectedEof => "closed by the host".into(),
        _ => pillarbox_smtp::printable(error.to_string().as_bytes()),
    }
}

impl Session {
    fn new(stream: Stream, label: String, peer: Option<SocketAddr>, lmtp: bool, timeouts: Timeouts) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            parser: ReplyParser::new(),
            capabilities: Capabilities::default(),
            lmtp,
            label,
            peer,
            security: Security::default(),
            timeouts,
            transactions: 0,
            needs_reset: false,
        }
    }

    /// Whether a transaction has run on it already.
    pub(crate) fn is_used(&self) -> bool {
        self.transactions > 0
    }

    /// Whether the host wants no further transaction on this connection (RFC 9422 MAILMAX).
    pub(crate) fn is_exhausted(&self) -> bool {
        self.capabilities.limits.mail_max.is_some_and(|max| self.transactions >= max)
    }

    /// Whether the host said or closed something while the connection was idle; both mean that it is of no use any more.
    pub(crate) fn is_stale(&mut self) -> bool {
        !self.input.is_empty() || self.stream.read_buf(&mut self.input).now_or_never().is_some()
    }

    /// Reads one reply; it must be whole within `wait`. 421 breaks the connection (RFC 5321 §3.8).
    async fn reply(&mut self, wait: Duration) -> Result<Reply, Broken> {
        let mut deadline = None;
        loop {
            if let Some(reply) = self.parser.parse(&mut self.input).map_err(Broken::Garbled)? {
                return if reply.code == 421 { Err(Broken::Bye(reply)) } else { Ok(reply) };
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + wait);
            self.input.reserve(1024);
            match timeout_at(deadline, self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(0)) => return Err(Broken::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Broken::Io(error)),
                Err(_) => return Err(Broken::Silent),
            }
        }
    }

    /// Writes all that waits in `output`; the host must take something within `wait` each time.
    async fn flush(&mut self, wait: Duration) -> Result<(), Broken> {
        while !self.output.is_empty() {
            match timeout(wait, self.stream.write(&self.output)).await {
                Ok(Ok(0)) => return Err(Broken::Closed),
                Ok(Ok(n)) => self.output.advance(n),
                Ok(Err(error)) => return Err(Broken::Io(error)),
                Err(_) => return Err(Broken::Silent),
            }
        }
        match timeout(wait, self.stream.flush()).await {
            Ok(result) => result.map_err(Broken::Io),
            Err(_) => Err(Broken::Silent),
        }
    }

    /// One command and its reply.
    async fn command(&mut self, command: Command<'_>, wait: Duration) -> Result<Reply, Broken> {
        command.write_to(&mut self.output);
        self.flush(wait).await?;
        self.reply(wait).await
    }

    /// QUIT, without waiting long for the answer: the mail is already where it should be.
    pub(crate) async fn quit(mut self) {
        let wait = self.timeouts.quit;
        let farewell = async {
            self.output.clear();
            let _ = self.command(Command::Quit, wait).await;
            let _ = self.stream.shutdown().await;
        };
        let _ = timeout(wait, farewell).await;
    }
}
