//! The command against a daemon's control socket: the queue, local mail, and what the daemon alone knows.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use predicates::prelude::*;
use serde_json::json;
use support::daemon::Daemon;
use support::{Home, field};

fn home() -> Home {
    let home = Home::new();
    home.run(&["domain", "add", "example.test"], 0);
    home.run(&["user", "add", "bob@example.test", "--generate"], 0);
    home
}

#[test]
fn the_queue_is_listed_held_released_retried_and_emptied() {
    let home = home();
    let daemon = Daemon::start(&home);
    for to in ["a@one.test", "b@one.test", "c@two.test"] {
        home.called("sendmail", &["-i", "-f", "bob@example.test", to]).write_stdin("Subject: \u{1b}[2Jhi\n\nhello\n").assert().code(0);
    }
    let tried = |n: usize| {
        move |found: &[pillarbox_queue::Envelope]| found.len() == n && found.iter().all(|e| e.recipients.iter().all(|r| r.attempts > 0))
    };
    let found = daemon.until("three messages, each tried", tried(3));
    let list = home.json(&["queue", "list"], 0);
    assert_eq!(list.as_array().unwrap().len(), 3);
    let first = list.pointer("/0").unwrap();
    for name in ["id", "from", "size_bytes", "received", "next_attempt", "held", "recipients"] {
        assert!(first.get(name).is_some(), "{name} is not in {first}");
    }
    for name in ["address", "status", "attempts", "last_reply"] {
        assert!(first.pointer(&format!("/recipients/0/{name}")).is_some(), "{name} is not in {first}");
    }
    // The remote's own words, but nothing that a terminal obeys.
    let text = home.text(&["queue", "list"]);
    assert!(text.contains("450 4.2.0 Try \\u{1b}[31mlater") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(home.json(&["queue", "list", "--to", "one.test"], 0).as_array().unwrap().len(), 2);
    assert_eq!(home.json(&["queue", "list", "--from", "eve@example.test"], 0), json!([]));
    assert_eq!(home.json(&["queue", "summary"], 0).as_array().unwrap().len(), 2);

    let id = found.first().unwrap().id.to_string();
    assert_eq!(field(&home.json(&["queue", "show", &id], 0), "/recipients/0/address"), "a@one.test");
    let cat = home.run(&["queue", "cat", &id], 0);
    assert!(cat.get_output().stdout.windows(7).any(|w| w == b"hello\r\n"));
    home.run(&["queue", "hold", &id], 0);
    assert_eq!(home.json(&["queue", "list", "--held"], 0).as_array().unwrap().len(), 1);
    home.run(&["queue", "release", &id], 0);
    assert_eq!(home.json(&["queue", "list", "--held"], 0), json!([]));
    assert_eq!(home.json(&["queue", "retry", "--to", "two.test"], 0), json!({ "messages": 1 }));
    home.run(&["queue", "retry", "--all"], 0);

    home.run(&["queue", "remove", &id], 2);
    home.run(&["queue", "remove", &id, "--yes"], 0);
    home.run(&["queue", "show", &id], 3);
    home.run(&["queue", "hold", &id], 3);
    home.run(&["queue", "show", "0000000000000"], 3);
    home.run(&["queue", "show", "nonsense"], 2);
    daemon.until("two are left", |found| found.len() == 2);
    home.called("mailq", &[]).assert().code(0).stdout(predicate::str::contains("in 2 Requests."));
}

#[test]
fn what_only_the_daemon_knows() {
    let home = home();
    let _daemon = Daemon::start(&home);
    let status = home.json(&["status"], 0);
    assert_eq!(status.get("healthy"), Some(&json!(true)));
    assert_eq!(status.pointer("/listeners/0"), Some(&json!({ "name": "smtp", "address": "127.0.0.1:2525" })));
    assert_eq!(status.pointer("/certificates/0/self_signed"), Some(&json!(true)));
    home.run(&["status"], 0).stdout(predicate::str::contains("self-signed"));
    assert_eq!(home.json(&["tls", "status"], 0).pointer("/0/name"), Some(&json!("mail.example.test")));
    assert_eq!(home.json(&["tls", "renew"], 0), json!(["mail.example.test"]));
    // The directory is the daemon's, and a change is seen at once.
    home.run(&["user", "add", "amy@example.test", "--generate"], 0);
    assert_eq!(home.json(&["user", "list"], 0).as_array().unwrap().len(), 2);
    home.run(&["trace", "0000000000000"], 3);
    // The shell offers verbs, domains and users.
    let offered = |words: &[&str]| {
        let mut arguments = vec!["--", "pillarbox"];
        arguments.extend(words);
        let mut command = home.called("pillarbox", &arguments);
        command.env("COMPLETE", "fish");
        String::from_utf8(command.assert().code(0).get_output().stdout.clone()).unwrap()
    };
    assert!(offered(&["us"]).starts_with("user"));
    assert!(offered(&["domain", "show", "exa"]).contains("example.test"));
    assert!(offered(&["user", "passwd", ""]).contains("amy@example.test"));
    assert!(offered(&["config", "explain", "limits.mes"]).contains("limits.message_size"));
}

#[test]
fn local_programs_send_and_deliver_with_the_codes_they_know() {
    let home = home();
    let daemon = Daemon::start(&home);
    let sendmail = |arguments: &[&str], message: &str| home.called("sendmail", arguments).write_stdin(message.to_owned()).assert();
    sendmail(&["-t"], "To: bob@example.test, c@two.test\nBcc: d@two.test\nSubject: x\n\nhi\n.\nnot this\n").code(0);
    let found = daemon.until("one message for three", |found| found.len() == 1 && found.iter().all(|e| e.recipients.len() == 3));
    let body = daemon.runtime.block_on(async { daemon.queue.body(found.first().unwrap().id).await.unwrap().bytes().await.unwrap() });
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(body.contains("\r\n\r\nhi\r\n") && !body.contains("Bcc") && !body.contains("not this"), "{body}");

    // Somebody who is not there does not keep the others from it, and a bare name is the system's own mail.
    sendmail(&["-i", "root", "nobody@example.test"], "From: root (Cron Daemon)\nSubject: cron\n\nx\n")
        .code(0)
        .stderr(predicate::str::contains("550 5.1.1"));
    let found = daemon.until("a message and a notice", |found| found.len() == 3);
    let to = |n: usize| found.get(n).unwrap().recipients.first().unwrap().address.to_string();
    assert_eq!((to(1), to(2)), ("postmaster@example.test".into(), "postmaster@example.test".into()));
    assert!(found.get(2).unwrap().from.is_null());

    sendmail(&["nobody@example.test"], "Subject: x\n\nx\n").code(67);
    sendmail(&[], "Subject: x\n\nx\n").code(64);
    sendmail(&["-t"], "Subject: nobody is named\n\nx\n").code(65);
    sendmail(&["-bd"], "").code(64);
    sendmail(&["-q"], "").code(0);
    home.called("newaliases", &[]).assert().code(0);

    let dialogue = "EHLO me\r\nMAIL FROM:<x@y.org>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: bs\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<no@example.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    let said = sendmail(&["-bs"], dialogue).code(0);
    let said = String::from_utf8_lossy(&said.get_output().stdout).into_owned();
    let codes: Vec<&str> = said.lines().filter(|l| l.get(3..4) == Some(" ")).filter_map(|l| l.get(..3)).collect();
    assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "250", "250", "354", "550", "221"], "{said}");

    let deliver = |to: &str, message: &str| home.command(&["deliver", "--to", to]).write_stdin(message.to_owned()).assert();
    deliver("bob@example.test", "Return-Path: <x@y.org>\nSubject: d\n\nx\n").code(0);
    deliver("nobody@example.test", "Subject: d\n\nx\n").code(67);
    deliver("x@elsewhere.test", "Subject: d\n\nx\n").code(77);
    deliver("not an address", "Subject: d\n\nx\n").code(64);
    deliver("bob@example.test", "").code(65);
    let found = daemon.until("the delivered one too", |found| found.len() == 5);
    let delivered = found.last().unwrap();
    assert_eq!(delivered.from.to_string(), "x@y.org");
    let body = daemon.runtime.block_on(async { daemon.queue.body(delivered.id).await.unwrap().bytes().await.unwrap() });
    assert_eq!(&body[..], b"Subject: d\r\n\r\nx\r\n");
}

