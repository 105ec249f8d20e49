//! What senders are told, and what not.

use super::*;
use pillarbox_smtp::{Notify, Ret, ReversePath};

const MESSAGE: &str = "From: ada@example.net\r\nSubject: Hello\r\nMessage-ID: <1@example.net>\r\n\r\nthe text\r\n";

fn reports(house: &House) -> Vec<String> {
    house.local.got.lock().iter().map(|g| String::from_utf8_lossy(&g.body).into_owned()).collect()
}

#[tokio::test]
async fn a_refusal_is_returned_in_the_remotes_words() {
    let house = House::new().await;
    house.relay.then(refused);
    house.send(&["a@far.example", "b@far.example"], MESSAGE).await;
    house.until_empty().await;
    let reports = reports(&house);
    assert_eq!(reports.len(), 1, "recipients that fail together share a report");
    for part in [
        "To: <ada@example.net>",
        "no such user",
        "Final-Recipient: rfc822; a@far.example",
        "b@far.example",
        "the text",
        "Remote-MTA: dns; mx.example",
    ] {
        assert!(reports[0].contains(part), "{part} in {}", reports[0]);
    }
    let report = house.local.got.lock()[0].clone();
    assert_eq!(report.envelope.from, ReversePath::Null);
    assert_eq!(report.envelope.source.door, Door::Internal);
    house.keep().await;
    assert_eq!(house.killed("boot").await.queue.health().messages, 0);
}

#[tokio::test]
async fn nobody_is_told_where_nobody_is_to_be_told() {
    let house = House::new().await;
    house.relay.then(refused);
    let base = || house.envelope(&["a@far.example"]);
    let mut never = base();
    never.recipients[0].notify = Notify::NEVER;
    let mut internal = base();
    internal.source.door = Door::Internal;
    let nowhere = Envelope { from: "nobody@example.net".parse().unwrap(), ..base() };
    for envelope in [Envelope { from: ReversePath::Null, ..base() }, never, internal, nowhere] {
        house.queue.accept(envelope, Body::from_bytes(MESSAGE)).await.unwrap();
    }
    house.until_empty().await;
    assert_eq!((house.relay.count(), house.local.count()), (4, 0));
}

#[tokio::test]
async fn a_report_that_cannot_be_delivered_is_not_reported_on() {
    let house = House::new().await;
    house.relay.then(refused);
    house.local.then(refused);
    house.send(&["a@far.example"], MESSAGE).await;
    house.until_empty().await;
    assert_eq!(house.local.count(), 1);
}

#[tokio::test]
async fn success_is_reported_on_demand_and_relaying_to_hosts_that_do_not_report() {
    let house = House::new().await;
    let wish = |to: &str| {
        let mut envelope = house.envelope(&[to]);
        envelope.recipients[0].notify = Notify { success: true, failure: true, delay: false, explicit: true };
        envelope.envid = Some("E1".into());
        envelope
    };
    house.queue.accept(wish("a@far.example"), Body::from_bytes(MESSAGE)).await.unwrap();
    house.until_empty().await;
    let text = reports(&house).pop().unwrap();
    assert!(text.contains("Action: relayed") && text.contains("Original-Envelope-Id: E1") && !text.contains("the text"), "{text}");
    house.relay.then(|_| Reaction::All(Outcome::Relayed { reply: Reply::plain(250, "ok"), dsn: true }));
    house.queue.accept(wish("b@far.example"), Body::from_bytes(MESSAGE)).await.unwrap();
    house.until_empty().await;
    assert_eq!(reports(&house).len(), 1, "a next hop that speaks DSN reports itself");
    house.queue.accept(wish("bob@local.example"), Body::from_bytes(MESSAGE)).await.unwrap();
    house.until_empty().await;
    let text = reports(&house).pop().unwrap();
    assert!(text.contains("Action: delivered"), "{text}");
}

#[tokio::test]
async fn late_mail_is_said_to_be_late_once_and_returned_in_the_end() {
    let house = House::with(|c| {
        c.queue.delay_warning = Duration::from_secs(3600);
        c.queue.lifetime = Duration::from_secs(7200);
    })
    .await;
    house.relay.then(busy);
    let id = house.send(&["a@far.example"], MESSAGE).await;
    let mut attempts = 0;
    for _ in 0..7 {
        house.until("it was tried", |h| h.relay.count() > attempts && h.queue.health().runs == 0).await;
        attempts = house.relay.count();
        house.keep().await;
        house.pass(905);
    }
    house.until("the warning went out", |h| !reports(h).is_empty()).await;
    let warning = reports(&house).remove(0);
    assert!(warning.contains("Action: delayed") && warning.contains("busy") && warning.contains("Will-Retry-Until"), "{warning}");
    house.until("the warning is remembered", |h| h.queue.health().messages == 1).await;
    house.keep().await;
    assert!(house.queue.show(id).await.unwrap().recipients[0].delay_reported);
    // A crash now does not tell it again.
    let after = house.killed("boot").await;
    after.pass(1);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(after.local.count(), 0);
    house.pass(3600);
    house.until_empty().await;
    let reports = reports(&house);
    assert_eq!(reports.len(), 2);
    assert!(reports[1].contains("Action: failed") && reports[1].contains("Status: 4.2.0"), "{}", reports[1]);
}

