//! When what is tried: destinations that are down, fairness between senders, being late, giving up.

use pillarbox_testkit::{Answer, Daemon, Sink, Stage};

use super::{ALICE, Submission, count, friendly_dns, message, send, settings, with_alice};

/// Messages for a destination that is down.
const MANY: usize = 50;
/// One sender's flood.
const FLOOD: usize = 5000;
/// Sessions that hand it in.
const SESSIONS: usize = 10;
/// Messages written at once in each of them.
const BATCH: usize = 50;

/// How many messages wait.
async fn queued(daemon: &Daemon) -> usize {
    daemon.admin_json(&["queue", "list"]).await.as_array().map_or(0, Vec::len)
}

fn defers(daemon: &Daemon) -> usize {
    daemon.events().iter().filter(|e| e.name == "defer").count()
}

#[tokio::test]
async fn a_destination_that_is_down_costs_a_probe_and_not_an_attempt_a_message() {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    sink.on(Stage::Connect, "*", "421 4.3.2 Down for maintenance");
    let daemon = with_alice(settings(&dns, sink.port()).set("queue.retry", vec!["1h"])).await;
    let mut session = Submission::open(&daemon).await;
    for n in 0..MANY {
        session.send("<alice@example.test>", &["<carol@friend.test>"], &message(&format!("number {n}"), "hello")).await;
    }
    daemon.event("defer", |_| true).await;
    assert_eq!(queued(&daemon).await, MANY);
    // Two runs may have begun before the first came back.
    let first = sink.connections();
    assert!(first <= 3, "{first} connections for {MANY} messages");
    let summary = daemon.admin(&["queue", "summary"]).await;
    assert!(summary.contains("mx:friend.test") && summary.contains("Down for maintenance"), "{summary}");
    // An operator who asks for a retry of all causes one probe, too.
    let before = defers(&daemon);
    daemon.admin(&["queue", "retry", "--all"]).await;
    daemon.event("defer", |_| defers(&daemon) > before).await;
    assert!(sink.connections() <= first + 1, "{} connections after {first}", sink.connections());
    sink.behave();
    daemon.admin(&["queue", "retry", "--all"]).await;
    sink.messages(MANY).await;
    assert!(sink.connections() < 25, "{} connections for {MANY} messages", sink.connections());
    super::emptied(&daemon).await;
    assert_eq!((sink.transactions().len(), count(&daemon, "deliver", "carol@friend.test")), (MANY, MANY));
}

/// Hands in a share of the flood, many messages at a time.
async fn flood(daemon: &Daemon, share: usize) {
    let mut session = Submission::open(daemon).await;
    let content = message("flood", "hello\r\n");
    let one = format!("MAIL FROM:<alice@example.test>\r\nRCPT TO:<carol@friend.test>\r\nBDAT {} LAST\r\n{content}", content.len());
    for start in (0..share).step_by(BATCH) {
        let batch = BATCH.min(share - start);
        session.client.send(one.repeat(batch).as_bytes()).await;
        for _ in 0..3 * batch {
            session.client.expect("250").await;
        }
    }
}

#[tokio::test]
async fn one_users_flood_does_not_delay_anothers_message() {
    let sink = Sink::builder().forget_bodies().tarpit(std::time::Duration::from_millis(20)).start().await;
    let dns = friendly_dns().await;
    let daemon = with_alice(settings(&dns, sink.port()).set("submission.rate_per_user", "")).await;
    daemon.add_user("bob@example.test", "builder").await;
    let daemon = &daemon;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(flood(daemon, FLOOD / SESSIONS));
    }
    join_all(sessions).await;
    let backlog = FLOOD - sink.accepted();
    assert!(backlog > 500, "the sink is too fast for this test: only {backlog} are left");
    let mut bob = Submission::open_as(daemon, "bob@example.test", "builder").await;
    let content = message("mine", "hello").replace("From: alice@", "From: bob@");
    bob.send("<bob@example.test>", &["<dave@friend.test>"], &content).await;
    let before = sink.accepted();
    let came = |sink: &Sink| sink.commands().iter().any(|(_, line)| line.starts_with("RCPT TO:<dave@")).then(|| sink.accepted());
    let after = sink.until("Bob's message", came).await;
    // What was under way, and one round of turns at most.
    assert!(after - before < 100, "{} of Alice's {backlog} messages went before Bob's", after - before);
}

async fn join_all(futures: Vec<impl Future<Output = ()>>) {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn a_slow_destination_delays_no_other() {
    let (slow, dns) = (Sink::start().await, friendly_dns().await);
    let quick = Sink::builder().ip("127.0.0.2").port(slow.port()).start().await;
    dns.mx("quick.test", 10, "mx.quick.test").address_of("mx.quick.test", "127.0.0.2");
    slow.on(Stage::Message, "*", Answer::Hang);
    let daemon = with_alice(settings(&dns, slow.port())).await;
    let mut session = Submission::open(&daemon).await;
    for n in 0..30 {
        session.send("<alice@example.test>", &["<carol@friend.test>"], &message(&format!("slow {n}"), "hello")).await;
    }
    slow.attempts(1).await;
    send(&daemon, &["carol@quick.test"], "quick").await;
    quick.messages(1).await;
    assert_eq!(slow.accepted(), 0);
}

#[tokio::test]
async fn the_sender_is_told_once_that_mail_is_late_and_then_that_it_is_given_up() {
    let (sink, dns) = (Sink::start().await, friendly_dns().await);
    sink.on(Stage::Rcpt, "*", "451 4.3.0 Try again some day");
    let builder = settings(&dns, sink.port()).set("queue.delay_warning", "1s").set("queue.lifetime", "6s");
    let daemon = with_alice(builder).await;
    send(&daemon, &["carol@friend.test"], "late").await;
    let late = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(late.contains("Action: delayed") && late.contains("Will-Retry-Until: ") && late.contains("Try again some day"), "{late}");
    assert!(late.contains("Subject: Your message is delayed"), "{late}");
    let all = daemon.mail(ALICE, 2).await;
    let failed: Vec<String> = all.iter().map(|m| m.text()).filter(|text| text.contains("Action: failed")).collect();
    assert_eq!((all.len(), failed.len()), (2, 1));
    assert!(failed[0].contains("Try again some day"), "{}", failed[0]);
    super::emptied(&daemon).await;
    daemon.event("expire", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(daemon.mailbox(ALICE).messages.len(), 2);
    assert!(sink.transactions().is_empty());
}

#[tokio::test]
async fn a_host_that_is_gone_for_good_is_given_up_when_the_time_is_over() {
    let dns = friendly_dns().await;
    let port = pillarbox_testkit::free_port();
    let daemon = with_alice(settings(&dns, port).set("queue.retry", vec!["1h"]).set("queue.lifetime", "2s")).await;
    send(&daemon, &["carol@friend.test", "dave@friend.test"], "gone").await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    for name in ["carol", "dave"] {
        assert!(report.contains(&format!("Final-Recipient: rfc822; {name}@friend.test")), "{report}");
    }
    super::emptied(&daemon).await;
    assert_eq!(daemon.mailbox(ALICE).messages.len(), 1, "both in one report");
}
