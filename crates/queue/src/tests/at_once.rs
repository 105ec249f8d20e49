//! Large messages that a mailbox takes before they are acknowledged.

use std::sync::atomic::Ordering;

use pillarbox_smtp::{EnhancedCode, Reply};

use super::{House, delivered};
use crate::tests::Scripted;
use crate::*;

const LARGE: usize = 300_000;

fn large() -> Body {
    Body::from_bytes(vec![b'x'; LARGE])
}

#[tokio::test]
async fn a_mailbox_that_takes_it_spares_the_queue() {
    let house = House::new().await;
    *house.local.at_once.lock() = Some(Outcome::Delivered);
    let commits = house.queue.journal.commits();
    let id = house.queue.take(house.envelope(&["bob@local.example"]), large()).await.unwrap().id();
    assert_eq!((house.local.asked_at_once.load(Ordering::SeqCst), house.local.count()), (1, 0));
    assert_eq!((house.queue.health().messages, house.queue.journal.commits()), (0, commits));
    assert!(house.queue.show(id).await.is_none());
    // A crash finds nothing to do; and its id is not given to another message, whatever the clock says by then.
    house.queue.journal.flush().await.unwrap().unwrap();
    house.clock.set(super::T0 - 86_400_000);
    let after = house.killed_with("later boot", Scripted::new(delivered)).await;
    assert!(after.queue.new_id() > id);
    assert_eq!((after.queue.health().messages, after.local.count()), (0, 0));
}

#[tokio::test]
async fn whatever_else_it_says_the_queue_takes_the_message() {
    let house = House::new().await;
    let reply = Reply::new(450, EnhancedCode(4, 2, 0), "full");
    let answers =
        [None, Some(Outcome::Deferred { reply: reply.clone() }), Some(Outcome::Failed { reply }), Some(Outcome::Replaced { by: vec![] })];
    for (n, answer) in answers.into_iter().enumerate() {
        *house.local.at_once.lock() = answer;
        let id = house.queue.take(house.envelope(&["bob@local.example"]), large()).await.unwrap().id();
        house.until_empty().await;
        assert_eq!(house.local.asked_at_once.load(Ordering::SeqCst), n + 1);
        let got = house.local.got.lock().last().cloned().unwrap();
        assert_eq!((got.id, got.body.len(), got.replayed), (id, LARGE, false));
    }
    assert_eq!(house.local.count(), 4);
}

#[tokio::test]
async fn what_needs_more_than_storing_is_not_asked_for() {
    let house = House::new().await;
    *house.local.at_once.lock() = Some(Outcome::Delivered);
    let to_bob = || house.envelope(&["bob@local.example"]);
    let mut report = to_bob();
    report.recipients[0].notify.success = true;
    let mut later = to_bob();
    later.hold_until = Some(super::T0 + 60_000);
    let mut suspended = to_bob();
    suspended.recipients[0].hold_as_suspended();
    let cases = [
        (to_bob(), Body::from_bytes("small")),
        (house.envelope(&["bob@local.example", "eve@local.example"]), large()),
        (house.envelope(&["bob@far.example"]), large()),
        (report, large()),
        (later, large()),
        (suspended, large()),
    ];
    for (envelope, body) in cases {
        house.queue.take(envelope, body).await.unwrap();
    }
    assert_eq!(house.local.asked_at_once.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_loses_nothing() {
    let house = House::new().await;
    *house.local.at_once.lock() = Some(Outcome::Delivered);
    {
        let mut taking = std::pin::pin!(house.queue.take(house.envelope(&["bob@local.example"]), large()));
        assert!(futures::poll!(&mut taking).is_pending());
    }
    // Gone before the mailbox has answered: it is asked all the same.
    house.until("the mailbox was asked", |house| house.local.asked_at_once.load(Ordering::SeqCst) == 1).await;
    assert_eq!(house.queue.health().messages, 0);
}
