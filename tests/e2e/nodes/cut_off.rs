//! A node that lives and cannot reach the database: it rests when its lease has run out, so that another may take its queue over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pillarbox_testkit::load::MARK;
use pillarbox_testkit::{Postgres, Sink, Stage};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::{ALICE, node_with_mail, until};
use crate::post::{code, deliver, letter, session, world_dns};

/// The name of PostgreSQL's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// A way to the database of one node's own, which can be cut.
struct Way {
    folder: TempDir,
    to: PathBuf,
    carrier: Option<JoinHandle<()>>,
}

impl Way {
    fn new(server: &Postgres) -> Self {
        let mut way = Self { folder: pillarbox_testkit::folder(), to: server.folder().join(SOCKET), carrier: None };
        way.mend();
        way
    }

    fn url(&self) -> String {
        format!("postgres://pillarbox@{}/postgres", self.folder.path().display().to_string().replace('/', "%2F"))
    }

    /// Ends all connections; new ones are refused.
    async fn cut(&mut self) {
        std::fs::remove_file(self.folder.path().join(SOCKET)).unwrap();
        if let Some(carrier) = self.carrier.take() {
            carrier.abort();
            let _ = carrier.await;
        }
    }

    fn mend(&mut self) {
        let (listener, to) = (UnixListener::bind(self.folder.path().join(SOCKET)).unwrap(), self.to.clone());
        self.carrier = Some(tokio::spawn(async move {
            // Dropped with the task, and its connections with it.
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                open.spawn(async move {
                    let Ok(mut far) = UnixStream::connect(to).await else { return };
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }));
    }
}

fn marked(mark: &str, to: &str) -> String {
    letter("a@client.test", to, &format!("x\r\n{MARK}: {mark}"))
}

#[tokio::test]
async fn it_rests_without_its_lease_and_stops_when_another_has_its_queue() {
    let Some(server) = Postgres::start().await else { return };
    let (mail, aside) = (pillarbox_testkit::folder(), pillarbox_testkit::folder());
    let (sink, dns) = (Sink::start().await, world_dns().await);
    let mut way = Way::new(&server);
    let start = |n: u8, reach: Vec<&Path>| {
        let reach: Vec<String> = reach.into_iter().map(|folder| folder.display().to_string()).collect();
        let node = node_with_mail(&server, n, mail.path()).set("directory.node_lease", "3s").set("directory.without_lease", "stop");
        let node = node.set("queue.retry", vec!["1s"]).set("security.folders", reach).dns(dns.address());
        node.relay_to_loopback(sink.port())
    };
    let mut one = start(1, vec![]).set("directory.url", way.url()).start().await;
    let two = start(2, vec![aside.path()]).start().await;
    one.add_user(ALICE, "wonderland").await;
    one.add_alias("away@example.test", &["far@friend.test"]).await;
    // The world does not take mail yet.
    sink.on(Stage::Message, "*", "451 4.3.0 Not today");
    for n in 0..5 {
        deliver(&one, "a@client.test", &["away@example.test"], &marked(&format!("m{n}"), "away@example.test")).await;
    }
    sink.attempts(1).await;

    way.cut().await;
    one.log_line("has run out; no mail is taken or delivered").await;
    let mut client = session(&one).await;
    client.command("MAIL FROM:<sender@client.test>", "451").await;
    let status = one.try_admin(&["status"], "").await;
    assert_eq!(code(&status), 1, "the operator is told");
    // From now on the world would take it, but not from this node.
    sink.behave();
    one.admin(&["queue", "retry", "--all"]).await;

    // Another machine has the disk now: a copy, since here the node's own lock would be seen.
    let queue = aside.path().join("queue");
    assert!(Command::new("cp").arg("-a").arg(one.home().join("state/queue")).arg(&queue).status().await.unwrap().success());
    until("the evacuation", async || {
        let output = two.try_admin(&["queue", "evacuate", aside.path().to_str().unwrap(), "--yes"], "").await;
        Some(()).filter(|()| code(&output) == 0)
    })
    .await;
    two.admin(&["queue", "retry", "--all"]).await;
    until("an empty queue", async || {
        let list = two.admin_json(&["queue", "list"]).await;
        Some(()).filter(|()| list.as_array().is_some_and(Vec::is_empty))
    })
    .await;
    assert_eq!(one.admin_json(&["queue", "list"]).await.as_array().unwrap().len(), 5, "they are still here, and stay");

    // It hears of that as soon as it hears anything.
    way.mend();
    one.log_line("this node stops, since its queue is not its own any more").await;
    assert!(!one.ended().await.success());
    let mut found: HashMap<String, usize> = HashMap::new();
    for message in sink.transactions().iter().filter(|m| m.accepted()) {
        let mark = message.text().lines().find_map(|l| l.strip_prefix(&format!("{MARK}: ")).map(str::to_owned)).unwrap();
        *found.entry(mark).or_default() += 1;
    }
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.values().all(|n| *n == 1), "{found:?}");
}

#[tokio::test]
async fn it_goes_on_with_its_lease_when_the_database_is_back() {
    let Some(mut server) = Postgres::start().await else { return };
    let mail = pillarbox_testkit::folder();
    let node = node_with_mail(&server, 1, mail.path()).set("directory.node_lease", "2s").set("directory.without_lease", "stop");
    let daemon = node.start().await;
    daemon.add_user(ALICE, "wonderland").await;
    server.stop().await;
    daemon.log_line("has run out; no mail is taken or delivered").await;
    session(&daemon).await.command("MAIL FROM:<sender@client.test>", "451").await;
    server.run().await;
    daemon.log_line("mail is taken and delivered again").await;
    deliver(&daemon, "a@client.test", &[ALICE], &letter("a@client.test", ALICE, "again")).await;
    assert_eq!(daemon.mail(ALICE, 1).await.len(), 1);
}
