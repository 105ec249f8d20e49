//! What an operator does with the queue while deliveries run, and the life of a message as `trace` tells it.

use std::collections::BTreeMap;

use pillarbox_testkit::{Answer, Sink, Stage};

use super::{ALICE, Submission, count, emptied, friendly_dns, message, send, settings, with_alice, world};

#[tokio::test]
async fn hold_release_remove_and_retry_while_deliveries_run() {
    let (daemon, sink, _dns) = world().await;
    // Every message is tried again and again, so that commands meet deliveries under way.
    sink.on(Stage::Rcpt, "*", "451 4.2.1 Not yet");
    let mut session = Submission::open(&daemon).await;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(
            session.send("<alice@example.test>", &[&format!("<user{n}@friend.test>")], &message(&format!("number {n}"), "hello")).await,
        );
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    daemon.event("defer", |_| true).await;
    let (held, rest) = ids.split_at(5);
    let (removed, rest) = rest.split_at(5);
    daemon.admin(&[&["queue", "hold"], held].concat()).await;
    daemon.admin(&[&["queue", "remove", "--yes"], removed].concat()).await;
    let listed = daemon.admin_json(&["queue", "list", "--held"]).await;
    let mut names: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    names.sort_unstable();
    let mut wanted = held.to_vec();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    sink.behave();
    daemon.admin(&["queue", "retry", "--to", "friend.test"]).await;
    sink.messages(rest.len()).await;
    for n in 10..30 {
        daemon.event("deliver", |e| e.text("to") == format!("user{n}@friend.test")).await;
    }
    assert_eq!(sink.accepted(), rest.len(), "held mail stays");
    daemon.admin(&[&["queue", "release"], held].concat()).await;
    sink.messages(rest.len() + held.len()).await;
    emptied(&daemon).await;
    let mut each: BTreeMap<String, usize> = BTreeMap::new();
    sink.transactions().iter().filter(|t| t.accepted()).for_each(|t| *each.entry(t.to()[0].to_owned()).or_default() += 1);
    assert_eq!(each.len(), 25, "{each:?}");
    assert!(each.values().all(|&n| n == 1), "{each:?}");
    assert!((5..10).all(|n| !each.contains_key(&format!("user{n}@friend.test"))), "{each:?}");
    // Nobody is told of what an operator threw away.
    assert!(daemon.mailbox(ALICE).messages.is_empty());
    let gone = daemon.try_admin(&["queue", "show", removed[0]], "").await;
    assert!(!gone.status.success());
    assert!(String::from_utf8_lossy(&gone.stderr).contains("pillarbox trace"), "{}", String::from_utf8_lossy(&gone.stderr));
}

#[tokio::test]
async fn what_is_removed_in_flight_is_not_tried_again() {
    let (daemon, sink, _dns) = world().await;
    sink.on(Stage::Message, "*", Answer::Hang);
    let id = send(&daemon, &["carol@friend.test"], "flying").await;
    sink.attempts(1).await;
    daemon.admin(&["queue", "remove", "--yes", &id]).await;
    let address = sink.stop().await;
    let back = Sink::builder().port(address.port()).start().await;
    emptied(&daemon).await;
    assert_eq!((back.accepted(), count(&daemon, "deliver", "carol@friend.test")), (0, 0));
    assert!(daemon.mailbox(ALICE).messages.is_empty());
}

