//! What a sender may wish: later, first, in time, in binary.

use std::time::{Duration, Instant};

use pillarbox_testkit::{Sink, Stage};

use super::{ALICE, Submission, friendly_dns, message, settings, with_alice, world};

fn subject(received: &pillarbox_testkit::sink::Received) -> String {
    received.text().lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_message_for_later_leaves_later() {
    let (daemon, sink, _dns) = world().await;
    let mut session = Submission::open(&daemon).await;
    assert!(session.greeted.has("FUTURERELEASE*"), "{:?}", session.greeted);
    let start = Instant::now();
    session.send("<alice@example.test> HOLDFOR=2", &["<carol@friend.test>"], &message("later", "hello")).await;
    session.send("<alice@example.test>", &["<carol@friend.test>"], &message("now", "hello")).await;
    let both = sink.messages(2).await;
    assert_eq!([subject(&both[0]), subject(&both[1])], ["now", "later"]);
    // The clock of the queue counts whole milliseconds.
    assert!(start.elapsed() > Duration::from_millis(1900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_is_urgent_goes_first() {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    sink.on(Stage::Connect, "*", "421 4.3.2 Down");
    let builder = settings(&dns, sink.port()).set("queue.retry", vec!["1h"]).set("relay.per_destination", 1);
    let daemon = with_alice(builder).await;
    let mut session = Submission::open(&daemon).await;
    assert!(session.greeted.has("MT-PRIORITY*"), "{:?}", session.greeted);
    for priority in [0, -3, 0, 4, 0] {
        let content = message(&format!("priority {priority}"), "hello");
        session.send(&format!("<alice@example.test> MT-PRIORITY={priority}"), &["<carol@friend.test>"], &content).await;
    }
    daemon.event("defer", |_| true).await;
    sink.idle().await;
    sink.behave();
    daemon.admin(&["queue", "retry", "--all"]).await;
    let order: Vec<String> = sink.messages(5).await.iter().map(subject).collect();
    assert_eq!(order, ["priority 4", "priority 0", "priority 0", "priority 0", "priority -3"]);
}

#[tokio::test]
async fn mail_with_a_time_limit_goes_where_the_limit_is_kept_or_comes_back() {
    let dns = friendly_dns().await;
    let sink = Sink::builder().capabilities(&["PIPELINING", "8BITMIME", "DSN", "DELIVERBY"]).start().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let mut session = Submission::open(&daemon).await;
    assert!(session.greeted.has("DELIVERBY*"), "{:?}", session.greeted);
    session.send("<alice@example.test> BY=500;R", &["<carol@friend.test>"], &message("soon", "hello")).await;
    let received = sink.messages(1).await.remove(0);
    let by = received.from_parameters.iter().find_map(|p| p.strip_prefix("BY=")).unwrap_or_default().to_owned();
    let seconds: i64 = by.trim_end_matches(";R").parse().unwrap_or_else(|_| panic!("{received:?}"));
    assert!((400..=500).contains(&seconds), "{by}");

    // A host that promises nothing gets nothing.
    let (daemon, sink, _dns) = world().await;
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> BY=500;R", &["<carol@friend.test>"], &message("soon", "hello")).await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Status: 5.3.3") && report.contains("DELIVERBY"), "{report}");
    assert_eq!(sink.accepted(), 0);
}

#[tokio::test]
async fn mail_that_misses_its_time_comes_back() {
    let dns = friendly_dns().await;
    let sink = Sink::builder().capabilities(&["8BITMIME", "DELIVERBY"]).start().await;
    sink.on(Stage::Rcpt, "*", "451 4.2.1 Not now");
    let daemon = with_alice(settings(&dns, sink.port()).set("queue.retry", vec!["1h"])).await;
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> BY=3;R", &["<carol@friend.test>"], &message("too late", "hello")).await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Status: 5.4.7") && report.contains("Not now"), "{report}");
    assert_eq!(sink.accepted(), 0);
}

#[tokio::test]
async fn binary_content_is_carried_as_it_is_or_made_text() {
    let body = "line\nbare\rends and\u{0}nothing\r\n";
    let content = message("binary", "\u{1}").replacen(
        "\r\n\r\n\u{1}",
        "\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n",
        1,
    ) + body;
    for capabilities in [&["8BITMIME", "CHUNKING", "BINARYMIME"][..], &["8BITMIME", "CHUNKING"], &[]] {
        let dns = friendly_dns().await;
        let sink = Sink::builder().capabilities(capabilities).start().await;
        let daemon = with_alice(settings(&dns, sink.port())).await;
        let mut session = Submission::open(&daemon).await;
        assert!(session.greeted.has("BINARYMIME"), "{:?}", session.greeted);
        session.client.command("MAIL FROM:<alice@example.test> BODY=BINARYMIME", "250").await;
        session.client.command("RCPT TO:<carol@friend.test>", "250").await;
        session.client.send(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes()).await;
        session.client.expect("250").await;
        let received = sink.messages(1).await.remove(0);
        let binary = capabilities.contains(&"BINARYMIME");
        assert_eq!(received.from_parameters.iter().any(|p| p == "BODY=BINARYMIME"), binary, "{received:?}");
        let text = received.text();
        if binary {
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text:?}");
        } else {
            assert!(text.contains("Content-Transfer-Encoding: base64"), "{text:?}");
            // "line\nbare\rends and\0nothing\r\n"
            assert!(text.contains("bGluZQpiYXJlDWVuZHMgYW5kAG5vdGhpbmcNCg=="), "{text:?}");
        }
        assert!(sink.violations().is_empty() || binary, "{:?}", sink.violations());
    }
}
