//! Programs on this machine: `sendmail` as cron, PHP and scripts call it, `mailq`, `newaliases`, `pillarbox deliver`; with the daemon up and down.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use pillarbox_testkit::daemon::{NOBODY, binary};
use pillarbox_testkit::{Daemon, Sink};
use rustix::process::geteuid;

use crate::peers;
use crate::post::{called, code, feed, letter, link, stderr, stdout, world_dns};

async fn with_alice() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon
}

fn drop_files(daemon: &Daemon) -> Vec<PathBuf> {
    std::fs::read_dir(daemon.home().join("state/drop")).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

/// Waits until the drop folder is empty.
async fn emptied(daemon: &Daemon) {
    for _ in 0..2000 {
        if drop_files(daemon).is_empty() {
            return;
        }
        // Each question takes a turn of the daemon's.
        daemon.get("/v1/status").await;
    }
    panic!("left in the drop folder: {:?}", drop_files(daemon));
}

/// What cron (Debian's, with postfix' sendmail or ours behind it) writes.
const CRON: &[u8] = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@mail> test -x /usr/sbin/anacron\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\nX-Cron-Env: <LOGNAME=root>\n\nline\n.\nGr\xc3\xbc\xc3\x9fe\n";
const CRON_CALL: &[&str] = &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"];

#[tokio::test]
async fn cron_and_php_are_served_as_they_call() {
    let daemon = with_alice().await;
    let output = called(&daemon, "sendmail", CRON_CALL, CRON).await;
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    let stored = daemon.mail("alice@example.test", 1).await.remove(0);
    assert_eq!(stored.body(), "line\n.\nGrüße\n".as_bytes(), "root's mail goes to whom the postmaster's goes");
    assert!(stored.header("From").contains("@example.test") && stored.header("From").contains("Cron"), "{}", stored.text());
    assert!(!stored.header("Date").is_empty() && !stored.header("Message-ID").is_empty(), "{}", stored.text());

    let php = b"To: alice@example.test\r\nSubject: =?UTF-8?Q?gr=C3=BCn?=\r\nX-PHP-Originating-Script: 33:mail.php\r\nFrom: shop@example.test\r\nBcc: alice+bcc@example.test,\n hidden@example.test\r\n\r\nbody\n";
    daemon.add_alias("hidden@example.test", &["alice@example.test"]).await;
    let output = called(&daemon, "sendmail", &["-t", "-i"], php).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let stored = daemon.mail("alice@example.test", 2).await;
    let php = stored.iter().find(|m| m.header("Subject").contains("gr=C3=BCn")).unwrap();
    assert!(!php.text().contains("hidden@") && !php.text().to_lowercase().contains("\nbcc:"), "{}", php.text());

    let output =
        called(&daemon, "sendmail", &["-f", "shop@example.test", "alice@example.test"], b"Subject: dot\n\nbefore\n.\nafter\n").await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let stored = daemon.mail("alice@example.test", 3).await;
    let dot = stored.iter().find(|m| m.header("Subject") == "dot").unwrap();
    assert_eq!((dot.header("Return-Path").as_str(), dot.body()), ("<shop@example.test>", &b"before\n"[..]), "without -i a dot ends it");
}

#[tokio::test]
async fn sendmail_speaks_smtp_on_its_standard_input() {
    let daemon = with_alice().await;
    let dialogue = "EHLO localhost\r\nMAIL FROM:<shop@example.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: by -bs\r\n\r\n..dot\r\n.\r\n\
        MAIL FROM:<shop@example.test>\r\nRCPT TO:<nobody@example.test>\r\nDATA\r\nSubject: no\r\n\r\nx\r\n.\r\nQUIT\r\n";
    let output = called(&daemon, "sendmail", &["-bs"], dialogue.as_bytes()).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    let codes: Vec<&str> = text.lines().filter(|l| l.as_bytes().get(3) == Some(&b' ')).filter_map(|l| l.get(..3)).collect();
    assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "250", "250", "354", "550", "221"], "{text}");
    let stored = daemon.mail("alice@example.test", 1).await.remove(0);
    assert_eq!(stored.body(), b".dot\n");
}

