//! Certificates from an ACME authority: Pebble judges each kind of proof, with its unkind habits on.

mod failing;
mod pebble;
mod proofs;
mod renewal;
mod zone;

use base64::Engine;
use pillarbox_testkit::certificates::trusting_client_config;
use pillarbox_testkit::{Client, Daemon, DnsServer};

/// What the daemon logs for each certificate.
const ISSUED: &str = "a certificate was issued and put in force";
/// What it logs when there is none.
const FAILED: &str = "no certificate could be had";

/// A name server that leads to this machine.
async fn dns() -> DnsServer {
    let dns = DnsServer::start().await;
    dns.address_of("mail.example.test", "127.0.0.1");
    dns
}

/// How many lines of the log hold this.
fn lines(daemon: &Daemon, text: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(text)).count()
}

/// Waits until so many lines hold this.
async fn lines_until(daemon: &Daemon, text: &str, at_least: usize) {
    daemon.events_until(&format!("{at_least} lines with {text:?}"), |_| (lines(daemon, text) >= at_least).then_some(())).await;
}

/// The first certificate in a file of the daemon's `state/tls/acme`, DER.
fn on_disk(daemon: &Daemon, name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(daemon.home().join("state/tls/acme").join(name)).unwrap();
    let body = text.split("-----BEGIN CERTIFICATE-----").nth(1).unwrap().split("-----END").next().unwrap();
    base64::engine::general_purpose::STANDARD.decode(body.split_whitespace().collect::<String>()).unwrap()
}

/// A session that is encrypted, on a service.
async fn session(daemon: &Daemon, service: &str) -> Client {
    let mut client = Client::connect(daemon.address(service)).await;
    if service == "submissions" {
        client.start_tls(trusting_client_config(), "mail.example.test").await.unwrap();
        client.expect("220").await;
    } else {
        client.expect("220").await;
        client.command("EHLO client.test", "250").await;
        client.command("STARTTLS", "220").await;
        client.start_tls(trusting_client_config(), "mail.example.test").await.unwrap();
    }
    client.command("EHLO client.test", "250").await;
    client
}

/// The certificate that a service presents now, DER.
async fn served(daemon: &Daemon, service: &str) -> Vec<u8> {
    session(daemon, service).await.tls.and_then(|tls| tls.peer_certificate).unwrap()
}

const MAIL: [&str; 3] = ["smtp", "submission", "submissions"];
