//! Mailboxes on a file server that shows a node late what other nodes made, and stumbles.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use pillarbox_testkit::load::MARK;
use pillarbox_testkit::{Daemon, Load, Postgres};

use super::late::{Client, Server};
use super::{ALICE, counter, node_with_mail, until};
use crate::post::{deliver, letter, rcpt};

/// What is truly in a user's mailbox.
fn stored(server: &Server, user: &str) -> Vec<(String, String)> {
    let (local, domain) = user.split_once('@').unwrap();
    let maildir = server.folder().join(domain).join(local).join("Maildir");
    let mut found = Vec::new();
    for sub in ["new", "cur"] {
        for entry in std::fs::read_dir(maildir.join(sub)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push((name, String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned()));
        }
    }
    found
}

/// How often each message is there, by its mark.
fn marks(server: &Server, user: &str) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for (name, text) in stored(server, user) {
        let mark = text.lines().find_map(|line| line.strip_prefix(&format!("{MARK}: "))).unwrap_or_else(|| panic!("{name} is torn"));
        assert!(text.ends_with("runs on.\n"), "{name} is torn");
        *found.entry(mark.to_owned()).or_default() += 1;
    }
    found
}

fn load(daemon: &Daemon, name: &str, messages: usize) -> Load {
    let mut load = Load::new(daemon.address("smtp"), ALICE, messages);
    (load.sessions, load.name) = (5, name.to_owned());
    load
}

fn marked(mark: &str) -> String {
    letter("a@client.test", ALICE, &format!("x\r\n{MARK}: {mark}")).replace("hello", "It runs on.")
}

async fn known_to(daemon: &Daemon, user: &str) {
    until("the user", async || Some(rcpt(daemon, user).await).filter(|reply| reply.code() == "250")).await;
}

/// Every file was synced before it got its place, and the place after it.
fn each_was_synced(client: &Client) {
    let operations = client.operations();
    let at = |wanted: &str, from: usize| operations.iter().skip(from).position(|op| op == wanted).map(|n| n + from);
    let mut looked_at = 0;
    for (n, operation) in operations.iter().enumerate() {
        let words: Vec<&str> = operation.split(' ').collect();
        let ["rename", from, to] = words[..] else { continue };
        let Some((directory, _)) = to.rsplit_once('/').filter(|(directory, _)| directory.ends_with("/new")) else { continue };
        let synced = at(&format!("fsync {from}"), 0);
        assert!(synced.is_some_and(|synced| synced < n), "{from} was not synced before {operation}");
        assert!(at(&format!("fsyncdir {directory}"), n).is_some(), "{directory} was not synced after {operation}");
        looked_at += 1;
    }
    assert!(looked_at > 0, "{operations:?}");
}

#[tokio::test]
async fn two_nodes_store_into_one_mailbox_and_lose_nothing() {
    let (Some(database), Some(server)) = (Postgres::start().await, Server::new()) else { return };
    let (first, second) = (server.client().await, server.client().await);
    // The second client has looked at the empty folder, and so sees nothing that the first one makes there.
    assert_eq!(std::fs::read_dir(second.mount()).unwrap().count(), 0);
    let start = |n: u8, client: &Client| node_with_mail(&database, n, client.mount()).start();
    let (one, two) = tokio::join!(start(1, &first), start(2, &second));
    one.add_user(ALICE, "wonderland").await;
    known_to(&two, ALICE).await;
    deliver(&one, "a@client.test", &[ALICE], &marked("first")).await;
    one.event("deliver", |event| event.text("to") == ALICE).await;
    assert!(first.mount().join("example.test").is_dir(), "made by the first");
    assert!(!second.mount().join("example.test").exists(), "not seen by the second");
    let (a, b) = (load(&one, "one", 100).start(), load(&two, "two", 100).start());
    let ((mut acknowledged, failed), (others, failed_too)) = tokio::join!(a.finish(), b.finish());
    assert!(failed.is_empty() && failed_too.is_empty(), "{failed:?} {failed_too:?}");
    acknowledged.extend(others);
    until("all mail", async || Some(()).filter(|()| stored(&server, ALICE).len() > acknowledged.len())).await;
    let found = marks(&server, ALICE);
    assert!(acknowledged.iter().all(|mark| found.get(mark) == Some(&1)), "{found:?}");
    assert_eq!(found.len(), 201);
    let hosts: BTreeSet<bool> = stored(&server, ALICE).iter().map(|(name, _)| name.contains("node1.example.test")).collect();
    assert_eq!(hosts.len(), 2, "both stored");
    for client in [&first, &second] {
        each_was_synced(client);
    }
}

#[tokio::test]
async fn what_a_dead_node_had_stored_is_found_by_the_one_that_takes_its_queue_over() {
    let Some((found, acknowledged)) = taken_over(true).await else { return };
    assert!(acknowledged.iter().all(|mark| found.get(mark) == Some(&1)), "{found:?}");
    assert!(found.values().all(|n| *n == 1), "{found:?}");
}

/// A client that goes on seeing what it saw even after a change of its own: then mail is there twice, and never missing.
#[tokio::test]
async fn what_cannot_be_seen_is_stored_again_and_never_lost() {
    let Some((found, acknowledged)) = taken_over(false).await else { return };
    assert!(acknowledged.iter().all(|mark| found.get(mark).is_some_and(|n| *n <= 2)), "{found:?}");
    assert!(found.values().any(|n| *n == 2), "{found:?}");
}

