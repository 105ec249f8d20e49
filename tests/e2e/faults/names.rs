//! Name servers that never answer.

use pillarbox_testkit::Misbehaviour;

use super::*;

#[tokio::test]
async fn with_silent_name_servers_mail_from_outside_is_taken_and_mail_to_the_world_waits() {
    let mut town = Town::start().await;
    for name in ["friend.test", "mx.friend.test", "client.test"] {
        town.dns.misbehave(name, None, Misbehaviour::Silence);
    }
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    // A stranger's domain cannot be looked up: that is no reason to refuse.
    let mut stranger = crate::post::session(&town.daemon).await;
    let reply = crate::post::transmit(&mut stranger, "sender@client.test", &[BOB], b"Subject: from outside\r\n\r\nhello\r\n").await;
    assert_eq!(reply.code(), "250", "{reply}");
    let put_off = town.daemon.event("defer", |event| event.text("to") == CAROL).await;
    assert!(put_off.text("reply").starts_with("451 4.4.3"), "{}", put_off.text("reply"));
    town.daemon.mail(BOB, 2).await;
    let output = town.daemon.try_admin(&["check", "dns"], "").await;
    let text = stdout(&output);
    assert!(!output.status.success() && text.contains("FAIL") && text.contains("name server"), "{text}");
    for name in ["friend.test", "mx.friend.test", "client.test"] {
        town.dns.behave(name);
    }
    town.daemon.admin(&["queue", "retry", "--all"]).await;
    town.all_there().await;
}
