//! Mail that waits for a suspended user.

use super::*;

#[tokio::test]
async fn resuming_lets_go_what_waited_for_the_user_and_nothing_else() {
    let house = House::new().await;
    let mut envelope = house.envelope(&["bob@local.example", "eve@local.example"]);
    envelope.recipients.iter_mut().for_each(Recipient::hold_as_suspended);
    let id = house.queue.accept(envelope, Body::from_bytes("x")).await.unwrap();
    let mut by_hand = house.envelope(&["bob@local.example"]);
    by_hand.recipients[0].status = Status::Held;
    let by_hand = house.queue.accept(by_hand, Body::from_bytes("y")).await.unwrap();
    let mut waiting = house.queue.awaiting_resumption().await;
    waiting.sort_by_key(ToString::to_string);
    assert_eq!(waiting.iter().map(ToString::to_string).collect::<Vec<_>>(), ["bob@local.example", "eve@local.example"]);
    // Longer than any message may try: what was never tried is not given up.
    house.pass(30 * 24 * 3600);
    let after = house.killed("another boot").await;
    assert_eq!(after.queue.resume(&"Bob@local.example".parse().unwrap()).await, 1);
    after.until("bob has it", |h| h.local.count() == 1 && h.queue.health().runs == 0).await;
    assert_eq!(after.local.got.lock()[0].to, ["bob@local.example"]);
    let left = after.queue.show(id).await.unwrap();
    assert_eq!(left.recipients.iter().map(|r| r.status).collect::<Vec<_>>(), [Status::Delivered, Status::Held]);
    assert_eq!(after.queue.show(by_hand).await.unwrap().recipients[0].status, Status::Held);
    assert_eq!(after.queue.resume(&"bob@local.example".parse().unwrap()).await, 0);
    assert_eq!(after.queue.resume(&"eve@local.example".parse().unwrap()).await, 1);
    after.until("eve has it too", |h| h.local.count() == 2).await;
}