/// A node is killed while it stores mail, and another, which knows the mailbox from before, takes its queue over, is killed too and started
/// again: how often each message is in the mailbox then, and which were acknowledged.
async fn taken_over(finds_out: bool) -> Option<(HashMap<String, usize>, Vec<String>)> {
    let (Some(database), Some(server)) = (Postgres::start().await, Server::new()) else { return None };
    let (first, second) = (server.client().await, server.client().await);
    if !finds_out {
        second.order("forgetful no");
    }
    let start = |n: u8, client: &Client, reach: Vec<&Path>| {
        let reach: Vec<String> = reach.into_iter().map(|folder| folder.display().to_string()).collect();
        let node = node_with_mail(&database, n, client.mount()).set("directory.node_lease", "2s").set("security.folders", reach);
        node.set("listen.metrics", vec![format!("127.0.0.{n}:0")]).start()
    };
    let mut one = start(1, &first, vec![]).await;
    let mut two = start(2, &second, vec![one.home()]).await;
    one.add_user(ALICE, "wonderland").await;
    known_to(&two, ALICE).await;
    // The second node has the mailbox open and knows what was in it by now.
    deliver(&two, "a@client.test", &[ALICE], &marked("before")).await;
    two.event("deliver", |event| event.text("to") == ALICE).await;
    let run = load(&one, "one", 1000).start();
    run.reached(60).await;
    until("the first mail", async || Some(()).filter(|()| stored(&server, ALICE).len() > 20)).await;
    one.kill().await;
    let (acknowledged, _) = run.finish().await;

    let state = one.home().join("state").display().to_string();
    until("the evacuation", async || {
        let output = two.try_admin(&["queue", "evacuate", &state, "--yes"], "").await;
        Some(()).filter(|()| output.status.success())
    })
    .await;
    until("an empty queue", async || {
        let list = two.admin_json(&["queue", "list"]).await;
        Some(()).filter(|()| list.as_array().is_some_and(Vec::is_empty))
    })
    .await;
    let once = marks(&server, ALICE);
    assert_eq!(counter(&two, "pillarbox_lda_found_stored_total").await > 0, finds_out);

    // The same after a crash of the adopter, whose journal has all that again.
    two.kill().await;
    two.restart().await;
    until("an empty queue", async || {
        let list = two.admin_json(&["queue", "list"]).await;
        Some(()).filter(|()| list.as_array().is_some_and(Vec::is_empty))
    })
    .await;
    assert_eq!(marks(&server, ALICE), once, "its own work is found in any case");
    Some((once, acknowledged))
}

#[tokio::test]
async fn a_file_server_that_stumbles_delays_mail_and_neither_loses_nor_doubles_it() {
    let Some(server) = Server::new() else { return };
    let client = server.client().await;
    let daemon = Daemon::builder().mail_folder(client.mount()).set("queue.retry", vec!["1h"]).start().await;
    daemon.add_user(ALICE, "wonderland").await;
    deliver(&daemon, "ok@client.test", &[ALICE], &letter("ok@client.test", ALICE, "before")).await;
    daemon.event("deliver", |event| event.text("from") == "ok@client.test").await;
    // The kernel repeats a look-up that was stale once by itself; behind that the daemon opens the folders anew.
    client.order("fail create ESTALE 2");
    deliver(&daemon, "stale@client.test", &[ALICE], &letter("stale@client.test", ALICE, "stale")).await;
    daemon.event("deliver", |event| event.text("from") == "stale@client.test").await;
    client.order("mend");
    let faults =
        ["create ESTALE", "create EIO", "write EIO", "fsync EIO", "rename ESTALE", "rename EIO after", "fsyncdir EIO", "getattr EIO"];
    for (n, fault) in faults.iter().enumerate() {
        let from = format!("fault{n}@client.test");
        let mut words = fault.split(' ');
        let (op, errno, after) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        client.order(&format!("fail {op} {errno} 1000 {after}"));
        deliver(&daemon, &from, &[ALICE], &letter(&from, ALICE, fault)).await;
        let deferred = daemon.event("defer", |event| event.text("from") == from).await;
        assert!(deferred.text("reply").starts_with("451"), "{fault}: {deferred:?}");
        client.order("mend");
        let copies = || stored(&server, ALICE).iter().filter(|(_, text)| text.contains(&format!("Subject: {fault}\n"))).count();
        // One that is there though that was not reported may have been read by now.
        if copies() > 0 {
            let maildir = server.folder().join("example.test/alice/Maildir");
            for (name, _) in stored(&server, ALICE).iter().filter(|(_, text)| text.contains(&format!("Subject: {fault}\n"))) {
                std::fs::rename(maildir.join("new").join(name), maildir.join("cur").join(format!("{name}:2,S"))).unwrap();
            }
        }
        daemon.admin(&["queue", "retry", "--all"]).await;
        daemon.event("deliver", |event| event.text("from") == from).await;
        assert_eq!(copies(), 1, "{fault}");
    }
    let left = std::fs::read_dir(server.folder().join("example.test/alice/Maildir/tmp")).unwrap().count();
    assert!(left <= 1, "what could not be removed is used again, not piled up: {left}");
}
