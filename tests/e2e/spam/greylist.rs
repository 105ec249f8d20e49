//! Greylisting over days and restarts.

use pillarbox_testkit::Daemon;

use super::clock::Clock;
use super::with_users;
use crate::post::{letter, session, transmit};

async fn send(daemon: &Daemon, from: &str) -> String {
    let content = letter(from, "bob@example.test", "a stranger's letter");
    transmit(&mut session(daemon).await, from, &["bob@example.test"], content.as_bytes()).await.to_string()
}

#[tokio::test]
async fn a_stranger_waits_once_and_is_forgotten_after_weeks() {
    let Some(clock) = Clock::new() else { return };
    let mut daemon = with_users(clock.rules(Daemon::builder()).set("screen.greylist", true)).await;
    daemon.dns().mx("known.test", 10, "mx.client.test").txt("known.test", "v=spf1 ip4:127.0.0.1 -all");
    for _ in 0..2 {
        let reply = send(&daemon, "sender@client.test").await;
        assert!(reply.contains("451") && reply.contains("4.7.1") && reply.contains("3 minutes"), "{reply}");
    }
    assert!(send(&daemon, "someone@known.test").await.contains("250"), "SPF proves who this is");

    // What was seen outlives the daemon.
    daemon.stop().await;
    clock.set("+4m");
    daemon.restart().await;
    let reply = send(&daemon, "sender@client.test").await;
    assert!(reply.contains("250"), "{reply}");
    // Who came back vouches for its whole network.
    assert!(send(&daemon, "other@client.test").await.contains("250"));
    daemon.mail("bob@example.test", 3).await;

    clock.set("+39d");
    assert!(send(&daemon, "third@client.test").await.contains("250"), "known for forty days");
    clock.set("+41d");
    let reply = send(&daemon, "fourth@client.test").await;
    assert!(reply.contains("451"), "forgotten by now: {reply}");
    // Coming back after two days is coming for the first time.
    clock.set("+44d");
    assert!(send(&daemon, "fourth@client.test").await.contains("451"));
}
