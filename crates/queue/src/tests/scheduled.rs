//! Who is tried when: retries, destinations that are down, windows, turns, priorities, holds.

use super::*;
use pillarbox_smtp::DeliverBy;

#[tokio::test]
async fn retries_follow_the_configured_waits() {
    let house = House::new().await;
    house.relay.then(busy);
    house.send(&["eve@far.example"], "x").await;
    for (n, wait) in [(1, 60), (2, 300), (3, 900), (4, 900)] {
        house.until("an attempt was made", |h| h.relay.count() == n && h.queue.health().runs == 0).await;
        house.pass(wait - 1);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(house.relay.count(), n, "too early");
        house.pass(1);
    }
    house.until("a fifth attempt was made", |h| h.relay.count() == 5).await;
}

#[tokio::test]
async fn a_destination_that_is_down_costs_one_probe() {
    let house = House::new().await;
    house.relay.then(|_| Reaction::Down(Reply::plain(421, "connection refused")));
    house.send(&["a@far.example"], "x").await;
    house.until("it is known to be down", |h| h.queue.health().destinations_down == 1).await;
    for n in 0..100 {
        house.send(&[&format!("user{n}@far.example")], "x").await;
    }
    house.send(&["b@near.example"], "x").await;
    house.until("the other destination was tried", |h| h.relay.count() == 2).await;
    house.pass(60);
    house.until("it was probed", |h| h.relay.count() >= 3 && h.queue.health().runs == 0).await;
    assert_eq!(house.relay.addressees().iter().filter(|a| a.ends_with("far.example")).count(), 2);
    // What it said is said of everyone who waits.
    let listed = house.queue.list(&ListFilter::default(), None, 1000).await;
    let waiting = listed.iter().filter(|e| e.recipients[0].address.domain.as_str() == "far.example");
    assert!(waiting.clone().count() == 101 && waiting.clone().all(|e| e.recipients[0].last_reply.as_ref().is_some_and(|r| r.code == 421)));
    assert!(waiting.clone().all(|e| e.recipients[0].next_attempt.is_some_and(|t| t >= T0 + 120_000)));
    // Back again: one success, and all follow without waiting for their own times.
    house.relay.then(relayed);
    house.pass(300);
    house.until_empty().await;
    assert_eq!(house.queue.health().destinations, 0);
}

#[tokio::test]
async fn what_comes_once_a_run_has_asked_in_vain_is_for_the_next_run() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (config, clock) = (config(dir.path()), Arc::new(ManualClock::at(T0)));
    let local = Scripted::with_most(1, delivered);
    let house = House::open(dir, config, clock, Arc::new(RealDisk), "boot", local, Scripted::new(relayed)).await;
    let gate = Gate::new();
    *house.local.gate.lock() = Some(Arc::clone(&gate));
    let gone = house.send(&["a@local.example"], "x").await;
    gate.arrived.acquire().await.unwrap().forget();
    assert_eq!(house.queue.remove(&[gone]).await, 1);
    gate.go.add_permits(1);
    gate.arrived.acquire().await.unwrap().forget();
    // It is about to end, and the destination is not down for that.
    house.send(&["b@local.example"], "x").await;
    *house.local.gate.lock() = None;
    gate.go.add_permits(1);
    house.until_empty().await;
    assert_eq!(house.local.addressees(), ["b@local.example"]);
}

#[tokio::test]
async fn few_runs_at_first_and_more_with_success() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    for _ in 0..30 {
        house.send(&["a@far.example"], "x").await;
    }
    house.until("two runs are under way", |h| h.relay.count() == 2).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.relay.most_running.load(Ordering::SeqCst), 2);
    gate.add_permits(30);
    house.until_empty().await;
    assert_eq!(house.relay.most_running.load(Ordering::SeqCst), house.relay.most);
}

#[tokio::test]
async fn one_senders_flood_does_not_delay_another() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    for _ in 0..200 {
        house.send(&["a@far.example"], "x").await;
    }
    let mut other = house.envelope(&["a@far.example"]);
    other.from = "quiet@example.net".parse().unwrap();
    let other = house.queue.accept(other, Body::from_bytes("x")).await.unwrap();
    gate.add_permits(1000);
    house.until_empty().await;
    let place = house.relay.got.lock().iter().position(|g| g.id == other).unwrap();
    assert!(place < 10, "at place {place}");
}

#[tokio::test]
async fn urgent_mail_goes_first() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    for _ in 0..10 {
        house.send(&["a@far.example"], "x").await;
    }
    house.until("two are under way", |h| h.relay.count() == 2).await;
    let urgent = Envelope { priority: 5, ..house.envelope(&["a@far.example"]) };
    let urgent = house.queue.accept(urgent, Body::from_bytes("x")).await.unwrap();
    gate.add_permits(100);
    house.until_empty().await;
    assert_eq!(house.relay.got.lock()[2].id, urgent);
}

#[tokio::test]
async fn mail_for_later_waits_until_then_across_a_restart() {
    let house = House::new().await;
    let later = Envelope { hold_until: Some(T0 + 3_600_000), ..house.envelope(&["a@far.example"]) };
    house.queue.accept(later, Body::from_bytes("x")).await.unwrap();
    house.pass(31);
    let queue = house.queue.clone();
    house.until("it was handed to the keeper", |_| queue.state.lock().fresh.is_empty()).await;
    house.keep().await;
    assert_eq!(house.parked_files(), 2);
    let house = house.restarted().await;
    house.pass(3500);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.relay.count(), 0);
    house.pass(69);
    house.until_empty().await;
    assert_eq!(house.relay.count(), 1);
}

