//! After 250 the mail is safe: the daemon is killed under load and every acknowledged message is looked for.

use std::collections::HashMap;

use pillarbox_testkit::load::MARK;
use pillarbox_testkit::{Daemon, Load};

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
