//! One connection: octets between the socket and the SMTP session, time-outs, TLS, and what happens when something panics.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::FutureExt;
use pillarbox_screen::{ScreenSession, SessionFacts};
use pillarbox_smtp::server::{Event, Role, ServerConfig, ServerSession, Step, TlsInfo};
use pillarbox_smtp::{Reply, replies};
use tokio::io::AsyncWriteExt;

use crate::draft::Draft;
use crate::login::Login;
use crate::service::{Ingest, Settings};
use crate::stream::Stream;
use crate::tls::{Handshake, handshake_facts};

/// Longest wait for the other side to take what we write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Octets of a body from which on it is read in large pieces.
const LARGE_BODY: u64 = 8 * 1024;
/// Longest wait for a client to close after the session has ended, so that it reads our last reply and not a reset.
const LINGER: Duration = Duration::from_secs(2);

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The client; `None` on a Unix socket.
    pub(crate) client: Option<SocketAddr>,
    /// The address it connected to.
    pub(crate) local: SocketAddr,
}

impl Peer {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.client.map(|c| c.ip())
    }

    /// For the log: the address, or nothing for a Unix socket.
    pub(crate) fn text(&self) -> String {
        self.ip().map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// A session with everything that belongs to it.
pub(crate) struct Connection {
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) peer: Peer,
    pub(crate) role: Role,
    pub(crate) smtp: ServerSession,
    /// Only mail from outside is screened; boxed, since most of a connection's life passes without it being used.
    pub(crate) screen: Option<Box<ScreenSession>>,
    pub(crate) draft: Option<Box<Draft>>,
    pub(crate) tls: Option<Box<Handshake>>,
    pub(crate) login: Option<Box<Login>>,
    pub(crate) messages: u32,
    pub(crate) started: Instant,
    stream: Stream,
    input: BytesMut,
}

/// Why a connection ended, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Quit,
    Lost,
    TimedOut,
    Shutdown,
    Closed,
    TlsFailed,
    Panicked,
}

impl Ending {
    fn text(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Lost => "lost",
            Self::TimedOut => "timeout",
            Self::Shutdown => "shutdown",
            Self::Closed => "closed",
            Self::TlsFailed => "tls-failed",
            Self::Panicked => "panic",
        }
    }
}

impl Connection {
    /// Boxed: what an async function is given by value, its future keeps twice, and most connections are idle most of the time.
    pub(crate) fn new(ingest: Arc<Ingest>, settings: Arc<Settings>, stream: Stream, peer: Peer, role: Role) -> Box<Self> {
        let screen = match (role, peer.client) {
            (Role::Mta, Some(client)) => Some(Box::new(settings.screen.session(SessionFacts::new(client, peer.local)))),
            _ => None,
        };
        let mut server = settings.server(role);
        if matches!(stream, Stream::Unix(_)) && server.tls_available {
            // A Unix socket is as private as its folder, and has no certificate's name to check.
            server = Arc::new(ServerConfig { tls_available: false, ..(*server).clone() });
        }
        let smtp = ServerSession::new(server);
        Box::new(Self {
            ingest,
            settings,
            peer,
            role,
            smtp,
            screen,
            draft: None,
            tls: None,
            login: None,
            messages: 0,
            started: Instant::now(),
            stream,
            input: BytesMut::new(),
        })
    }

    /// From the greeting to the end. A panic ends this session alone, with 421, and is counted.
    pub(crate) async fn run(mut self: Box<Self>) {
        metrics::counter!("pillarbox_ingest_connections_total", "service" => self.service()).increment(1);
        let client = self.peer.ip().map(tracing::field::display);
        tracing::info!(target: "pillarbox::event", event = "connect", client, service = self.service());
        let ending = match AssertUnwindSafe(self.converse()).catch_unwind().await {
            Ok(ending) => ending,
            Err(_) => {
                metrics::counter!("pillarbox_ingest_panics_total").increment(1);
                tracing::error!(client = self.peer.text(), "a session ended by a defect in this program; the others go on");
                let mut out = BytesMut::new();
                replies::session_failed().write_to(&mut out);
                let _ = tokio::time::timeout(LINGER, self.stream.write_all(&out)).await;
                Ending::Panicked
            }
        };
        Box::pin(self.part(ending)).await;
    }