#[tokio::test]
async fn mail_for_a_destination_that_stays_down_expires_with_its_last_words() {
    let house = House::with(|c| {
        c.queue.lifetime = Duration::from_secs(7200);
        c.queue.delay_warning = Duration::from_secs(86_400);
    })
    .await;
    house.relay.then(|_| Reaction::Down(Reply::plain(421, "no answer from any host")));
    house.send(&["a@far.example"], MESSAGE).await;
    house.until("it is down", |h| h.queue.health().destinations_down == 1).await;
    for n in 0..5 {
        house.send(&[&format!("b{n}@far.example")], MESSAGE).await;
    }
    let queue = house.queue.clone();
    house.pass(31);
    house.until("they were handed to the keeper", |_| queue.state.lock().fresh.is_empty()).await;
    house.keep().await;
    house.pass(7300);
    // Those whose end is looked at behind that may be returned at once, too.
    house.until("one of them was tried once more", |h| !reports(h).is_empty()).await;
    house.pass(61);
    house.until("all were returned", |h| reports(h).len() == 6).await;
    house.until_empty().await;
    assert!(reports(&house).iter().all(|r| r.contains("no answer from any host")));
    assert!(house.relay.count() < 6, "each was tried although the destination was known to be down");
}

#[tokio::test]
async fn only_headers_are_returned_when_that_is_wished() {
    let house = House::new().await;
    house.relay.then(refused);
    let envelope = Envelope { ret: Some(Ret::Hdrs), ..house.envelope(&["a@far.example"]) };
    house.queue.accept(envelope, Body::from_bytes(MESSAGE)).await.unwrap();
    house.until_empty().await;
    let text = reports(&house).pop().unwrap();
    assert!(text.contains("Subject: Hello") && !text.contains("the text"));
}

#[tokio::test]
async fn a_failure_counts_once_its_report_is_queued() {
    // The sender's route cannot be resolved at first: a crash then must not lose the report.
    struct Broken;
    #[async_trait::async_trait]
    impl Hooks for Broken {
        async fn route(&self, _: &Mailbox) -> std::io::Result<Vec<Recipient>> {
            Err(std::io::Error::other("the directory is away"))
        }
    }
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let config = config(dir.path());
    let (local, relay) = (Scripted::new(delivered), Scripted::new(refused));
    let transports = Transports { mailbox: local.clone(), relay: relay.clone() };
    let clock = Arc::new(ManualClock::at(T0));
    let tools = Tools { disk: Arc::new(RealDisk), clock: clock.clone(), random: Box::new(|| 0.0), boot: "boot".into() };
    let queue = Queue::open_with(&config, transports, Arc::new(Broken), tools).await.unwrap();
    let house = House { dir, config, clock, local, relay, queue };
    house.send(&["a@far.example"], MESSAGE).await;
    house.until("it was refused", |h| h.relay.count() == 1 && h.queue.health().runs == 0).await;
    let after = house.killed("boot").await;
    after.relay.then(refused);
    after.until("it was tried again and returned", |h| h.local.count() == 1 || h.relay.count() == 1).await;
    after.until_empty().await;
}

#[tokio::test]
async fn forwarding_rules_found_at_delivery_are_followed_once() {
    let house = House::new().await;
    house.local.then(|_| {
        let mut to = Recipient::new("away@far.example".parse().unwrap(), Route::Relay);
        to.reverse_path = Some("srs@local.example".parse().unwrap());
        Reaction::All(Outcome::Replaced { by: vec![to] })
    });
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    house.send(&["bob@local.example"], MESSAGE).await;
    house.until("it is being forwarded", |h| h.relay.count() == 1).await;
    let after = house.killed("another boot").await;
    after.until_empty().await;
    assert_eq!((after.local.count(), after.relay.addressees()), (0, vec!["away@far.example".to_owned()]));
    gate.add_permits(1);
    house.until_empty().await;
    assert_eq!((house.local.count(), house.relay.count()), (1, 1));
}

#[tokio::test]
async fn deadlines_shorter_than_the_time_until_parking_are_kept() {
    let house = House::with(|c| {
        c.queue.delay_warning = Duration::from_secs(5);
        c.queue.lifetime = Duration::from_secs(12);
        c.queue.retry = vec![Duration::from_secs(3600)];
    })
    .await;
    house.relay.then(busy);
    house.send(&["a@far.example"], MESSAGE).await;
    house.until("it was tried", |h| h.relay.count() == 1 && h.queue.health().runs == 0).await;
    house.pass(6);
    house.until("the warning went out", |h| reports(h).len() == 1).await;
    house.pass(7);
    house.until_empty().await;
    let reports = reports(&house);
    assert!(reports[0].contains("Action: delayed") && reports[1].contains("Action: failed"), "{reports:?}");
    assert_eq!(house.queue.health().messages, 0, "nothing waited for the keeper");
}
