//! Who gets a message: aliases and groups, details, suspended users, forwarding, quotas, junk, and mailboxes that somebody tampered with.

use std::path::Path;

use pillarbox_testkit::{Answer, Daemon, Sink, Stage};

use crate::post::{before_the_world, called, deliver, letter, login, login_code, rcpt, session, stderr, transmit};

async fn family() -> Daemon {
    let daemon = Daemon::start().await;
    for name in ["alice", "bob", "carol"] {
        daemon.add_user(&format!("{name}@example.test"), &format!("{name}-secret")).await;
    }
    daemon
}

fn make_folder(maildir: &Path, name: &str) {
    for sub in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(maildir.join(format!(".{name}")).join(sub)).unwrap();
    }
}

#[tokio::test]
async fn groups_of_groups_reach_everybody_once() {
    let daemon = family().await;
    daemon.add_alias("parents@example.test", &["alice@example.test", "bob@example.test"]).await;
    daemon.add_alias("all@example.test", &["parents@example.test", "carol@example.test", "bob@example.test"]).await;
    daemon.add_alias("everyone@example.test", &["all@example.test"]).await;
    let to = ["everyone@example.test", "alice@example.test", "parents@example.test"];
    deliver(&daemon, "sender@client.test", &to, &letter("sender@client.test", "everyone@example.test", "once")).await;
    // A second message, behind which nothing of the first can be on its way.
    deliver(&daemon, "sender@client.test", &["everyone@example.test"], &letter("sender@client.test", "you", "twice")).await;
    for name in ["alice", "bob", "carol"] {
        let address = format!("{name}@example.test");
        let mut subjects: Vec<String> = daemon.mail(&address, 2).await.iter().map(|m| m.header("Subject")).collect();
        subjects.sort();
        assert_eq!(subjects, ["once", "twice"], "{name}");
    }
}

#[tokio::test]
async fn aliases_that_lead_nowhere_are_refused() {
    let daemon = family().await;
    daemon.add_alias("one@example.test", &["two@example.test"]).await;
    daemon.add_alias("two@example.test", &["three@example.test"]).await;
    let refused = daemon.try_admin(&["alias", "add", "three@example.test", "one@example.test"], "").await;
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("only to itself"), "{}", stderr(&refused));
    let reply = rcpt(&daemon, "one@example.test").await;
    assert!(reply.code() == "550" && reply.has("5.1.1 *"), "its end is nobody: {reply}");
    // By way of an end that goes away again, a loop can still be made; the door finds it.
    daemon.add_alias("three@example.test", &["alice@example.test", "one@example.test"]).await;
    assert_eq!(rcpt(&daemon, "one@example.test").await.code(), "250", "a loop beside a mailbox harms nobody");
    daemon.admin(&["alias", "remove", "three@example.test", "alice@example.test", "--yes"]).await;
    let reply = rcpt(&daemon, "one@example.test").await;
    assert!(reply.code() == "550" && reply.has("5.4.6 *"), "{reply}");
    let route = daemon.admin_json(&["route", "one@example.test"]).await;
    assert_eq!(route["final"][0]["action"], "reject", "{route}");
}

#[tokio::test]
async fn the_catch_all_takes_what_nobody_has_and_role_addresses_always_reach_someone() {
    let daemon = family().await;
    for role in ["postmaster@example.test", "abuse@example.test", "Postmaster", "POSTMASTER@mail.example.test"] {
        assert_eq!(rcpt(&daemon, role).await.code(), "250", "{role}");
    }
    deliver(&daemon, "sender@client.test", &["abuse@example.test"], &letter("sender@client.test", "abuse", "complaint")).await;
    assert_eq!(daemon.mail("alice@example.test", 1).await[0].header("Subject"), "complaint", "the first user runs the place");
    daemon.add_alias("@example.test", &["carol@example.test"]).await;
    deliver(&daemon, "sender@client.test", &["typo@example.test"], &letter("sender@client.test", "typo", "caught")).await;
    deliver(&daemon, "sender@client.test", &["bob@example.test"], &letter("sender@client.test", "bob", "direct")).await;
    assert_eq!(daemon.mail("carol@example.test", 1).await[0].header("Subject"), "caught");
    assert_eq!(daemon.mail("bob@example.test", 1).await[0].header("Subject"), "direct");
    daemon.admin(&["alias", "remove", "@example.test", "--yes"]).await;
    daemon.add_alias("postmaster@example.test", &["bob@example.test"]).await;
    deliver(&daemon, "sender@client.test", &["abuse@example.test"], &letter("sender@client.test", "abuse", "again")).await;
    daemon.mail("bob@example.test", 2).await;
    assert_eq!(daemon.mailbox("carol@example.test").messages.len(), 1);
}

