//! Without the lease on its folder the queue takes nothing and hands nothing out.

use super::*;

#[tokio::test]
async fn without_the_lease_it_rests_and_with_it_it_goes_on() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waits = gate.clone();
    house.relay.then(move |got| match got.to[0].starts_with("slow") {
        true => Reaction::Wait(waits.clone(), Box::new(relayed(got))),
        false => busy(got),
    });
    house.send(&["busy@far.example"], "x").await;
    house.until("it was put off", |h| h.relay.count() == 1 && h.queue.health().runs == 0).await;
    house.send(&["slow@near.example"], "y").await;
    house.until("it is under way", |h| h.relay.count() == 2).await;
    house.relay.then(relayed);

    house.queue.leased_until(Some(Duration::ZERO));
    assert!(!house.queue.has_lease() && matches!(house.queue.admission(), Err(AcceptError::NoLease)));
    let refused = house.queue.accept(house.envelope(&["bob@local.example"]), Body::from_bytes("z")).await;
    assert!(matches!(refused, Err(AcceptError::NoLease)));
    // It is due, and an operator asks for it: still it stays.
    house.pass(120);
    house.queue.retry(&RetryFilter::All).await;
    house.keep().await;
    // What was under way ends, and its end is written down.
    gate.add_permits(1);
    house.until("the one under way is done", |h| h.queue.health().messages == 1 && h.queue.health().runs == 0).await;
    house.keep().await;
    assert_eq!((house.relay.count(), house.local.count()), (2, 0));
    assert_eq!(house.queue.health().destinations_down, 0, "nothing is held against the destination");

    // Late or not at all: a lease that is over already changes nothing.
    house.queue.leased_until(Some(Duration::from_millis(1)));
    assert!(!house.queue.has_lease());
    house.queue.leased_until(Some(since_boot() + Duration::from_secs(3600)));
    house.until_empty().await;
    assert_eq!(house.relay.count(), 3);
    house.send(&["bob@local.example"], "z").await;
    house.until_empty().await;

    house.queue.leased_until(Some(Duration::ZERO));
    house.queue.leased_until(None);
    house.send(&["bob@local.example"], "for good").await;
    house.until_empty().await;
    assert_eq!(house.local.count(), 2);
}
