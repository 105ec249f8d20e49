//! Port 25: what every textbook prints, who is let in, and what is done with bad input.

use pillarbox_testkit::{Client, Daemon, certificates};

async fn with_alice() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon
}

/// Sends a whole small message and returns the reply's code to its end.
async fn send(client: &mut Client, to: &str, body: &[u8]) -> String {
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    client.command(&format!("RCPT TO:<{to}>"), "250").await;
    client.command("DATA", "354").await;
    client.send(body).await;
    client.send(b"\r\n.\r\n").await;
    client.reply().await.code().to_owned()
}

#[tokio::test]
async fn the_dialogue_that_every_textbook_prints() {
    let daemon = with_alice().await;
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    for (line, code) in
        [("HELO client.test", "250"), ("MAIL FROM:<sender@client.test>", "250"), ("RCPT TO:<alice@example.test>", "250"), ("DATA", "354")]
    {
        client.line(line).await;
        let reply = client.reply().await;
        assert_eq!(reply.code(), code, "{line}");
        assert_eq!(reply.texts().count(), 1, "HELO clients get single lines");
    }
    client.send(b"Subject: dots\r\n\r\nfirst\r\n..second\r\n.\r\n").await;
    client.expect("250").await;
    client.command("QUIT", "221").await;
    assert!(client.closed().await);
    let stored = daemon.mail("alice@example.test", 1).await.remove(0);
    assert_eq!(stored.body(), b"first\n.second\n");
    let text = stored.text();
    assert!(
        text.starts_with("Return-Path: <sender@client.test>\nDelivered-To: alice@example.test\nReceived: from client.test ("),
        "{text}"
    );
    assert_eq!(stored.size_hint('S'), Some(stored.content.len() as u64));
    assert_eq!(stored.size_hint('W'), Some((stored.content.len() + text.matches('\n').count()) as u64));
}

#[tokio::test]
async fn strangers_reach_our_users_and_nobody_else() {
    let daemon = with_alice().await;
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    let unknown = client.command("RCPT TO:<nobody@example.test>", "550").await;
    assert!(unknown.has("5.1.1 *"), "{unknown:?}");
    for elsewhere in [
        "bob@elsewhere.test",
        "bob%elsewhere.test@example.test",
        "elsewhere.test!bob@example.test",
        "@example.test:bob@elsewhere.test",
        "\"bob@elsewhere.test\"@example.test",
        "bob@elsewhere.test.",
        "bob@[192.0.2.1]",
        "\"bob@elsewhere.test\"",
    ] {
        client.command(&format!("RCPT TO:<{elsewhere}>"), "5").await;
    }
    let denied = client.command("RCPT TO:<bob@elsewhere.test>", "550").await;
    assert!(denied.has("5.7.1 *"), "{denied:?}");
    client.command("RCPT TO:<postmaster>", "250").await;
    client.command("RCPT TO:<Alice@EXAMPLE.test>", "250").await;
}

#[tokio::test]
async fn bad_input_gets_a_clear_reply_and_the_daemon_stays_up() {
    let daemon = with_alice().await;
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("RCPT TO:<alice@example.test>", "503").await;
    client.command("FROBNICATE", "500").await;
    client.command("EHLO client.test", "250").await;
    client.command("RCPT TO:<alice@example.test>", "503").await;
    client.send(b"MAIL FROM:<a\0b@client.test>\r\n").await;
    client.expect("5").await;
    client.command("AUTH PLAIN !!!", "5").await;
    let before = daemon.resident_kib();
    let mut flood = Client::connect(daemon.address("smtp")).await;
    flood.expect("220").await;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..10 {
        if flood.try_send(&piece).await.is_err() {
            break;
        }
    }
    let _ = flood.try_send(b"\r\n").await;
    if let Ok(reply) = flood.try_reply().await {
        assert!(reply.code().starts_with('5'), "{reply:?}");
    }
    let grown = daemon.resident_kib().saturating_sub(before);
    assert!(grown < 6 * 1024, "a 10 MB line cost {grown} KiB");
    let mut next = Client::connect(daemon.address("smtp")).await;
    next.expect("220").await;
    next.command("EHLO client.test", "250").await;
    assert_eq!(send(&mut next, "alice@example.test", b"Subject: still here\r\n\r\nyes").await, "250");
    daemon.mail("alice@example.test", 1).await;
}

