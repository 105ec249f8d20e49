//! Hosts that refuse, hang up, or talk nonsense.

use std::sync::Arc;

use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Transport};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{MAIL, two_hosts, world};
use crate::session::Endpoint;
use crate::testing::{Answer, FakeDns, Script, Sink, Stage, brief, config, deliver, destination, envelope, timeouts};
use crate::{Relay, Timeouts};

#[tokio::test]
async fn each_recipient_keeps_its_own_reply() {
    let refusing = || {
        Script::usual().once(Stage::Rcpt, "bad@*", "550-5.1.1 No such\n550 5.1.1 user here").once(
            Stage::Rcpt,
            "later@*",
            "450 4.2.0 Greylisted",
        )
    };
    for chunking in [false, true] {
        let mut script = refusing();
        if chunking {
            script = script.and("CHUNKING");
        }
        let (_dns, sink, relay) = world(script).await;
        let to = ["bad@example.test", "good@example.test", "later@example.test"];
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &to), MAIL).await;
        let told = ["failed 550 5.1.1 No such / user here", "relayed 250 2.0.0 Ok", "deferred 450 4.2.0 Greylisted"];
        assert_eq!(brief(&outcomes), told);
        assert_eq!(sink.taken()[0].rcpts, ["RCPT TO:<good@example.test>"]);
    }
}

#[tokio::test]
async fn a_transaction_without_recipients_leaves_the_connection_usable() {
    for extensions in [&["PIPELINING"][..], &["PIPELINING", "CHUNKING"], &[]] {
        let script = Script::with(extensions).once(Stage::Rcpt, "*", "550 5.1.1 Nobody").once(Stage::Mail, "a@*", "553 5.1.8 Not you");
        let (_dns, sink, relay) = world(script).await;
        let queue = FakeQueue::new();
        let [a, b] = [envelope("b@me.test", &["b@example.test"]), envelope("a@me.test", &["b@example.test"])];
        let pushed = [a.clone(), b, a.clone()].map(|one| queue.push(one, vec![0], Body::from_bytes(MAIL)));
        relay.run(destination(&relay, &a), queue.feed()).await;
        let mut told = Vec::new();
        for pushed in pushed {
            told.extend(brief(&pushed.outcomes().await.unwrap()));
        }
        assert_eq!(told, ["failed 550 5.1.1 Nobody", "failed 553 5.1.8 Not you", "relayed 250 2.0.0 Ok"]);
        assert_eq!(sink.connections(), 1, "{extensions:?}");
        assert_eq!(sink.heard("RSET").len(), 1);
    }
}

/// A host that serves one connection by a table: the first entry whose text begins a line answers it, an empty answer hangs
/// up, and other lines get none. Becomes the lines heard.
async fn by_table(table: &'static [(&'static str, &'static str)]) -> (FakeDns, Arc<Relay>, u16, JoinHandle<Vec<String>>) {
    let dns = FakeDns::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    dns.add("example.test MX 10 odd.test").add("odd.test A 127.0.0.1");
    let relay = Relay::with_timeouts(&config(&dns, port), timeouts()).unwrap();
    let host = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 odd.test\r\n").await.unwrap();
        let mut heard = Vec::new();
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 0 {
            let answer = table.iter().find(|(start, _)| line.starts_with(start)).map(|(_, answer)| *answer);
            heard.push(std::mem::take(&mut line));
            match answer {
                Some("") => break,
                Some(answer) => stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap(),
                None => {}
            }
        }
        heard
    });
    (dns, relay, port, host)
}

#[tokio::test]
async fn a_host_that_wants_the_message_for_nobody_gets_an_empty_one() {
    let (_dns, relay, _, host) = by_table(&[
        ("EHLO", "250-odd.test\r\n250 PIPELINING"),
        ("MAIL", "250 Ok"),
        ("RCPT", "550 5.1.1 Nobody"),
        ("DATA", "354 Go on then"),
        (".\r\n", "554 5.5.1 No recipients"),
        ("QUIT", "221 Bye"),
    ])
    .await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["failed 550 5.1.1 Nobody"]);
    assert_eq!(host.await.unwrap()[3..], ["DATA\r\n", ".\r\n", "QUIT\r\n"]);
}

