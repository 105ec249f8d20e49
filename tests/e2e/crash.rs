//! After 250 the mail is safe: the daemon is killed under load and every acknowledged message is looked for.

use std::collections::HashMap;

use pillarbox_testkit::daemon::Event;
use pillarbox_testkit::load::MARK;
use pillarbox_testkit::{Daemon, Load};

use crate::post;

#[tokio::test]
async fn killed_under_twenty_senders_nothing_acknowledged_is_lost_or_doubled() {
    let mut daemon = Daemon::builder().set("limits.connections_per_client", 100).start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut load = Load::new(daemon.address("smtp"), "alice@example.test", 4000);
        load.sessions = 20;
        load.name = format!("round{round}");
        let run = load.start();
        run.reached(150 + round * 70).await;
        daemon.kill().await;
        acknowledged.extend(run.finish().await.0);
        daemon.restart().await;
    }
    assert!(acknowledged.len() >= 600, "{}", acknowledged.len());
    let mut found: HashMap<String, usize> = HashMap::new();
    for _ in 0..1000 {
        found.clear();
        for message in daemon.mailbox("alice@example.test").messages {
            *found.entry(message.header(MARK)).or_default() += 1;
        }
        if acknowledged.iter().all(|mark| found.contains_key(mark)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let lost: Vec<&String> = acknowledged.iter().filter(|mark| !found.contains_key(*mark)).collect();
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    let doubled: Vec<_> = found.iter().filter(|(_, n)| **n > 1).collect();
    assert!(doubled.is_empty(), "stored more than once: {doubled:?}");
}

#[tokio::test]
async fn a_large_message_is_in_the_mailbox_when_it_is_acknowledged() {
    let (from, to) = ("ada@client.test", "alice@example.test");
    let mut daemon = Daemon::start().await;
    daemon.add_user(to, "wonderland").await;
    let mut text = String::from("Subject: large\r\n\r\n");
    text.extend((0..12_000).map(|n| format!("line {n} of a picture of {n} cats, all of them asleep on the same chair\r\n")));
    post::deliver(&daemon, from, &[to], &text).await;
    // Nothing is waited for here, and nothing that the daemon does later can help.
    daemon.kill().await;
    let stored = daemon.mailbox(to).messages;
    let [only] = stored.as_slice() else { panic!("{} messages", stored.len()) };
    let raw = String::from_utf8(only.content.clone()).unwrap();
    assert!(raw.starts_with("Return-Path: <ada@client.test>\nDelivered-To: alice@example.test\nReceived: "), "{}", &raw[..300]);
    assert!(raw.ends_with(&text.replace("\r\n", "\n")));
    daemon.restart().await;
    // What comes now is stored behind whatever the start found to deliver.
    post::deliver(&daemon, from, &[to], &post::letter(from, to, "small")).await;
    assert_eq!(daemon.mail(to, 2).await.len(), 2);
    assert_eq!(daemon.admin_json(&["queue", "list"]).await.as_array().map(Vec::len), Some(0));
    post::deliver(&daemon, from, &[to], &text).await;
    let is_large = |event: &Event| event.fields.get("size").and_then(serde_json::Value::as_u64).is_some_and(|size| size > 500_000);
    let delivered = daemon.event("deliver", is_large).await;
    let of_message: Vec<String> = daemon.events().into_iter().filter(|e| e.text("id") == delivered.text("id")).map(|e| e.name).collect();
    assert_eq!(of_message, ["accept", "deliver"]);
}
