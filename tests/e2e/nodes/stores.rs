//! Mailboxes behind two real Dovecots by LMTP: each user always goes to the same one, and waits for it while it is away.

use std::collections::{BTreeMap, BTreeSet};

use pillarbox_testkit::Daemon;

use crate::dovecot::server::{Place, passwd_file};
use crate::peers;
use crate::post::{deliver, letter};

const USERS: usize = 8;

fn user(n: usize) -> String {
    format!("u{n}@example.test")
}

/// By which store each user's mail of this subject went.
async fn stores_of(daemon: &Daemon, users: &[usize], from: &str) -> BTreeMap<usize, String> {
    let mut stores = BTreeMap::new();
    for n in users {
        let event = daemon.event("deliver", |event| event.text("to") == user(*n) && event.text("from") == from).await;
        stores.insert(*n, event.text("relay"));
    }
    stores
}

#[tokio::test]
async fn each_user_stays_with_a_store_and_waits_for_it() {
    if !["lmtp", "sievec"].iter().all(|program| peers::have(program)) {
        return;
    }
    let (Some(one), Some(two)) = (Place::new().await, Place::new().await) else { return };
    let both = format!("{},{}", one.lmtp(), two.lmtp());
    let daemon = Daemon::builder().for_dovecot().set("mailbox.deliver_to", both).set("queue.retry", vec!["1s"]).start().await;
    for n in 0..USERS {
        daemon.add_user(&user(n), "wonderland").await;
    }
    passwd_file(&daemon, |text| text.contains(&user(USERS - 1))).await;
    let (first, second) = (one.start(&daemon, true).await, two.clone().start(&daemon, true).await);
    let all: Vec<usize> = (0..USERS).collect();
    let send = async |from: &str| {
        for n in 0..USERS {
            deliver(&daemon, from, &[&user(n)], &letter(from, &user(n), "hello")).await;
        }
    };
    send("a@client.test").await;
    let homes = stores_of(&daemon, &all, "a@client.test").await;
    assert_eq!(homes.values().collect::<BTreeSet<_>>().len(), 2, "both are used: {homes:?}");
    send("b@client.test").await;
    assert_eq!(stores_of(&daemon, &all, "b@client.test").await, homes, "each user stays");

    // One is away: its users' mail waits, and goes nowhere else; the others' does not wait.
    second.stop().await;
    send("c@client.test").await;
    let away = two.lmtp();
    let (theirs, others): (Vec<usize>, Vec<usize>) = all.iter().partition(|n| homes.get(n) == Some(&away));
    assert!(!theirs.is_empty() && !others.is_empty(), "{homes:?}");
    let reached = stores_of(&daemon, &others, "c@client.test").await;
    assert!(reached.iter().all(|(n, store)| homes.get(n) == Some(store)), "{reached:?}");
    daemon.event("defer", |event| event.text("from") == "c@client.test" && event.text("reply").starts_with('4')).await;
    let waiting = daemon.admin_json(&["queue", "list", "--from", "c@client.test"]).await;
    let mut waiting: Vec<&str> = waiting.as_array().unwrap().iter().map(|e| e["recipients"][0]["address"].as_str().unwrap()).collect();
    waiting.sort_unstable();
    assert_eq!(waiting, theirs.iter().map(|n| user(*n)).collect::<Vec<_>>());
    let second = two.start(&daemon, true).await;
    daemon.admin(&["queue", "retry", "--all"]).await;
    assert_eq!(stores_of(&daemon, &all, "c@client.test").await, homes);
    for n in 0..USERS {
        assert_eq!(daemon.mailbox(&user(n)).messages.len(), 3, "{}", user(n));
    }
    first.stop().await;
    second.stop().await;
}
