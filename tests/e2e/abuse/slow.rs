//! Who writes an octet now and then, and who never reads.

use std::time::Duration;

use super::*;

/// Sends an octet of `text` at a time, over and over, until the other side has had enough. Answers with what was said.
async fn drip(client: &mut Client, text: &[u8]) -> Option<String> {
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    for octet in text.iter().cycle().take(600) {
        beat.tick().await;
        if client.try_send(&[*octet]).await.is_err() {
            return client.try_reply().await.ok().map(|r| r.code().to_owned());
        }
        if !client.silent_for(Duration::ZERO).await {
            return client.try_reply().await.ok().map(|r| r.code().to_owned());
        }
    }
    panic!("nobody minds");
}

#[tokio::test]
async fn an_octet_now_and_then_keeps_no_connection() {
    let daemon = started(builder().set("limits.command_timeout", "2s").set("limits.data_timeout", "3s")).await;
    let mut command = from(source(0), daemon.address("smtp")).await;
    command.expect("220").await;
    let mut body = from(source(1), daemon.address("smtp")).await;
    body.expect("220").await;
    body.command("EHLO client.test", "250").await;
    body.command("MAIL FROM:<sender@client.test>", "250").await;
    body.command("RCPT TO:<alice@example.test>", "250").await;
    body.command("DATA", "354").await;
    let (one, two, ()) = tokio::join!(drip(&mut command, b"N"), drip(&mut body, b"x\r\n"), others_are_served(&daemon));
    assert_eq!((one.as_deref(), two.as_deref()), (Some("421"), Some("421")));
    daemon.event("disconnect", |e| e.text("status") == "timeout" && e.text("client") == source(0).to_string()).await;
    daemon.event("disconnect", |e| e.text("status") == "timeout" && e.text("client") == source(1).to_string()).await;
    // Only the honest message is there.
    assert_eq!(daemon.mail("alice@example.test", 1).await.len(), 1);
}

#[tokio::test]
async fn who_reads_no_answer_gets_no_more_of_them() {
    let daemon = started(builder()).await;
    daemon.add_alias("@example.test", &["alice@example.test"]).await;
    others_are_served(&daemon).await;
    let before = Memory::of(&daemon);
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = from(source(n), daemon.address("smtp")).await;
        client.expect("220").await;
        client.command("EHLO client.test", "250").await;
        client.command("MAIL FROM:<sender@client.test>", "250").await;
        clients.push(client);
    }
    // Each sends commands for as long as they are taken, and reads nothing: the daemon must stop reading too.
    let line = format!("RCPT TO:<{}@example.test>\r\n", "x".repeat(60)).repeat(500);
    for client in &mut clients {
        let mut taken = 0;
        while taken < 32 << 20 {
            match tokio::time::timeout(Duration::from_millis(500), client.try_send(line.as_bytes())).await {
                Ok(Ok(())) => taken += line.len(),
                Ok(Err(e)) => panic!("cut off: {e}"),
                Err(_) => break,
            }
        }
        assert!(taken < 32 << 20, "the daemon goes on reading from one who reads nothing");
    }
    others_are_served(&daemon).await;
    // Some three MiB for each, and none is added by what they go on sending.
    Memory::of(&daemon).grew_less_than(before, 96 << 10, "20 clients that read nothing");
}
