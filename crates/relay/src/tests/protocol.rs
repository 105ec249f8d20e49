//! What is said on a good day.

use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Transport};
use pillarbox_smtp::Notify;

use super::{MAIL, world};
use crate::testing::{Answer, Script, Stage, brief, deliver, destination, envelope};

#[tokio::test]
async fn pipelining_and_data() {
    let (_dns, sink, relay) = world(Script::usual()).await;
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test", "c@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok", "relayed 250 2.0.0 Ok"]);
    assert_eq!(outcomes.relay, format!("mx.example.test[127.0.0.1]:{}", sink.port()));
    assert_eq!((outcomes.tls.as_str(), down), ("", None));
    let taken = sink.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].body, MAIL.as_bytes());
    assert_eq!(taken[0].mail, format!("MAIL FROM:<a@me.test> SIZE={}", MAIL.len()));
    assert_eq!(taken[0].rcpts, ["RCPT TO:<b@example.test>", "RCPT TO:<c@example.test>"]);
    assert_eq!(sink.heard("EHLO"), ["EHLO relay.test"]);
    sink.hears("QUIT").await;
}

#[tokio::test]
async fn chunking_sends_the_message_in_one_bdat() {
    let (_dns, sink, relay) = world(Script::with(&["PIPELINING", "CHUNKING", "8BITMIME", "DSN"])).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), "A: 1\n\n.x\rlast").await;
    assert_eq!(brief(&outcomes), ["relayed dsn 250 2.0.0 Ok"]);
    // Bare line ends never leave, and BDAT needs no dots doubled.
    assert_eq!(sink.taken()[0].body, b"A: 1\r\n\r\n.x\r\nlast\r\n");
    assert_eq!(sink.heard("BDAT"), ["BDAT 18 LAST"]);
    assert!(sink.heard("DATA").is_empty());
}

#[tokio::test]
async fn without_pipelining_each_command_waits() {
    for extensions in [&["8BITMIME"][..], &["CHUNKING", "8BITMIME"]] {
        let (_dns, sink, relay) = world(Script::with(extensions)).await;
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
        assert_eq!(sink.taken()[0].body, MAIL.as_bytes());
    }
}

#[tokio::test]
async fn a_host_that_knows_no_ehlo_gets_helo() {
    let script = Script::usual().always(Stage::Ehlo, "502 5.5.1 What is EHLO?");
    let (_dns, sink, relay) = world(script).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    assert_eq!(sink.taken()[0].mail, "MAIL FROM:<a@me.test>");
}

#[tokio::test]
async fn one_connection_serves_what_waits() {
    let (_dns, sink, relay) = world(Script::usual()).await;
    let queue = FakeQueue::new();
    let one = envelope("a@me.test", &["b@example.test"]);
    let pushed: Vec<_> = (0..5).map(|_| queue.push(one.clone(), vec![0], Body::from_bytes(MAIL))).collect();
    relay.run(destination(&relay, &one), queue.feed()).await;
    for pushed in pushed {
        assert_eq!(brief(&pushed.outcomes().await.unwrap()), ["relayed 250 2.0.0 Ok"]);
    }
    assert_eq!((sink.connections(), sink.taken().len()), (1, 5));
}

#[tokio::test]
async fn large_messages_are_streamed_from_their_file() {
    for extensions in [&["PIPELINING", "CHUNKING"][..], &["PIPELINING"], &[]] {
        let (_dns, sink, relay) = world(Script::with(extensions)).await;
        let body: String = std::iter::repeat_n(".line with a dot\r\n", 20_000).collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m"), &body).unwrap();
        let queue = FakeQueue::new();
        let one = envelope("a@me.test", &["b@example.test"]);
        let pushed = queue.push(one.clone(), vec![0], Body::from_file(folder.path().join("m")).unwrap());
        relay.run(destination(&relay, &one), queue.feed()).await;
        assert_eq!(brief(&pushed.outcomes().await.unwrap()), ["relayed 250 2.0.0 Ok"]);
        assert!(sink.taken()[0].body == body.as_bytes());
    }
}

