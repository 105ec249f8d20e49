//! Mail to the world: found by DNS, encrypted where possible, tried again, given back.

use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{Answer, Client, Daemon, DnsServer, Sink, Stage, certificates};

use base64::Engine as _;

/// A daemon with one user, whose relay finds `sink` behind every domain that the name server knows.
async fn daemon_before(sink: &Sink, dns: &DnsServer) -> Daemon {
    let daemon = Daemon::builder().dns(dns.address()).relay_to_loopback(sink.port()).set("queue.retry", vec!["1s"]).start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon
}

/// Alice sends one message to these addresses, over submission.
async fn submit(daemon: &Daemon, to: &[&str], subject: &str) {
    let mut client = Client::connect(daemon.address("submissions")).await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    let token = base64::engine::general_purpose::STANDARD.encode("\0alice@example.test\0wonderland");
    client.command(&format!("AUTH PLAIN {token}"), "235").await;
    client.command("MAIL FROM:<alice@example.test>", "250").await;
    for recipient in to {
        client.command(&format!("RCPT TO:<{recipient}>"), "250").await;
    }
    client.command("DATA", "354").await;
    client.send(format!("From: alice@example.test\r\nSubject: {subject}\r\n\r\n..dot\r\nGr\u{fc}\u{df}e\r\n.\r\n").as_bytes()).await;
    client.expect("250").await;
}

#[tokio::test]
async fn mail_is_relayed_by_mx_with_starttls() {
    let authority = certificates::CertificateAuthority::new();
    let sink = Sink::builder().tls(SinkTls::StartTls(authority.issue(&["mx.friend.test"]).server_config())).start().await;
    let dns = DnsServer::start().await;
    dns.mx("friend.test", 10, "mx.friend.test").address_of("mx.friend.test", "127.0.0.1");
    let daemon = daemon_before(&sink, &dns).await;
    submit(&daemon, &["carol@friend.test"], "hello").await;
    let received = sink.messages(1).await.remove(0);
    assert!(received.tls.is_some());
    assert_eq!((received.from.as_str(), received.to()), ("alice@example.test", vec!["carol@friend.test"]));
    assert!(received.text().contains("\r\n.dot\r\n"), "{}", received.text());
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert!(event.text("relay").contains("mx.friend.test") && event.text("tls").contains("TLSv1.3"), "{event:?}");
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
}

#[tokio::test]
async fn a_refusal_comes_back_as_a_report_in_the_remotes_words() {
    let sink = Sink::start().await;
    let dns = DnsServer::start().await;
    dns.mx("friend.test", 10, "mx.friend.test").address_of("mx.friend.test", "127.0.0.1");
    let daemon = daemon_before(&sink, &dns).await;
    sink.on(Stage::Rcpt, "*nobody*", Answer::Say("550 5.1.1 We have no such person here".into()));
    submit(&daemon, &["nobody@friend.test", "carol@friend.test"], "hello").await;
    sink.messages(1).await;
    let report = daemon.mail("alice@example.test", 1).await.remove(0);
    let text = report.text();
    assert!(text.contains("Return-Path: <>"), "{text}");
    assert!(report.header("Content-Type").contains("multipart/report"), "{text}");
    assert!(text.contains("We have no such person here") && text.contains("Final-Recipient: rfc822; nobody@friend.test"), "{text}");
    assert!(!text.contains("Final-Recipient: rfc822; carol@friend.test"), "{text}");
    daemon.event("bounce", |e| e.text("to") == "nobody@friend.test").await;
}

#[tokio::test]
async fn a_destination_that_is_down_gets_its_mail_when_it_is_back() {
    let sink = Sink::start().await;
    let dns = DnsServer::start().await;
    dns.mx("friend.test", 10, "mx.friend.test").address_of("mx.friend.test", "127.0.0.1");
    let daemon = daemon_before(&sink, &dns).await;
    let address = sink.stop().await;
    submit(&daemon, &["carol@friend.test"], "patience").await;
    daemon.event("defer", |e| e.text("to") == "carol@friend.test").await;
    let listed = daemon.admin_json(&["queue", "list"]).await;
    assert_eq!(listed[0]["recipients"][0]["address"], "carol@friend.test");
    let back = Sink::builder().port(address.port()).start().await;
    daemon.admin(&["queue", "retry", "--all"]).await;
    let received = back.messages(1).await.remove(0);
    assert!(received.text().contains("Subject: patience"));
    daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
}
