//! Milters that do as a script says, behind the real daemon: what each answer does to the reply, the mailbox and the envelope.

use base64::Engine as _;
use pillarbox_testkit::{Behaviour, Client, Daemon, Milter, certificates};

use super::{metric, with_milters, with_settings, with_users};
use crate::post::{letter, login, session, transmit};

async fn send(daemon: &Daemon, to: &[&str]) -> String {
    let content = letter("sender@client.test", to[0], "through filters");
    transmit(&mut session(daemon).await, "sender@client.test", to, content.as_bytes()).await.to_string()
}

#[tokio::test]
async fn one_recipient_is_refused_and_the_others_get_their_mail() {
    let behaviour = Behaviour::default().answer_when(b'R', "carol@", &[(b'y', b"550 5.2.1 Carol reads no mail\0")]).answer_when(
        b'R',
        "alice@",
        &[(b't', b"")],
    );
    let milter = Milter::unix(behaviour).await;
    let daemon = with_users(with_milters(&[&milter.address])).await;
    let mut client = session(&daemon).await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    let refused = client.command("RCPT TO:<carol@example.test>", "550").await;
    assert!(refused.has("5.2.1 Carol reads no mail"), "{refused}");
    client.command("RCPT TO:<alice@example.test>", "451").await;
    client.command("RCPT TO:<bob@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"Subject: one of three\r\n\r\nhello\r\n.\r\n").await;
    client.expect("250").await;
    daemon.mail("bob@example.test", 1).await;
    for other in ["carol@example.test", "alice@example.test"] {
        assert!(daemon.mailbox(other).messages.is_empty(), "{other}");
    }
    assert!(milter.letters().starts_with("OCHMRRRTL"), "{}", milter.letters());
}

#[tokio::test]
async fn quarantine_is_junk_and_discard_is_a_yes_without_a_message() {
    let behaviour =
        Behaviour::default().answer_when(b'R', "carol@", &[(b'd', b"")]).answer(b'E', &[(b'q', b"looks bad to me\0"), (b'c', b"")]);
    let milter = Milter::inet(behaviour).await;
    let daemon = with_users(with_milters(&[&milter.address])).await;
    let reply = send(&daemon, &["bob@example.test"]).await;
    assert!(reply.contains("250"), "{reply}");
    daemon.event("deliver", |event| event.text("to") == "bob@example.test").await;
    let junk = daemon.folder("bob@example.test", "Junk").messages;
    assert!(junk[0].header("X-Pillarbox-Verdict").contains("a milter quarantines it: looks bad to me"), "{}", junk[0].text());
    assert!(daemon.mailbox("bob@example.test").messages.is_empty());

    let reply = send(&daemon, &["carol@example.test"]).await;
    assert!(reply.contains("250"), "{reply}");
    let event = daemon.event("reject", |event| event.text("status") == "discarded").await;
    assert!(event.text("verdict").contains("a milter discards the message"), "{event:?}");
    assert!(daemon.mailbox("carol@example.test").messages.is_empty());
}

#[tokio::test]
async fn header_body_sender_and_recipients_are_changed_by_several_in_order() {
    let first = Milter::unix(Behaviour { macros: vec![(5, "i {client_addr} {mail_addr}")], ..Behaviour::default() }.answer(
        b'E',
        &[
            (b'h', b"X-First\0seen by one\0"),
            (b'm', b"\0\0\0\x01Subject\0[one] through filters\0"),
            (b'+', b"<carol@example.test>\0"),
            (b'-', b"<bob@example.test>\0"),
            (b'e', b"<bounces@client.test>\0"),
            (b'c', b""),
        ],
    ))
    .await;
    let second =
        Milter::inet(Behaviour::default().answer(b'E', &[(b'i', b"\0\0\0\0X-Second\0on top\0"), (b'b', b"another body\r\n"), (b'a', b"")]))
            .await;
    let daemon = with_users(with_milters(&[&first.address, &second.address])).await;
    let reply = send(&daemon, &["bob@example.test", "alice@example.test"]).await;
    assert!(reply.contains("250"), "{reply}");
    for user in ["alice@example.test", "carol@example.test"] {
        let stored = daemon.mail(user, 1).await.remove(0);
        assert_eq!(
            (stored.header("Subject").as_str(), stored.body()),
            ("[one] through filters", &b"another body\n"[..]),
            "{}",
            stored.text()
        );
        assert_eq!((stored.header("X-First"), stored.header("X-Second")), ("seen by one".into(), "on top".into()));
        assert_eq!(stored.header("Return-Path"), "<bounces@client.test>");
    }
    assert!(daemon.mailbox("bob@example.test").messages.is_empty());
    assert!(second.data(b'L').contains("Subject|[one] through filters|"), "{}", second.data(b'L'));
    // The macros that the first one chose for the end of the message.
    let macros = first.data(b'D');
    assert!(macros.contains("{client_addr}|127.0.0.1|{mail_addr}|sender@client.test|"), "{macros}");
}

#[tokio::test]
async fn one_that_fails_or_is_late_counts_as_configured() {
    let away = "unix:/nonexistent/milter.sock";
    let silent = Milter::inet(Behaviour { falls_silent: Some(b'E'), ..Behaviour::default() }).await;
    let daemon = with_users(
        with_settings(&[(&silent.address, "accept", "1s"), (away, "accept", "5s")]).set("listen.metrics", vec!["127.0.0.1:0".to_owned()]),
    )
    .await;
    let reply = send(&daemon, &["bob@example.test"]).await;
    assert!(reply.contains("250"), "{reply}");
    daemon.mail("bob@example.test", 1).await;
    for (address, least) in [(silent.address.as_str(), 1), (away, 1)] {
        let failures = metric(&daemon, &format!("pillarbox_screen_milter_failures_total{{milter=\"{address}\"}}")).await;
        assert!(failures >= least, "{address}: {failures}");
    }

    let daemon = with_users(with_settings(&[(&silent.address, "tempfail", "1s")])).await;
    let reply = send(&daemon, &["bob@example.test"]).await;
    assert!(reply.contains("451") && reply.contains("4.7.1"), "{reply}");
    assert!(daemon.mailbox("bob@example.test").messages.is_empty());

    let daemon = with_users(with_settings(&[(away, "tempfail", "5s")])).await;
    let refused = session(&daemon).await.command("MAIL FROM:<sender@client.test>", "451").await;
    assert!(refused.has("4.7.1 *"), "{refused}");
}

/// `submission.milter`: users' own mail is shown, with the mechanism they really used, and signed as the filters left it.
#[tokio::test]
async fn submitted_mail_is_shown_where_that_is_configured() {
    let behaviour = Behaviour::default()
        .answer_when(b'R', "carol@", &[(b'r', b"")])
        .answer(b'E', &[(b'h', b"X-Outbound\0looked at\0"), (b'b', b"with a footer\r\n"), (b'c', b"")]);
    let milter = Milter::unix(behaviour).await;
    let daemon = with_users(with_milters(&[&milter.address]).set("submission.milter", true)).await;
    let (mut client, _) = login(&daemon, "alice@example.test", "wonderland").await;
    let content = letter("alice@example.test", "bob@example.test", "from a user");
    let reply = transmit(&mut client, "alice@example.test", &["bob@example.test"], content.as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
    client.command("MAIL FROM:<alice@example.test>", "250").await;
    client.command("RCPT TO:<carol@example.test>", "550").await;
    let stored = daemon.mail("bob@example.test", 1).await.remove(0);
    assert_eq!((stored.header("X-Outbound").as_str(), stored.body()), ("looked at", &b"with a footer\n"[..]), "{}", stored.text());
    // Signed as it leaves: the body hash is that of the body which the filter made.
    let hash = "osqxuAIjIzuL+4/UNZo47pymWN7d+PcokPnDT7/u2po="; // SHA-256 of "with a footer" and CR LF
    let signatures = stored.headers("DKIM-Signature");
    assert_eq!(signatures.len(), 2, "{}", stored.text());
    assert!(signatures.iter().all(|signature| signature.replace(' ', "").contains(&format!("bh={hash}"))), "{signatures:?}");
    assert!(stored.header("X-Pillarbox-Verdict").is_empty(), "users are not judged");
    let macros = milter.data(b'D');
    assert!(macros.contains("{auth_type}|PLAIN|{auth_authen}|alice@example.test|"), "{macros}");

    // Another user, another mechanism.
    let mut client = Client::connect(daemon.address("submissions")).await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    let word = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    client.command("AUTH LOGIN", "334").await;
    client.command(&word("bob@example.test"), "334").await;
    client.command(&word("builder"), "235").await;
    client.command("MAIL FROM:<bob@example.test>", "250").await;
    let macros = milter.data(b'D');
    assert!(macros.contains("{auth_type}|LOGIN|{auth_authen}|bob@example.test|"), "{macros}");
    assert!(macros.contains("{daemon_name}|submission|"), "{macros}");
}
