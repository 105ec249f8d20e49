//! Vacation replies, set by the command and seen by the correspondents: to people, once, and to nothing else.

use pillarbox_testkit::{Daemon, Sink};

use crate::post::{before_the_world, deliver, letter, login, session, stderr, transmit};

async fn set(daemon: &Daemon, extra: &[&str]) {
    let mut arguments = vec!["vacation", "set", "alice@example.test", "--subject", "Bin im Urlaub – bis Mai", "--text-file", "-"];
    arguments.extend_from_slice(extra);
    daemon.admin_with(&arguments, "Ich lese Ihre Mail später.\n.\nGrüße\n").await;
}

/// A message from `KIND@friend.test` with this header, to Alice.
async fn from(daemon: &Daemon, kind: &str, envelope_from: &str, to: &str, header: &str) {
    let content = format!("From: {kind}@friend.test\r\nSubject: {kind}\r\nMessage-ID: <{kind}@friend.test>\r\n{header}\r\nhello\r\n");
    deliver(daemon, envelope_from, &[to], &content).await;
}

const TO: &str = "To: alice@example.test\r\n";

#[tokio::test]
async fn people_are_answered_once_and_machines_never() {
    let sink = Sink::start().await;
    let (mut daemon, _dns) = before_the_world(&sink).await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.add_alias("info@example.test", &["alice@example.test"]).await;
    daemon.add_alias("team@example.test", &["info@example.test", "bob@example.test"]).await;
    set(&daemon, &[]).await;

    let silent: &[(&str, &str, &str)] = &[
        // (kind, envelope sender when not KIND@friend.test, header)
        ("null", "<>", TO),
        ("auto-generated", "", "To: alice@example.test\r\nAuto-Submitted: auto-generated\r\n"),
        ("auto-replied", "", "To: alice@example.test\r\nauto-submitted: AUTO-REPLIED (vacation)\r\n"),
        ("auto-notified", "", "To: alice@example.test\r\nAuto-Submitted: auto-notified; owner-email=\"x@friend.test\"\r\n"),
        ("list-id", "", "To: alice@example.test\r\nList-Id: Friends <friends.friend.test>\r\n"),
        ("list-unsubscribe", "", "To: alice@example.test\r\nList-Unsubscribe: <mailto:off@friend.test>\r\n"),
        ("list-post", "", "To: alice@example.test\r\nLIST-POST: NO\r\n"),
        ("old-list", "", "To: alice@example.test\r\nX-Mailing-List: friends\r\n"),
        ("mailing-list", "", "To: alice@example.test\r\nMailing-List: contact friends-help@friend.test\r\n"),
        ("bulk", "", "To: alice@example.test\r\nPrecedence: bulk\r\n"),
        ("junk", "", "To: alice@example.test\r\nPrecedence: Junk\r\n"),
        ("list", "", "To: alice@example.test\r\nPrecedence: list\r\n"),
        ("suppress", "", "To: alice@example.test\r\nX-Auto-Response-Suppress: DR, OOF, AutoReply\r\n"),
        (
            "report",
            "",
            "To: alice@example.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n",
        ),
        ("read", "", "To: alice@example.test\r\nContent-Type: Multipart/Report; boundary=b; report-type=disposition-notification\r\n"),
        ("spam", "", "To: alice@example.test\r\nX-Spam-Flag: YES\r\n"),
        ("bcc", "", "To: somebody@friend.test\r\n"),
        ("undisclosed", "", "To: undisclosed-recipients:;\r\n"),
        ("nobody", "", ""),
        ("daemon", "MAILER-DAEMON@friend.test", TO),
        ("owner", "owner-friends@friend.test", TO),
        ("request", "friends-request@friend.test", TO),
        ("verp", "friends-bounces+alice=example.test@friend.test", TO),
        ("noreply", "no-reply@friend.test", TO),
        ("postmaster", "postmaster@friend.test", TO),
        ("own", "alice@example.test", TO),
        ("own-alias", "info@example.test", TO),
        ("own-detail", "alice+x@example.test", TO),
    ];
    for (kind, sender, header) in silent {
        let sender = match *sender {
            "" => format!("{kind}@friend.test"),
            "<>" => String::new(),
            other => other.to_owned(),
        };
        from(&daemon, kind, &sender, "alice@example.test", header).await;
    }
    let answered: &[(&str, &str, &str)] = &[
        ("plain", "alice@example.test", TO),
        ("cc", "alice@example.test", "To: other@friend.test\r\nCc: \"A. Liddell\" <ALICE@Example.TEST>\r\n"),
        ("detail", "alice+shop@example.test", "To: alice+shop@example.test\r\n"),
        ("alias", "info@example.test", "To: info@example.test\r\n"),
        ("human", "alice@example.test", "To: alice@example.test\r\nAuto-Submitted: no\r\n"),
        ("group", "alice@example.test", "To: friends: x@friend.test, alice@example.test;\r\n"),
        ("resent", "alice@example.test", "To: x@friend.test\r\nResent-To: alice@example.test\r\n"),
        ("spaced", "alice@example.test", "To: alice@example.test\r\nPrecedence: first-class\r\nX-Spam-Status: No, score=1\r\n"),
    ];
    for (kind, to, header) in answered {
        from(&daemon, kind, &format!("{kind}@friend.test"), to, header).await;
        // The same correspondent again: no second answer.
        from(&daemon, kind, &format!("{kind}@friend.test"), to, header).await;
    }
    let stored = silent.len() + 2 * answered.len();
    daemon.mail("alice@example.test", stored).await;
    sink.messages(answered.len()).await;
    // Remembered over a restart.
    assert!(daemon.stop().await.success());
    daemon.restart().await;
    from(&daemon, "plain", "plain@friend.test", "alice@example.test", TO).await;
    from(&daemon, "last", "last@friend.test", "alice@example.test", TO).await;
    sink.message("the last answer", |m| m.to() == ["last@friend.test"]).await;

    let replies = sink.messages(answered.len() + 1).await;
    let mut to: Vec<String> = replies.iter().flat_map(|m| m.to()).map(str::to_owned).collect();
    to.sort();
    let mut wanted: Vec<String> =
        answered.iter().map(|(kind, ..)| format!("{kind}@friend.test")).chain(["last@friend.test".into()]).collect();
    wanted.sort();
    assert_eq!(to, wanted);
    assert_eq!(daemon.mailbox("alice@example.test").messages.len(), stored + 2, "she gets no answers of her own");
    let reply = replies.iter().find(|m| m.to() == ["plain@friend.test"]).unwrap();
    let text = reply.text();
    assert_eq!(reply.from, "", "an answer is never answered");
    for wanted in [
        "\r\nFrom: alice@example.test\r\n",
        "\r\nTo: plain@friend.test\r\n",
        "\r\nAuto-Submitted: auto-replied",
        "\r\nIn-Reply-To: <plain@friend.test>\r\n",
        "\r\nReferences: <plain@friend.test>\r\n",
        "\r\nSubject: =?utf-8?",
        "\r\nContent-Type: text/plain; charset=utf-8",
    ] {
        assert!(text.to_lowercase().contains(&wanted.to_lowercase()), "{wanted:?} is missing:\n{text}");
    }
    let header = text.split("\r\n\r\n").next().unwrap();
    assert!(header.is_ascii(), "{header}");
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
}

