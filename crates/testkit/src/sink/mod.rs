//! An SMTP or LMTP server that does as a test tells it, and keeps what it was given byte for byte.
//!
//! It is written apart from the product's own protocol code on purpose, so that the two do not share mistakes. It ends a message
//! at exactly CRLF `.` CRLF and notes what no proper client does.

mod rules;
mod session;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::stream::TlsFacts;
use crate::wait::Changes;
use rules::Rules;

pub use rules::{Answer, Stage};

/// How the sink speaks TLS.
#[derive(Debug, Clone, Default)]
pub enum SinkTls {
    /// Not at all; STARTTLS is not offered.
    #[default]
    None,
    /// By STARTTLS.
    StartTls(Arc<rustls::ServerConfig>),
    /// From the first byte.
    Implicit(Arc<rustls::ServerConfig>),
    /// STARTTLS is offered, answered 220, and followed by octets that are no TLS.
    Broken,
}

/// How a sink is set up.
#[derive(Debug, Clone)]
pub struct SinkBuilder {
    ip: IpAddr,
    port: u16,
    hostname: String,
    capabilities: Vec<String>,
    tls: SinkTls,
    lmtp: bool,
    credentials: Vec<(String, String)>,
    tls_required: bool,
    banner_delay: Duration,
    tarpit: Duration,
    messages_per_connection: usize,
    after_starttls: Vec<u8>,
    keep_bodies: bool,
}

impl Default for SinkBuilder {
    fn default() -> Self {
        Self {
            ip: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            hostname: "sink.test".into(),
            capabilities: ["PIPELINING", "SIZE 100000000", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8", "CHUNKING"]
                .map(str::to_owned)
                .to_vec(),
            tls: SinkTls::None,
            lmtp: false,
            credentials: Vec::new(),
            tls_required: false,
            banner_delay: Duration::ZERO,
            tarpit: Duration::ZERO,
            messages_per_connection: usize::MAX,
            after_starttls: Vec::new(),
            keep_bodies: true,
        }
    }
}

impl SinkBuilder {
    /// Listens on this address of the loopback network, such as `127.0.0.2`, so that several hosts can share a port.
    pub fn ip(mut self, ip: &str) -> Self {
        self.ip = ip.parse().unwrap();
        self
    }
    /// Listens on this port instead of one that the system chooses.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
    /// The name in the greeting and the answer to EHLO.
    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = name.to_owned();
        self
    }
    /// The extensions offered, in place of the usual ones. STARTTLS and AUTH come by [`tls`](Self::tls) and [`login`](Self::login).
    pub fn capabilities(mut self, list: &[&str]) -> Self {
        self.capabilities = list.iter().map(|c| (*c).to_owned()).collect();
        self
    }
    /// How TLS is spoken.
    pub fn tls(mut self, tls: SinkTls) -> Self {
        self.tls = tls;
        self
    }
    /// LMTP (RFC 2033) in place of SMTP: LHLO, one reply a recipient.
    pub fn lmtp(mut self) -> Self {
        self.lmtp = true;
        self
    }
    /// Offers AUTH PLAIN and LOGIN and refuses mail before it.
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.credentials.push((user.to_owned(), password.to_owned()));
        self
    }
    /// Refuses mail before STARTTLS with 530.
    pub fn tls_required(mut self) -> Self {
        self.tls_required = true;
        self
    }
    /// Waits before the greeting.
    pub fn banner_delay(mut self, wait: Duration) -> Self {
        self.banner_delay = wait;
        self
    }
    /// Waits before every reply.
    pub fn tarpit(mut self, wait: Duration) -> Self {
        self.tarpit = wait;
        self
    }
    /// Says 421 after so many messages on one connection.
    pub fn messages_per_connection(mut self, most: usize) -> Self {
        self.messages_per_connection = most;
        self
    }
    /// Sends these octets in plain text right behind the 220 of STARTTLS: a response injection that clients must not fall for.
    pub fn inject_after_starttls(mut self, bytes: &[u8]) -> Self {
        self.after_starttls = bytes.to_vec();
        self
    }
    /// Forgets bodies, for load.
    pub fn forget_bodies(mut self) -> Self {
        self.keep_bodies = false;
        self
    }
    /// Starts it.
    pub async fn start(self) -> Sink {
        let listener = TcpListener::bind((self.ip, self.port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            config: self,
            rules: Mutex::new(Rules::default()),
            transactions: Mutex::new(Vec::new()),
            accepted: AtomicUsize::new(0),
            commands: Mutex::new(Vec::new()),
            violations: Mutex::new(Vec::new()),
            connections: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            changes: Changes::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Sink { address, shared, tasks }
    }
}

/// The server; it stops when dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    config: SinkBuilder,
    rules: Mutex<Rules>,
    transactions: Mutex<Vec<Received>>,
    accepted: AtomicUsize,
    commands: Mutex<Vec<(u64, String)>>,
    violations: Mutex<Vec<String>>,
    connections: AtomicU64,
    open: AtomicUsize,
    changes: Changes,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Which connection it came over, counted from 1.
    pub connection: u64,
    /// Who sent it.
    pub peer: SocketAddr,
    /// What the client called itself.
    pub helo: String,
    /// It said EHLO (or LHLO), not HELO.
    pub extended: bool,
    /// TLS, when it was on.
    pub tls: Option<TlsFacts>,
    /// Who had logged in.
    pub user: Option<String>,
    /// The reverse path without brackets.
    pub from: String,
    /// The parameters of MAIL, as written.
    pub from_parameters: Vec<String>,
    /// The recipients that were accepted, with their parameters.
    pub recipients: Vec<(String, Vec<String>)>,
    /// The content with dots undone, exactly; empty when bodies are forgotten.
    pub body: Vec<u8>,
    /// It came by BDAT.
    pub chunked: bool,
    /// What was answered; empty when the connection was dropped or left hanging instead. For LMTP the last reply.
    pub reply: String,
}

