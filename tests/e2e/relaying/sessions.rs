//! How destinations are respected: few connections for many messages, not too many at once, and in the words that each understands.

use std::collections::BTreeMap;
use std::time::Duration;

use pillarbox_testkit::{Sink, Stage};

use super::{ALICE, Submission, count, emptied, friendly_dns, message, send, settings, with_alice, world};

#[tokio::test]
async fn connections_are_used_for_many_messages() {
    let (daemon, sink, _dns) = world().await;
    let mut session = Submission::open(&daemon).await;
    for n in 0..40 {
        session.send("<alice@example.test>", &["<carol@friend.test>"], &message(&format!("number {n}"), "hello")).await;
    }
    let all = sink.messages(40).await;
    // One after the other, each within the two seconds that an open connection waits.
    assert!(sink.connections() <= 10, "{} connections", sink.connections());
    assert!(all.iter().all(|m| m.chunked), "CHUNKING was offered");
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
    sink.idle().await;
    assert!(sink.commands().iter().any(|(_, line)| line == "QUIT"));
}

#[tokio::test]
async fn there_are_never_more_connections_than_allowed() {
    let sink = Sink::builder().tarpit(Duration::from_millis(20)).start().await;
    let dns = friendly_dns().await;
    let daemon = with_alice(settings(&dns, sink.port()).set("relay.per_destination", 4)).await;
    let mut session = Submission::open(&daemon).await;
    for n in 0..80 {
        session.send("<alice@example.test>", &["<carol@friend.test>"], &message(&format!("number {n}"), "hello")).await;
    }
    let mut most = 0;
    let look = |sink: &Sink| {
        most = most.max(sink.open_connections());
        (sink.accepted() >= 80).then_some(())
    };
    sink.until("80 messages", look).await;
    // Those that say goodbye are counted as long as they do.
    assert!((2..=8).contains(&most), "{most} at once");
}

#[tokio::test]
async fn a_host_that_takes_one_message_a_connection_gets_them_all_so() {
    let sink = Sink::builder().messages_per_connection(1).start().await;
    let dns = friendly_dns().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let mut session = Submission::open(&daemon).await;
    for n in 0..8 {
        session.send("<alice@example.test>", &["<carol@friend.test>"], &message(&format!("number {n}"), "hello")).await;
    }
    let all = sink.messages(8).await;
    emptied(&daemon).await;
    let mut each: BTreeMap<u64, usize> = BTreeMap::new();
    all.iter().for_each(|m| *each.entry(m.connection).or_default() += 1);
    assert!(each.values().all(|&n| n == 1), "{each:?}");
    assert_eq!((sink.accepted(), count(&daemon, "deliver", "carol@friend.test")), (8, 8));
}

#[tokio::test]
async fn without_pipelining_each_reply_is_awaited() {
    let sink = Sink::builder().capabilities(&["8BITMIME"]).tarpit(Duration::from_millis(20)).start().await;
    let dns = friendly_dns().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    send(&daemon, &["carol@friend.test", "dave@friend.test"], "one by one").await;
    let received = sink.messages(1).await.remove(0);
    assert_eq!((received.chunked, received.recipients.len()), (false, 2));
    assert!(sink.violations().is_empty(), "{:?}", sink.violations());
}

#[tokio::test]
async fn mail_leaves_from_the_address_that_the_operator_chose() {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    let daemon = with_alice(settings(&dns, sink.port()).set("relay.source_addresses", vec!["127.0.0.9".to_owned()])).await;
    send(&daemon, &["carol@friend.test"], "from there").await;
    assert_eq!(sink.messages(1).await[0].peer.ip().to_string(), "127.0.0.9");
}

#[tokio::test]
async fn all_addresses_of_a_host_are_tried_in_turn() {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    // Nobody listens on these.
    dns.address_of("mx.friend.test", "::1").address_of("mx.friend.test", "127.0.0.8");
    let daemon = with_alice(settings(&dns, sink.port())).await;
    send(&daemon, &["carol@friend.test"], "somewhere").await;
    sink.messages(1).await;
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert!(event.text("relay").contains("[127.0.0.1]"), "{event:?}");
    assert_eq!(count(&daemon, "defer", "carol@friend.test"), 0);
}