#[tokio::test]
async fn it_has_a_first_and_a_last_day_and_can_be_cleared() {
    let sink = Sink::start().await;
    let (daemon, _dns) = before_the_world(&sink).await;
    daemon.add_user("alice@example.test", "wonderland").await;
    for days in [&["--from", "2999-01-01"][..], &["--until", "2001-01-01"], &["--from", "2000-01-01", "--until", "2001-01-01"]] {
        set(&daemon, days).await;
        from(&daemon, "early", "early@friend.test", "alice@example.test", TO).await;
    }
    daemon.mail("alice@example.test", 3).await;
    set(&daemon, &["--from", "2000-01-01", "--until", "2999-01-01"]).await;
    let shown = daemon.admin_json(&["vacation", "show", "alice@example.test"]).await;
    assert_eq!(
        (&shown["address"], &shown["from"], &shown["until"]),
        (&"alice@example.test".into(), &"2000-01-01".into(), &"2999-01-01".into())
    );
    assert_eq!(daemon.admin_json(&["user", "show", "alice@example.test"]).await["vacation"], true);
    from(&daemon, "during", "during@friend.test", "alice@example.test", TO).await;
    sink.message("the answer", |m| m.to() == ["during@friend.test"]).await;
    daemon.admin(&["vacation", "clear", "alice@example.test"]).await;
    from(&daemon, "after", "after@friend.test", "alice@example.test", TO).await;
    daemon.mail("alice@example.test", 5).await;
    // Whom it was not said to while it was off, is answered once it is on.
    set(&daemon, &[]).await;
    from(&daemon, "early", "early@friend.test", "alice@example.test", TO).await;
    sink.message("the answer", |m| m.to() == ["early@friend.test"]).await;
    assert_eq!(sink.accepted(), 2);

    for (arguments, code) in [
        (&["vacation", "show", "nobody@example.test"][..], 3),
        (&["vacation", "set", "nobody@example.test", "--subject", "s", "--text-file", "-"], 3),
        (&["vacation", "set", "alice@example.test", "--subject", "", "--text-file", "-"], 2),
        (&["vacation", "set", "alice@example.test", "--subject", "s", "--text-file", "/nonexistent/file"], 1),
        (&["vacation", "set", "alice@example.test", "--subject", "s", "--text-file", "-", "--from", "tomorrow"], 2),
        (
            &[
                "vacation",
                "set",
                "alice@example.test",
                "--subject",
                "s",
                "--text-file",
                "-",
                "--from",
                "2026-05-02",
                "--until",
                "2026-05-01",
            ],
            2,
        ),
    ] {
        let output = daemon.try_admin(arguments, "text\n").await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{arguments:?}: {}", stderr(&output));
    }
    daemon.admin(&["vacation", "clear", "alice@example.test"]).await;
    assert_eq!(daemon.try_admin(&["vacation", "show", "alice@example.test"], "").await.status.code(), Some(3));
}

