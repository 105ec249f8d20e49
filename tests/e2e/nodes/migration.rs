//! A directory moves into PostgreSQL and back, while it is used.

use std::sync::atomic::{AtomicBool, Ordering};

use pillarbox_testkit::{Daemon, Postgres};

use super::{ALICE, node, until};
use crate::post::{code, login_code, rcpt, stderr};

#[tokio::test]
async fn a_directory_moves_there_and_back_while_it_is_used() {
    let Some(server) = Postgres::start().await else { return };
    let builder = Daemon::builder().listen_on("127.0.0.1").set("hostname", "node1.example.test").set("directory.node_lease", "2s");
    let mut daemon = builder.start().await;
    daemon.add_user(ALICE, "wonderland").await;
    daemon.admin(&["dkim", "rotate", "example.test", "--now"]).await;
    assert!(daemon.home().join("state/dkim/example.test").is_dir());
    daemon.admin_with(&["apply", "-"], &apply_file(1500)).await;

    // Users come and go all the while.
    let done = AtomicBool::new(false);
    let busy = async {
        let mut n = 0;
        while !done.load(Ordering::SeqCst) || n < 3 {
            daemon.add_user(&format!("busy{n}@example.test"), "x").await;
            daemon.admin(&["user", "remove", &format!("u{n}@example.test"), "--yes"]).await;
            n += 1;
        }
        n
    };
    let to = server.url("postgres");
    let moving = async {
        let moved = daemon.admin(&["directory", "migrate", "--to", &to]).await;
        done.store(true, Ordering::SeqCst);
        moved
    };
    let (added, told) = tokio::join!(busy, moving);
    assert!(told.contains("backend = \"postgres\"") && told.contains("systemctl reload"), "{told}");
    daemon.add_user("between@example.test", "x").await;
    let shown = daemon.admin_json(&["directory", "show"]).await;
    assert_eq!((shown["users"].as_u64(), shown["mirror"].is_string()), (Some(1502), true), "{shown}");
    let keys = "SELECT count(*) FROM pillarbox.rows WHERE tbl = 0 AND convert_from(record, 'UTF8') LIKE '%BEGIN PRIVATE KEY%'";
    assert_eq!(server.sql(keys).await, "1", "private keys moved too");

    // A reload takes the new place; another node finds everything there, the last change too.
    daemon.configure("directory.backend", "postgres");
    daemon.configure("directory.url", to.clone());
    daemon.reload();
    daemon.log_line("were reloaded").await;
    assert!(daemon.admin_json(&["directory", "show"]).await["place"].as_str().unwrap().starts_with("postgres://"));
    let mut other = node(&server, 2).start().await;
    for user in ["between@example.test".to_owned(), format!("busy{}@example.test", added - 1)] {
        assert_eq!(rcpt(&other, &user).await.code(), "250", "{user}");
    }
    assert_eq!(rcpt(&other, "u0@example.test").await.code(), "550");
    assert_eq!(login_code(&other, ALICE, "wonderland").await, "235");
    daemon.add_user("after@example.test", "x").await;
    until("a change after the move", async || Some(rcpt(&other, "after@example.test").await).filter(|reply| reply.code() == "250")).await;
    until("both nodes", async || {
        let nodes = other.admin_json(&["node", "list"]).await;
        Some(()).filter(|()| nodes.as_array().unwrap().len() == 2)
    })
    .await;

    // And back, once the other node is gone. The old folder is still there and is made like the database.
    let refused = daemon.try_admin(&["directory", "migrate", "--to", "sled", "--yes"], "").await;
    assert!(code(&refused) == 1 && stderr(&refused).contains("stop the others first"), "{}", stderr(&refused));
    let alive = daemon.try_admin(&["node", "remove", "node2.example.test", "--yes"], "").await;
    assert!(code(&alive) == 1 && stderr(&alive).contains("is alive"), "{}", stderr(&alive));
    assert!(other.stop().await.success());
    daemon.admin(&["node", "remove", "node2.example.test", "--yes"]).await;
    let gone = daemon.try_admin(&["node", "remove", "node2.example.test", "--yes"], "").await;
    assert_eq!(code(&gone), 3, "{}", stderr(&gone));
    let asked = daemon.try_admin(&["directory", "migrate", "--to", "sled"], "").await;
    assert_eq!(code(&asked), 2, "{}", stderr(&asked));
    daemon.admin(&["directory", "migrate", "--to", "sled", "--yes"]).await;
    daemon.configure("directory.backend", "sled");
    daemon.reload();
    until("the switch", async || {
        let shown = daemon.admin_json(&["directory", "show"]).await;
        Some(()).filter(|()| shown["place"].as_str().unwrap().ends_with("directory.sled"))
    })
    .await;
    until("the node to leave the register", async || {
        let nodes = server.sql("SELECT name FROM pillarbox.nodes").await;
        Some(()).filter(|()| nodes.is_empty())
    })
    .await;
    assert!(daemon.stop().await.success());
    daemon.restart().await;
    assert_eq!(rcpt(&daemon, "after@example.test").await.code(), "250");
    assert_eq!(rcpt(&daemon, "u0@example.test").await.code(), "550");
    assert_eq!(login_code(&daemon, ALICE, "wonderland").await, "235");
    assert_eq!(daemon.admin_json(&["directory", "show"]).await["users"].as_u64(), Some(1503));
}

/// Many users in the form of `pillarbox export`, without the cost of hashing a password for each.
fn apply_file(users: usize) -> String {
    let user = |n: usize| format!("[[user]]\naddress = \"u{n}@example.test\"\n");
    std::iter::once("version = 1\n".to_owned()).chain((0..users).map(user)).collect()
}