#[tokio::test]
async fn what_misses_the_time_its_sender_set_is_returned() {
    let house = House::new().await;
    house.relay.then(busy);
    let by = DeliverBy { seconds: 120, return_when_late: true, trace: false };
    let envelope = Envelope { by: Some(by), ..house.envelope(&["a@far.example"]) };
    house.queue.accept(envelope, Body::from_bytes("Subject: hurry\r\n\r\nx\r\n")).await.unwrap();
    house.until("it was tried", |h| h.relay.count() == 1 && h.queue.health().runs == 0).await;
    house.pass(125);
    house.until_empty().await;
    let report = house.local.got.lock()[0].clone();
    let text = String::from_utf8_lossy(&report.body).into_owned();
    assert!(text.contains("Status: 5.4.7") && text.contains("busy"), "{text}");
}

#[tokio::test]
async fn a_clock_set_back_does_not_hold_mail_up() {
    let house = House::new().await;
    house.relay.then(busy);
    house.send(&["a@far.example"], "x").await;
    house.until("it was tried", |h| h.relay.count() == 1 && h.queue.health().runs == 0).await;
    house.clock.set(T0 - 10 * 86_400_000);
    // The schedule is woken by the next message, if by nothing else.
    house.send(&["b@near.example"], "x").await;
    house.until("the schedule has looked", |h| h.queue.state.lock().next_due().is_some_and(|t| t < T0 - 9 * 86_400_000)).await;
    house.pass(60);
    house.until("it was tried again", |h| h.relay.addressees().iter().filter(|a| *a == "a@far.example").count() == 2).await;
}

#[tokio::test]
async fn recipients_of_one_destination_keep_their_own_times() {
    let house = House::new().await;
    let mut envelope = house.envelope(&["now@far.example", "soon@far.example", "later@far.example"]);
    envelope.recipients[1].next_attempt = Some(T0 + 50_000);
    envelope.recipients[2].next_attempt = Some(T0 + 100_000);
    house.queue.accept(envelope, Body::from_bytes("x")).await.unwrap();
    for (n, seconds) in [(1, 50), (2, 50), (3, 0)] {
        house.until("one more was tried", |h| h.relay.count() == n && h.queue.health().runs == 0).await;
        assert_eq!(house.relay.got.lock()[n - 1].to.len(), 1);
        house.pass(seconds);
    }
    house.until_empty().await;
}

#[tokio::test]
async fn a_destination_that_is_down_is_probed_in_time_though_the_clock_was_set_back() {
    let house = House::new().await;
    house.relay.then(|_| Reaction::Down(Reply::plain(421, "down")));
    house.send(&["a@far.example"], "x").await;
    house.until("it is down", |h| h.queue.health().destinations_down == 1 && h.queue.health().runs == 0).await;
    house.clock.set(T0 - 10 * 86_400_000);
    house.send(&["b@local.example"], "x").await;
    house.until("the schedule has looked", |h| h.queue.state.lock().next_due().is_some_and(|t| t < T0 - 9 * 86_400_000)).await;
    house.relay.then(relayed);
    house.pass(60);
    house.until_empty().await;
}

#[tokio::test]
async fn destinations_in_line_go_before_those_that_had_their_turn() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    let (most, quantum) = (4, crate::schedule::QUANTUM);
    house.queue.state.lock().most_runs = most;
    for _ in 0..3 * quantum {
        house.send(&["a@busy1.example"], "x").await;
        house.send(&["a@busy2.example"], "x").await;
    }
    house.until("as many runs as may be", |h| h.queue.health().runs == most as u64).await;
    house.send(&["a@waiting.example"], "x").await;
    let before = house.relay.count();
    gate.add_permits(100_000);
    house.until_empty().await;
    let place = house.relay.got.lock().iter().position(|g| g.to[0] == "a@waiting.example").unwrap();
    assert!(place < before + most * quantum, "{place} of {}", house.relay.count());
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_does_not_return_mail_untried() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    let later = Envelope { hold_until: Some(T0 + 60_000), ..house.envelope(&["a@far.example"]) };
    house.queue.accept(later, Body::from_bytes("x")).await.unwrap();
    gate.add_permits(1);
    house.pass(50 * 365 * 86_400);
    house.until_empty().await;
    assert_eq!((house.relay.count(), house.local.count()), (1, 0));
}

#[tokio::test]
async fn runs_are_bounded_over_all_destinations() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    let most = 8;
    house.queue.state.lock().most_runs = most;
    for n in 0..most + 50 {
        house.send(&[&format!("a@host{n}.example")], "x").await;
    }
    house.until("as many runs as may be", |h| h.queue.health().runs == most as u64 && h.relay.count() == most).await;
    gate.add_permits(10_000);
    house.until_empty().await;
    assert_eq!(house.relay.count(), most + 50);
}

#[tokio::test]
async fn what_grew_old_while_nobody_could_try_is_tried_before_it_is_given_up() {
    let house = House::new().await;
    house.relay.then(busy);
    house.send(&["a@far.example"], "x").await;
    house.until("it was tried", |h| h.relay.count() == 1 && h.queue.health().runs == 0).await;
    house.keep().await;
    house.relay.then(relayed);
    // The clock jumps past the message's life, or the machine slept.
    house.pass(30 * 86_400);
    house.until_empty().await;
    assert_eq!((house.relay.count(), house.local.count()), (2, 0), "it was returned although it could be delivered");
}