#[tokio::test]
async fn a_refusal_before_a_rude_hang_up_counts() {
    let (_dns, relay, _, _host) = by_table(&[
        ("EHLO", "250-odd.test\r\n250-PIPELINING\r\n250 CHUNKING"),
        ("MAIL", "250 Ok"),
        ("RCPT TO:<bad@", "550 5.1.1 Nobody"),
        ("RCPT TO:<good@", ""),
    ])
    .await;
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["bad@example.test", "good@example.test"]), MAIL).await;
    let told = brief(&outcomes);
    assert_eq!(told[0], "failed 550 5.1.1 Nobody");
    assert!(told[1].starts_with("deferred 451 4.4.2 ") && told[1].contains("while giving the envelope"), "{told:?}");
    assert_eq!(down, None, "one message's trouble is not the destination's");
}

#[tokio::test]
async fn a_connection_lost_after_a_whole_bdat_is_deferred_like_one_after_the_final_dot() {
    let (dns, relay, port, _host) =
        by_table(&[("EHLO", "250-odd.test\r\n250-PIPELINING\r\n250 CHUNKING"), ("MAIL", "250 Ok"), ("RCPT", "250 Ok"), ("hello", "")])
            .await;
    let second = Sink::start_at("127.0.0.2", port, Script::usual()).await;
    dns.add("example.test MX 20 mx2.example.test").add("mx2.example.test A 127.0.0.2");
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    let told = brief(&outcomes);
    assert!(told[0].starts_with("deferred 451 4.4.2 ") && told[0].contains("after the end of the message"), "{told:?}");
    assert_eq!(second.connections(), 0);
}

#[tokio::test]
async fn a_lost_connection_after_the_final_dot_is_deferred_and_not_repeated_at_once() {
    let (_dns, sinks, relay) = two_hosts(Script::usual().once(Stage::Message, "*", Answer::Close), Script::usual()).await;
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    let told = brief(&outcomes);
    assert!(told[0].starts_with("deferred 451 4.4.2 ") && told[0].contains("after the end of the message"), "{told:?}");
    assert!(sinks[1].taken().is_empty());
    assert_eq!(down, None);
}

#[tokio::test]
async fn a_lost_connection_before_it_goes_to_the_next_host() {
    for script in [
        Script::usual().once(Stage::Mail, "*", Answer::Close),
        Script::usual().once(Stage::Data, "*", Answer::Close),
        Script::usual().once(Stage::Ehlo, "*", Answer::Close),
        Script::usual().once(Stage::Mail, "*", "421 4.3.2 Closing"),
        Script::usual().once(Stage::Rcpt, "*", "421 4.3.2 Closing"),
        Script::usual().once(Stage::Ehlo, "*", "421 4.3.2 Closing"),
        Script::usual().once(Stage::Ehlo, "*", "451 4.3.2 Later"),
        Script::usual().always(Stage::Connect, "554 5.7.1 Not you"),
        Script::usual().always(Stage::Connect, "421 4.7.0 Busy"),
        Script::usual().always(Stage::Connect, "SSH-2.0-OpenSSH"),
    ] {
        let (_dns, sinks, relay) = two_hosts(script, Script::usual()).await;
        let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
        assert_eq!((sinks[1].taken().len(), down), (1, None));
    }
}

#[tokio::test]
async fn when_no_host_will_the_destination_is_down_in_the_hosts_words() {
    let busy = Script::usual().always(Stage::Connect, "421 4.7.0 Busy");
    let (_dns, _sinks, relay) = two_hosts(busy.clone(), busy).await;
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@example.test", "c@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["deferred 421 4.7.0 Busy"; 2]);
    assert_eq!(down.as_deref(), Some("421 4.7.0 Busy"));
}

#[tokio::test]
async fn a_closed_port_says_so() {
    let (dns, _sink, relay) = world(Script::usual()).await;
    dns.add("closed.test A 127.0.0.9");
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@closed.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].contains("451 4.4.1 closed.test[127.0.0.9]"), "{:?}", brief(&outcomes));
    assert!(down.unwrap().contains("connection refused"));
}