#[test]
fn mail_for_a_daemon_that_is_down_waits_in_the_drop_folder() {
    let home = home();
    // The daemon makes the folder at its first start.
    drop(Daemon::start(&home));
    let large = format!("Subject: large\n\n{}", "0123456789\n".repeat(300_000));
    home.called("sendmail", &["-i", "bob@example.test"]).write_stdin(large.clone()).assert().code(0);
    home.command(&["deliver", "--to", "bob@example.test"]).write_stdin("Subject: small\n\nx\n").assert().code(0);
    let folder = home.path().join("state/drop");
    let names = || std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
    assert_eq!(names().iter().filter(|n| n.starts_with("new-")).count(), 2, "{:?}", names());
    // What is no message, and what is no plain file.
    std::fs::write(folder.join("new-0-rubbish"), "not an envelope\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("new-1-link")).unwrap();

    let daemon = Daemon::start(&home);
    let found = daemon.until("both were taken", |found| found.len() == 2);
    assert!(found.iter().any(|e| e.size as usize > large.len()));
    // Dropped while it runs: found at once.
    let inside = "{\"from\":\"bob\",\"to\":[\"x@one.test\"],\"login\":\"root\"}\nSubject: x\r\n\r\nx\r\n";
    std::fs::write(folder.join("tmp-2"), inside).unwrap();
    std::fs::rename(folder.join("tmp-2"), folder.join("new-2")).unwrap();
    let found = daemon.until("the third too", |found| found.len() == 3);
    assert_eq!(found.last().unwrap().from.to_string(), "bob@example.test");
    // Each file goes once its message is safe, so a moment after.
    daemon.until("only what was refused is left", |_| matches!(names().as_slice(), [left] if left.starts_with("refused-")));
}

#[test]
fn a_backup_of_a_running_queue_starts_elsewhere() {
    let (one, two) = (home(), Home::new());
    let file = one.path().join("b.tar.zst");
    let file = file.to_str().unwrap();
    let sent = {
        let daemon = Daemon::start(&one);
        one.called("sendmail", &["-i", "-f", "bob@example.test", "x@one.test"]).write_stdin("Subject: kept\n\nx\n").assert().code(0);
        one.run(&["backup", "create", file], 0);
        one.run(&["restore", file, "--yes"], 1).stderr(predicate::str::contains("the daemon runs"));
        daemon.until("it is there", |found| found.len() == 1)
    };
    two.run(&["restore", file, "--yes"], 0);
    let daemon = Daemon::start(&two);
    let found = daemon.until("it is there too", |found| found.len() == 1);
    assert_eq!(found.first().unwrap().id, sent.first().unwrap().id);
    let cat = two.run(&["queue", "cat", &sent.first().unwrap().id.to_string()], 0);
    assert!(String::from_utf8_lossy(&cat.get_output().stdout).contains("Subject: kept"));
}
