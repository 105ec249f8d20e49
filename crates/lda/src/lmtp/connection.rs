//! One LMTP connection (RFC 2033): connecting, commands and their replies, a message and its reply for each recipient.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::TryStreamExt;
use pillarbox_message::downgrade;
use pillarbox_queue::Body;
use pillarbox_smtp::client::{Capabilities, Command, DotStuffer};
use pillarbox_smtp::{BodyType, Domain, EnhancedCode, MailParams, Mailbox, RcptParams, Reply, ReplyError, ReplyParser, ReversePath};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::way::Backend;

/// Longest wait to connect.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest wait for the answer to a command (RFC 5321 §4.5.3.2).
const COMMAND: Duration = Duration::from_secs(5 * 60);
/// Longest wait for a piece of the message to go out.
const BLOCK: Duration = Duration::from_secs(3 * 60);
/// Longest wait for the answers after the message.
const MESSAGE: Duration = Duration::from_secs(10 * 60);

/// Why a connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LmtpError {
    /// Connecting, reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// What came is no reply.
    #[error("{0}")]
    Reply(#[from] ReplyError),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server does not want to talk to us, or spoke out of turn.
    #[error("{0}")]
    Refused(Reply),
    /// The queued message cannot be read; the transaction was broken off.
    #[error("the queued message cannot be read: {0}")]
    Body(io::Error),
}

impl LmtpError {
    /// As a reply for the queue; the back end's own words where there are any.
    pub(crate) fn reply(&self, backend: &Backend) -> Reply {
        let (code, what) = match self {
            Self::Refused(reply) => return as_transient(reply.clone()),
            Self::Io(error) => (EnhancedCode(4, 4, 1), format!("The mailbox server cannot be reached: {}", error.kind())),
            Self::Timeout => (EnhancedCode(4, 4, 2), "The mailbox server did not answer in time".into()),
            Self::Reply(_) => (EnhancedCode(4, 5, 0), "The mailbox server does not speak LMTP".into()),
            Self::Closed => (EnhancedCode(4, 4, 2), "The mailbox server closed the connection".into()),
            Self::Body(_) => (EnhancedCode(4, 3, 0), "The queued message cannot be read at the moment".into()),
        };
        tracing::warn!(relay = %format_args!("lmtp:{backend}"), error = %self, "LMTP delivery failed");
        Reply::new(451, code, what)
    }
}

/// A binary message as lines, for a server that takes no other; or why it cannot be made into such (RFC 3030 §3).
async fn as_lines(body: &Body) -> Result<Result<Body, Reply>, LmtpError> {
    let octets = body.bytes().await.map_err(LmtpError::Body)?;
    let hop = downgrade::Hop { eight_bit: true, utf8_header: true, short_lines: false };
    Ok(match downgrade::convert(&octets, hop) {
        Ok(lines) => Ok(Body::from_bytes(lines.into_owned())),
        Err(why) => Err(Reply::new(554, EnhancedCode(5, 6, 3), format!("The mailbox server takes no binary message: {why}"))),
    })
}

/// A refusal of the whole session is never held against a message: 5xx becomes 4xx.
fn as_transient(mut reply: Reply) -> Reply {
    if reply.code >= 500 {
        reply.code -= 100;
        reply.enhanced = reply.enhanced.map(|code| EnhancedCode(4, code.1, code.2));
    }
    reply
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An open connection that has said LHLO.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    input: BytesMut,
    parser: ReplyParser,
    pub(crate) capabilities: Capabilities,
    /// Messages sent.
    pub(crate) messages: u64,
    /// Nothing has been answered since the last message was begun.
    unanswered: bool,
}

/// One transaction: recipients that share a reverse path.
pub(crate) struct Transaction<'a> {
    pub(crate) from: &'a ReversePath,
    pub(crate) params: MailParams,
    pub(crate) recipients: Vec<(Mailbox, RcptParams)>,
    pub(crate) body: &'a Body,
}

impl Connection {
    /// Connects, waits for 220, says LHLO.
    pub(crate) async fn open(backend: &Backend, hostname: &Domain) -> Result<Self, LmtpError> {
        let stream: Box<dyn Stream> = timeout(CONNECT, async {
            Ok::<_, io::Error>(match backend {
                Backend::Unix(path) => Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>,
                Backend::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
            })
        })
        .await
        .map_err(|_| LmtpError::Timeout)??;
        let mut this = Self {
            stream,
            input: BytesMut::new(),
            parser: ReplyParser::new(),
            capabilities: Capabilities::default(),
            messages: 0,
            unanswered: false,
        };
        let greeting = this.reply(COMMAND).await?;
        if greeting.code != 220 {
            return Err(LmtpError::Refused(greeting));
        }
        let hello = this.command(&Command::Lhlo(hostname)).await?;
        if hello.code != 250 {
            return Err(LmtpError::Refused(hello));
        }
        this.capabilities = Capabilities::parse(&hello);
        Ok(this)
    }