#[tokio::test]
async fn a_kill_while_mail_leaves_loses_none_and_doubles_what_was_under_way_at_most() {
    let sink = Sink::builder().tarpit(Duration::from_millis(10)).start().await;
    let dns = friendly_dns().await;
    let mut daemon = with_alice(settings(&dns, sink.port()).set("relay.per_destination", 2)).await;
    let mut session = Submission::open(&daemon).await;
    for n in 0..60 {
        session.send("<alice@example.test>", &["<carol@friend.test>"], &message(&format!("number {n}"), "hello")).await;
    }
    for _ in 0..2 {
        sink.messages((sink.accepted() + 5).min(55)).await;
        daemon.kill().await;
        daemon.restart().await;
    }
    let each = |sink: &Sink| {
        let mut each: BTreeMap<String, usize> = BTreeMap::new();
        for taken in sink.transactions().iter().filter(|t| t.accepted()) {
            let subject = taken.text().lines().find(|line| line.starts_with("Subject: ")).unwrap_or_default().to_owned();
            *each.entry(subject).or_default() += 1;
        }
        each
    };
    sink.until("all 60", |sink| (each(sink).len() == 60).then_some(())).await;
    emptied(&daemon).await;
    let doubled: Vec<_> = each(&sink).into_iter().filter(|(_, n)| *n > 1).collect();
    // Two connections at each of two kills.
    assert!(doubled.iter().map(|(_, n)| n - 1).sum::<usize>() <= 4, "{doubled:?}");
    assert!(daemon.mailbox(ALICE).messages.is_empty());
}

#[tokio::test]
async fn a_sender_is_not_flooded_with_reports() {
    let (daemon, sink, _dns) = world().await;
    sink.on(Stage::Rcpt, "*", "550 5.1.1 Nobody");
    let mut session = Submission::open(&daemon).await;
    for n in 0..210 {
        session.send("<alice@example.test>", &["<nobody@friend.test>"], &message(&format!("number {n}"), "hello")).await;
    }
    daemon.log_line("too many reports to one sender").await;
    emptied(&daemon).await;
    assert_eq!(daemon.mailbox(ALICE).messages.len(), 200);
    assert_eq!(count(&daemon, "bounce", "nobody@friend.test"), 210);
}

#[tokio::test]
async fn many_recipients_are_split_as_the_host_wishes() {
    let dns = friendly_dns().await;
    let sink = Sink::builder().capabilities(&["PIPELINING", "8BITMIME", "LIMITS RCPTMAX=7 MAILMAX=2"]).start().await;
    let daemon = with_alice(settings(&dns, sink.port())).await;
    let to: Vec<String> = (10..30).map(|n| format!("user{n}@friend.test")).collect();
    send(&daemon, &to.iter().map(String::as_str).collect::<Vec<_>>(), "to many").await;
    let all = |sink: &Sink| {
        let mut all: Vec<String> =
            sink.transactions().iter().flat_map(|t| t.to().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect();
        all.sort();
        (all.len() >= to.len()).then_some(all)
    };
    assert_eq!(sink.until("all twenty recipients", all).await, to);
    emptied(&daemon).await;
    let transactions = sink.transactions();
    assert!(transactions.iter().all(|t| t.recipients.len() <= 7), "{transactions:?}");
    let mut each: BTreeMap<u64, usize> = BTreeMap::new();
    transactions.iter().for_each(|t| *each.entry(t.connection).or_default() += 1);
    assert!(each.values().all(|&n| n <= 2), "{each:?}");
}

#[tokio::test]
async fn recipients_that_are_too_many_for_a_host_go_in_the_next_round() {
    let (daemon, sink, _dns) = world().await;
    // RFC 5321 section 4.5.3.1.10: 452, of which earlier servers say 552.
    for n in [3, 4] {
        sink.next(1, Stage::Rcpt, &format!("user{n}@*"), "452 4.5.3 Too many recipients");
    }
    let to: Vec<String> = (0..5).map(|n| format!("user{n}@friend.test")).collect();
    send(&daemon, &to.iter().map(String::as_str).collect::<Vec<_>>(), "to some").await;
    let both = sink.messages(2).await;
    assert_eq!((both[0].recipients.len(), both[1].to()), (3, vec!["user3@friend.test", "user4@friend.test"]));
    emptied(&daemon).await;
    assert_eq!(sink.accepted(), 2);
}