#[tokio::test]
async fn the_message_may_be_refused_at_its_end() {
    for (reply, told) in [("554 5.7.1 Spam", "failed 554 5.7.1 Spam"), ("452 4.3.1 Full", "deferred 452 4.3.1 Full")] {
        for (extensions, stage) in [(&["PIPELINING"][..], Stage::Message), (&["PIPELINING", "CHUNKING"], Stage::Message)] {
            let (_dns, _sink, relay) = world(Script::with(extensions).once(stage, "*", reply)).await;
            let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
            assert_eq!(brief(&outcomes), [told]);
        }
    }
}

#[tokio::test]
async fn starttls_first_is_waited_for() {
    let (_dns, _sink, relay) = world(Script::usual().once(Stage::Mail, "*", "530 5.7.0 STARTTLS first")).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["deferred 530 5.7.0 STARTTLS first"]);
}

#[tokio::test]
async fn silent_hosts_cost_their_time_and_no_more() {
    for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Data] {
        let (dns, _, _) = world(Script::usual()).await;
        let silent = Sink::start_at("127.0.0.3", 0, Script::usual().always(stage, Answer::Hang)).await;
        let good = Sink::start_at("127.0.0.4", silent.port(), Script::usual()).await;
        dns.add("slow.test MX 10 s.test").add("s.test A 127.0.0.3").add("slow.test MX 20 g.test").add("g.test A 127.0.0.4");
        let wait = std::time::Duration::from_millis(100);
        let short = Timeouts { greeting: wait, mail: wait, data: wait, ..timeouts() };
        let relay = Relay::with_timeouts(&config(&dns, silent.port()), short).unwrap();
        let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@slow.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"], "{stage:?}");
        assert_eq!((good.taken().len(), down), (1, None));
    }
}

#[tokio::test]
async fn four_hundreds_for_every_second_recipient_defer_those_alone() {
    let (_dns, sink, relay) = world(Script::usual().every(2, Stage::Rcpt, "451 4.7.1 Greylisted")).await;
    let to = ["u0@example.test", "u1@example.test", "u2@example.test", "u3@example.test"];
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &to), MAIL).await;
    let later = "deferred 451 4.7.1 Greylisted";
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok", later, "relayed 250 2.0.0 Ok", later]);
    assert_eq!(sink.taken()[0].rcpts, ["RCPT TO:<u0@example.test>", "RCPT TO:<u2@example.test>"]);
}

#[tokio::test]
async fn an_address_that_was_dead_is_tried_last() {
    let (dns, sink, relay) = world(Script::usual()).await;
    dns.add("mx.both.test A 127.0.0.1").add("mx.both.test AAAA ::1").add("both.test MX 10 mx.both.test");
    // Nothing listens on ::1, which comes first; from the second message on it does not.
    let shared = relay.shared();
    for known in [false, true] {
        assert_eq!(shared.was_unreachable(&Endpoint::Tcp(format!("[::1]:{}", sink.port()).parse().unwrap())), known);
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@both.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    }
}

#[tokio::test]
async fn an_address_that_does_not_answer_costs_a_head_start_and_not_the_whole_wait() {
    let (dns, sink, _) = world(Script::usual()).await;
    // Connections that nobody accepts fill its queue; further ones get no answer at all.
    let hole = tokio::net::TcpSocket::new_v4().unwrap();
    hole.bind(format!("127.0.0.5:{}", sink.port()).parse().unwrap()).unwrap();
    let hole = hole.listen(0).unwrap();
    let address = hole.local_addr().unwrap();
    let _filled = tokio::net::TcpStream::connect(address).await.unwrap();
    dns.add("hole.test MX 10 mx.hole.test").add("mx.hole.test A 127.0.0.5").add("mx.hole.test A 127.0.0.1");
    dns.add("late.test MX 10 dead.late.test").add("late.test MX 20 mx.late.test");
    dns.add("dead.late.test A 127.0.0.5").add("mx.late.test A 127.0.0.1");
    let mut config = config(&dns, sink.port());
    // Longer than the test may run.
    config.relay.connect_timeout = std::time::Duration::from_secs(3600);
    let relay = Relay::with_timeouts(&config, timeouts()).unwrap();
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@hole.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    assert!(relay.shared().was_unreachable(&Endpoint::Tcp(address)));
    // A host of which that is known is not waited for while another takes the mail.
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@late.test"]), MAIL).await;
    assert_eq!((brief(&outcomes), sink.taken().len()), (vec!["relayed 250 2.0.0 Ok".to_owned()], 2));
}
