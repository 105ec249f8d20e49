//! Faults: disks that are full, fail or are damaged, descriptors that run out, clocks that jump, name servers that keep silent. After each of
//! them every message that was answered 250 is where it belongs, once and whole, and none that was refused.

pub(crate) mod clock;
mod damage;
mod directory;
mod disk;
mod flush;
mod inject;
mod limits;
mod names;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use pillarbox_testkit::daemon::DaemonBuilder;
use pillarbox_testkit::{Client, Daemon, DnsServer, Sink};

use crate::post::{login, stdout, world_dns};

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
/// Behind the sink.
const CAROL: &str = "carol@friend.test";
const MARK: &str = "X-Fault-Mark";

/// A message and what its sender was told.
struct Sent {
    mark: String,
    to: Vec<&'static str>,
    content: String,
    acknowledged: bool,
}

/// The daemon with two users, the world behind it, and a list of all that was sent.
struct Town {
    daemon: Daemon,
    sink: Sink,
    dns: DnsServer,
    sent: Vec<Sent>,
}

impl Town {
    async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    /// With other settings than: small segments, no room to keep free, another attempt each second.
    async fn with(settings: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Self {
        let (sink, dns) = (Sink::start().await, world_dns().await);
        let builder = Daemon::builder()
            .dns(dns.address())
            .relay_to_loopback(sink.port())
            .set("queue.segment_size", "1M")
            .set("queue.retry", vec!["1s"])
            .set("limits.free_space", 1);
        let daemon = settings(builder).start().await;
        for user in [ALICE, BOB] {
            daemon.add_user(user, "wonderland").await;
        }
        Self { daemon, sink, dns, sent: Vec::new() }
    }

    /// Alice's session, open for mail.
    async fn session(&self) -> Client {
        let (client, reply) = login(&self.daemon, ALICE, "wonderland").await;
        assert_eq!(reply.code(), "235", "{reply}");
        client
    }

    /// Alice sends a message; the code of the reply that decided about it.
    async fn send(&mut self, to: &[&'static str], size: usize) -> String {
        let mut client = self.session().await;
        self.send_over(&mut client, to, size).await
    }

    async fn send_over(&mut self, client: &mut Client, to: &[&'static str], size: usize) -> String {
        let (mark, content) = self.letter(size);
        let code = transmit(client, to, &content).await;
        self.note(mark, to, content, &code);
        code
    }

    /// A message that says who it is on every line.
    fn letter(&self, size: usize) -> (String, String) {
        let mark = format!("m{}", self.sent.len());
        let mut content = format!("From: {ALICE}\r\nTo: somebody@example.test\r\nSubject: fault\r\n{MARK}: {mark}\r\n\r\n");
        for line in 0.. {
            content.push_str(&format!("{mark} line {line}\r\n"));
            if content.len() >= size {
                break;
            }
        }
        (mark, content)
    }

    fn note(&mut self, mark: String, to: &[&'static str], content: String, code: &str) {
        self.sent.push(Sent { mark, to: to.to_vec(), content, acknowledged: code == "250" });
    }

    /// Sends until the answer is this one.
    async fn send_until(&mut self, to: &[&'static str], size: usize, code: &str) {
        let mut last = String::new();
        for _ in 0..200 {
            last = self.send(to, size).await;
            if last == code {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no {code} came, the last was {last}\n{}", self.daemon.log().join("\n"));
    }

    /// Waits until nothing is queued any more.
    async fn settled(&self) {
        for _ in 0..600 {
            if self.daemon.get("/v1/status").await.json()["queue"]["messages"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the queue does not drain: {}", self.daemon.admin(&["queue", "list"]).await);
    }

    /// Waits until everything has found its end, and compares.
    async fn all_there(&self) {
        self.settled().await;
        self.all_stored();
    }

    /// Compares what was acknowledged with the mailboxes and what the world received: each message there, whole, once; no refused one.
    fn all_stored(&self) {
        let mut found: HashMap<(String, &'static str), usize> = HashMap::new();
        let known = |mark: &str| self.sent.iter().find(|sent| sent.mark == mark);
        for user in [ALICE, BOB] {
            for message in self.daemon.mailbox(user).messages {
                let mark = message.header(MARK);
                let Some(sent) = known(&mark) else { continue };
                let body = sent.content.split_once("\r\n\r\n").unwrap().1.replace('\r', "");
                assert!(message.body() == body.as_bytes(), "{mark} for {user} is not what was sent");
                *found.entry((mark, user)).or_default() += 1;
            }
        }
        for received in self.sink.transactions().iter().filter(|received| received.accepted()) {
            let text = String::from_utf8_lossy(&received.body).into_owned();
            let mark = text.lines().find_map(|line| line.strip_prefix(&format!("{MARK}: "))).unwrap_or_default().to_owned();
            let Some(sent) = known(&mark) else { continue };
            assert!(text.ends_with(sent.content.split_once("\r\n\r\n").unwrap().1), "{mark} was relayed otherwise than it was sent");
            *found.entry((mark, CAROL)).or_default() += 1;
        }
        for sent in &self.sent {
            for to in &sent.to {
                let count = found.get(&(sent.mark.clone(), *to)).copied().unwrap_or_default();
                let wanted = usize::from(sent.acknowledged);
                assert_eq!(count, wanted, "{} for {to}, acknowledged: {}\n{}", sent.mark, sent.acknowledged, self.daemon.log().join("\n"));
            }
        }
        assert!(self.daemon.mailbox(BOB).unfinished.is_empty(), "something is left in tmp/");
    }

    /// What `status` complains of.
    async fn problems(&self) -> String {
        let status = self.daemon.get("/v1/status").await.json();
        let problems: Vec<&str> = status["problems"].as_array().unwrap().iter().filter_map(|p| p.as_str()).collect();
        assert_eq!(status["healthy"], problems.is_empty());
        problems.join("\n")
    }

    /// Waits until `status` complains of this.
    async fn complains(&self, of: &str) -> String {
        let mut last = String::new();
        for _ in 0..600 {
            last = self.problems().await;
            if last.contains(of) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no complaint of {of:?}: {last}\n{}", self.daemon.log().join("\n"));
    }

    /// What `pillarbox check system` says, which is FAIL.
    async fn check_fails(&self) -> String {
        let output = self.daemon.try_admin(&["check", "system"], "").await;
        let text = stdout(&output);
        assert!(!output.status.success() && text.contains("FAIL"), "{text}");
        text
    }

    /// The segments of the journal.
    fn segments(&self) -> Vec<PathBuf> {
        files(&self.daemon.home().join("state/queue/journal"))
    }

    /// Files below `deferred/` with this ending.
    fn parked(&self, ending: &str) -> Vec<PathBuf> {
        let folders = files(&self.daemon.home().join("state/queue/deferred"));
        folders.iter().flat_map(|folder| files(folder)).filter(|file| file.extension().is_some_and(|e| e == ending)).collect()
    }

    /// Waits until so many messages are parked.
    async fn is_parked(&self, count: usize) -> Vec<PathBuf> {
        for _ in 0..600 {
            let parked = self.parked("json");
            if parked.len() >= count {
                return parked;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nothing is parked\n{}", self.daemon.log().join("\n"));
    }

    async fn restart(&mut self) {
        self.daemon.stop().await;
        self.daemon.restart().await;
    }
}

/// What lies in a folder.
fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    found.sort();
    found
}

/// A transaction to its end or its refusal; the code that ended it.
async fn transmit(client: &mut Client, to: &[&str], content: &str) -> String {
    let mut commands = vec![format!("MAIL FROM:<{ALICE}>")];
    commands.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
    for command in commands {
        client.line(&command).await;
        let reply = client.reply().await;
        if reply.code() != "250" {
            return reply.code().to_owned();
        }
    }
    client.command("DATA", "354").await;
    client.send(format!("{content}.\r\n").as_bytes()).await;
    client.reply().await.code().to_owned()
}
