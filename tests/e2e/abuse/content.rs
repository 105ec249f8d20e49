//! Messages made to break parsers, and TLS that ends in the middle of one.

use super::*;

/// Sends a message and returns how its end was answered.
async fn send(daemon: &Daemon, n: u32, message: &[u8]) -> String {
    let mut client = from(source(n), daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    client.command("RCPT TO:<alice@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(message).await;
    client.send(b"\r\n.\r\n").await;
    client.reply().await.to_string()
}

#[tokio::test]
async fn monstrous_headers_are_refused_in_bounded_memory() {
    let daemon = started(builder()).await;
    others_are_served(&daemon).await;
    let before = Memory::of(&daemon);
    // Ten megabytes of one field, in lines that are each allowed.
    let folded =
        [b"From: a@client.test\r\nSubject: x\r\n".to_vec(), format!(" {}\r\n", "y".repeat(900)).repeat(11_000).into_bytes()].concat();
    let reply = send(&daemon, 0, &folded).await;
    assert!(reply.starts_with('5'), "{reply}");
    let (_, ()) = tokio::join!(
        async {
            // A million fields.
            let reply = send(&daemon, 1, &b"X: y\r\n".repeat(1_000_000)).await;
            assert!(reply.starts_with('5'), "{reply}");
        },
        others_are_served(&daemon)
    );
    Memory::of(&daemon).grew_less_than(before, 96 << 10, "headers of 10 MB and of a million fields");
    daemon.mail("alice@example.test", 2).await;
    assert_eq!(counted(&daemon, "pillarbox_ingest_messages_refused_total", "").await, 2);
}

#[tokio::test]
async fn ten_thousand_nested_parts_are_stored_as_they_came() {
    let daemon = started(builder()).await;
    others_are_served(&daemon).await;
    let before = Memory::of(&daemon);
    let mut message = "From: a@client.test\r\nSubject: matryoshka\r\nMIME-Version: 1.0\r\n".to_owned();
    for n in 0..10_000 {
        message.push_str(&format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"));
    }
    message.push_str("\r\nthe innermost\r\n");
    for n in (0..10_000).rev() {
        message.push_str(&format!("--b{n}--\r\n"));
    }
    let reply = send(&daemon, 0, message.as_bytes()).await;
    assert!(reply.starts_with("250"), "{reply}");
    let stored = daemon.mail("alice@example.test", 2).await;
    let nested = stored.iter().find(|m| m.header("Subject") == "matryoshka").unwrap();
    assert_eq!(nested.body().iter().filter(|b| **b == b'\n').count(), message.lines().count() - 4);
    Memory::of(&daemon).grew_less_than(before, 48 << 10, "10,000 nested parts");
}

#[tokio::test]
async fn tls_closed_in_the_middle_of_a_chunk_leaves_nothing() {
    let daemon = started(builder()).await;
    for (n, end) in ["closed", "cut"].into_iter().enumerate() {
        let mut client = from(source(n as u32), daemon.address("smtp")).await;
        client.expect("220").await;
        client.command("EHLO client.test", "250").await;
        client.command("STARTTLS", "220").await;
        client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
        client.command("EHLO client.test", "250").await;
        client.command("MAIL FROM:<sender@client.test>", "250").await;
        client.command("RCPT TO:<alice@example.test>", "250").await;
        client.send(b"BDAT 20\r\nSubject: half\r\n\r\nxxx").await;
        client.expect("250").await;
        client.send(b"BDAT 100000 LAST\r\nthe beginning of it").await;
        if end == "closed" {
            // With close_notify, as a client that means it.
            client.shut_down().await;
        }
        drop(client);
        daemon.event("disconnect", |e| e.text("client") == source(n as u32).to_string() && e.text("status") == "lost").await;
    }
    assert_eq!(counted(&daemon, "pillarbox_ingest_panics_total", "").await, 0);
    others_are_served(&daemon).await;
    let stored = daemon.mail("alice@example.test", 1).await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].header("Subject"), "an honest one");
}
