//! Several nodes with one directory in a real PostgreSQL: what one is told all know, a dead one's queue is taken over, the database may go away.

mod away;
mod cut_off;
mod evacuation;
mod late;
mod migration;
mod remote;
mod stores;

use std::path::Path;

use pillarbox_testkit::{Client, Daemon, DaemonBuilder, PATIENCE, Postgres};

use crate::post::{login, login_code, rcpt, stderr};

const ALICE: &str = "alice@example.test";

/// Node `n`, on the loopback address 127.0.0.n, with the directory in `server`.
fn node(server: &Postgres, n: u8) -> DaemonBuilder {
    Daemon::builder()
        .listen_on(&format!("127.0.0.{n}"))
        .set("hostname", format!("node{n}.example.test"))
        .set("directory.backend", "postgres")
        .set("directory.url", server.url("postgres"))
        .set("limits.connections_per_client", 100)
}

/// The same with a common mail folder.
fn node_with_mail(server: &Postgres, n: u8, mail: &Path) -> DaemonBuilder {
    node(server, n).mail_folder(mail)
}

/// Asks until the answer is as wanted.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(found) => found,
        Err(_) => panic!("waited {} s for {what}", PATIENCE.as_secs()),
    }
}

/// The value of a counter; 0 before it was counted for the first time.
async fn counter(daemon: &Daemon, name: &str) -> u64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(daemon.address("metrics")).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or(0)
}

#[tokio::test]
async fn what_one_node_is_told_all_know() {
    let Some(server) = Postgres::start().await else { return };
    let metrics = |n: u8| node(&server, n).set("listen.metrics", vec![format!("127.0.0.{n}:0")]);
    // All three bring the schema up to date at once.
    let (one, two, three) = tokio::join!(metrics(1).start(), metrics(2).start(), metrics(3).start());
    one.add_domain("example.test").await;
    for other in [&two, &three] {
        until("the domain", async || Some(rcpt(other, ALICE).await).filter(|reply| reply.code() == "550")).await;
    }
    // That there is no such user is remembered, and forgotten when there is.
    one.add_user(ALICE, "wonderland").await;
    let since = std::time::Instant::now();
    for other in [&two, &three] {
        until("the user", async || Some(rcpt(other, ALICE).await).filter(|reply| reply.code() == "250")).await;
    }
    eprintln!("served on all nodes {} ms after it was added on one", since.elapsed().as_millis());
    assert_eq!(login_code(&three, ALICE, "wonderland").await, "235");

    // From now on a look-up costs no round trip.
    let mut session = Client::connect(two.address("smtp")).await;
    session.expect("220").await;
    session.command("EHLO client.test", "250").await;
    let ask = async |session: &mut Client| {
        session.command("MAIL FROM:<s@client.test>", "250").await;
        for address in [ALICE, "ALICE@example.TEST"] {
            session.command(&format!("RCPT TO:<{address}>"), "250").await;
        }
        session.command("RCPT TO:<nobody@example.test>", "550").await;
        session.command("RSET", "250").await;
    };
    ask(&mut session).await;
    let asked = counter(&two, "pillarbox_directory_database_lookups_total").await;
    let hits = counter(&two, "pillarbox_directory_cache_hits_total").await;
    assert!(asked > 0);
    for _ in 0..5 {
        ask(&mut session).await;
    }
    assert_eq!(counter(&two, "pillarbox_directory_database_lookups_total").await, asked, "nothing was asked again");
    assert!(counter(&two, "pillarbox_directory_cache_hits_total").await > hits);

    // A password changed and a user suspended on one node counts on the others, though they knew the old one.
    one.admin_with(&["user", "passwd", ALICE, "--password-stdin"], "looking-glass\n").await;
    until("the new password", async || Some(login_code(&three, ALICE, "looking-glass").await).filter(|code| code == "235")).await;
    assert_eq!(login_code(&three, ALICE, "wonderland").await, "535");
    two.admin(&["user", "suspend", ALICE]).await;
    until("the suspension", async || Some(login_code(&three, ALICE, "looking-glass").await).filter(|code| code == "535")).await;
    two.admin(&["user", "resume", ALICE]).await;

    // Keys are made on one node and sign on all.
    one.admin(&["dkim", "rotate", "example.test", "--now"]).await;
    let keys = one.admin_json(&["dkim", "list", "example.test"]).await;
    until("the keys", async || Some(two.admin_json(&["dkim", "list", "example.test"]).await).filter(|theirs| *theirs == keys)).await;
    assert!(!two.home().join("state/dkim").exists(), "private keys lie in the database");

    // Failed logins are counted over all nodes: the loopback network is one client to them.
    let failures = 10;
    for n in 0..failures {
        let at = [&one, &two][n % 2];
        assert_ne!(login_code(at, ALICE, "guess").await, "235");
    }
    until("the block", async || Some(login(&three, ALICE, "looking-glass").await.1.code().to_owned()).filter(|code| code != "235")).await;

    let nodes = two.admin_json(&["node", "list"]).await;
    let names: Vec<_> = nodes
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["name"].as_str().unwrap(), n["state"].as_str().unwrap(), n["this"].as_bool().unwrap()))
        .collect();
    assert_eq!(names, [("node1.example.test", "live", false), ("node2.example.test", "live", true), ("node3.example.test", "live", false)]);
    let mut three = three;
    assert!(three.stop().await.success());
    let text = two.admin(&["node", "list"]).await;
    assert!(text.contains("stopped") && text.contains("node2.example.test (this)"), "{text}");
}

#[tokio::test]
async fn without_a_database_there_are_no_other_nodes() {
    let daemon = Daemon::start().await;
    for arguments in [&["node", "list"][..], &["queue", "list", "--all-nodes"], &["queue", "evacuate", "/nowhere", "--yes"]] {
        let refused = daemon.try_admin(arguments, "").await;
        assert!(!refused.status.success() && stderr(&refused).contains("postgres"), "{arguments:?}: {}", stderr(&refused));
    }
}