#[tokio::test]
async fn the_list_finds_senders_and_domains() {
    let dns = friendly_dns().await;
    dns.mx("other.test", 10, "mx.friend.test");
    let sink = Sink::start().await;
    sink.on(Stage::Rcpt, "*", "451 4.2.1 Not yet");
    let daemon = with_alice(settings(&dns, sink.port()).set("queue.retry", vec!["1h"])).await;
    daemon.add_user("bob@example.test", "builder").await;
    let first = send(&daemon, &["carol@friend.test"], "first").await;
    let both = send(&daemon, &["carol@friend.test", "dave@other.test"], "both").await;
    let mut bob = Submission::open_as(&daemon, "bob@example.test", "builder").await;
    let content = message("third", "hello").replace("From: alice@", "From: bob@");
    let third = bob.send("<bob@example.test>", &["<erin@other.test>"], &content).await;
    for to in ["carol@friend.test", "dave@other.test", "erin@other.test"] {
        daemon.event("defer", |e| e.text("to") == to).await;
    }
    for (arguments, wanted) in [
        (&["--to", "friend.test"][..], vec![&first, &both]),
        (&["--to", "other.test"], vec![&both, &third]),
        (&["--from", "bob@example.test"], vec![&third]),
        (&["--from", "alice@example.test", "--to", "other.test"], vec![&both]),
        (&["--to", "nowhere.test"], vec![]),
    ] {
        let listed = daemon.admin_json(&[&["queue", "list"], arguments].concat()).await;
        let mut ids: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
        ids.sort_unstable();
        let mut wanted: Vec<&str> = wanted.into_iter().map(String::as_str).collect();
        wanted.sort_unstable();
        assert_eq!(ids, wanted, "{arguments:?}");
    }
    let shown = daemon.admin(&["queue", "show", &first]).await;
    assert!(shown.contains("carol@friend.test") && shown.contains("Not yet"), "{shown}");
    let content = daemon.admin(&["queue", "cat", &first]).await;
    assert!(content.contains("Subject: first") && content.contains("hello"), "{content}");
}

#[tokio::test]
async fn a_trace_tells_the_life_of_a_message() {
    let (daemon, sink, _dns) = world().await;
    sink.next(1, Stage::Rcpt, "carol@*", "451 4.2.1 Not yet").on(Stage::Rcpt, "nobody@*", "550 5.1.1 Unknown here");
    let id = send(&daemon, &["carol@friend.test", "nobody@friend.test"], "life").await;
    daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    daemon.event("bounce", |e| e.text("to") == "nobody@friend.test").await;
    daemon.mail(ALICE, 1).await;
    emptied(&daemon).await;
    let told = daemon.admin_json(&["trace", &id]).await;
    let steps: Vec<(&str, &str)> =
        told.as_array().unwrap().iter().map(|e| (e["event"].as_str().unwrap_or(""), e["to"].as_str().unwrap_or(""))).collect();
    assert_eq!(steps.first().map(|(event, _)| *event), Some("accept"), "{told}");
    for step in [("defer", "carol@friend.test"), ("deliver", "carol@friend.test"), ("bounce", "nobody@friend.test")] {
        assert!(steps.contains(&step), "{step:?} is not in {steps:?}");
    }
    let text = daemon.admin(&["trace", "nobody@friend.test"]).await;
    assert!(text.contains("Unknown here") && text.contains(&id), "{text}");
}

#[tokio::test]
async fn a_test_message_is_followed_to_its_end() {
    let (daemon, sink, _dns) = world().await;
    sink.on(Stage::Rcpt, "nobody@*", "550 5.1.1 Unknown here").on(Stage::Rcpt, "later@*", "451 4.2.1 Not yet");
    let said = daemon.admin(&["send-test", "carol@friend.test"]).await;
    assert!(
        said.contains("from postmaster@example.test to carol@friend.test is on its way.") && said.ends_with("It has arrived.\n"),
        "{said}"
    );
    let told = daemon.admin_json(&["send-test", "carol@friend.test", "--from", ALICE]).await;
    assert_eq!((&told["delivered"], &told["events"][0]["from"]), (&true.into(), &ALICE.into()), "{told}");
    for (to, why) in [("nobody@friend.test", "it was refused: "), ("later@friend.test", "it has not arrived: ")] {
        let output = daemon.try_admin(&["send-test", to], "").await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let reply = if to.starts_with("nobody") { "550 5.1.1 Unknown here" } else { "451 4.2.1 Not yet" };
        assert!(error.contains(why) && error.contains(reply), "{error}");
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    }
}
