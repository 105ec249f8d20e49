//! Receivers with bad manners: slow, forgetful, moody, greylisting, with certificates of yesterday.

use std::time::Duration;

use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{Answer, CertificateAuthority, Sink, Stage};

use super::{Submission, count, emptied, friendly_dns, message, send, settings, with_alice, world};

#[tokio::test]
async fn a_tarpit_is_sat_out() {
    let (sink, dns) = (Sink::builder().tarpit(Duration::from_millis(300)).start().await, friendly_dns().await);
    let daemon = with_alice(settings(&dns, sink.port())).await;
    send(&daemon, &["carol@friend.test"], "patience").await;
    assert!(sink.messages(1).await[0].text().contains("Subject: patience"));
    daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!((sink.connections(), count(&daemon, "defer", "carol@friend.test")), (1, 0));
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
}

#[tokio::test]
async fn a_connection_lost_after_the_final_dot_costs_one_duplicate_at_most_and_one_report() {
    let (daemon, sink, _dns) = world().await;
    sink.next(1, Stage::Message, "*", Answer::Close);
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test>", &["<carol@friend.test> NOTIFY=SUCCESS,FAILURE"], &message("once", "hello")).await;
    sink.messages(1).await;
    daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    emptied(&daemon).await;
    assert_eq!(sink.transactions().len(), 2, "the one that was lost, and the one that was taken");
    let lost = daemon.events().into_iter().find(|e| e.name == "defer" && e.text("to") == "carol@friend.test").unwrap();
    assert!(lost.text("reply").contains("connection lost"), "{lost:?}");
    assert_eq!((count(&daemon, "deliver", "carol@friend.test"), count(&daemon, "bounce", "carol@friend.test")), (1, 0));
    // The host speaks DSN and reports for itself; we have nothing to say, and nothing of failure.
    assert!(daemon.mailbox("alice@example.test").messages.is_empty());
}

#[tokio::test]
async fn four_twenty_one_is_the_hosts_and_passes() {
    for stage in [Stage::Connect, Stage::Mail, Stage::Message] {
        let (daemon, sink, _dns) = world().await;
        sink.next(1, stage, "*", "421 4.3.2 Shutting down for a moment");
        send(&daemon, &["carol@friend.test"], "later").await;
        sink.messages(1).await;
        let deferred = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
        assert_eq!(deferred.text("status"), "relayed", "{stage:?}");
        assert_eq!((sink.accepted(), count(&daemon, "bounce", "carol@friend.test")), (1, 0), "{stage:?}");
    }
}

#[tokio::test]
async fn every_second_recipient_is_put_off_and_each_gets_one_copy() {
    let (daemon, sink, _dns) = world().await;
    sink.every(2, Stage::Rcpt, "*", "451 4.2.1 Ask me again");
    let to: Vec<String> = (0..8).map(|n| format!("user{n}@friend.test")).collect();
    send(&daemon, &to.iter().map(String::as_str).collect::<Vec<_>>(), "to many").await;
    let all = |sink: &Sink| {
        let taken: Vec<String> = sink
            .transactions()
            .iter()
            .filter(|t| t.accepted())
            .flat_map(|t| t.to().into_iter().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        (taken.len() >= 8).then_some(taken)
    };
    let mut taken = sink.until("all eight recipients", all).await;
    emptied(&daemon).await;
    taken.sort();
    assert_eq!(taken, to);
    for address in &to {
        assert_eq!(count(&daemon, "deliver", address), 1, "{address}");
    }
    assert!(daemon.events().iter().any(|e| e.name == "defer" && e.text("reply").contains("Ask me again")));
    assert!(daemon.mailbox("alice@example.test").messages.is_empty());
}

#[tokio::test]
async fn greylisting_is_waited_out() {
    let (daemon, sink, _dns) = world().await;
    sink.next(2, Stage::Rcpt, "carol@*", "450 4.7.1 Greylisted, come back later");
    send(&daemon, &["carol@friend.test"], "grey").await;
    sink.messages(1).await;
    daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(count(&daemon, "defer", "carol@friend.test"), 2);
    let deferred = daemon.events().into_iter().find(|e| e.name == "defer").unwrap();
    assert!(deferred.text("reply").contains("Greylisted") && deferred.text("dsn") == "4.7.1", "{deferred:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_better_than_none() {
    let expired = CertificateAuthority::new().issue_expired(&["mx.friend.test"]);
    let sink = Sink::builder().tls(SinkTls::StartTls(expired.server_config())).start().await;
    let dns = friendly_dns().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    send(&daemon, &["carol@friend.test"], "old").await;
    assert!(sink.messages(1).await[0].tls.is_some());
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(event.text("tls"), "TLSv1.3 opportunistic");
}

#[tokio::test]
async fn broken_starttls_gets_the_mail_in_plain_text() {
    let (sink, dns) = (Sink::builder().tls(SinkTls::Broken).start().await, friendly_dns().await);
    let daemon = with_alice(settings(&dns, sink.port())).await;
    send(&daemon, &["carol@friend.test"], "plain").await;
    assert!(sink.messages(1).await[0].tls.is_none());
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!((event.text("tls"), sink.connections()), (String::new(), 2));
}

#[tokio::test]
async fn old_hosts_get_seven_bits_and_helo() {
    let (sink, dns) = (Sink::builder().capabilities(&[]).start().await, friendly_dns().await);
    sink.on(Stage::Ehlo, "*", "502 5.5.1 What?");
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let content = message("old", "Gr\u{fc}\u{df}e\r\n")
        .replace("\r\n\r\n", "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
    Submission::open(&daemon).await.send("<alice@example.test> BODY=8BITMIME", &["<carol@friend.test>"], &content).await;
    let received = sink.messages(1).await.remove(0);
    assert!(!received.extended && received.from_parameters.is_empty(), "{received:?}");
    assert!(received.body.is_ascii(), "{}", received.text());
    assert!(received.text().contains("Gr=C3=BC=C3=9Fe") || received.text().contains("R3LDvMOfZQ"), "{}", received.text());
}

#[tokio::test]
async fn two_hosts_share_a_domain_and_the_second_takes_over() {
    let first = Sink::start().await;
    let second = Sink::builder().ip("127.0.0.2").port(first.port()).start().await;
    let dns = friendly_dns().await;
    dns.mx("friend.test", 20, "mx2.friend.test").address_of("mx2.friend.test", "127.0.0.2");
    let daemon = with_alice(settings(&dns, first.port())).await;
    first.on(Stage::Connect, "*", "554 5.3.2 Not today");
    send(&daemon, &["carol@friend.test"], "either").await;
    second.messages(1).await;
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert!(event.text("relay").starts_with("mx2.friend.test[127.0.0.2]"), "{event:?}");
    assert_eq!(count(&daemon, "defer", "carol@friend.test"), 0);
}
