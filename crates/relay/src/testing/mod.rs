//! For this crate's tests: the test kit's scripted DNS and mail host, told in few words; a policy host; deliveries and their outcomes.

mod dns;
mod https;
mod sink;

pub(crate) use dns::FakeDns;
pub(crate) use https::Https;
pub(crate) use pillarbox_testkit::certificates::{CertificateAuthority as Authority, Issued};
pub(crate) use pillarbox_testkit::sink::{Answer, SinkTls, Stage};
pub(crate) use sink::{Script, Sink};

use std::sync::Arc;
use std::time::Duration;

use pillarbox_config::Config;
use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Destination, Envelope, Outcomes, QueueId, Recipient, Route, Transport};

use crate::{Relay, Timeouts};

/// Waits short enough for a test that provokes one, long enough for a busy machine otherwise.
pub(crate) fn timeouts() -> Timeouts {
    Timeouts { idle: Duration::from_millis(1), quit: Duration::from_secs(2), ..Timeouts::default() }
}

/// A configuration that asks `dns`, delivers to `port`, and denies nothing.
pub(crate) fn config(dns: &FakeDns, port: u16) -> Config {
    let mut config = Config { hostname: "relay.test".into(), ..Config::default() };
    config.dns.servers = vec![dns.address()];
    config.relay.port = port;
    config.relay.deny_networks = vec![];
    config.relay.dane = false;
    config.relay.mta_sts = false;
    config
}

/// An envelope from `from` to each of `to`.
pub(crate) fn envelope(from: &str, to: &[&str]) -> Envelope {
    let recipients = to.iter().map(|to| Recipient::new(to.parse().unwrap(), Route::Relay)).collect();
    Envelope::new(QueueId(7), from.parse().unwrap(), recipients)
}

/// Runs `envelope` through the relay and returns its outcomes, and what the relay said of the destination.
pub(crate) async fn deliver(relay: &Arc<Relay>, envelope: Envelope, body: impl Into<bytes::Bytes>) -> (Outcomes, Option<String>) {
    let queue = FakeQueue::new();
    let destination = relay.destination(&envelope, &envelope.recipients[0]);
    let all = (0..envelope.recipients.len()).collect();
    let pushed = queue.push(envelope, all, Body::from_bytes(body));
    relay.run(destination, queue.feed()).await;
    (pushed.outcomes().await.unwrap(), queue.down().map(|reply| reply.to_string()))
}

/// The destination of the first recipient.
pub(crate) fn destination(relay: &Relay, envelope: &Envelope) -> Destination {
    relay.destination(envelope, &envelope.recipients[0])
}

/// The outcomes in short: `relayed 250 ok`, `deferred 451 4.3.0 …`.
pub(crate) fn brief(outcomes: &Outcomes) -> Vec<String> {
    use pillarbox_queue::Outcome as O;
    let each = outcomes.each.iter().map(|outcome| match outcome {
        O::Relayed { reply, dsn } => {
            let reply = reply.to_string();
            format!("relayed{} {}", if *dsn { " dsn" } else { "" }, reply.split(": taken as").next().unwrap_or(""))
        }
        O::Deferred { reply } => format!("deferred {reply}"),
        O::Failed { reply } => format!("failed {reply}"),
        other => format!("{other:?}"),
    });
    each.collect()
}
