//! The daemon in a folder: the helpers against the real programs, where those are built.

#![allow(clippy::unwrap_used, clippy::panic)]

use pillarbox_testkit::certificates::trusting_client_config;
use pillarbox_testkit::{Client, Daemon, Load, Sink, daemon};

/// Says so and ends the test where the programs are not built: this crate's own tests do not build them.
fn built() -> bool {
    let built = daemon::have_binaries();
    if !built {
        println!("skipped: build the programs first with cargo build -p pillarboxd -p pillarbox");
    }
    built
}

#[tokio::test]
async fn mail_comes_in_and_is_found() {
    if !built() {
        return;
    }
    let daemon = Daemon::start().await;
    daemon.add_user("ada@example.test", "secret").await;
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<bob@client.test>", "250").await;
    client.command("RCPT TO:<nobody@example.test>", "550").await;
    client.command("RCPT TO:<ada@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"Subject: hello\r\n\r\n..dot\r\nbye\r\n.\r\n").await;
    client.expect("250").await;
    client.command("QUIT", "221").await;
    let mail = daemon.mail("ada@example.test", 1).await;
    assert_eq!(mail[0].body(), b".dot\nbye\n");
    assert_eq!(mail[0].header("Return-Path"), "<bob@client.test>");
    assert_eq!(mail[0].size_hint('S'), Some(mail[0].content.len() as u64));
    let event = daemon.event("deliver", |e| e.text("to").contains("ada@example.test")).await;
    assert!(!event.text("id").is_empty());
    let status = daemon.get("/v1/status").await;
    assert_eq!((status.status, status.json()["hostname"].as_str()), (200, Some("mail.example.test")));
    assert_eq!(daemon.admin_json(&["user", "list"]).await[0]["address"], "ada@example.test");
}

#[tokio::test]
async fn a_crash_and_a_stop_lose_nothing_acknowledged() {
    if !built() {
        return;
    }
    let mut daemon = Daemon::start().await;
    daemon.add_user("ada@example.test", "secret").await;
    let mut load = Load::new(daemon.address("smtp"), "ada@example.test", 300);
    load.sessions = 10;
    let run = load.start();
    run.reached(50).await;
    daemon.kill().await;
    let (acknowledged, _) = run.finish().await;
    daemon.restart().await;
    let mail = daemon.mail("ada@example.test", acknowledged.len()).await;
    let marks: Vec<String> = mail.iter().map(|m| m.header("X-Load-Mark")).collect();
    for mark in &acknowledged {
        assert_eq!(marks.iter().filter(|m| *m == mark).count(), 1, "{mark}");
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn submission_is_relayed_by_scripted_dns() {
    if !built() {
        return;
    }
    let sink = Sink::start().await;
    let daemon = Daemon::builder().relay_to_loopback(sink.port()).start().await;
    daemon.dns().mx("remote.test", 10, "mx.remote.test").address_of("mx.remote.test", "127.0.0.1");
    daemon.add_user("ada@example.test", "secret").await;
    let mut client = Client::connect(daemon.address("submissions")).await;
    client.start_tls(trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("AUTH PLAIN AGFkYUBleGFtcGxlLnRlc3QAc2VjcmV0", "235").await;
    client.command("MAIL FROM:<ada@example.test>", "250").await;
    client.command("RCPT TO:<bob@remote.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"Subject: out\r\nBcc: secret@remote.test\r\n\r\nhi\r\n.\r\n").await;
    client.expect("250").await;
    let sent = sink.messages(1).await.remove(0);
    assert_eq!((sent.from.as_str(), sent.to()), ("ada@example.test", vec!["bob@remote.test"]));
    assert!(sent.text().contains("Message-ID: <") && !sent.text().contains("Bcc"), "{}", sent.text());
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
}