#[tokio::test]
async fn a_change_is_seen_by_the_next_rcpt() {
    let daemon = with_alice().await;
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    client.command("RCPT TO:<info@example.test>", "550").await;
    daemon.add_alias("info@example.test", &["alice@example.test"]).await;
    client.command("RCPT TO:<info@example.test>", "250").await;
    daemon.add_alias("@example.test", &["alice@example.test"]).await;
    client.command("RCPT TO:<anything+detail@example.test>", "250").await;
    client.command("RCPT TO:<alice+lists@example.test>", "250").await;
    daemon.admin(&["user", "suspend", "alice@example.test"]).await;
    client.command("RCPT TO:<alice@example.test>", "550").await;
}

#[tokio::test]
async fn starttls_protects_the_rest_and_a_reload_changes_the_certificate() {
    let mut daemon = with_alice().await;
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    assert!(client.command("EHLO client.test", "250").await.has("STARTTLS"));
    client.command("STARTTLS", "220").await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    assert!(!client.command("EHLO client.test", "250").await.has("STARTTLS"));
    assert_eq!(send(&mut client, "alice@example.test", b"Subject: secret\r\n\r\nhush").await, "250");
    let stored = daemon.mail("alice@example.test", 1).await.remove(0);
    assert!(stored.header("Received").contains("with ESMTPS"), "{}", stored.text());
    let status = daemon.admin_json(&["status"]).await;
    assert_eq!(status["certificates"][0]["self_signed"], true);

    let authority = certificates::CertificateAuthority::new();
    let (chain, key) = authority.issue(&["mail.example.test"]).write(daemon.home(), "issued");
    daemon.configure("tls.certificate", chain.display().to_string());
    daemon.configure("tls.private_key", key.display().to_string());
    daemon.reload();
    daemon.log_line("configuration and certificates were reloaded").await;
    // The open session goes on, and a new one is shown a certificate that the authority vouches for.
    client.command("NOOP", "250").await;
    let mut next = Client::connect(daemon.address("smtp")).await;
    next.expect("220").await;
    next.command("EHLO client.test", "250").await;
    next.command("STARTTLS", "220").await;
    next.start_tls(authority.client_config(), "mail.example.test").await.unwrap();
    next.command("EHLO client.test", "250").await;
    assert_eq!(daemon.admin_json(&["status"]).await["certificates"][0]["self_signed"], false);
}

/// Octets of `needle` in all files below a folder.
fn occurrences(folder: &std::path::Path, needle: &[u8]) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap().windows(needle.len()).filter(|window| *window == needle).count())
        .sum()
}

#[tokio::test]
async fn one_message_to_several_recipients_is_one_copy_in_the_journal() {
    let daemon = Daemon::builder().set("queue.segment_size", "1M").start().await;
    let users = ["a@example.test", "b@example.test", "c@example.test", "d@example.test"];
    for user in users {
        daemon.add_user(user, "wonderland").await;
    }
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    for user in users {
        client.command(&format!("RCPT TO:<{user}>"), "250").await;
    }
    client.command("DATA", "354").await;
    client.send(b"Subject: shared\r\n\r\nonly-once-in-the-journal\r\n.\r\n").await;
    client.expect("250").await;
    for user in users {
        daemon.mail(user, 1).await;
    }
    assert_eq!(occurrences(&daemon.home().join("state/queue/journal"), b"only-once-in-the-journal"), 1);
}