#[tokio::test]
async fn long_recipient_lists_are_split_as_the_host_wants() {
    let all: Vec<String> = (0..7).map(|n| format!("u{n}@example.test")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // Announced (RFC 9422), or found out by 452.
    let announced = Script::with(&["PIPELINING", "LIMITS RCPTMAX=3"]);
    let mut silent = Script::usual();
    for full in ["u3@*", "u4@*", "u5@*", "u6@*", "u6@*"] {
        silent = silent.once(Stage::Rcpt, full, "452 4.5.3 Too many");
    }
    for script in [announced, silent] {
        let (_dns, sink, relay) = world(script).await;
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &all), MAIL).await;
        assert!(brief(&outcomes).iter().all(|o| o == "relayed 250 2.0.0 Ok"), "{:?}", brief(&outcomes));
        let counts: Vec<usize> = sink.taken().iter().map(|t| t.rcpts.len()).collect();
        assert_eq!(counts, [3, 3, 1]);
        assert_eq!(sink.connections(), 1);
    }
}

#[tokio::test]
async fn a_host_that_limits_transactions_gets_further_connections() {
    let (_dns, sink, relay) = world(Script::with(&["PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=1"])).await;
    let to = ["u0@example.test", "u1@example.test", "u2@example.test"];
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &to), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"; 3]);
    assert_eq!((sink.connections(), sink.taken().len()), (2, 3));
}

#[tokio::test]
async fn delivery_status_parameters_are_passed_on() {
    let (_dns, sink, relay) = world(Script::with(&["PIPELINING", "DSN"])).await;
    let mut one = envelope("a@me.test", &["b@example.test", "c@example.test"]);
    one.envid = Some("id=1".into());
    one.ret = Some(pillarbox_smtp::Ret::Hdrs);
    one.recipients[0].notify = Notify { success: true, failure: true, delay: false, explicit: true };
    one.recipients[0].given = Some("alias@me.test".parse().unwrap());
    let (outcomes, _) = deliver(&relay, one, MAIL).await;
    assert_eq!(brief(&outcomes)[0], "relayed dsn 250 2.0.0 Ok");
    let taken = &sink.taken()[0];
    assert_eq!(taken.mail, "MAIL FROM:<a@me.test> RET=HDRS ENVID=id+3D1");
    assert_eq!(taken.rcpts[0], "RCPT TO:<b@example.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;alias@me.test");
    assert_eq!(taken.rcpts[1], "RCPT TO:<c@example.test>");
}

#[tokio::test]
async fn forwarded_recipients_go_with_their_own_sender_and_header() {
    let (_dns, sink, relay) = world(Script::usual()).await;
    let mut one = envelope("a@far.test", &["b@example.test", "c@example.test", "d@example.test"]);
    one.forward_header = "ARC-Seal: i=1\r\n".into();
    one.recipients[1].reverse_path = Some("srs0=x@me.test".parse().unwrap());
    let (outcomes, _) = deliver(&relay, one, MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"; 3]);
    let taken = sink.taken();
    assert_eq!(taken.len(), 2);
    assert!(taken[0].mail.starts_with("MAIL FROM:<a@far.test> "));
    assert_eq!((taken[0].rcpts.len(), taken[0].body.as_slice()), (2, MAIL.as_bytes()));
    assert!(taken[1].mail.starts_with("MAIL FROM:<srs0=x@me.test> "));
    assert_eq!((taken[1].rcpts.len(), taken[1].body.clone()), (1, [b"ARC-Seal: i=1\r\n", MAIL.as_bytes()].concat()));
}

#[tokio::test]
async fn an_idle_connection_that_the_host_closed_costs_nothing() {
    let (_dns, sink, relay) = world(Script::usual().every(2, Stage::Mail, Answer::Close)).await;
    let queue = FakeQueue::new();
    let one = envelope("a@me.test", &["b@example.test"]);
    let pushed: Vec<_> = (0..3).map(|_| queue.push(one.clone(), vec![0], Body::from_bytes(MAIL))).collect();
    relay.run(destination(&relay, &one), queue.feed()).await;
    for pushed in pushed {
        assert_eq!(brief(&pushed.outcomes().await.unwrap()), ["relayed 250 2.0.0 Ok"]);
    }
    assert_eq!((sink.connections(), sink.taken().len(), queue.down()), (3, 3, None));
}
