//! A real Dovecot over our mailboxes, with the configuration that we tell people to copy: logins, quotas, folders, Sieve.

mod imap;
mod messages;
pub(crate) mod server;

use std::path::Path;

use pillarbox_testkit::daemon::{Event, NOBODY};
use pillarbox_testkit::{Client, Daemon, Load, PATIENCE};

use imap::Imap;
use server::{Dovecot, Place, passwd_file};

const ALICE: &str = "alice@example.test";
const PASSWORD: &str = "wonderland";
const SENDER: &str = "s@client.test";

/// Sends one message from outside and returns the reply's code to its end, or to the recipient when that was refused.
async fn send(daemon: &Daemon, from: &str, to: &str, message: &str) -> String {
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command(&format!("MAIL FROM:<{from}> SIZE={}", message.len()), "250").await;
    client.line(&format!("RCPT TO:<{to}>")).await;
    let reply = client.reply().await;
    if reply.code() != "250" {
        return reply.code().to_owned();
    }
    client.command("DATA", "354").await;
    let author = if message.starts_with("From:") { "" } else { "From: s@client.test\r\n" };
    client.send(format!("{author}{message}\r\n.\r\n").as_bytes()).await;
    client.reply().await.code().to_owned()
}

/// Waits until so many messages from this sender were delivered.
async fn delivered(daemon: &Daemon, from: &str, count: usize) {
    let ours = |event: &Event| event.name == "deliver" && event.text("from") == from;
    daemon.event("deliver", |event| ours(event) && daemon.events().iter().filter(|event| ours(event)).count() >= count).await;
}

/// Tries to log in until it works, or until it is refused. Dovecot looks at its passwd-files once a second at most.
async fn until(dovecot: &Dovecot, user: &str, password: &str, welcome: bool) {
    let trying = async { while Imap::login(dovecot.imaps, user, password).await.is_ok() != welcome {} };
    let patience = tokio::time::timeout(PATIENCE, trying).await;
    assert!(patience.is_ok(), "{user} with {password} was to be {}", if welcome { "let in" } else { "kept out" });
}

#[tokio::test]
async fn passwords_open_the_mailbox_and_changes_count_at_once() {
    let Some(place) = Place::new().await else { return };
    let daemon = Daemon::builder().for_dovecot().start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    daemon.add_user("jøran+x@example.test", "søppel").await;
    let carol = ["user", "add", "carol@example.test", "--login", "c.roll@example.test", "--password-stdin"];
    daemon.admin_with(&carol, "dodgson\n").await;
    passwd_file(&daemon, |text| text.contains("c.roll@example.test:")).await;
    let dovecot = place.start(&daemon, false).await;
    let may = async |user: &str, password: &str| Imap::login(dovecot.imaps, user, password).await.map(drop);

    may(ALICE, PASSWORD).await.unwrap();
    may("ALICE@Example.Test", PASSWORD).await.unwrap();
    may("jøran+x@example.test", "søppel").await.unwrap();
    assert_eq!(send(&daemon, SENDER, "carol@example.test", "Subject: two names\r\n\r\nx").await, "250");
    delivered(&daemon, SENDER, 1).await;
    for name in ["carol@example.test", "c.roll@example.test"] {
        let mut imap = Imap::login(dovecot.imaps, name, "dodgson").await.unwrap();
        assert_eq!(imap.select("INBOX").await, 1, "{name}");
    }
    assert!(may(ALICE, "looking-glass").await.unwrap_err().contains("[AUTHENTICATIONFAILED]"));
    assert!(may("nobody@example.test", PASSWORD).await.unwrap_err().contains("[AUTHENTICATIONFAILED]"));

    // No password travels without TLS.
    let mut plain = Imap::connect_plain(dovecot.imap).await;
    assert!(plain.ok("CAPABILITY").await[0].text.contains("LOGINDISABLED"));
    assert!(plain.command(&format!("LOGIN {ALICE} {PASSWORD}")).await.status.starts_with("NO"));

    // Two changes in a row, files of one size and mostly of one second, with a look by Dovecot between them: it must see the second all the same.
    let mut old = PASSWORD;
    for new in ["jabberwock", "bandersnatch", "cheshire-cat", "mock-turtle"] {
        for password in ["passing", new] {
            let before = passwd_file(&daemon, |_| true).await;
            daemon.admin_with(&["user", "passwd", ALICE, "--password-stdin"], &format!("{password}\n")).await;
            passwd_file(&daemon, |text| text != before).await;
            let _ = may(ALICE, password).await;
        }
        until(&dovecot, ALICE, new, true).await;
        may(ALICE, old).await.unwrap_err();
        old = new;
    }

    let mut apps = Vec::new();
    for label in ["phone", "desk"] {
        let made = daemon.admin_json(&["app-password", "add", ALICE, label]).await;
        apps.push(made["password"].as_str().unwrap().to_owned());
    }
    for app in &apps {
        until(&dovecot, ALICE, app, true).await;
    }
    may(ALICE, old).await.unwrap();
    daemon.admin(&["app-password", "revoke", ALICE, "phone", "--yes"]).await;
    until(&dovecot, ALICE, &apps[0], false).await;
    until(&dovecot, ALICE, &apps[1], true).await;

    daemon.admin(&["user", "suspend", ALICE]).await;
    until(&dovecot, ALICE, old, false).await;
    until(&dovecot, ALICE, &apps[1], false).await;
    daemon.admin(&["user", "resume", ALICE]).await;
    until(&dovecot, ALICE, old, true).await;
    until(&dovecot, ALICE, &apps[1], true).await;
    dovecot.stop().await;
}

