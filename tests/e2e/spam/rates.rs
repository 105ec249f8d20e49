//! How often strangers may come, and how much a user may send.

use pillarbox_testkit::{Client, Daemon, Sink};

use super::{metric, with_users};
use crate::post::{before_the_world, letter, login, session, transmit};

/// One transaction up to RCPT, in the session at hand; what each step was answered, until one is refused.
async fn envelope(client: &mut Client, from: &str, to: &str) -> String {
    client.line(&format!("MAIL FROM:<{from}>")).await;
    let mail = client.reply().await;
    if mail.code() != "250" {
        return mail.to_string();
    }
    client.line(&format!("RCPT TO:<{to}>")).await;
    let rcpt = client.reply().await.to_string();
    client.command("RSET", "250").await;
    rcpt
}

#[tokio::test]
async fn strangers_are_bounded_by_client_sender_and_recipient() {
    for (key, rule, code, dsn) in [
        ("message_rate", "message_rate", "450", "4.7.1"),
        ("recipient_rate", "recipient_rate", "450", "4.7.1"),
        ("sender_rate", "sender_rate", "450", "4.7.1"),
        ("mailbox_rate", "mailbox_rate", "450", "4.2.1"),
    ] {
        let builder = Daemon::builder().set(&format!("screen.{key}"), "2/d").set("listen.metrics", vec!["127.0.0.1:0".to_owned()]);
        let daemon = with_users(builder).await;
        let mut client = session(&daemon).await;
        for _ in 0..2 {
            let reply = envelope(&mut client, "sender@client.test", "bob@example.test").await;
            assert!(reply.contains("250"), "{key}: {reply}");
        }
        // Another spelling, or another detail, is no way around it.
        let reply = envelope(&mut client, "Sender@CLIENT.test", "bob+lists@example.test").await;
        assert!(reply.contains(code) && reply.contains(dsn), "{key}: {reply}");
        let other_sender = envelope(&mut client, "other@client.test", "bob@example.test").await;
        assert_eq!(other_sender.contains("250"), key == "sender_rate", "{key}: {other_sender}");
        let other_recipient = envelope(&mut client, "other@client.test", "carol@example.test").await;
        assert_eq!(other_recipient.contains("250"), matches!(key, "sender_rate" | "mailbox_rate"), "{key}: {other_recipient}");
        let counted = metric(&daemon, &format!("pillarbox_screen_refusals_total{{rule=\"{rule}\"}}")).await;
        assert!(counted >= 1, "{key}: {counted}");
    }
}

#[tokio::test]
async fn connections_of_one_client_are_bounded() {
    let daemon = with_users(Daemon::builder().set("screen.connection_rate", "2/d")).await;
    for _ in 0..2 {
        session(&daemon).await;
    }
    let mut client = Client::connect(daemon.address("smtp")).await;
    let reply = client.expect("421").await;
    assert!(reply.has("4.7.0 *"), "{reply}");
    assert!(client.closed().await);
}

/// A stolen password: recipients nobody ever wrote to run out first, and the postmaster hears of it once.
#[tokio::test]
async fn a_users_outbound_mail_is_capped_and_the_postmaster_is_told() {
    let sink = Sink::start().await;
    let (mut daemon, _dns) = before_the_world(&sink).await;
    daemon.stop().await;
    daemon.configure("submission.rate_per_user", "6/d");
    daemon.configure("submission.new_recipients_per_user", "2/d");
    daemon.restart().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.add_domain("mail.example.test").await;
    daemon.add_alias("postmaster@mail.example.test", &["bob@example.test"]).await;

    let (mut client, _) = login(&daemon, "alice@example.test", "wonderland").await;
    for (to, expected) in [
        ("a@friend.test", "250"),
        ("b@friend.test", "250"),
        ("c@friend.test", "450"),
        // Known by now, and a colleague.
        ("a@friend.test", "250"),
        ("bob@example.test", "250"),
        ("b@friend.test", "250"),
        // The seventh recipient of the day.
        ("a@friend.test", "450"),
        ("bob@example.test", "450"),
    ] {
        let reply = envelope(&mut client, "alice@example.test", to).await;
        assert!(reply.contains(expected), "{to}: {reply}");
        if expected == "450" {
            assert!(reply.contains("4.7.1") && reply.contains("/d"), "{reply}");
        }
    }
    // One notice a limit; the second refusal by the same limit is not worth another.
    let notices = daemon.mail("bob@example.test", 2).await;
    let texts: Vec<String> = notices.iter().map(|notice| notice.text()).collect();
    for limit in ["submission.new_recipients_per_user", "submission.rate_per_user"] {
        assert_eq!(texts.iter().filter(|text| text.contains(limit) && text.contains("alice@example.test")).count(), 1, "{texts:?}");
    }
    // Others are not bounded by what alice did, and what she may send still goes out.
    let (mut other, _) = login(&daemon, "bob@example.test", "builder").await;
    let content = letter("bob@example.test", "a@friend.test", "mine");
    let reply = transmit(&mut other, "bob@example.test", &["a@friend.test"], content.as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
    sink.messages(1).await;
}
