//! A defect that panics in one session: that one ends with 421 and is counted, the others go on.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use pillarbox_config::Config;
use pillarbox_directory::{AuthPolicy, Authenticator, Change, Directory, DomainRecord, MemoryDirectory, ResolvePolicy, UserRecord};
use pillarbox_ingest::certificates::CertificateStore;
use pillarbox_ingest::{Ingest, MailboxCheck, ReportIntake, Rooms, Settings, Socket};
use pillarbox_queue::{Destination, Envelope, Feed, Hooks, Queue, Recipient, Transport, Transports};
use pillarbox_screen::{Dns, Screen, Signer, UserRates};
use pillarbox_smtp::server::Role;
use pillarbox_smtp::{Mailbox, Reply};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The defect: it does not bear one of the users.
struct Defect;

#[async_trait::async_trait]
impl MailboxCheck for Defect {
    async fn admit(&self, user: &Mailbox, _: Option<u64>) -> Result<(), Reply> {
        assert!(user.local.as_str() != "doom", "a defect");
        Ok(())
    }
}

#[async_trait::async_trait]
impl Transport for Defect {
    fn destination(&self, _: &Envelope, recipient: &Recipient) -> Destination {
        Destination::from(recipient.address.domain.to_string())
    }
    fn concurrency(&self, _: &Destination) -> usize {
        1
    }
    async fn run(&self, _: Destination, _: Feed) {}
}

#[async_trait::async_trait]
impl Hooks for Defect {
    async fn route(&self, _: &Mailbox) -> std::io::Result<Vec<Recipient>> {
        Ok(vec![])
    }
}

impl ReportIntake for Defect {
    fn offer(&self, _: bytes::Bytes) {}
}

fn user(address: &str) -> Change {
    Change::PutUser(UserRecord::new(address.parse().unwrap(), "2026-01-01T00:00:00Z".into()))
}

/// Listens as the daemon does, over a directory in memory.
async fn listening(home: &std::path::Path, shutdown: &CancellationToken) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = Config { hostname: "mail.example.test".into(), ..Config::default() };
    config.paths.state = home.join("state");
    config.paths.mail = home.join("mail");
    config.screen.spf = false;
    config.dns.servers = vec!["127.0.0.1:9".parse().unwrap()];
    std::fs::create_dir_all(&config.paths.state).unwrap();
    std::fs::create_dir_all(&config.paths.mail).unwrap();
    let config = Arc::new(config);
    let directory: Arc<dyn Directory> = Arc::new(MemoryDirectory::default());
    let domain =
        DomainRecord { name: "example.test".parse().unwrap(), created: "2026-01-01T00:00:00Z".into(), deliver_to: None, dkim: vec![] };
    directory.apply(vec![Change::PutDomain(domain), user("alice@example.test"), user("doom@example.test")]).await.unwrap();
    let defect = Arc::new(Defect);
    let queue = Queue::open(&config, Transports { mailbox: defect.clone(), relay: defect.clone() }, defect.clone()).await.unwrap();
    let screen = Screen::new(&config, directory.clone(), Dns::new(&config.dns).unwrap()).unwrap();
    let rates = Arc::new(UserRates::new(&config, directory.clone(), None));
    let certificates = CertificateStore::load(&config).unwrap();
    let policy = Arc::new(ResolvePolicy::from_config(&config));
    let settings = Settings::new(config.clone(), screen, rates, policy, &certificates, [0; 32]).unwrap();
    let rooms = Rooms {
        authenticator: Arc::new(Authenticator::new(directory.clone(), AuthPolicy::from_config(&config))),
        signer: Signer::new(&config, directory.clone()),
        directory,
        queue,
        mailboxes: defect.clone(),
        reports: defect,
        certificates,
    };
    let ingest = Ingest::new(rooms, settings, shutdown.clone());
    let listener = Socket::bind("127.0.0.1:0", &mut Vec::new()).unwrap().into_listener().unwrap();
    let address = listener.address();
    tokio::spawn(pillarbox_ingest::serve(ingest, listener, Role::Mta, TaskTracker::new()));
    address
}

struct Session(BufReader<TcpStream>);

impl Session {
    async fn begin(address: &str) -> Self {
        let mut session = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        assert_eq!(session.reply().await, "220");
        for line in ["HELO client.test", "MAIL FROM:<>"] {
            assert_eq!(session.say(line).await, "250", "{line}");
        }
        session
    }

    async fn say(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.reply().await
    }

    async fn reply(&mut self) -> String {
        let mut line = String::new();
        tokio::time::timeout(Duration::from_secs(60), self.0.read_line(&mut line)).await.unwrap().unwrap();
        line.get(..3).unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn a_panic_ends_one_session_with_421_and_is_counted() {
    let counters = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let home = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let address = listening(home.path(), &shutdown).await;
    let mut other = Session::begin(&address).await;
    for n in 1..=3 {
        let mut doomed = Session::begin(&address).await;
        assert_eq!(doomed.say("RCPT TO:<doom@example.test>").await, "421");
        let mut rest = Vec::new();
        doomed.0.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "it is over");
        assert!(counters.render().contains(&format!("pillarbox_ingest_panics_total {n}")), "{}", counters.render());
    }
    assert_eq!(other.say("RCPT TO:<alice@example.test>").await, "250", "the others go on");
    let mut next = Session::begin(&address).await;
    assert_eq!(next.say("RCPT TO:<alice@example.test>").await, "250");
    shutdown.cancel();
}
