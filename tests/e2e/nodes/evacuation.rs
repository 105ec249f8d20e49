//! A node is killed under load, and another takes its queue over: exactly one, exactly once.

use std::collections::HashMap;
use std::path::Path;

use pillarbox_testkit::daemon::binary;
use pillarbox_testkit::load::MARK;
use pillarbox_testkit::{Daemon, Load, Postgres, Sink, Stage};
use tokio::process::Command;

use super::{ALICE, node_with_mail, until};
use crate::post::{code, stderr, stdout, world_dns};

/// Copies a folder with all that is in it.
async fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().await.unwrap();
    assert!(done.success());
}

fn evacuated(output: &std::process::Output) -> bool {
    code(output) == 0
}

#[tokio::test]
async fn a_killed_nodes_queue_is_taken_over_by_exactly_one_and_nothing_is_lost_or_doubled() {
    let Some(server) = Postgres::start().await else { return };
    let (mail, aside) = (pillarbox_testkit::folder(), pillarbox_testkit::folder());
    let (sink, dns) = (Sink::start().await, world_dns().await);
    // Mail to the world waits for as long as the dead node lives.
    sink.on(Stage::Message, "*", "451 4.3.0 Not today");
    let start = |n: u8, reach: Vec<&Path>| {
        let node = node_with_mail(&server, n, mail.path()).set("directory.node_lease", "3s").dns(dns.address());
        let reach: Vec<String> = reach.into_iter().map(|folder| folder.display().to_string()).collect();
        node.relay_to_loopback(sink.port()).set("security.folders", reach).start()
    };
    let mut one = start(1, vec![]).await;
    let reach = || vec![one.home(), aside.path()];
    let (two, three) = tokio::join!(start(2, reach()), start(3, reach()));
    one.add_user(ALICE, "wonderland").await;
    one.add_alias("away@example.test", &["far@friend.test"]).await;
    let mut load = Load::new(one.address("smtp"), ALICE, 4000);
    (load.sessions, load.to) = (10, vec![ALICE.into(), "away@example.test".into()]);
    let run = load.start();
    run.reached(100).await;
    sink.attempts(1).await;

    // All nodes list what waits on each, by name.
    let listed = until("the list of all nodes", async || {
        let list = two.admin_json(&["queue", "list", "--all-nodes", "--to", "friend.test"]).await;
        Some(list).filter(|list| list.as_array().is_some_and(|entries| !entries.is_empty()))
    });
    assert!(listed.await.as_array().unwrap().iter().all(|entry| entry["node"] == "node1.example.test"));

    // It is alive: neither its folder nor a copy of it can be had.
    let state = one.home().join("state");
    let queue = state.join("queue");
    copy(&queue, &aside.path().join("queue")).await;
    for (folder, why) in [(&state, "in use"), (&aside.path().to_path_buf(), "alive")] {
        let refused = two.try_admin(&["queue", "evacuate", folder.to_str().unwrap(), "--yes"], "").await;
        assert!(code(&refused) == 1 && stderr(&refused).contains(why), "{}", stderr(&refused));
    }
    assert!(aside.path().join("queue/journal").is_dir() && !aside.path().join("queue/adopted").exists());
    let own = two.try_admin(&["queue", "evacuate", two.home().join("state").to_str().unwrap(), "--yes"], "").await;
    assert_eq!(code(&own), 1, "{}", stderr(&own));

    run.reached(250).await;
    one.kill().await;
    let (acknowledged, _) = run.finish().await;

    // Two who try at once, again and again until the lease has run out: one gets it.
    let path = state.display().to_string();
    let attempt = async |by: &Daemon| {
        until("an end of the attempts", async || {
            let output = by.try_admin(&["--json", "queue", "evacuate", &path, "--yes"], "").await;
            Some(output).filter(|output| !stderr(output).contains("is alive"))
        })
        .await
    };
    let (first, second) = tokio::join!(attempt(&two), attempt(&three));
    assert!(evacuated(&first) != evacuated(&second), "{}\n{}", stderr(&first), stderr(&second));
    let (winner, loser, output) = if evacuated(&first) { (&two, &three, first) } else { (&three, &two, second) };
    let done: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(done["messages"].as_u64().unwrap() > 0 && done["damaged"].as_array().unwrap().is_empty(), "{done}");
    assert!(!queue.exists() && state.join("queue.adopted").is_dir());
    let late = loser.try_admin(&["queue", "evacuate", &path, "--yes"], "").await;
    assert_eq!(code(&late), 3, "{}", stderr(&late));

    // The world takes mail again; every message that the dead node had acknowledged arrives once.
    sink.behave();
    winner.admin(&["queue", "retry", "--all"]).await;
    until("an empty queue", async || {
        let list = loser.try_admin(&["--json", "queue", "list", "--all-nodes"], "").await;
        // The dead node's folder is the winner's business now.
        Some(()).filter(|()| stdout(&list).trim() == "[]")
    })
    .await;
    let mut found: HashMap<String, usize> = HashMap::new();
    for message in winner.mailbox(ALICE).messages {
        *found.entry(message.header(MARK)).or_default() += 1;
    }
    for message in sink.transactions().iter().filter(|m| m.accepted()) {
        let mark = message.text().lines().find_map(|l| l.strip_prefix(&format!("{MARK}: ")).map(str::to_owned)).unwrap();
        *found.entry(mark).or_default() += 1;
    }
    let lost: Vec<_> = acknowledged.iter().filter(|mark| !found.contains_key(*mark)).collect();
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    let doubled: Vec<_> = found.iter().filter(|(_, n)| **n > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");

    // The dead node revived from an old copy of its queue refuses to start; with an empty one it is a new node.
    copy(&aside.path().join("queue"), &queue).await;
    let refused = Command::new(binary("pillarboxd")).arg("--config").arg(one.config_path()).output().await.unwrap();
    assert!(!refused.status.success() && stderr(&refused).contains("taken over by the node"), "{}", stderr(&refused));
    std::fs::remove_dir_all(&queue).unwrap();
    one.restart().await;
    let nodes = two.admin_json(&["node", "list", "--all"]).await;
    let mut states: Vec<_> =
        nodes.as_array().unwrap().iter().map(|n| (n["name"].as_str().unwrap(), n["state"].as_str().unwrap())).collect();
    states.sort();
    assert_eq!(
        states,
        [
            ("node1.example.test", "evacuated"),
            ("node1.example.test", "live"),
            ("node2.example.test", "live"),
            ("node3.example.test", "live")
        ]
    );
}
