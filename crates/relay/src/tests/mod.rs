//! The relay against scripted hosts found through a scripted DNS.

mod content;
mod dane;
mod failures;
mod protocol;
mod routing;
mod security;
mod sts;

use std::sync::Arc;

use crate::Relay;
use crate::testing::{FakeDns, Script, Sink, config, timeouts};

const MAIL: &str = "Subject: x\r\n\r\nhello\r\n.dot\r\n";

/// `example.test` with one MX host that follows `script`.
async fn world(script: Script) -> (FakeDns, Sink, Arc<Relay>) {
    let dns = FakeDns::start().await;
    let sink = Sink::start(script).await;
    dns.add("example.test MX 10 mx.example.test").add("mx.example.test A 127.0.0.1");
    let relay = Relay::with_timeouts(&config(&dns, sink.port()), timeouts()).unwrap();
    (dns, sink, relay)
}

/// `example.test` with two MX hosts on two loopback addresses, the first preferred.
async fn two_hosts(first: Script, second: Script) -> (FakeDns, [Sink; 2], Arc<Relay>) {
    let (dns, one, relay) = world(first).await;
    let two = Sink::start_at("127.0.0.2", one.port(), second).await;
    dns.add("example.test MX 20 mx2.example.test").add("mx2.example.test A 127.0.0.2");
    (dns, [one, two], relay)
}
