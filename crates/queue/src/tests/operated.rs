//! What an operator sees and does.

use super::*;
use futures::StreamExt;

/// A house with mail to three domains that was put off, half of it parked.
async fn filled() -> (House, Vec<QueueId>) {
    let house = House::new().await;
    house.relay.then(busy);
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(house.send(&[&format!("user@host{}.example", n % 3)], "Subject: x\r\n\r\n").await);
        if n == 14 {
            house.until("they were tried", |h| h.relay.count() == 15 && h.queue.health().runs == 0).await;
            house.keep().await;
            house.keep().await;
        }
    }
    house.until("all were tried", |h| h.relay.count() == 30 && h.queue.health().runs == 0).await;
    (house, ids)
}

#[tokio::test]
async fn lists_come_in_pages_and_by_filter() {
    let (house, ids) = filled().await;
    let listed = |list: Vec<Envelope>| list.into_iter().map(|e| e.id).collect::<Vec<_>>();
    assert_eq!(listed(house.queue.list(&ListFilter::default(), None, 1000).await), ids);
    let first = house.queue.list(&ListFilter::default(), None, 7).await;
    assert_eq!(first.len(), 7);
    let second = house.queue.list(&ListFilter::default(), Some(first[6].id), 7).await;
    assert_eq!(listed(second), ids[7..14]);
    let to = ListFilter { to: Some("host1.example".parse().unwrap()), ..ListFilter::default() };
    assert_eq!(house.queue.list(&to, None, 1000).await.len(), 10);
    let streamed: Vec<Envelope> = house.queue.stream(to).collect().await;
    assert_eq!(streamed.len(), 10);
    let from = |text: &str| ListFilter { from: Some(text.parse().unwrap()), ..ListFilter::default() };
    assert_eq!(house.queue.list(&from("ADA@example.net"), None, 1000).await.len(), 30);
    assert_eq!(house.queue.list(&from("bob@example.net"), None, 1000).await.len(), 0);
    assert_eq!(house.queue.list(&from("<>"), None, 1000).await.len(), 0);
    let shown = house.queue.show(ids[0]).await.unwrap();
    assert_eq!(shown.recipients[0].attempts, 1);
    assert!(shown.recipients[0].last_reply.as_ref().unwrap().to_string().contains("busy"));
    assert!(shown.recipients[0].next_attempt.is_some());
    assert_eq!(house.queue.body(ids[0]).await.unwrap().bytes().await.unwrap(), "Subject: x\r\n\r\n");
    assert!(house.queue.show(QueueId(7)).await.is_none() && house.queue.body(QueueId(7)).await.is_none());
}

#[tokio::test]
async fn retrying_tries_at_once() {
    let (house, ids) = filled().await;
    house.relay.then(relayed);
    assert_eq!(house.queue.retry(&RetryFilter::Ids(vec![ids[0], ids[20], QueueId(7)])).await, 2);
    house.until("two went", |h| h.queue.health().messages == 28).await;
    assert_eq!(house.queue.retry(&RetryFilter::To("host1.example".parse().unwrap())).await, 10);
    house.until("one domain went", |h| h.queue.health().messages == 18).await;
    assert_eq!(house.queue.retry(&RetryFilter::All).await, 18);
    house.until_empty().await;
    assert_eq!(house.relay.count(), 60);
}

#[tokio::test]
async fn retrying_asks_a_destination_that_is_down() {
    let house = House::new().await;
    house.relay.then(|_| Reaction::Down(Reply::plain(421, "down")));
    let id = house.send(&["a@far.example"], "x").await;
    house.until("it is down", |h| h.queue.health().destinations_down == 1 && h.queue.health().runs == 0).await;
    house.relay.then(relayed);
    house.queue.retry(&RetryFilter::Ids(vec![id])).await;
    house.until_empty().await;
}

#[tokio::test]
async fn held_mail_waits_across_restarts_until_it_is_released() {
    let (house, ids) = filled().await;
    let held = [ids[1], ids[2], ids[25]];
    assert_eq!(house.queue.hold(&held).await, 3);
    assert_eq!(house.queue.hold(&held).await, 0, "they are held already");
    let after = house.killed("another boot").await;
    after.pass(120);
    after.until("all but the held went", |h| h.queue.health().messages == 3).await;
    let filter = ListFilter { held: true, ..ListFilter::default() };
    let listed = after.queue.list(&filter, None, 10).await;
    assert_eq!(listed.iter().map(|e| e.id).collect::<Vec<_>>(), held);
    assert!(listed.iter().all(|e| e.recipients[0].status == Status::Held));
    assert_eq!(after.queue.retry(&RetryFilter::All).await, 0, "held mail stays held");
    assert_eq!(after.queue.release(&held).await, 3);
    after.until_empty().await;
    assert_eq!(after.relay.count(), 30);
}

#[tokio::test]
async fn removed_mail_is_gone_for_good_and_nobody_is_told() {
    let (house, ids) = filled().await;
    assert_eq!(house.queue.remove(&ids[..20]).await, 20);
    assert_eq!(house.queue.health().messages, 10);
    let after = house.killed("another boot").await;
    assert_eq!(after.queue.health().messages, 10);
    house.keep().await;
    house.keep().await;
    assert!(house.parked_files() <= 20);
    assert_eq!(house.local.count(), 0);
}

#[tokio::test]
async fn removing_is_safe_while_a_delivery_runs() {
    for then in [relayed as fn(&Got) -> Reaction, busy] {
        let house = House::new().await;
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let wait = gate.clone();
        house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(then(got))));
        let id = house.send(&["a@far.example"], "x").await;
        house.until("it is under way", |h| h.relay.count() == 1).await;
        assert_eq!(house.queue.remove(&[id]).await, 1);
        assert_eq!(house.queue.health().messages, 1, "it cannot be called back");
        gate.add_permits(1);
        house.until_empty().await;
        assert_eq!(house.relay.count(), 1);
    }
}

#[tokio::test]
async fn mail_may_arrive_on_hold() {
    let house = House::new().await;
    let mut envelope = house.envelope(&["bob@local.example", "eve@far.example"]);
    envelope.recipients[0].status = Status::Held;
    let id = house.queue.accept(envelope, Body::from_bytes("x")).await.unwrap();
    house.until("the other went", |h| h.queue.health().recipients == 1 && h.relay.count() == 1).await;
    assert_eq!(house.local.count(), 0);
    assert_eq!(house.queue.release(&[id]).await, 1);
    house.until_empty().await;
    assert_eq!(house.local.count(), 1);
}

#[tokio::test]
async fn the_summary_has_a_line_a_destination() {
    let (house, _) = filled().await;
    house.relay.then(|_| Reaction::Down(Reply::plain(421, "down")));
    house.send(&["a@far.example"], "x").await;
    house.until("it is down", |h| h.queue.health().destinations_down == 1).await;
    let lines = house.queue.summary().await;
    let short: Vec<(&str, u64)> = lines.iter().map(|l| (l.destination.as_str(), l.messages)).collect();
    assert_eq!(short, [("mx:host0.example", 10), ("mx:host1.example", 10), ("mx:host2.example", 10), ("mx:far.example", 1)]);
    assert_eq!(lines[3].last_reply.as_ref().unwrap().code, 421);
    assert!(lines[3].next_probe.is_some() && lines[0].next_attempt.is_some());
}
