//! Opening a session: connect, greeting, EHLO or HELO, STARTTLS, AUTH.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use pillarbox_smtp::client::{Capabilities, Command, SaslClient, SaslClientError, SaslProgress};
use pillarbox_smtp::{Domain, Reply, Secret};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Broken, Security, Session, Stream, Timeouts, io_reason};
use crate::reach;
use crate::replies;
use crate::tls::{self, Policy, TlsClients};

/// Where to connect.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    /// By TCP.
    Tcp(SocketAddr),
    /// On this machine.
    Unix(PathBuf),
}

/// Who to log in as.
pub(crate) struct Credentials {
    /// The user's name.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: Secret,
}

/// All that opening a session needs to know.
pub(crate) struct Dial<'a> {
    /// The host's name, for its certificate and for people.
    pub(crate) host: &'a str,
    /// Where it is.
    pub(crate) endpoint: Endpoint,
    /// Our own address for its family, when one is configured.
    pub(crate) source: Option<IpAddr>,
    /// What TLS must give.
    pub(crate) policy: &'a Policy,
    /// TLS from the first byte.
    pub(crate) implicit_tls: bool,
    /// LMTP instead of SMTP.
    pub(crate) lmtp: bool,
    /// Login.
    pub(crate) credentials: Option<Credentials>,
    /// How we call ourselves.
    pub(crate) helo: &'a Domain,
    /// The TLS configurations.
    pub(crate) tls: &'a TlsClients,
    /// How long to wait.
    pub(crate) timeouts: Timeouts,
    /// Whether to find out what verification would have said of an unverified certificate.
    pub(crate) judge: bool,
}

/// What went wrong with TLS, for RFC 8460 reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsTrouble {
    /// The `result-type` of RFC 8460 §4.3.
    pub(crate) result: &'static str,
    /// For people.
    pub(crate) detail: String,
}

/// Why a session could not be opened. The next address or host may do better.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What to tell, in the host's own words where it had any.
    pub(crate) reply: Reply,
    /// TLS was the reason.
    pub(crate) tls: Option<TlsTrouble>,
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self { reply, tls: None }
    }
}

impl Refusal {
    /// There was no connection.
    pub(crate) fn unreachable(label: &str, error: &io::Error) -> Self {
        Self { reply: replies::unreachable(label, &io_reason(error)), tls: None }
    }
}

fn tls_refusal(host: &str, policy: &Policy, result: &'static str, detail: String) -> Refusal {
    Refusal { reply: replies::tls_required(host, policy.name(), &detail), tls: Some(TlsTrouble { result, detail }) }
}

/// Connects and opens a session.
pub(crate) async fn open(dial: &Dial<'_>) -> Result<Session, Refusal> {
    open_on(dial, connect(dial).await?).await
}

/// Opens a session on a connection to its endpoint. Where the policy allows plain text, a failed handshake is followed by a second connection
/// without TLS.
pub(crate) async fn open_on(dial: &Dial<'_>, stream: Stream) -> Result<Session, Refusal> {
    match attempt(dial, stream, true).await {
        Err(Refusal { tls: Some(trouble), .. }) if dial.policy.allows_plain() && !dial.implicit_tls && dial.credentials.is_none() => {
            let mut session = attempt(dial, connect(dial).await?, false).await?;
            session.security.would_fail = Some(trouble);
            Ok(session)
        }
        other => other,
    }
}

async fn connect(dial: &Dial<'_>) -> Result<Stream, Refusal> {
    let stream = dial.endpoint.connect(dial.source, dial.timeouts.connect).await;
    stream.map_err(|error| Refusal::unreachable(&dial.endpoint.label(dial.host), &error))
}

async fn attempt(dial: &Dial<'_>, stream: Stream, use_tls: bool) -> Result<Session, Refusal> {
    let host = dial.endpoint.label(dial.host);
    let peer = match &dial.endpoint {
        Endpoint::Tcp(address) => Some(*address),
        Endpoint::Unix(_) => None,
    };
    let mut session = Session::new(stream, host.clone(), peer, dial.lmtp, dial.timeouts);
    session.security.local = peer.is_none();
    if dial.implicit_tls {
        session = handshake(session, dial).await?;
    }
    let greeting = session.reply(dial.timeouts.greeting).await.map_err(|broken| broken.reply(&host, "before the greeting"))?;
    if greeting.code != 220 {
        session.quit().await;
        return Err(greeting.into());
    }
    hello(&mut session, dial).await?;
    let is_tls = matches!(session.stream, Stream::Tls(_));
    if !is_tls && use_tls && session.capabilities.starttls && matches!(session.stream, Stream::Tcp(_)) {
        let reply = session.command(Command::StartTls, dial.timeouts.greeting).await;
        let reply = reply.map_err(|broken| broken.reply(&host, "after STARTTLS"))?;
        if reply.code == 220 {
            // What came with the 220 was sent by someone before TLS protected it (CVE-2011-0411, client side).
            if !session.input.is_empty() {
                let reply = replies::injected(&host);
                let trouble = TlsTrouble { result: "validation-failure", detail: "data injected before TLS".into() };
                return Err(match dial.policy.allows_plain() {
                    true => reply.into(),
                    false => Refusal { reply, tls: Some(trouble) },
                });
            }
            session = handshake(session, dial).await?;
            session.capabilities = Capabilities::default();
            hello(&mut session, dial).await?;
        } else if !dial.policy.allows_plain() {
            let detail = format!("STARTTLS was answered {reply}");
            session.quit().await;
            return Err(tls_refusal(&host, dial.policy, "starttls-not-supported", detail));
        }
    }
    if !matches!(session.stream, Stream::Tls(_)) && !dial.policy.allows_plain() {
        session.quit().await;
        return Err(tls_refusal(&host, dial.policy, "starttls-not-supported", "the host does not offer STARTTLS".into()));
    }
    if let Some(credentials) = &dial.credentials {
        log_in(&mut session, credentials, dial).await?;
    }
    Ok(session)
}

