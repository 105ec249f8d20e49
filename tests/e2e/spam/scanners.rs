//! rspamd and ClamAV behind the real daemon, set up by the files of `etc/` that the documents tell people to copy.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use pillarbox_testkit::Daemon;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{with_milters, with_users};
use crate::peers;
use crate::post::{session, transmit};

/// A file of `etc/`.
fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The example with this line's value replaced; the line must be there.
fn with(text: &str, line: &str, value: &str) -> String {
    assert!(text.lines().any(|l| l.starts_with(line)), "{line} is not in the example");
    let lines = text.lines().map(|l| if l.starts_with(line) { format!("{line} {value}") } else { l.to_owned() });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Asked to end when the test does: rspamd ends its workers then, and would leave them behind if it were killed.
pub(super) struct Scanner(Child);

impl Scanner {
    pub(super) async fn start(mut command: Command, socket: &Path) -> Self {
        let mut this = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        let patience = Instant::now() + Duration::from_secs(90);
        while UnixStream::connect(socket).await.is_err() {
            assert!(this.0.try_wait().unwrap().is_none(), "the scanner ended before it listened");
            assert!(Instant::now() < patience, "the scanner does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        this
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        let Some(id) = self.0.id() else { return };
        let _ = std::process::Command::new("kill").arg(id.to_string()).status();
        // Nothing of the test's is to outlive it.
        for _ in 0..500 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.start_kill();
    }
}

async fn behind(socket: &Path) -> Daemon {
    with_users(with_milters(&[&format!("unix:{}", socket.display())])).await
}

async fn send(daemon: &Daemon, line: &str) -> String {
    let content = format!(
        "From: sender@client.test\r\nTo: bob@example.test\r\nSubject: scanned\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
         Message-ID: <1@client.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n{line}\r\n"
    );
    transmit(&mut session(daemon).await, "sender@client.test", &["bob@example.test"], content.as_bytes()).await.to_string()
}

/// rspamd with `etc/rspamd` and without its thousands of rules, which need the network and minutes.
async fn rspamd(folder: &Path) -> (Scanner, PathBuf) {
    let at = |name: &str| folder.join(name).display().to_string();
    let socket = folder.join("milter.sock");
    std::fs::create_dir(folder.join("empty")).unwrap();
    std::fs::write(folder.join("tld"), "test\norg\n").unwrap();
    let worker = with(&example("rspamd/worker-proxy.inc"), "bind_socket =", &format!("\"{} mode=0600\";", socket.display()));
    let settings = format!(
        "options {{ pidfile = \"{}\"; filters = \"\"; tempdir = \"{folder}\"; control_socket = \"{} mode=0600\"; history_file = \"{}\";\n\
         cache_file = \"{}\"; hs_cache_dir = \"{folder}\"; url_tld = \"{}\"; gtube_patterns = \"all\"; enable_test_patterns = true;\n\
         dns {{ nameserver = [\"127.0.0.1:9\"]; timeout = 1s; }} }}\n\
         logging {{ type = \"console\"; level = \"error\"; }}\nactions {{\n{}\n}}\nworker \"rspamd_proxy\" {{\n{worker}\n}}\n",
        at("pid"),
        at("control.sock"),
        at("history"),
        at("cache"),
        at("tld"),
        example("rspamd/actions.conf"),
        folder = folder.display(),
    );
    std::fs::write(folder.join("rspamd.conf"), settings).unwrap();
    let mut command = Command::new(peers::path("rspamd").unwrap());
    command.args(["-f", "-i", "-c", &at("rspamd.conf")]);
    command.arg(format!("--var=RULESDIR={}", at("empty"))).arg(format!("--var=PLUGINSDIR={}", at("empty")));
    (Scanner::start(command, &socket).await, socket)
}

#[tokio::test]
async fn rspamd_refuses_gtube_and_a_suspect_lands_in_junk() {
    if !peers::have("rspamd") {
        return;
    }
    let folder = pillarbox_testkit::folder();
    let (_scanner, socket) = rspamd(folder.path()).await;
    let daemon = behind(&socket).await;
    let reply = send(&daemon, "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X").await;
    assert!(reply.starts_with("554") && reply.contains("5.7.1"), "{reply}");
    daemon.event("reject", |event| event.text("reply").starts_with("554") && event.text("from") == "sender@client.test").await;

    let reply = send(&daemon, "YJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X").await;
    assert!(reply.starts_with("250"), "{reply}");
    daemon.event("deliver", |event| event.text("to") == "bob@example.test").await;
    let junk = daemon.folder("bob@example.test", "Junk").messages.remove(0);
    assert_eq!(junk.header("X-Spam"), "Yes", "{}", junk.text());
    assert!(
        junk.header("X-Pillarbox-Verdict").starts_with("junk,") && junk.header("X-Pillarbox-Verdict").contains("a milter calls it spam")
    );
    assert!(daemon.mailbox("bob@example.test").messages.is_empty());

    let reply = send(&daemon, "An honest letter.").await;
    assert!(reply.starts_with("250"), "{reply}");
    assert!(daemon.mail("bob@example.test", 1).await[0].text().contains("An honest letter."));
}

/// EICAR's harmless test file, in two pieces, so that no scanner takes this source for it.
fn eicar() -> String {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-", "STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}

/// clamd with a database of one signature (Debian's come by the network), and `etc/clamav` for the milter.
async fn clamav(folder: &Path) -> ([Scanner; 2], PathBuf) {
    let at = |name: &str| folder.join(name).display().to_string();
    let me = if rustix::process::geteuid().is_root() { "root" } else { "nobody" };
    std::fs::create_dir(folder.join("db")).unwrap();
    let hex: String = eicar().bytes().map(|octet| format!("{octet:02x}")).collect();
    std::fs::write(folder.join("db/test.ndb"), format!("Eicar-Test:0:*:{hex}\n")).unwrap();
    let clamd = format!("LocalSocket {}\nDatabaseDirectory {}\nForeground yes\nUser {me}\n", at("clamd.ctl"), at("db"));
    std::fs::write(folder.join("clamd.conf"), clamd).unwrap();
    let mut command = Command::new(peers::path("clamd").unwrap());
    command.args(["-c", &at("clamd.conf")]);
    let clamd = Scanner::start(command, &folder.join("clamd.ctl")).await;

    let mut settings = example("clamav/clamav-milter.conf");
    for (line, value) in [
        ("MilterSocket", at("milter.ctl")),
        ("MilterSocketGroup", me.to_owned()),
        ("User", me.to_owned()),
        ("ClamdSocket", format!("unix:{}", at("clamd.ctl"))),
        ("LogSyslog", "false".to_owned()),
    ] {
        settings = with_word(&settings, line, &value);
    }
    std::fs::write(folder.join("milter.conf"), settings + "Foreground yes\n").unwrap();
    let mut command = Command::new(peers::path("clamav-milter").unwrap());
    command.args(["-c", &at("milter.conf")]);
    let socket = folder.join("milter.ctl");
    let milter = Scanner::start(command, &socket).await;
    ([clamd, milter], socket)
}

/// As [`with`], where the first word must be the whole key: `MilterSocket` is not `MilterSocketGroup`.
fn with_word(text: &str, key: &str, value: &str) -> String {
    let is = |line: &str| line.split_whitespace().next() == Some(key);
    assert!(text.lines().any(is), "{key} is not in the example");
    text.lines().map(|line| if is(line) { format!("{key} {value}\n") } else { format!("{line}\n") }).collect()
}

#[tokio::test]
async fn clamav_refuses_eicar_and_lets_the_rest_pass() {
    if !peers::have("clamd") || !peers::have("clamav-milter") {
        return;
    }
    let folder = pillarbox_testkit::folder();
    let (_scanners, socket) = clamav(folder.path()).await;
    let daemon = behind(&socket).await;
    let reply = send(&daemon, &eicar()).await;
    assert!(reply.starts_with('5') && reply.contains("Virus found: Eicar-Test"), "{reply}");
    let event = daemon.event("reject", |event| event.text("from") == "sender@client.test").await;
    assert!(event.text("reply").contains("Virus found"), "{event:?}");
    let reply = send(&daemon, "nothing bad in here").await;
    assert!(reply.starts_with("250"), "{reply}");
    let stored = daemon.mail("bob@example.test", 1).await.remove(0);
    assert!(stored.header("X-Virus-Status").contains("Clean") && stored.text().contains("nothing bad"), "{}", stored.text());
}