#[tokio::test]
async fn a_detail_names_a_folder_that_must_exist() {
    let daemon = family().await;
    daemon.add_alias("shop@example.test", &["bob@example.test"]).await;
    make_folder(&daemon.maildir("alice@example.test"), "lists");
    make_folder(&daemon.maildir("bob@example.test"), "orders");
    let to = ["alice+lists@example.test", "bob+orders@example.test"];
    deliver(&daemon, "sender@client.test", &to, &letter("sender@client.test", "lists", "filed")).await;
    deliver(&daemon, "sender@client.test", &["shop+orders@example.test"], &letter("sender@client.test", "shop", "by alias")).await;
    for bad in ["alice+nowhere@example.test", "\"alice+../../bob\"@example.test", "alice+a.b@example.test", "alice+@example.test"] {
        deliver(&daemon, "sender@client.test", &[bad], &letter("sender@client.test", "alice", bad)).await;
    }
    assert_eq!(daemon.mail("alice@example.test", 4).await.len(), 4);
    let filed = daemon.folder("alice@example.test", "lists").messages;
    assert_eq!(filed.iter().map(|m| m.header("Subject")).collect::<Vec<_>>(), ["filed"]);
    let orders = || daemon.folder("bob@example.test", "orders").messages;
    daemon.events_until("both orders", |_| (orders().len() == 2).then_some(())).await;
    assert!(daemon.mailbox("bob@example.test").messages.is_empty());
    assert!(!daemon.maildir("alice@example.test").join(".nowhere").exists(), "nobody's address makes folders");
}

#[tokio::test]
async fn who_gets_an_aliass_mail_may_send_as_it() {
    let daemon = family().await;
    daemon.add_alias("team@example.test", &["alice@example.test", "inner@example.test", "out@friend.test"]).await;
    daemon.add_alias("inner@example.test", &["bob@example.test"]).await;
    daemon.add_alias("carol@example.test", &["carol@example.test", "alice@example.test"]).await;
    for (user, sender, code) in [
        ("alice", "team@example.test", "250"),
        ("bob", "team@example.test", "250"),
        ("bob", "inner@example.test", "250"),
        ("alice", "alice+shop@example.test", "250"),
        ("carol", "team@example.test", "553"),
        ("alice", "inner@example.test", "553"),
        ("alice", "carol@example.test", "553"),
        ("alice", "out@friend.test", "553"),
        ("alice", "nobody@example.test", "553"),
    ] {
        let (mut client, reply) = login(&daemon, &format!("{user}@example.test"), &format!("{user}-secret")).await;
        assert_eq!(reply.code(), "235");
        client.line(&format!("MAIL FROM:<{sender}>")).await;
        let reply = client.reply().await;
        assert_eq!(reply.code(), code, "{user} as {sender}: {reply}");
    }
}

