//! What is given back at once, in words that help: null MX, loops, forbidden networks, extensions that a host lacks.

use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{CertificateAuthority, Daemon, Sink};

use super::{ALICE, Submission, friendly_dns, message, send, settings, with_alice, world};

/// The report that Alice gets, with this status and these words in it.
async fn returned(daemon: &Daemon, to: &str, status: &str, words: &str) {
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains(&format!("Status: {status}")) && report.contains(words), "{report}");
    assert!(report.contains("Action: failed"), "{report}");
    let event = daemon.event("bounce", |e| e.text("to") == to).await;
    assert_eq!((event.text("dsn"), event.text("status")), (status.to_owned(), "failed".to_owned()), "{event:?}");
}

#[tokio::test]
async fn a_null_mx_is_believed_at_once() {
    let (daemon, sink, dns) = world().await;
    dns.mx("nomail.test", 0, ".").address_of("nomail.test", "127.0.0.1");
    send(&daemon, &["carol@nomail.test"], "null").await;
    returned(&daemon, "carol@nomail.test", "5.1.10", "accepts no mail").await;
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_domain_that_does_not_exist_is_said_at_once() {
    let (daemon, sink, _dns) = world().await;
    send(&daemon, &["carol@nowhere.test"], "lost").await;
    returned(&daemon, "carol@nowhere.test", "5.1.2", "does not exist").await;
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn mail_that_would_come_back_to_us_is_returned() {
    let (daemon, sink, dns) = world().await;
    // We are the best MX, and the worse ones must not be asked either (RFC 5321 section 5.1).
    dns.mx("loop.test", 10, "mail.example.test").mx("loop.test", 20, "mx.friend.test");
    send(&daemon, &["carol@loop.test"], "loop").await;
    returned(&daemon, "carol@loop.test", "5.4.6", "loops back").await;
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_better_mx_than_ours_is_used() {
    let (daemon, sink, dns) = world().await;
    dns.mx("backup.test", 10, "mx.friend.test").mx("backup.test", 20, "mail.example.test");
    send(&daemon, &["carol@backup.test"], "primary").await;
    assert_eq!(sink.messages(1).await[0].to(), ["carol@backup.test"]);
}

#[tokio::test]
async fn networks_that_are_forbidden_get_no_connection() {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    let daemon = with_alice(settings(&dns, sink.port()).set("relay.deny_networks", vec!["127.0.0.0/8".to_owned()])).await;
    send(&daemon, &["carol@friend.test"], "inside").await;
    returned(&daemon, "carol@friend.test", "5.4.4", "never relays to").await;
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn an_address_beyond_ascii_needs_a_host_that_takes_it() {
    let dns = friendly_dns().await;
    let sink = Sink::builder().capabilities(&["8BITMIME", "ENHANCEDSTATUSCODES"]).start().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let content = message("utf", "hello").replace("carol@", "j\u{f6}rg@");
    Submission::open(&daemon).await.send("<alice@example.test> SMTPUTF8", &["<j\u{f6}rg@friend.test>"], &content).await;
    returned(&daemon, "j\u{f6}rg@friend.test", "5.6.7", "SMTPUTF8").await;
    assert_eq!(sink.accepted(), 0);

    let sink = Sink::start().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    Submission::open(&daemon).await.send("<alice@example.test> SMTPUTF8", &["<j\u{f6}rg@friend.test>"], &content).await;
    let received = sink.messages(1).await.remove(0);
    assert_eq!(received.to(), ["j\u{f6}rg@friend.test"]);
    assert!(received.from_parameters.iter().any(|p| p == "SMTPUTF8"), "{received:?}");
    assert!(received.text().contains("To: j\u{f6}rg@friend.test"), "{}", received.text());
}

#[tokio::test]
async fn requiretls_is_kept_or_the_mail_comes_back() {
    let dns = friendly_dns().await;
    // No TLS at all.
    let sink = Sink::start().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let mut session = Submission::open(&daemon).await;
    assert!(session.greeted.has("REQUIRETLS"), "{:?}", session.greeted);
    session.send("<alice@example.test> REQUIRETLS", &["<carol@friend.test>"], &message("secret", "hello")).await;
    returned(&daemon, "carol@friend.test", "5.7.30", "REQUIRETLS").await;
    assert_eq!(sink.accepted(), 0);
    // TLS, and nobody vouches for the host.
    let issued = CertificateAuthority::new().issue(&["mx.friend.test"]);
    let sink = Sink::builder()
        .capabilities(&["8BITMIME", "REQUIRETLS", "ENHANCEDSTATUSCODES"])
        .tls(SinkTls::StartTls(issued.server_config()))
        .start()
        .await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    Submission::open(&daemon).await.send("<alice@example.test> REQUIRETLS", &["<carol@friend.test>"], &message("secret", "hello")).await;
    returned(&daemon, "carol@friend.test", "5.7.30", "REQUIRETLS").await;
    assert_eq!(sink.accepted(), 0);
}

#[tokio::test]
async fn a_message_larger_than_the_host_takes_is_not_sent_at_all() {
    let dns = friendly_dns().await;
    let sink = Sink::builder().capabilities(&["PIPELINING", "SIZE 1000", "ENHANCEDSTATUSCODES"]).start().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let content = message("large", &"a line of some length\r\n".repeat(100));
    Submission::open(&daemon).await.send("<alice@example.test>", &["<carol@friend.test>"], &content).await;
    returned(&daemon, "carol@friend.test", "5.3.4", "too large").await;
    assert!(sink.commands().iter().all(|(_, line)| !line.starts_with("MAIL")), "{:?}", sink.commands());
}