#[tokio::test]
async fn two_who_are_away_do_not_answer_each_other_for_ever() {
    let sink = Sink::start().await;
    let (daemon, _dns) = before_the_world(&sink).await;
    for user in ["alice", "bob"] {
        daemon.add_user(&format!("{user}@example.test"), "wonderland").await;
        let address = format!("{user}@example.test");
        daemon.admin_with(&["vacation", "set", &address, "--subject", "Away", "--text-file", "-"], "away\n").await;
    }
    let (mut alice, reply) = login(&daemon, "alice@example.test", "wonderland").await;
    assert_eq!(reply.code(), "235");
    let content = letter("alice@example.test", "bob@example.test", "hello");
    transmit(&mut alice, "alice@example.test", &["bob@example.test"], content.as_bytes()).await;
    daemon.mail("bob@example.test", 1).await;
    let answer = daemon.mail("alice@example.test", 1).await.remove(0);
    assert!(answer.header("Auto-Submitted").starts_with("auto-replied"), "{}", answer.text());
    // Whatever the answer set off would be there before this.
    transmit(
        &mut session(&daemon).await,
        "x@friend.test",
        &["bob@example.test"],
        letter("x@friend.test", "bob@example.test", "x").as_bytes(),
    )
    .await;
    sink.message("bob's answer", |m| m.to() == ["x@friend.test"]).await;
    assert_eq!((daemon.mailbox("alice@example.test").messages.len(), daemon.mailbox("bob@example.test").messages.len()), (1, 2));
}
