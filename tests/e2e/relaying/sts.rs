//! MTA-STS (RFC 8461) with a policy host of our own behind HTTPS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{CertificateAuthority, Daemon, DnsServer, Issued, Sink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{count, friendly_dns, send, settings, with_alice};

/// An HTTPS server that gives one policy to whoever asks for it.
pub(crate) struct PolicyHost {
    pub(crate) port: u16,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl PolicyHost {
    pub(crate) async fn start(issued: &Issued, policy: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, acceptor) = (Arc::new(AtomicUsize::new(0)), TlsAcceptor::from(issued.server_config()));
        let mut tasks = JoinSet::new();
        let counter = asked.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
                let right = request.starts_with(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n");
                counter.fetch_add(usize::from(right), Ordering::SeqCst);
                let status = if right { "200 OK" } else { "404 Not Found" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", policy.len());
                let _ = stream.write_all(format!("{head}{policy}").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, asked, _tasks: tasks }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct World {
    daemon: Daemon,
    sink: Sink,
    policy_host: PolicyHost,
    dns: DnsServer,
    _folder: tempfile::TempDir,
}

/// `friend.test` with this policy, and an MX host with a certificate that the authority issues by `certificate`.
async fn world(mode: &str, mx: &str, certificate: impl FnOnce(&CertificateAuthority) -> Issued) -> World {
    let authority = CertificateAuthority::new();
    let sink = Sink::builder().tls(SinkTls::StartTls(certificate(&authority).server_config())).start().await;
    let policy = format!("version: STSv1\r\nmode: {mode}\r\nmax_age: 86400\r\nmx: {mx}\r\n");
    let policy_host = PolicyHost::start(&authority.issue(&["mta-sts.friend.test"]), policy).await;
    let dns = friendly_dns().await;
    dns.txt("_mta-sts.friend.test", "v=STSv1; id=20261124;").address_of("mta-sts.friend.test", "127.0.0.1");
    let folder = pillarbox_testkit::folder();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let builder = settings(&dns, sink.port())
        .set("relay.mta_sts", true)
        .set("relay.mta_sts_port", i64::from(policy_host.port))
        .set("relay.ca_file", ca.display().to_string());
    let daemon = with_alice(builder).await;
    send(&daemon, &["carol@friend.test"], "policy").await;
    World { daemon, sink, policy_host, dns, _folder: folder }
}

#[tokio::test]
async fn an_enforced_policy_is_kept_and_remembered() {
    let world = world("enforce", "*.friend.test", |authority| authority.issue(&["mx.friend.test"])).await;
    world.sink.messages(1).await;
    let event = world.daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(event.text("tls"), "TLSv1.3 mta-sts");
    send(&world.daemon, &["dave@friend.test"], "again").await;
    let event = world.daemon.event("deliver", |e| e.text("to") == "dave@friend.test").await;
    assert_eq!((event.text("tls").as_str(), world.policy_host.asked()), ("TLSv1.3 mta-sts", 1));
}

#[tokio::test]
async fn a_policy_outlives_a_restart_and_its_record() {
    let mut world = world("enforce", "mx.friend.test", |authority| authority.issue(&["mx.friend.test"])).await;
    world.sink.messages(1).await;
    world.daemon.stop().await;
    world.dns.remove("_mta-sts.friend.test").remove("mta-sts.friend.test");
    world.daemon.restart().await;
    send(&world.daemon, &["dave@friend.test"], "again").await;
    let event = world.daemon.event("deliver", |e| e.text("to") == "dave@friend.test").await;
    assert_eq!((event.text("tls").as_str(), world.policy_host.asked()), ("TLSv1.3 mta-sts", 1));
}

#[tokio::test]
async fn a_host_that_an_enforced_policy_does_not_name_gets_nothing() {
    let world = world("enforce", "other.friend.test", |authority| authority.issue(&["mx.friend.test"])).await;
    let event = world.daemon.event("defer", |e| e.text("to") == "carol@friend.test").await;
    assert!(event.text("reply").contains("MTA-STS policy"), "{event:?}");
    assert_eq!((event.text("dsn").as_str(), world.sink.connections()), ("4.7.5", 0));
}

#[tokio::test]
async fn an_expired_certificate_does_not_pass_an_enforced_policy() {
    let world = world("enforce", "mx.friend.test", |authority| authority.issue_expired(&["mx.friend.test"])).await;
    let event = world.daemon.event("defer", |e| e.text("to") == "carol@friend.test").await;
    assert!(event.text("reply").contains("mta-sts demands secure TLS"), "{event:?}");
    assert_eq!(event.text("dsn"), "4.7.5");
    assert!(world.sink.transactions().is_empty());
}

#[tokio::test]
async fn a_policy_under_test_blocks_nothing() {
    let world = world("testing", "mx.friend.test", |authority| authority.issue_expired(&["mx.friend.test"])).await;
    world.sink.messages(1).await;
    let event = world.daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!((event.text("tls").as_str(), world.policy_host.asked()), ("TLSv1.3 opportunistic", 1));
    assert_eq!(count(&world.daemon, "defer", "carol@friend.test"), 0);
}
