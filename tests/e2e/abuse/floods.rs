//! Commands without end: RCPT, NOOP, AUTH.

use super::*;

#[tokio::test]
async fn a_hundred_thousand_rcpt_in_one_go() {
    let daemon = started(builder()).await;
    daemon.add_alias("@example.test", &["alice@example.test"]).await;
    others_are_served(&daemon).await;
    let before = Memory::of(&daemon);
    let mut client = from(source(0), daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    let mut accepted = 0;
    'flood: for thousand in 0..100 {
        let lines: String = (0..1000).map(|n| format!("RCPT TO:<u{}@example.test>\r\n", thousand * 1000 + n)).collect();
        if client.try_send(lines.as_bytes()).await.is_err() {
            break;
        }
        for _ in 0..1000 {
            match client.try_reply().await {
                Ok(reply) if reply.code() == "250" => accepted += 1,
                // 452 4.5.3 beyond limits.recipients, and in the end 421.
                Ok(reply) => assert!(["452", "421"].contains(&reply.code()), "{reply}"),
                Err(_) => break 'flood,
            }
        }
    }
    assert_eq!(accepted, 1000, "limits.recipients");
    Memory::of(&daemon).grew_less_than(before, 24 << 10, "100,000 RCPT");
    others_are_served(&daemon).await;
}

#[tokio::test]
async fn a_flood_of_guessed_recipients_is_cut_off_and_counted() {
    let daemon = started(builder()).await;
    others_are_served(&daemon).await;
    let before = Memory::of(&daemon);
    for session in 0..20 {
        let mut client = from(source(session), daemon.address("smtp")).await;
        client.expect("220").await;
        client.command("EHLO client.test", "250").await;
        client.command("MAIL FROM:<sender@client.test>", "250").await;
        let lines: String = (0..5000).map(|n| format!("RCPT TO:<guess{session}-{n}@example.test>\r\n")).collect();
        let _ = client.try_send(lines.as_bytes()).await;
        let mut refused = 0;
        while let Ok(reply) = client.try_reply().await {
            if reply.code() == "421" {
                break;
            }
            assert_eq!(reply.code(), "550");
            refused += 1;
        }
        assert!(refused <= 101, "{refused} guesses in one session");
    }
    others_are_served(&daemon).await;
    let counted = counted(&daemon, "pillarbox_ingest_recipients_refused_total", "").await;
    assert!((20 * 90..=20 * 102).contains(&counted), "{counted}");
    Memory::of(&daemon).grew_less_than(before, 16 << 10, "20 sessions of 5,000 guessed recipients");
}

#[tokio::test]
async fn a_million_noop() {
    let daemon = started(builder()).await;
    others_are_served(&daemon).await;
    let before = Memory::of(&daemon);
    let piece = "NOOP\r\n".repeat(10_000);
    let mut sent = 0;
    let mut sessions = 0;
    // Whoever is cut off comes again; each session gets a hundred for nothing, then ten errors.
    while sent < 1_000_000 && sessions < 40 {
        sessions += 1;
        let mut client = from(source(sessions), daemon.address("smtp")).await;
        client.expect("220").await;
        let _ = client.try_send(piece.as_bytes()).await;
        sent += 10_000;
        let mut answered = 0;
        while let Ok(reply) = client.try_reply().await {
            answered += 1;
            if reply.code() == "421" {
                break;
            }
            assert_eq!(reply.code(), "250");
        }
        assert!(answered <= 111, "{answered} answers in one session");
        others_are_served(&daemon).await;
    }
    Memory::of(&daemon).grew_less_than(before, 16 << 10, "NOOP without end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_logins_at_once() {
    // Hashes as they are by default: 19 MiB each, as many at once as there are cores.
    let costly = builder().set("auth.argon2.memory_kib", 19_456).set("auth.argon2.iterations", 2);
    let daemon = started(costly).await;
    others_are_served(&daemon).await;
    let mut clients = Vec::new();
    for n in 0..200 {
        clients.push(submitting(&daemon, source(n)).await);
    }
    let before = Memory::of(&daemon);
    let tries = clients.into_iter().enumerate().map(|(n, mut client)| async move {
        client.line(&format!("AUTH PLAIN {}", plain(&format!("user{n}@example.test"), "guess"))).await;
        client.reply().await.code().to_owned()
    });
    let (answers, ()) = tokio::join!(join_all(tries), others_are_served(&daemon));
    assert_eq!(answers.len(), 200);
    // 535, or 454 where more wait than is sensible: never let in, never left without an answer.
    assert!(answers.iter().all(|code| code == "535" || code == "454"), "{answers:?}");
    let bad = answers.iter().filter(|code| *code == "535").count() as u64;
    assert!(bad > 0);
    assert_eq!(counted(&daemon, "pillarbox_ingest_logins_total", "bad").await, bad);
    assert_eq!(counted(&daemon, "pillarbox_ingest_logins_total", "busy").await, 200 - bad);
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get()) as u64;
    Memory::of(&daemon).grew_less_than(before, cores * (24 << 10) + (24 << 10), "200 logins at once");
    let mut client = submitting(&daemon, source(300)).await;
    client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", "wonderland")), "235").await;
}