impl Endpoint {
    /// For people: `mx.example.net[192.0.2.1]:25`.
    pub(crate) fn label(&self, host: &str) -> String {
        match self {
            Self::Tcp(address) => format!("{host}[{}]:{}", address.ip(), address.port()),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Its address, unless it is on this machine.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// A connection, from `source` where one is given.
    pub(crate) async fn connect(&self, source: Option<IpAddr>, wait: Duration) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => reach::tcp(*address, source, wait).await.map(Stream::Tcp),
            Self::Unix(path) => {
                let stream = timeout(wait, UnixStream::connect(path)).await;
                stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(Stream::Unix)
            }
        }
    }
}

/// EHLO, or HELO for hosts that do not know it (RFC 5321 §3.2); LHLO for LMTP.
async fn hello(session: &mut Session, dial: &Dial<'_>) -> Result<(), Refusal> {
    let host = session.label.clone();
    let wait = dial.timeouts.greeting;
    let first = if dial.lmtp { Command::Lhlo(dial.helo) } else { Command::Ehlo(dial.helo) };
    let reply = session.command(first, wait).await.map_err(|broken| broken.reply(&host, "after EHLO"))?;
    if reply.code == 250 {
        session.capabilities = Capabilities::parse(&reply);
        return Ok(());
    }
    if dial.lmtp || reply.is_transient() {
        return Err(reply.into());
    }
    let reply = session.command(Command::Helo(dial.helo), wait).await.map_err(|broken| broken.reply(&host, "after HELO"))?;
    if reply.is_positive() { Ok(()) } else { Err(reply.into()) }
}

/// Turns the connection into a TLS one and forgets what was said before (RFC 3207 §4.2).
async fn handshake(session: Session, dial: &Dial<'_>) -> Result<Session, Refusal> {
    let host = session.label.clone();
    let refuse = |result, detail| tls_refusal(&host, dial.policy, result, detail);
    let Stream::Tcp(tcp) = session.stream else { return Err(refuse("validation-failure", "TLS within TLS".into())) };
    let wanted = match dial.policy {
        Policy::Dane(set) => set.names.first().map_or(dial.host, String::as_str),
        _ => dial.host,
    };
    let name = tls::server_name(wanted, session.peer.map(|peer| peer.ip()));
    let name = name.ok_or_else(|| refuse("certificate-host-mismatch", "the host's name cannot stand in a certificate".into()))?;
    let config = dial.tls.config(dial.policy).map_err(|e| refuse("validation-failure", e.to_string()))?;
    let stream = match timeout(dial.timeouts.handshake, TlsConnector::from(config).connect(name.clone(), tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let (result, detail) = tls::failure(&error);
            return Err(refuse(result, pillarbox_smtp::printable(detail.as_bytes())));
        }
        Err(_) => return Err(refuse("validation-failure", "the TLS handshake took too long".into())),
    };
    let connection = stream.get_ref().1;
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let chain = connection.peer_certificates().unwrap_or_default();
    let would_fail = match dial.judge {
        true => dial.tls.would_verify(chain, &name).err().map(|e| TlsTrouble { result: tls::result_type(&e), detail: e.to_string() }),
        false => None,
    };
    let security = Security {
        tls: format!("{version} {}", dial.policy.name()),
        authenticated: dial.policy.authenticates(),
        local: false,
        certificate: chain.first().map(|c| c.to_vec()),
        would_fail,
    };
    let mut fresh = Session::new(Stream::Tls(Box::new(stream)), host, session.peer, session.lmtp, session.timeouts);
    fresh.security = security;
    Ok(fresh)
}

/// AUTH (RFC 4954), only where the host is proved to be the one we mean.
async fn log_in(session: &mut Session, credentials: &Credentials, dial: &Dial<'_>) -> Result<(), Refusal> {
    let host = session.label.clone();
    if !session.security.authenticated {
        return Err(replies::auth_needs_tls(&host, "the certificate was not verified").into());
    }
    let binding = channel_binding(&session.stream);
    let password = credentials.password.clone();
    let sasl = SaslClient::choose(&session.capabilities, &credentials.user, password, binding.as_ref().map(|b| b.as_slice()));
    let mut sasl = sasl.ok_or_else(|| replies::no_mechanism(&host))?;
    sasl.start(&mut session.output);
    loop {
        let lost = |broken: Broken| broken.reply(&host, "while logging in");
        session.flush(dial.timeouts.greeting).await.map_err(lost)?;
        let reply = session.reply(dial.timeouts.greeting).await.map_err(lost)?;
        match sasl.reply(&reply, &mut session.output) {
            Ok(SaslProgress::Continue) => {}
            Ok(SaslProgress::Done) => return Ok(()),
            Err(SaslClientError::Refused(reply)) => return Err(replies::auth_refused(&host, &reply).into()),
            Err(SaslClientError::Server(why)) => return Err(replies::auth_needs_tls(&host, why).into()),
        }
    }
}

/// `tls-exporter` (RFC 9266), which only TLS 1.3 gives without further conditions.
fn channel_binding(stream: &Stream) -> Option<[u8; 32]> {
    let Stream::Tls(tls) = stream else { return None };
    let connection = tls.get_ref().1;
    if connection.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
        return None;
    }
    connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()
}
