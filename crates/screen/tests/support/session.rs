//! A screen over a scripted name server, and a client's way through it.

use std::sync::Arc;

use bytes::Bytes;
use pillarbox_config::Config;
use pillarbox_directory::{Change, Directory, DomainRecord, MemoryDirectory};
use pillarbox_screen::{Dns, Screen, ScreenSession, SessionFacts, Verdict};
use pillarbox_smtp::{MailParams, Mailbox, Reply, ReversePath};

use super::dns::{Script, Server};

pub struct World {
    pub server: Server,
    pub directory: Arc<MemoryDirectory>,
    pub screen: Arc<Screen>,
}

/// A configuration of the host `mx.example.org`.
pub fn config(change: impl FnOnce(&mut pillarbox_config::Screen)) -> Config {
    let mut config = Config { hostname: "mx.example.org".into(), ..Config::default() };
    change(&mut config.screen);
    config
}

impl World {
    /// A server for `example.org` with this configuration and these names in DNS.
    pub async fn new(config: &Config, write: impl FnOnce(&mut Script)) -> Self {
        let server = Server::with(write).await;
        Self::over(config, server.dns(), server).await
    }

    /// The same over a resolver of the test's.
    pub async fn over(config: &Config, dns: Dns, server: Server) -> Self {
        let directory = Arc::new(MemoryDirectory::new());
        let record = DomainRecord {
            name: "example.org".parse().expect("a name"),
            created: "2026-01-01T00:00:00Z".into(),
            deliver_to: None,
            dkim: vec![],
        };
        directory.apply(vec![Change::PutDomain(record)]).await.expect("a domain");
        let screen = Screen::new(config, directory.clone(), dns).expect("a screen");
        Self { server, directory, screen }
    }

    /// A session from this address, not yet greeted.
    pub fn session(&self, client: &str) -> ScreenSession {
        let client = std::net::SocketAddr::new(client.parse().expect("an address"), 40_000);
        self.screen.session(SessionFacts::new(client, "192.0.2.25:25".parse().expect("an address")))
    }

    /// A whole transaction from an address that says HELO `mx.example.net`, to `bob@example.org`.
    pub async fn send(&self, client: &str, from: &str, message: &str) -> Result<Verdict, Reply> {
        let mut session = self.session(client);
        session.connect().await?;
        session.helo("mx.example.net").await?;
        let verdict = transaction(&mut session, from, message).await;
        session.quit().await;
        verdict
    }
}

/// One message in an open session.
pub async fn transaction(session: &mut ScreenSession, from: &str, message: &str) -> Result<Verdict, Reply> {
    let from: ReversePath = from.parse().expect("a path");
    let rcpt: Mailbox = "bob@example.org".parse().expect("an address");
    session.mail("Q1", &from, &MailParams::default()).await?;
    session.rcpt(&from, &rcpt).await?;
    Ok(session.judge(&from, &[rcpt], Bytes::from(message.replace('\n', "\r\n"))).await)
}

/// The message as it would be stored, LF line ends.
pub fn stored(verdict: &Verdict, message: &str) -> String {
    let original = message.replace('\n', "\r\n");
    String::from_utf8_lossy(&verdict.pieces(original.as_bytes()).concat()).replace("\r\n", "\n")
}
