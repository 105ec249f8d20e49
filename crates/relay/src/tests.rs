//! The relay against scripted hosts found through a scripted DNS.

use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Transport};

use crate::Relay;
use crate::testing::{FakeDns, Script, Sink, brief, config, deliver, destination, envelope, timeouts};

const MAIL: &str = "Subject: x\r\n\r\nhello\r\n.dot\r\n";

async fn world(script: Script) -> (FakeDns, Sink, std::sync::Arc<Relay>) {
    let dns = FakeDns::start().await;
    let sink = Sink::start(script).await;
    dns.add("example.test MX 10 mx.example.test").add("mx.example.test A 127.0.0.1");
    let relay = Relay::with_timeouts(&config(&dns, sink.port()), timeouts()).unwrap();
    (dns, sink, relay)
}

#[tokio::test]
async fn mail_reaches_the_mx_host_with_pipelining_and_data() {
    let (_dns, sink, relay) = world(Script::default()).await;
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test", "c@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Taken", "relayed 250 2.0.0 Taken"]);
    assert_eq!(outcomes.relay, format!("mx.example.test[127.0.0.1]:{}", sink.port()));
    assert_eq!(down, None);
    let taken = sink.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].body, MAIL.as_bytes());
    assert_eq!(taken[0].mail, format!("MAIL FROM:<a@me.test> SIZE={}", MAIL.len()));
    assert_eq!(taken[0].rcpts.len(), 2);
    assert_eq!(sink.heard("EHLO"), ["EHLO relay.test"]);
    assert_eq!(sink.heard("QUIT").len(), 1);
}

#[tokio::test]
async fn chunking_sends_the_message_in_one_bdat() {
    let (_dns, sink, relay) = world(Script::with(&["PIPELINING", "CHUNKING", "8BITMIME", "DSN"])).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), "A: 1\n\n.x\rlast").await;
    assert_eq!(brief(&outcomes), ["relayed dsn 250 2.0.0 Taken"]);
    // Bare line ends never leave, and BDAT needs no dots doubled.
    assert_eq!(sink.taken()[0].body, b"A: 1\r\n\r\n.x\r\nlast\r\n");
    assert_eq!(sink.heard("BDAT"), ["BDAT 18 LAST"]);
}

#[tokio::test]
async fn one_connection_serves_what_waits() {
    let (_dns, sink, relay) = world(Script::default()).await;
    let queue = FakeQueue::new();
    let one = envelope("a@me.test", &["b@example.test"]);
    let pushed: Vec<_> = (0..5).map(|_| queue.push(one.clone(), vec![0], Body::from_bytes(MAIL))).collect();
    relay.run(destination(&relay, &one), queue.feed()).await;
    for pushed in pushed {
        assert_eq!(brief(&pushed.outcomes().await.unwrap()), ["relayed 250 2.0.0 Taken"]);
    }
    assert_eq!((sink.connections(), sink.taken().len()), (1, 5));
}
