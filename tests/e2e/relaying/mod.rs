//! Mail to the world, as users hand it in: what all the tests of the queue and the relay begin with.

mod dane;
mod hops;
mod named;
mod namespaces;
mod operating;
pub(crate) mod postfix;
mod receivers;
mod refusals;
mod reports;
mod schedule;
mod sessions;
pub(crate) mod sts;
mod tls_reports;
mod to_postfix;
mod wishes;

use base64::Engine as _;
use pillarbox_testkit::daemon::DaemonBuilder;
use pillarbox_testkit::{Client, Daemon, DnsServer, Sink, certificates};

/// The sender in these tests.
const ALICE: &str = "alice@example.test";

/// A daemon's settings: it finds whatever `dns` names on `port` of the loopback network, and tries again after a second.
fn settings(dns: &DnsServer, port: u16) -> DaemonBuilder {
    Daemon::builder().dns(dns.address()).relay_to_loopback(port).set("queue.retry", vec!["1s"])
}

/// Starts it, with Alice as a user.
async fn with_alice(builder: DaemonBuilder) -> Daemon {
    let daemon = builder.start().await;
    daemon.add_user(ALICE, "wonderland").await;
    daemon
}

/// A name server that leads `friend.test` to 127.0.0.1.
async fn friendly_dns() -> DnsServer {
    let dns = DnsServer::start().await;
    dns.mx("friend.test", 10, "mx.friend.test").address_of("mx.friend.test", "127.0.0.1");
    dns
}

/// A daemon with Alice before a plain sink that is the MX of `friend.test`.
async fn world() -> (Daemon, Sink, DnsServer) {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    let daemon = with_alice(settings(&dns, sink.port())).await;
    (daemon, sink, dns)
}

/// A message with all that submission would add, so that what arrives can be compared.
fn message(subject: &str, body: &str) -> String {
    format!(
        "From: alice@example.test\r\nTo: carol@friend.test\r\nSubject: {subject}\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\n\
         Message-ID: <{}@example.test>\r\n\r\n{body}",
        subject.replace(' ', ".")
    )
}

/// A submission session.
struct Submission {
    client: Client,
    greeted: pillarbox_testkit::client::ReplyLines,
}

impl Submission {
    /// Alice's.
    async fn open(daemon: &Daemon) -> Self {
        Self::open_as(daemon, ALICE, "wonderland").await
    }

    /// Anybody's.
    async fn open_as(daemon: &Daemon, user: &str, password: &str) -> Self {
        let mut client = Client::connect(daemon.address("submissions")).await;
        client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
        client.expect("220").await;
        let greeted = client.command("EHLO client.test", "250").await;
        let token = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        client.command(&format!("AUTH PLAIN {token}"), "235").await;
        Self { client, greeted }
    }

    /// One message. `mail` and each of `to` are an address in brackets with parameters, such as `<a@b.test> NOTIFY=NEVER`. Returns the queue id.
    async fn send(&mut self, mail: &str, to: &[&str], content: &str) -> String {
        let client = &mut self.client;
        client.command(&format!("MAIL FROM:{mail}"), "250").await;
        for recipient in to {
            client.command(&format!("RCPT TO:{recipient}"), "250").await;
        }
        client.command("DATA", "354").await;
        let stuffed = format!("\r\n{content}").replace("\r\n.", "\r\n..");
        client.send(format!("{}\r\n.\r\n", &stuffed[2..]).as_bytes()).await;
        let reply = client.expect("250").await;
        let id = reply.texts().flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).last();
        id.unwrap_or_default()
    }
}

/// Alice sends one small message to these addresses.
async fn send(daemon: &Daemon, to: &[&str], subject: &str) -> String {
    let recipients: Vec<String> = to.iter().map(|address| format!("<{address}>")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    Submission::open(daemon).await.send("<alice@example.test>", &recipients, &message(subject, "hello")).await
}

/// Waits until nothing is queued: what had to be told was told.
async fn emptied(daemon: &Daemon) {
    let waiting = async {
        while daemon.admin_json(&["queue", "list"]).await != serde_json::json!([]) {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(pillarbox_testkit::PATIENCE, waiting).await.is_err() {
        panic!("the queue is not empty: {}", daemon.admin(&["queue", "list"]).await);
    }
}

/// How many events of this name there are for a recipient.
fn count(daemon: &Daemon, name: &str, to: &str) -> usize {
    daemon.events().iter().filter(|e| e.name == name && e.text("to") == to).count()
}