impl Received {
    /// Whether the client was told that it is safe.
    pub fn accepted(&self) -> bool {
        self.reply.starts_with('2')
    }

    /// The recipients' addresses.
    pub fn to(&self) -> Vec<&str> {
        self.recipients.iter().map(|(address, _)| address.as_str()).collect()
    }

    /// The content as text, for assertions.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Sink {
    /// A plain one with the usual extensions.
    pub async fn start() -> Self {
        SinkBuilder::default().start().await
    }

    /// Further ones.
    pub fn builder() -> SinkBuilder {
        SinkBuilder::default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on gives `answer` at `stage` whenever the command's argument matches `pattern`: the address at MAIL and RCPT, the name at
    /// EHLO, the client's IP address at Connect; at Message each recipient's address. Later rules win over earlier ones.
    pub fn on(&self, stage: Stage, pattern: &str, answer: impl Into<Answer>) -> &Self {
        self.shared.rules.lock().add(stage, pattern, answer.into(), usize::MAX, 1);
        self
    }

    /// Like [`on`](Self::on), for the next `times` matches only.
    pub fn next(&self, times: usize, stage: Stage, pattern: &str, answer: impl Into<Answer>) -> &Self {
        self.shared.rules.lock().add(stage, pattern, answer.into(), times, 1);
        self
    }

    /// Like [`on`](Self::on), for every `nth` match only: 2 is the second, the fourth, and so on.
    pub fn every(&self, nth: usize, stage: Stage, pattern: &str, answer: impl Into<Answer>) -> &Self {
        self.shared.rules.lock().add(stage, pattern, answer.into(), usize::MAX, nth);
        self
    }

    /// Forgets all rules.
    pub fn behave(&self) -> &Self {
        *self.shared.rules.lock() = Rules::default();
        self
    }

    /// How many connections were made in all.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many messages were accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// All messages that came to their end, whatever was answered.
    pub fn transactions(&self) -> Vec<Received> {
        self.shared.transactions.lock().clone()
    }

    /// All command lines with the number of their connection, in order. Credentials and contents are not among them.
    pub fn commands(&self) -> Vec<(u64, String)> {
        self.shared.commands.lock().clone()
    }

    /// What clients did that no proper client does: a bare CR or LF, a command before its reply was due, an overlong line.
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.lock().clone()
    }

    /// Waits until `n` messages were accepted, and returns all of those.
    pub async fn messages(&self, n: usize) -> Vec<Received> {
        let look = || (self.accepted() >= n).then_some(());
        self.shared.changes.until(&format!("{n} messages"), look, || self.state()).await;
        self.transactions().into_iter().filter(Received::accepted).collect()
    }

    /// Waits until `n` messages came to their end, whatever was answered.
    pub async fn attempts(&self, n: usize) -> Vec<Received> {
        self.until(&format!("{n} attempts"), |sink| {
            let transactions = sink.shared.transactions.lock();
            (transactions.len() >= n).then(|| transactions.clone())
        })
        .await
    }

    /// Waits until a message matches.
    pub async fn message(&self, what: &str, mut wanted: impl FnMut(&Received) -> bool) -> Received {
        self.until(what, |sink| sink.shared.transactions.lock().iter().find(|r| r.accepted() && wanted(r)).cloned()).await
    }

    /// Waits until `n` connections were made.
    pub async fn connected(&self, n: u64) -> u64 {
        self.until(&format!("{n} connections"), |sink| Some(sink.connections()).filter(|c| *c >= n)).await
    }

    /// Waits until no connection is open.
    pub async fn idle(&self) {
        self.until("all connections to close", |sink| (sink.open_connections() == 0).then_some(())).await;
    }

    /// Waits until a command line matches the pattern.
    pub async fn command(&self, pattern: &str) -> String {
        let found = |sink: &Self| sink.commands().into_iter().map(|(_, line)| line).find(|line| crate::pattern::matches(pattern, line));
        self.until(&format!("the command {pattern}"), found).await
    }

    /// Waits until `look` finds something in the sink.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        self.shared.changes.until(what, || look(self), || self.state()).await
    }

    /// Drops all connections and refuses new ones, as a host that went down. The address can be used again by a new sink.
    pub async fn stop(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }

    fn state(&self) -> String {
        let commands = self.commands();
        let last: Vec<&(u64, String)> = commands.iter().rev().take(20).rev().collect();
        format!(
            "{} connections ({} open), {} messages accepted, {} seen; last commands: {last:?}; violations: {:?}",
            self.connections(),
            self.open_connections(),
            self.accepted(),
            self.shared.transactions.lock().len(),
            self.violations()
        )
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Sessions end with the listener, since both belong to this task.
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                shared.open.fetch_add(1, Ordering::SeqCst);
                shared.changes.note();
                sessions.spawn(session::run(Box::new(stream), peer, number, shared.clone()));
            }
            Some(_) = sessions.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests;
