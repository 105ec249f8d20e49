//! Hosts that refuse, hang up, or talk nonsense.

use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Transport};

use super::{MAIL, two_hosts, world};
use crate::testing::{Script, brief, deliver, destination, envelope};

#[tokio::test]
async fn each_recipient_keeps_its_own_reply() {
    let refusing = || {
        Script::default().reply("RCPT TO:<BAD@", "550-5.1.1 No such\n550 5.1.1 user here").reply("RCPT TO:<LATER@", "450 4.2.0 Greylisted")
    };
    for chunking in [false, true] {
        let mut script = refusing();
        if chunking {
            script.extensions.push("CHUNKING".into());
        }
        let (_dns, sink, relay) = world(script).await;
        let to = ["bad@example.test", "good@example.test", "later@example.test"];
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &to), MAIL).await;
        let told = ["failed 550 5.1.1 No such / user here", "relayed 250 2.0.0 Taken", "deferred 450 4.2.0 Greylisted"];
        assert_eq!(brief(&outcomes), told);
        assert_eq!(sink.taken()[0].rcpts, ["RCPT TO:<good@example.test>"]);
    }
}

#[tokio::test]
async fn a_transaction_without_recipients_leaves_the_connection_usable() {
    for extensions in [&["PIPELINING"][..], &["PIPELINING", "CHUNKING"], &[]] {
        let script = Script::with(extensions).reply("RCPT", "550 5.1.1 Nobody").reply("MAIL FROM:<A@", "553 5.1.8 Not you");
        let (_dns, sink, relay) = world(script).await;
        let queue = FakeQueue::new();
        let [a, b] = [envelope("b@me.test", &["b@example.test"]), envelope("a@me.test", &["b@example.test"])];
        let pushed = [a.clone(), b, a.clone()].map(|one| queue.push(one, vec![0], Body::from_bytes(MAIL)));
        relay.run(destination(&relay, &a), queue.feed()).await;
        let mut told = Vec::new();
        for pushed in pushed {
            told.extend(brief(&pushed.outcomes().await.unwrap()));
        }
        assert_eq!(told, ["failed 550 5.1.1 Nobody", "failed 553 5.1.8 Not you", "relayed 250 2.0.0 Taken"]);
        assert_eq!(sink.connections(), 1, "{extensions:?}");
        assert_eq!(sink.heard("RSET").len(), 1);
    }
}

#[tokio::test]
async fn a_host_that_wants_the_message_for_nobody_gets_an_empty_one() {
    let script = Script::default().reply("RCPT", "550 5.1.1 Nobody").reply("DATA", "354 Go on then").reply(".", "554 5.5.1 No recipients");
    let (_dns, sink, relay) = world(script).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["failed 550 5.1.1 Nobody"]);
    assert!(sink.taken().is_empty());
    assert!(sink.commands().contains(&".".to_owned()));
}

#[tokio::test]
async fn a_lost_connection_after_the_final_dot_is_deferred_and_not_repeated_at_once() {
    let (_dns, sinks, relay) = two_hosts(Script::default().hang_up_at("."), Script::default()).await;
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    let told = brief(&outcomes);
    assert!(told[0].starts_with("deferred 451 4.4.2 ") && told[0].contains("after the end of the message"), "{told:?}");
    assert!(sinks[1].taken().is_empty());
    assert_eq!(down, None);
}

#[tokio::test]
async fn a_lost_connection_before_it_goes_to_the_next_host() {
    for script in [
        Script::default().hang_up_at("MAIL"),
        Script::default().hang_up_at("DATA"),
        Script::default().hang_up_at("EHLO"),
        Script::default().reply("MAIL", "421 4.3.2 Closing"),
        Script::default().reply("RCPT", "421 4.3.2 Closing"),
        Script::default().reply("EHLO", "421 4.3.2 Closing"),
        Script::default().reply("EHLO", "451 4.3.2 Later"),
        Script { greeting: "554 5.7.1 Not you".into(), ..Script::default() },
        Script { greeting: "421 4.7.0 Busy".into(), ..Script::default() },
        Script { greeting: "SSH-2.0-OpenSSH".into(), ..Script::default() },
    ] {
        let (_dns, sinks, relay) = two_hosts(script, Script::default()).await;
        let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Taken"]);
        assert_eq!((sinks[1].taken().len(), down), (1, None));
    }
}

#[tokio::test]
async fn when_no_host_will_the_destination_is_down_in_the_hosts_words() {
    let busy = Script { greeting: "421 4.7.0 Busy".into(), ..Script::default() };
    let (_dns, _sinks, relay) = two_hosts(busy.clone(), busy).await;
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test", "c@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["deferred 421 4.7.0 Busy"; 2]);
    assert_eq!(down.as_deref(), Some("421 4.7.0 Busy"));
}

#[tokio::test]
async fn a_closed_port_says_so() {
    let (dns, _sink, relay) = world(Script::default()).await;
    dns.add("closed.test A 127.0.0.9");
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@closed.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].contains("451 4.4.1 closed.test[127.0.0.9]"), "{:?}", brief(&outcomes));
    assert!(down.unwrap().contains("connection refused"));
}

#[tokio::test]
async fn the_message_may_be_refused_at_its_end() {
    for (reply, told) in [("554 5.7.1 Spam", "failed 554 5.7.1 Spam"), ("452 4.3.1 Full", "deferred 452 4.3.1 Full")] {
        for (extensions, command) in [(&["PIPELINING"][..], "."), (&["PIPELINING", "CHUNKING"], "BDAT")] {
            let (_dns, _sink, relay) = world(Script::with(extensions).reply(command, reply)).await;
            let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
            assert_eq!(brief(&outcomes), [told]);
        }
    }
}