/// Octets that Pillarbox says a user's mailbox holds.
async fn used(daemon: &Daemon) -> u64 {
    daemon.admin_json(&["user", "show", ALICE]).await["used_bytes"].as_u64().unwrap()
}

#[tokio::test]
async fn both_count_a_mailbox_alike() {
    let Some(place) = Place::new().await else { return };
    let daemon = Daemon::builder().for_dovecot().start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    daemon.admin(&["user", "quota", ALICE, "100K"]).await;
    passwd_file(&daemon, |text| text.contains("storage=102400B")).await;
    let dovecot = place.start(&daemon, false).await;
    let mut imap = Imap::login(dovecot.imaps, ALICE, PASSWORD).await.unwrap();
    assert_eq!(imap.quota().await, Some((0, 100)));
    let message = |n: usize| format!("Subject: message {n}\r\n\r\n{}", "0123456789\r\n".repeat(800));
    // Both must come to say the same; a quota warning may still be on its way.
    let agree = async |imap: &mut Imap| {
        let (mut theirs, mut ours) = (0, 0);
        let asking = async {
            loop {
                let (kib, limit) = imap.quota().await.unwrap();
                assert_eq!(limit, 100);
                (theirs, ours) = (kib, used(&daemon).await.div_ceil(1024));
                if theirs == ours {
                    return kib;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(kib) => kib,
            Err(_) => panic!("Dovecot counts {theirs} KiB, Pillarbox {ours}"),
        }
    };
    let mut sent = 0;
    while send(&daemon, SENDER, ALICE, &message(sent)).await == "250" {
        sent += 1;
        assert!(sent < 15, "the quota does not bind");
        delivered(&daemon, SENDER, sent).await;
        agree(&mut imap).await;
    }
    assert!(sent > 8, "{sent}");
    let full = agree(&mut imap).await;
    // One whose size nobody told is taken, and waits for room.
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("HELO client.test", "250").await;
    client.command("MAIL FROM:<late@client.test>", "250").await;
    client.command(&format!("RCPT TO:<{ALICE}>"), "250").await;
    client.command("DATA", "354").await;
    client.send(format!("From: late@client.test\r\n{}\r\n.\r\n", message(99)).as_bytes()).await;
    client.expect("250").await;
    daemon.event("defer", |event| event.text("reply").starts_with("452 4.2.2 ")).await;
    // What is deleted over IMAP makes room for what comes by SMTP.
    // The warnings at 80 and 95 % are messages too.
    assert!(imap.select("INBOX").await > sent);
    imap.ok("STORE 1:5 +FLAGS (\\Deleted)").await;
    imap.ok("EXPUNGE").await;
    let emptier = agree(&mut imap).await;
    assert!(emptier + 40 < full, "{emptier} of {full}");
    assert_eq!(send(&daemon, SENDER, ALICE, &message(100)).await, "250");
    delivered(&daemon, SENDER, sent + 1).await;
    daemon.admin(&["queue", "retry", "--all"]).await;
    delivered(&daemon, "late@client.test", 1).await;
    agree(&mut imap).await;
    // A copy into another folder counts as well.
    imap.ok("COPY 1 Trash").await;
    agree(&mut imap).await;
    dovecot.stop().await;
}

#[tokio::test]
async fn a_thousand_messages_are_a_thousand() {
    let Some(place) = Place::new().await else { return };
    let daemon = Daemon::builder().for_dovecot().start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    passwd_file(&daemon, |text| text.contains(ALICE)).await;
    let dovecot = place.start(&daemon, false).await;
    let mut imap = Imap::login(dovecot.imaps, ALICE, PASSWORD).await.unwrap();
    assert_eq!(imap.select("INBOX").await, 0);
    let mut load = Load::new(daemon.address("smtp"), ALICE, 1000);
    load.sessions = 10;
    let (acknowledged, failures) = load.start().finish().await;
    assert_eq!((acknowledged.len(), failures), (1000, Vec::new()));
    daemon.mail(ALICE, 1000).await;
    assert_eq!(imap.select("INBOX").await, 1000);
    let messages = imap.messages().await;
    let mut marks: Vec<String> = messages
        .iter()
        .filter_map(|message| {
            let text = String::from_utf8_lossy(message).into_owned();
            Some(text.lines().find_map(|line| line.strip_prefix(pillarbox_testkit::load::MARK)?.strip_prefix(": "))?.to_owned())
        })
        .collect();
    marks.sort();
    let mut expected = acknowledged;
    expected.sort();
    assert_eq!(marks, expected, "each once");
    dovecot.stop().await;
}

#[tokio::test]
async fn junk_and_details_go_to_folders() {
    let Some(place) = Place::new().await else { return };
    let daemon = Daemon::builder().for_dovecot().start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    passwd_file(&daemon, |text| text.contains(ALICE)).await;
    // A bank that asks for quarantine, and somebody who is not the bank.
    daemon.dns().txt("bank.test", "v=spf1 -all").txt("_dmarc.bank.test", "v=DMARC1; p=quarantine");
    let dovecot = place.start(&daemon, false).await;
    let mut imap = Imap::login(dovecot.imaps, ALICE, PASSWORD).await.unwrap();
    let folders = imap.list().await;
    for (name, special) in [("Junk", "\\Junk"), ("Sent", "\\Sent"), ("Trash", "\\Trash"), ("Drafts", "\\Drafts")] {
        assert!(folders.iter().any(|line| line.ends_with(&format!(" {name}")) && line.contains(special)), "{name}: {folders:?}");
    }
    imap.ok("CREATE lists").await;
    assert_eq!(send(&daemon, SENDER, "alice+lists@example.test", "Subject: to a folder\r\n\r\nx").await, "250");
    assert_eq!(send(&daemon, SENDER, "alice+nowhere@example.test", "Subject: to the inbox\r\n\r\nx").await, "250");
    let forged = "From: The Bank <service@bank.test>\r\nSubject: your account\r\n\r\nclick here";
    assert_eq!(send(&daemon, SENDER, ALICE, forged).await, "250");
    delivered(&daemon, SENDER, 3).await;
    for (folder, subject) in [("lists", "to a folder"), ("INBOX", "to the inbox"), ("Junk", "your account")] {
        assert_eq!(imap.select(folder).await, 1, "{folder}");
        let message = String::from_utf8(imap.messages().await.remove(0)).unwrap();
        assert!(message.contains(&format!("\r\nSubject: {subject}\r\n")), "{folder}: {message}");
    }
    dovecot.stop().await;
}

/// Makes a folder of a user's and a file in it, as its owner.
fn put(mail: &Path, relative: &str, content: &str) {
    let give = |path: &Path| {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    };
    let path = mail.join(relative);
    for folder in path.parent().unwrap().ancestors().take_while(|folder| *folder != mail).collect::<Vec<_>>().into_iter().rev() {
        if !folder.is_dir() {
            std::fs::create_dir(folder).unwrap();
            give(folder);
        }
    }
    std::fs::write(&path, content).unwrap();
    give(&path);
}

#[tokio::test]
async fn sieve_files_what_comes_by_lmtp() {
    if !peers_for_sieve() {
        return;
    }
    let Some(place) = Place::new().await else { return };
    let daemon = Daemon::builder().for_dovecot().set("mailbox.deliver_to", place.lmtp()).start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.dns().txt("bank.test", "v=spf1 -all").txt("_dmarc.bank.test", "v=DMARC1; p=quarantine");
    passwd_file(&daemon, |text| text.contains("bob@example.test:")).await;
    let script = "require [\"fileinto\", \"mailbox\", \"reject\"];\n\
                  if header :contains \"List-Id\" \"rust\" { fileinto :create \"Rust\"; }\n\
                  elsif header :is \"Subject\" \"no\" { reject \"Not today.\"; }\n";
    put(&daemon.home().join("mail"), "example.test/alice/.dovecot.sieve", script);
    // While Dovecot is away its mail waits.
    assert_eq!(send(&daemon, "early@client.test", "bob@example.test", "Subject: early\r\n\r\nx").await, "250");
    daemon.event("defer", |event| event.text("from") == "early@client.test").await;
    let dovecot = place.start(&daemon, true).await;
    daemon.admin(&["queue", "retry", "--all"]).await;
    delivered(&daemon, "early@client.test", 1).await;

    let to_list = "List-Id: <rust.lists.test>\r\nSubject: for the folder\r\n\r\n..dot\r\nGr\u{fc}\u{df}e";
    assert_eq!(send(&daemon, "list@client.test", ALICE, to_list).await, "250");
    assert_eq!(send(&daemon, SENDER, ALICE, "Subject: for the inbox\r\n\r\nx").await, "250");
    assert_eq!(send(&daemon, SENDER, "bob@example.test", "List-Id: <rust.lists.test>\r\nSubject: no script\r\n\r\nx").await, "250");
    let forged = "From: The Bank <service@bank.test>\r\nSubject: your account\r\n\r\nclick here";
    assert_eq!(send(&daemon, "crook@client.test", ALICE, forged).await, "250");
    for (from, count) in [("list@client.test", 1), (SENDER, 2), ("crook@client.test", 1)] {
        delivered(&daemon, from, count).await;
    }
    let mut imap = Imap::login(dovecot.imaps, ALICE, PASSWORD).await.unwrap();
    for (folder, subject) in [("Rust", "for the folder"), ("INBOX", "for the inbox"), ("Junk", "your account")] {
        assert_eq!(imap.select(folder).await, 1, "{folder}");
        let message = String::from_utf8(imap.messages().await.remove(0)).unwrap();
        assert!(message.contains(&format!("\r\nSubject: {subject}\r\n")), "{folder}: {message}");
        for once in ["\r\nDelivered-To:", "Return-Path:"] {
            assert_eq!(message.matches(once).count(), 1, "{message}");
        }
        if folder == "Rust" {
            assert!(message.starts_with("Return-Path: <list@client.test>\r\nDelivered-To: alice@example.test\r\n"), "{message}");
            assert!(message.ends_with("\r\nSubject: for the folder\r\n\r\n.dot\r\nGr\u{fc}\u{df}e\r\n"), "{message}");
        }
    }
    let mut imap = Imap::login(dovecot.imaps, "bob@example.test", "builder").await.unwrap();
    assert_eq!(imap.select("INBOX").await, 2);

    // A detail names a folder where there is one.
    imap.ok("CREATE lists").await;
    assert_eq!(send(&daemon, SENDER, "bob+lists@example.test", "Subject: detail\r\n\r\nx").await, "250");
    assert_eq!(send(&daemon, SENDER, "bob+none@example.test", "Subject: none\r\n\r\nx").await, "250");
    delivered(&daemon, SENDER, 4).await;
    assert_eq!(imap.select("lists").await, 1);
    assert_eq!(imap.select("INBOX").await, 3);
    dovecot.stop().await;
}

fn peers_for_sieve() -> bool {
    crate::peers::have("lmtp") && crate::peers::have("sievec")
}