    /// Sends one message and returns the reply for each recipient, in order. `Err` only when the connection is of no further use.
    pub(crate) async fn send(&mut self, transaction: &Transaction<'_>) -> Result<Vec<Reply>, LmtpError> {
        self.messages += 1;
        self.unanswered = true;
        let capabilities = self.capabilities.clone();
        let smtputf8 = capabilities.smtputf8 && transaction.params.smtputf8;
        let mail = Command::Mail { from: transaction.from, params: &transaction.params, capabilities: &capabilities };
        let rcpts: Vec<Command<'_>> =
            transaction.recipients.iter().map(|(to, params)| Command::Rcpt { to, params, capabilities: &capabilities, smtputf8 }).collect();
        // With PIPELINING, which RFC 2033 §4.2 asks servers to have, all of these are one write.
        let mut replies = Vec::with_capacity(rcpts.len());
        let mail_reply;
        if capabilities.pipelining {
            let mut out = BytesMut::new();
            mail.write_to(&mut out);
            rcpts.iter().for_each(|rcpt| rcpt.write_to(&mut out));
            self.write(&out).await?;
            mail_reply = self.reply(COMMAND).await?;
            for _ in &rcpts {
                replies.push(self.reply(COMMAND).await?);
            }
        } else {
            mail_reply = self.command(&mail).await?;
            if mail_reply.is_positive() {
                for rcpt in &rcpts {
                    replies.push(self.command(rcpt).await?);
                }
            }
        }
        if !mail_reply.is_positive() {
            self.reset().await?;
            return Ok(vec![mail_reply; rcpts.len()]);
        }
        if !replies.iter().any(Reply::is_positive) {
            self.reset().await?;
            return Ok(replies);
        }
        let refused = match transaction.params.body {
            BodyType::BinaryMime if capabilities.binary_mime => self.chunk(transaction.body).await?,
            BodyType::BinaryMime => match as_lines(transaction.body).await? {
                Ok(lines) => self.data(&lines).await?,
                Err(unconvertible) => Some(unconvertible),
            },
            _ => self.data(transaction.body).await?,
        };
        for reply in replies.iter_mut().filter(|reply| reply.is_positive()) {
            *reply = match &refused {
                Some(refused) => refused.clone(),
                // One reply for each recipient that was accepted, in their order (RFC 2033 §4.2).
                None => self.reply(MESSAGE).await?,
            };
        }
        if refused.is_some() {
            self.reset().await?;
        }
        Ok(replies)
    }

    /// DATA and the message, dots stuffed. `Some`: refused before any of it was sent.
    async fn data(&mut self, body: &Body) -> Result<Option<Reply>, LmtpError> {
        let go = self.command(&Command::Data).await?;
        if go.code != 354 {
            // 2xx here would leave both sides in different places.
            return if go.is_positive() { Err(LmtpError::Refused(go)) } else { Ok(Some(go)) };
        }
        let mut out = BytesMut::new();
        let mut stuffer = DotStuffer::new();
        let mut pieces = body.chunks();
        while let Some(piece) = pieces.try_next().await.map_err(LmtpError::Body)? {
            out.clear();
            stuffer.encode(&piece, &mut out);
            self.write(&out).await?;
        }
        out.clear();
        stuffer.finish(&mut out);
        self.write(&out).await?;
        Ok(None)
    }

    /// The message as one BDAT LAST, its octets as they are (RFC 3030).
    async fn chunk(&mut self, body: &Body) -> Result<Option<Reply>, LmtpError> {
        let mut out = BytesMut::new();
        Command::Bdat { size: body.len(), last: true }.write_to(&mut out);
        self.write(&out).await?;
        let mut pieces = body.chunks();
        while let Some(piece) = pieces.try_next().await.map_err(LmtpError::Body)? {
            self.write(&piece).await?;
        }
        Ok(None)
    }

    async fn reset(&mut self) -> Result<(), LmtpError> {
        self.command(&Command::Rset).await.map(|_| ())
    }

    /// Whether the message last begun got no answer at all: the connection had been given up before.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Says goodbye; whatever happens then does not matter.
    pub(crate) async fn quit(mut self) {
        let mut out = BytesMut::new();
        Command::Quit.write_to(&mut out);
        let _ = timeout(Duration::from_secs(5), async {
            self.write(&out).await?;
            self.reply(COMMAND).await
        })
        .await;
    }

    async fn command(&mut self, command: &Command<'_>) -> Result<Reply, LmtpError> {
        let mut out = BytesMut::new();
        command.write_to(&mut out);
        self.write(&out).await?;
        self.reply(COMMAND).await
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), LmtpError> {
        timeout(BLOCK, self.stream.write_all(octets)).await.map_err(|_| LmtpError::Timeout)??;
        Ok(())
    }

    /// The next reply; 421 ends the session, whatever it answers (RFC 5321 §3.8).
    async fn reply(&mut self, wait: Duration) -> Result<Reply, LmtpError> {
        loop {
            if let Some(reply) = self.parser.parse(&mut self.input)? {
                self.unanswered = false;
                return if reply.code == 421 { Err(LmtpError::Refused(reply)) } else { Ok(reply) };
            }
            let n = timeout(wait, self.stream.read_buf(&mut self.input)).await.map_err(|_| LmtpError::Timeout)??;
            if n == 0 {
                return Err(LmtpError::Closed);
            }
        }
    }
}