#[tokio::test]
async fn how_sendmail_ends_is_what_sysexits_says() {
    let daemon = with_alice().await;
    let message = b"Subject: x\n\nx\n";
    for (arguments, input, wanted) in [
        (&["-i"][..], &message[..], 64),
        (&["-Q", "alice@example.test"], message, 64),
        (&["-t", "-i"], message, 65),
        (&["-i", "no address"], message, 65),
        (&["-i", "nobody@example.test"], message, 67),
        (&["-i", "nobody@example.test", "nobody2@example.test"], message, 67),
        (&["-i", "alice@example.test"], message, 0),
    ] {
        let output = called(&daemon, "sendmail", arguments, input).await;
        assert_eq!(code(&output), wanted, "{arguments:?}: {}", stderr(&output));
        if wanted > 0 {
            assert_eq!(stderr(&output).lines().count(), 1, "{arguments:?}: {}", stderr(&output));
        }
    }
    daemon.mail("alice@example.test", 1).await;
    // One wrong recipient among others keeps nothing from them; the sender hears of it at once and by mail.
    let mixed =
        called(&daemon, "sendmail", &["-i", "-f", "alice@example.test", "alice@example.test", "nobody@example.test"], message).await;
    assert_eq!(code(&mixed), 0, "{}", stderr(&mixed));
    assert!(stderr(&mixed).contains("nobody@example.test"), "{}", stderr(&mixed));
    let mut subjects: Vec<String> = daemon.mail("alice@example.test", 3).await.iter().map(|m| m.header("Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, ["Undelivered local mail", "x", "x"]);
    for (name, arguments) in [("newaliases", &[][..]), ("sendmail", &["-bi"])] {
        let output = called(&daemon, name, arguments, b"").await;
        assert_eq!((code(&output), stdout(&output).as_str()), (0, ""));
    }
}

#[tokio::test]
async fn mailq_shows_what_waits() {
    let sink = Sink::start().await;
    let dns = world_dns().await;
    let daemon = Daemon::builder().dns(dns.address()).relay_to_loopback(sink.port()).start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    for (name, arguments) in [("mailq", &[][..]), ("sendmail", &["-bp"])] {
        let output = called(&daemon, name, arguments, b"").await;
        assert_eq!((code(&output), stdout(&output).as_str()), (0, "Mail queue is empty\n"));
    }
    let address = sink.stop().await;
    let output = called(&daemon, "sendmail", &["-i", "-f", "alice@example.test", "carol@friend.test"], b"Subject: x\n\nx\n").await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    daemon.event("defer", |e| e.text("to") == "carol@friend.test").await;
    let output = called(&daemon, "mailq", &[], b"").await;
    let text = stdout(&output);
    assert!(text.contains("carol@friend.test") && text.contains("alice@example.test") && text.contains("in 1 Requests"), "{text}");
    let back = Sink::builder().port(address.port()).start().await;
    assert_eq!(code(&called(&daemon, "sendmail", &["-q"], b"").await), 0);
    let got = back.messages(1).await.remove(0);
    assert_eq!(got.from, "alice@example.test");
}

#[tokio::test]
async fn with_the_daemon_down_local_mail_is_kept_and_taken_at_the_next_start() {
    let mut daemon = with_alice().await;
    daemon.kill().await;
    let output = called(&daemon, "sendmail", CRON_CALL, CRON).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let mixed = called(
        &daemon,
        "sendmail",
        &["-i", "-f", "alice@example.test", "nobody@example.test", "alice@example.test"],
        b"Subject: mixed\n\nx\n",
    )
    .await;
    assert_eq!(code(&mixed), 0, "nobody can be asked who exists");
    let delivered = feed(deliver(&daemon, "alice@example.test"), b"Subject: by deliver\n\nx\n").await;
    assert_eq!(code(&delivered), 0, "{}", stderr(&delivered));
    let files = drop_files(&daemon);
    assert_eq!(files.len(), 3, "{files:?}");
    daemon.restart().await;
    let mut subjects: Vec<String> = daemon.mail("alice@example.test", 4).await.iter().map(|m| m.header("Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, ["Cron <root@mail> test -x /usr/sbin/anacron", "Undelivered local mail", "by deliver", "mixed"]);
    let told = daemon.mailbox("alice@example.test").messages.into_iter().find(|m| m.header("Subject").contains("Undelivered")).unwrap();
    assert!(told.text().contains("nobody@example.test"), "{}", told.text());
    // What was taken is not taken twice. (A kill between taking a file and removing it may bring it twice, never not at all.)
    emptied(&daemon).await;
    daemon.kill().await;
    daemon.restart().await;
    assert!(called(&daemon, "sendmail", &["-i", "alice@example.test"], b"Subject: last\n\nx\n").await.status.success());
    daemon.mail("alice@example.test", 5).await;
    assert_eq!(daemon.mailbox("alice@example.test").messages.len(), 5);
    // Neither daemon nor drop folder: the caller must keep it.
    assert!(daemon.stop().await.success());
    std::fs::remove_dir(daemon.home().join("state/drop")).unwrap();
    let output = called(&daemon, "sendmail", &["-i", "alice@example.test"], b"Subject: x\n\nx\n").await;
    assert_eq!(code(&output), 75, "{}", stderr(&output));
    assert_eq!(code(&feed(deliver(&daemon, "alice@example.test"), b"Subject: x\n\nx\n").await), 75);
}

/// `pillarbox deliver --to ADDRESS`, to be fed.
fn deliver(daemon: &Daemon, to: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(binary("pillarbox"));
    command.arg("--config").arg(daemon.config_path()).args(["deliver", "--to", to]);
    command
}

#[tokio::test]
async fn deliver_ends_as_other_servers_expect() {
    let daemon = with_alice().await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.admin(&["user", "suspend", "bob@example.test"]).await;
    let message = b"From sender@client.test Mon Nov 23 10:00:00 2026\nReturn-Path: <sender@client.test>\nReceived: from x by y; Mon, 23 Nov 2026 10:00:00 +0000\nSubject: fetched\n\nbody\n.\nend\n";
    let output = feed(deliver(&daemon, "alice@example.test"), message).await;
    assert_eq!((code(&output), stdout(&output), stderr(&output)), (0, String::new(), String::new()));
    let stored = daemon.mail("alice@example.test", 1).await.remove(0);
    assert_eq!((stored.headers("Return-Path"), stored.body()), (vec!["<sender@client.test>".to_owned()], &b"body\n.\nend\n"[..]));
    assert!(stored.headers("Received").last().unwrap().starts_with("from x by y"), "{}", stored.text());
    assert!(stored.header("Date").is_empty(), "a delivered message is not mended: {}", stored.text());
    for (to, wanted) in [("nobody@example.test", 67), ("bob@example.test", 77), ("carol@friend.test", 77)] {
        let output = feed(deliver(&daemon, to), message).await;
        assert_eq!(code(&output), wanted, "{to}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
    assert_eq!(code(&feed(deliver(&daemon, "alice@example.test"), b"").await), 65);
    assert_eq!(code(&feed(deliver(&daemon, "no address"), message).await), 64);
}

#[tokio::test]
async fn what_deliver_acknowledged_survives_a_crash() {
    let mut daemon = with_alice().await;
    for n in 0..5 {
        let content = letter("sender@client.test", "alice@example.test", &format!("n{n}"));
        assert_eq!(code(&feed(deliver(&daemon, "alice@example.test"), content.as_bytes()).await), 0);
        daemon.kill().await;
        daemon.restart().await;
    }
    let mut subjects: Vec<String> = daemon.mail("alice@example.test", 5).await.iter().map(|m| m.header("Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, ["n0", "n1", "n2", "n3", "n4"]);
}

#[tokio::test]
async fn a_user_without_any_right_may_send_through_the_drop_folder() {
    if !geteuid().is_root() || !peers::have("setpriv") {
        return;
    }
    let daemon = Daemon::builder().for_dovecot().start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let mut command = tokio::process::Command::new(peers::path("setpriv").unwrap());
    command
        .args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"])
        .arg(link(&daemon, "sendmail"))
        .args(["-i", "-f", "nobody", "alice@example.test"])
        .env("PILLARBOX_CONFIG", daemon.config_path());
    let output = feed(command, b"Subject: from nobody\n\nhi\n").await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let stored = daemon.mail("alice@example.test", 1).await.remove(0);
    assert!(stored.header("Return-Path").starts_with("<nobody@"), "{}", stored.text());
    let mode = std::fs::metadata(daemon.home().join("state/drop")).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o1733);
}