#[tokio::test]
async fn a_suspended_user_is_refused_or_mail_waits_until_the_return() {
    let mut daemon = family().await;
    daemon.add_alias("both@example.test", &["alice@example.test", "bob@example.test"]).await;
    daemon.admin(&["user", "suspend", "alice@example.test"]).await;
    assert_eq!(login_code(&daemon, "alice@example.test", "alice-secret").await, "535");
    let reply = rcpt(&daemon, "alice@example.test").await;
    assert!(reply.code() == "550" && reply.has("5.2.1 *"), "{reply}");
    deliver(&daemon, "sender@client.test", &["both@example.test"], &letter("sender@client.test", "both", "for bob")).await;
    daemon.mail("bob@example.test", 1).await;

    daemon.configure("mailbox.suspended", "hold");
    daemon.reload();
    daemon.log_line("reload").await;
    let waiting = async |daemon: &Daemon| daemon.admin_json(&["queue", "list", "--held"]).await.as_array().unwrap().len();
    // The reload is seen by sessions that begin after it.
    deliver(&daemon, "sender@client.test", &["alice@example.test"], &letter("sender@client.test", "alice", "held one")).await;
    deliver(&daemon, "sender@client.test", &["both@example.test"], &letter("sender@client.test", "both", "held two")).await;
    daemon.mail("bob@example.test", 2).await;
    assert_eq!(waiting(&daemon).await, 2);
    let listed = daemon.admin_json(&["queue", "list"]).await;
    assert!(listed[0]["recipients"][0]["last_reply"].as_str().unwrap().contains("suspended"), "{listed}");
    daemon.admin(&["queue", "retry", "--all"]).await;
    daemon.kill().await;
    daemon.restart().await;
    assert_eq!(waiting(&daemon).await, 2, "held mail survives a crash, and a retry");
    assert!(daemon.mailbox("alice@example.test").messages.is_empty());
    daemon.admin(&["user", "resume", "alice@example.test"]).await;
    let mut subjects: Vec<String> = daemon.mail("alice@example.test", 2).await.iter().map(|m| m.header("Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, ["held one", "held two"]);
    assert_eq!(login_code(&daemon, "alice@example.test", "alice-secret").await, "235");

    // Resumed while no daemon runs: the next start lets the mail go.
    daemon.admin(&["user", "suspend", "alice@example.test"]).await;
    deliver(&daemon, "sender@client.test", &["alice@example.test"], &letter("sender@client.test", "alice", "held three")).await;
    assert!(daemon.stop().await.success());
    daemon.admin(&["user", "resume", "alice@example.test"]).await;
    daemon.restart().await;
    daemon.mail("alice@example.test", 3).await;
    assert_eq!(daemon.mailbox("bob@example.test").messages.len(), 2, "nobody got anything twice");
}

#[tokio::test]
async fn local_mail_and_reports_wait_for_a_suspended_user_too() {
    let sink = Sink::start().await;
    let dns = crate::post::world_dns().await;
    let daemon = Daemon::builder().dns(dns.address()).relay_to_loopback(sink.port()).set("mailbox.suspended", "hold").start().await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.admin(&["user", "suspend", "bob@example.test"]).await;
    sink.on(Stage::Rcpt, "carol@friend.test", Answer::Say("550 5.1.1 gone away".into()));
    for (subject, arguments) in [
        ("by sendmail", &["-i", "-f", "shop@example.test", "bob@example.test"][..]),
        ("to be returned", &["-i", "-f", "bob@example.test", "carol@friend.test"]),
    ] {
        let output = called(&daemon, "sendmail", arguments, format!("Subject: {subject}\n\nx\n").as_bytes()).await;
        assert!(output.status.success(), "{}", stderr(&output));
    }
    daemon.admin_with(&["deliver", "--to", "bob@example.test"], "Subject: by deliver\n\nx\n").await;
    daemon.event("bounce", |e| e.text("to") == "carol@friend.test").await;
    let mut held = serde_json::Value::Null;
    for _ in 0..200 {
        held = daemon.admin_json(&["queue", "list", "--held"]).await;
        if held.as_array().unwrap().len() == 3 {
            break;
        }
    }
    assert_eq!(held.as_array().unwrap().len(), 3, "the report follows its event at once: {held}");
    daemon.admin(&["user", "resume", "bob@example.test"]).await;
    let mail = daemon.mail("bob@example.test", 3).await;
    assert!(mail.iter().any(|m| m.text().contains("gone away")), "the report is among them");
    // Held for a user who is then removed: it goes back to whoever sent it.
    daemon.admin(&["user", "suspend", "bob@example.test"]).await;
    deliver(&daemon, "sender@client.test", &["bob@example.test"], &letter("sender@client.test", "bob", "too late")).await;
    daemon.admin(&["user", "remove", "bob@example.test", "--yes"]).await;
    let returned = sink.message("the report", |m| m.to() == ["sender@client.test"]).await;
    assert!(returned.text().contains("bob@example.test"), "{}", returned.text());
}

/// Bytes that a careless server would change: long folds, tabs, trailing spaces, 8-bit text, leading dots, no empty line at the end.
const DELICATE: &[u8] = b"From: =?utf-8?q?J=C3=B6?= <sender@client.test>\r\nTo: fwd@example.test\r\nSubject: a\r\n\t folded\r\n  subject \r\nX-Odd:nospace\r\nDKIM-Signature: v=1; a=rsa-sha256; d=client.test; s=s;\r\n\tbh=AAAA; h=from; b=AAAA\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ntrailing  \r\n\ttab\r\n.dot\r\n..dots\r\nGr\xc3\xbc\xc3\x9fe\r\n\r\n\r\nend\r\n";

#[tokio::test]
async fn forwarded_mail_leaves_unchanged_with_a_sender_of_ours_and_reports_find_back() {
    let sink = Sink::start().await;
    let (daemon, _dns) = before_the_world(&sink).await;
    for name in ["alice", "bob"] {
        daemon.add_user(&format!("{name}@example.test"), "secret-word").await;
    }
    daemon.add_alias("fwd@example.test", &["carol@friend.test"]).await;
    daemon.add_alias("alice@example.test", &["alice@example.test", "alice@friend.test"]).await;
    daemon.add_alias("bob@example.test", &["bob@friend.test"]).await;
    let mut client = session(&daemon).await;
    let to = ["fwd@example.test", "alice@example.test", "bob@example.test"];
    assert_eq!(transmit(&mut client, "sender@client.test", &to, DELICATE).await.code(), "250");
    let mut rewritten = String::new();
    for who in ["carol@friend.test", "alice@friend.test", "bob@friend.test"] {
        let got = sink.message(who, |m| m.to().contains(&who)).await;
        assert!(got.body.ends_with(DELICATE), "{}", got.text());
        assert!(got.from.starts_with("SRS0=") && got.from.ends_with("=client.test=sender@example.test"), "{}", got.from);
        rewritten = got.from;
    }
    let kept = daemon.mail("alice@example.test", 1).await.remove(0);
    assert!(kept.text().starts_with("Return-Path: <sender@client.test>\n"), "{}", kept.text());
    let original = String::from_utf8_lossy(DELICATE).replace("\r\n", "\n");
    assert!(kept.text().ends_with(&original), "{}", kept.text());
    assert!(daemon.mailbox("bob@example.test").messages.is_empty(), "no copy was asked for");

    // The next hop sends a report to the address that it was given.
    let report = b"From: MAILER-DAEMON@friend.test\r\nSubject: undeliverable\r\n\r\nsorry\r\n";
    assert_eq!(transmit(&mut client, "", &[&rewritten], report).await.code(), "250");
    let back = sink.message("the report", |m| m.to() == ["sender@client.test"]).await;
    assert_eq!(back.from, "");
    assert!(back.body.ends_with(report), "{}", back.text());
    // Nobody else's hash is believed, and no other address comes back.
    client.command("MAIL FROM:<>", "250").await;
    let forged = rewritten.replacen("sender", "victim", 1);
    client.command(&format!("RCPT TO:<{forged}>"), "550").await;
    client.command("RCPT TO:<SRS0=AAAAAA=AA=victim.test=bob@example.test>", "550").await;
    client.command("RSET", "250").await;

    // Refused by the next hop for good: the original sender hears of it from us.
    sink.on(Stage::Rcpt, "carol@friend.test", Answer::Say("550 5.1.1 gone away".into()));
    assert_eq!(transmit(&mut client, "sender@client.test", &["fwd@example.test"], DELICATE).await.code(), "250");
    let told = sink.message("our report", |m| m.to() == ["sender@client.test"] && m.text().contains("multipart/report")).await;
    assert!(told.from.is_empty() && told.text().contains("gone away"), "{}", told.text());
    // Our own users and the null sender keep their name.
    let (mut ours, reply) = login(&daemon, "bob@example.test", "secret-word").await;
    assert_eq!(reply.code(), "235");
    sink.behave();
    transmit(&mut ours, "bob@example.test", &["fwd@example.test"], letter("bob@example.test", "fwd@example.test", "own").as_bytes()).await;
    sink.message("bob's own", |m| m.from == "bob@example.test").await;
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
}

/// A message of about so many KiB.
fn bulky(kib: usize, subject: &str) -> String {
    let line = "x".repeat(62);
    letter("sender@client.test", "alice@example.test", subject) + &format!("{line}\r\n").repeat(kib * 16)
}

#[tokio::test]
async fn a_full_mailbox_warns_its_owner_then_makes_mail_wait() {
    let daemon = family().await;
    daemon.admin(&["user", "quota", "alice@example.test", "100K"]).await;
    let mut client = session(&daemon).await;
    client.command("MAIL FROM:<sender@client.test> SIZE=200000", "250").await;
    let reply = client.command("RCPT TO:<alice@example.test>", "452").await;
    assert!(reply.has("4.2.2 *"), "{reply}");
    client.command("RCPT TO:<bob@example.test>", "250").await;
    client.command("RSET", "250").await;
    for (kib, subject) in [(60, "sixty"), (25, "eighty-five")] {
        assert_eq!(
            transmit(&mut client, "sender@client.test", &["alice@example.test"], bulky(kib, subject).as_bytes()).await.code(),
            "250"
        );
        daemon.event("deliver", |e| e.text("to") == "alice@example.test").await;
        daemon.mail("alice@example.test", 1).await;
    }
    let warned = daemon.mail("alice@example.test", 3).await;
    let from_us: Vec<String> = warned.iter().filter(|m| m.text().starts_with("Return-Path: <>")).map(|m| m.text()).collect();
    assert_eq!(from_us.len(), 1, "one warning");
    assert!(from_us[0].contains("Auto-Submitted: auto-generated") && from_us[0].contains('%'), "{}", from_us[0]);
    transmit(&mut client, "sender@client.test", &["alice@example.test"], bulky(10, "ninety-six").as_bytes()).await;
    let warned = daemon.mail("alice@example.test", 5).await;
    assert_eq!(warned.iter().filter(|m| m.text().starts_with("Return-Path: <>")).count(), 2, "another at 95 %");
    // No SIZE was announced, one octet would fit: the mailbox itself puts the message off.
    transmit(&mut client, "sender@client.test", &["alice@example.test"], bulky(20, "too much").as_bytes()).await;
    let put_off = daemon.event("defer", |e| e.text("to") == "alice@example.test").await;
    assert!(put_off.text("reply").contains("4.2.2"), "{put_off:?}");
    let shown = daemon.admin_json(&["user", "show", "alice@example.test"]).await;
    let (used, quota) = (shown["used_bytes"].as_u64().unwrap(), shown["quota_bytes"].as_u64().unwrap());
    assert!(quota == 102_400 && used > 95 * 1024 && used <= quota, "{shown}");
    let listed = daemon.admin_json(&["queue", "list"]).await;
    assert!(listed[0]["recipients"][0]["last_reply"].as_str().unwrap().contains("full"), "{listed}");
    daemon.admin(&["user", "quota", "alice@example.test", "none"]).await;
    daemon.admin(&["queue", "retry", "--all"]).await;
    daemon.mail("alice@example.test", 6).await;
}

#[tokio::test]
async fn a_full_mailbox_refuses_for_good_where_that_is_configured() {
    let sink = Sink::start().await;
    let dns = crate::post::world_dns().await;
    let daemon = Daemon::builder()
        .dns(dns.address())
        .relay_to_loopback(sink.port())
        .set("mailbox.over_quota", "reject")
        .set("mailbox.default_quota", "20K")
        .start()
        .await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let mut client = session(&daemon).await;
    client.command("MAIL FROM:<sender@client.test> SIZE=30000", "250").await;
    let reply = client.command("RCPT TO:<alice@example.test>", "552").await;
    assert!(reply.has("5.2.2 *"), "{reply}");
    client.command("RSET", "250").await;
    transmit(&mut client, "sender@client.test", &["alice@example.test"], bulky(30, "too much").as_bytes()).await;
    let report = sink.message("the report", |m| m.to() == ["sender@client.test"]).await;
    assert!(report.text().contains("5.2.2") && report.text().contains("full"), "{}", report.text());
    assert!(daemon.mailbox("alice@example.test").messages.is_empty());
}

#[tokio::test]
async fn what_the_screen_takes_for_junk_goes_to_the_junk_folder() {
    let daemon = family().await;
    daemon.dns().txt("_dmarc.client.test", "v=DMARC1; p=quarantine").txt("client.test", "v=spf1 ip4:192.0.2.25 -all");
    make_folder(&daemon.maildir("alice@example.test"), "lists");
    let content = letter("sender@client.test", "alice@example.test", "buy this");
    deliver(&daemon, "sender@client.test", &["alice+lists@example.test"], &content).await;
    daemon.event("deliver", |e| e.text("to") == "alice@example.test").await;
    let junk = daemon.folder("alice@example.test", "Junk").messages;
    assert_eq!(junk.len(), 1);
    assert!(junk[0].header("Authentication-Results").contains("dmarc=fail"), "{}", junk[0].text());
    assert!(daemon.mailbox("alice@example.test").messages.is_empty());
    let subscriptions = std::fs::read_to_string(daemon.maildir("alice@example.test").join("subscriptions")).unwrap();
    assert!(subscriptions.lines().any(|l| l == "Junk"), "{subscriptions}");
}

/// Nothing but directories below.
fn holds_no_file(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().all(|e| e.file_type().is_ok_and(|t| t.is_dir()) && holds_no_file(&e.path()))
}

#[tokio::test]
async fn a_planted_link_makes_mail_wait_and_nothing_leaves_the_mailbox() {
    let daemon = Daemon::start().await;
    let users = ["new", "tmp", "maildir", "junk", "user"];
    for user in users {
        daemon.add_user(&format!("{user}@example.test"), "wonderland").await;
    }
    let outside = pillarbox_testkit::folder();
    for sub in ["new", "cur", "tmp", "Maildir/new", "Maildir/cur", "Maildir/tmp"] {
        std::fs::create_dir_all(outside.path().join(sub)).unwrap();
    }
    let domain = daemon.home().join("mail/example.test");
    let link = |target: &Path, at: &Path| std::os::unix::fs::symlink(target, at).unwrap();
    for user in ["new", "tmp", "junk"] {
        let maildir = domain.join(user).join("Maildir");
        for sub in ["cur", "new", "tmp"].iter().filter(|sub| **sub != user) {
            std::fs::create_dir_all(maildir.join(sub)).unwrap();
        }
        if user != "junk" {
            link(&outside.path().join(user), &maildir.join(user));
        }
    }
    link(outside.path(), &domain.join("junk/Maildir/.wish"));
    std::fs::create_dir_all(domain.join("maildir")).unwrap();
    link(&outside.path().join("Maildir"), &domain.join("maildir/Maildir"));
    link(outside.path(), &domain.join("user"));
    let to = ["new@example.test", "tmp@example.test", "maildir@example.test", "junk+wish@example.test", "user@example.test"];
    deliver(&daemon, "sender@client.test", &to, &letter("sender@client.test", "you", "trap")).await;
    for user in users {
        let address = format!("{user}@example.test");
        let event = daemon.event("defer", |e| e.text("to") == address).await;
        assert!(event.text("reply").starts_with('4'), "{event:?}");
    }
    assert!(holds_no_file(outside.path()), "nothing was written through a link");
    let listed = daemon.admin_json(&["queue", "list"]).await;
    for recipient in listed[0]["recipients"].as_array().unwrap() {
        assert!(recipient["last_reply"].as_str().is_some_and(|r| !r.is_empty()), "{recipient}");
    }
    // The links taken away, everybody gets the mail.
    for (at, user) in [("new/Maildir/new", "new"), ("tmp/Maildir/tmp", "tmp"), ("maildir/Maildir", "maildir"), ("user", "user")] {
        assert!(users.contains(&user));
        std::fs::remove_file(domain.join(at)).unwrap();
    }
    std::fs::remove_file(domain.join("junk/Maildir/.wish")).unwrap();
    daemon.admin(&["queue", "retry", "--all"]).await;
    for user in users {
        daemon.mail(&format!("{user}@example.test"), 1).await;
    }
    assert!(holds_no_file(outside.path()));
}