    async fn part(mut self: Box<Self>, ending: Ending) {
        if let Some(screen) = self.screen.take() {
            screen.quit().await;
        }
        self.draft = None;
        tracing::info!(
            target: "pillarbox::event",
            event = "disconnect",
            client = self.peer.ip().map(tracing::field::display),
            helo = self.smtp.transaction().helo.as_ref().map(|helo| helo.as_str()),
            status = ending.text(),
            messages = self.messages,
            delay_ms = millis(self.started.elapsed()),
        );
        if matches!(ending, Ending::Quit | Ending::Closed | Ending::Shutdown | Ending::TimedOut) {
            let _ = tokio::time::timeout(LINGER, self.linger()).await;
        }
    }

    /// Sends our end and reads what is still on its way, so that the kernel does not answer it with a reset that overtakes our reply.
    async fn linger(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await?;
        let mut seen = 0;
        while seen < 256 * 1024 {
            self.input.clear();
            match self.stream.read_commands(&mut self.input).await? {
                0 => break,
                n => seen += n,
            }
        }
        Ok(())
    }

    async fn converse(&mut self) -> Ending {
        if self.role == Role::SubmissionTls
            && let Err(ending) = Box::pin(self.handshake()).await
        {
            return ending;
        }
        if let Err(ending) = Box::pin(self.greet()).await {
            return ending;
        }
        let token = self.ingest.shutdown.clone();
        let mut shutdown = std::pin::pin!(token.cancelled());
        let mut answered = Instant::now();
        loop {
            match self.advance().await {
                Ok(()) => {}
                Err(Ending::Quit) => {
                    // The end of the stream follows at once and travels in the same packet.
                    let out = std::mem::take(self.smtp.output());
                    let _ = tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_last(&out)).await;
                    return Ending::Quit;
                }
                Err(ending) => {
                    let _ = self.flush().await;
                    return ending;
                }
            }
            if !self.smtp.output().is_empty() {
                answered = Instant::now();
            }
            if self.flush().await.is_err() {
                return Ending::Lost;
            }
            if self.input.is_empty() {
                // An idle connection holds no buffer.
                self.input = BytesMut::new();
            }
            // Small messages come in one or two reads; a large buffer for each would cost more than their copying does.
            let in_body = self.draft.as_ref().and_then(|d| d.body.as_ref()).is_some_and(|body| body.len() >= LARGE_BODY);
            let wait = self.wait(answered);
            let read = async {
                match in_body {
                    true => self.stream.read_body(&mut self.input).await,
                    false => self.stream.read_commands(&mut self.input).await,
                }
            };
            let (reply, ending) = tokio::select! {
                biased;
                read = tokio::time::timeout(wait, read) => match read {
                    Ok(Ok(0)) | Ok(Err(_)) => return Ending::Lost,
                    Ok(Ok(_)) => continue,
                    Err(_) => (replies::timed_out(), Ending::TimedOut),
                },
                () = &mut shutdown => (replies::shutting_down(), Ending::Shutdown),
            };
            self.smtp.close(reply);
            let _ = self.flush().await;
            return ending;
        }
    }

    /// How long the client may take for what comes next. A whole command has one time, counted from the answer to the one before: an
    /// octet now and then keeps nobody here.
    fn wait(&self, answered: Instant) -> Duration {
        let limits = &self.settings.config.limits;
        match self.draft.as_ref().and_then(|d| d.body_began) {
            Some(began) => limits.data_timeout.saturating_sub(began.elapsed()).min(limits.command_timeout),
            None => limits.command_timeout.saturating_sub(answered.elapsed()),
        }
    }

    /// Lets the session go as far as its input carries it.
    async fn advance(&mut self) -> Result<(), Ending> {
        let mut quit = false;
        loop {
            match self.smtp.poll(&mut self.input) {
                Step::NeedInput => return Ok(()),
                Step::Event(Event::Content(octets)) => self.on_content(octets).await,
                Step::Event(event) => {
                    quit |= event == Event::Quit;
                    // Boxed: it must not weigh on every idle connection.
                    Box::pin(self.on_event(event)).await;
                }
                Step::StartTls => {
                    self.flush().await.map_err(|_| Ending::Lost)?;
                    self.input.clear();
                    Box::pin(self.handshake()).await?;
                }
                Step::Closed => return Err(if quit { Ending::Quit } else { Ending::Closed }),
            }
        }
    }

    /// The banner, after a wait in which nobody may speak (RFC 5321 §4.3.1), and what the screen has against the client.
    async fn greet(&mut self) -> Result<(), Ending> {
        let delay = self.settings.config.limits.banner_delay;
        let refused = match &mut self.screen {
            Some(screen) => screen.connect().await.err(),
            None => None,
        };
        if let Some(reply) = refused {
            return Err(self.refuse_connection(reply, "screen").await);
        }
        if self.role == Role::Mta && !delay.is_zero() {
            match tokio::time::timeout(delay, self.stream.read_commands(&mut self.input)).await {
                Err(_) => {}
                Ok(Ok(n)) if n > 0 => {
                    metrics::counter!("pillarbox_ingest_early_talkers_total").increment(1);
                    return Err(self.refuse_connection(replies::early_talker(), "early-talker").await);
                }
                Ok(_) => return Err(Ending::Lost),
            }
        }
        self.smtp.greet();
        self.flush().await.map_err(|_| Ending::Lost)
    }

    async fn refuse_connection(&mut self, reply: Reply, why: &str) -> Ending {
        tracing::info!(target: "pillarbox::event", event = "reject", client = self.peer.text(), status = why, reply = %reply);
        self.smtp.close(reply);
        let _ = self.flush().await;
        Ending::Closed
    }

    async fn handshake(&mut self) -> Result<(), Ending> {
        let plain = match std::mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Tcp(plain) => plain,
            other => {
                // Only TCP offers STARTTLS; a Unix socket is as private as its folder.
                self.stream = other;
                return Err(Ending::TlsFailed);
            }
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.settings.acceptor.accept(plain)).await {
            Ok(Ok(stream)) => {
                let connection = stream.get_ref().1;
                let facts = handshake_facts(connection);
                self.smtp.tls_started(TlsInfo {
                    protocol: facts.version.to_owned(),
                    cipher: facts.cipher.clone(),
                    server_name: connection.server_name().map(str::to_owned),
                    exporter: facts.exporter.clone(),
                });
                if let Some(screen) = &mut self.screen {
                    screen.facts_mut().tls = Some(format!("{} {}", facts.version, facts.cipher));
                }
                metrics::counter!("pillarbox_ingest_tls_handshakes_total", "version" => facts.version).increment(1);
                self.draft = None;
                self.tls = Some(Box::new(facts));
                self.stream = Stream::Tls(Box::new(stream));
                Ok(())
            }
            Ok(Err(error)) => {
                metrics::counter!("pillarbox_ingest_tls_failures_total").increment(1);
                tracing::debug!(client = self.peer.text(), %error, "TLS handshake failed");
                Err(Ending::TlsFailed)
            }
            Err(_) => Err(Ending::TlsFailed),
        }
    }

    /// Writes all replies that wait, in one go.
    async fn flush(&mut self) -> std::io::Result<()> {
        if self.smtp.output().is_empty() {
            return Ok(());
        }
        let out = std::mem::take(self.smtp.output());
        let write = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(WRITE_TIMEOUT, write).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// The configuration's name of the service.
    pub(crate) fn service(&self) -> &'static str {
        match self.role {
            Role::Mta => "smtp",
            Role::Submission => "submission",
            Role::SubmissionTls => "submissions",
            Role::Lmtp => "lmtp",
        }
    }

    /// What the client calls itself, for the log.
    pub(crate) fn helo(&self) -> String {
        self.smtp.transaction().helo.as_ref().map(|h| h.as_str().to_owned()).unwrap_or_default()
    }

    /// `TLSv1.3 AES_128_GCM_SHA256`, or nothing.
    pub(crate) fn tls_text(&self) -> String {
        self.tls.as_ref().map(|t| format!("{} {}", t.version, t.cipher)).unwrap_or_default()
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
