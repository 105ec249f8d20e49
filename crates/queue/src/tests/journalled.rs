//! From acceptance to settlement, and what a crash in between leaves.

use super::*;

#[tokio::test]
async fn a_message_is_delivered_and_forgotten() {
    let house = House::new().await;
    let id = house.send(&["bob@local.example", "eve@far.example"], "Subject: x\r\n\r\nhello\r\n").await;
    house.until_empty().await;
    assert_eq!(house.local.addressees(), ["bob@local.example"]);
    assert_eq!(house.relay.addressees(), ["eve@far.example"]);
    let got = house.relay.got.lock()[0].clone();
    assert_eq!((got.id, got.replayed, &got.body[..]), (id, false, &b"Subject: x\r\n\r\nhello\r\n"[..]));
    assert_eq!((got.envelope.size, got.envelope.received), (21, T0));
    house.keep().await;
    let after = house.killed("boot").await;
    assert_eq!(after.queue.health().messages, 0);
    assert_eq!((after.local.count(), after.relay.count()), (0, 0));
    assert!(after.queue.health().healthy);
}

#[tokio::test]
async fn what_was_accepted_and_not_finished_is_taken_up_after_a_crash() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (a, b) = (gate.clone(), gate.clone());
    house.relay.then(move |got| Reaction::Wait(a.clone(), Box::new(relayed(got))));
    house.local.then(move |got| Reaction::Wait(b.clone(), Box::new(delivered(got))));
    let small = house.send(&["bob@local.example", "eve@far.example"], "small").await;
    let mut writer = house.queue.body_writer();
    let content = Bytes::from(vec![b'x'; 700_000]);
    writer.write(&content).await.unwrap();
    let body = writer.finish().await.unwrap().prefixed("Received: here\r\n");
    let large = house.queue.accept(house.envelope(&["eve@far.example"]), body).await.unwrap();
    house.until("all are under way", |h| h.local.count() == 1 && h.relay.count() == 2).await;

    let after = house.killed("boot").await;
    after.until_empty().await;
    let mut got: Vec<Got> = after.local.got.lock().iter().chain(after.relay.got.lock().iter()).cloned().collect();
    got.sort_by_key(|g| (g.id, g.to.clone()));
    assert!(got.iter().all(|g| g.replayed));
    let seen: Vec<(QueueId, &str, usize)> = got.iter().map(|g| (g.id, g.to[0].as_str(), g.body.len())).collect();
    assert_eq!(seen, [(small, "bob@local.example", 5), (small, "eve@far.example", 5), (large, "eve@far.example", 700_016)]);
    assert!(got[2].body.starts_with(b"Received: here\r\nxxx"));
    after.keep().await;
    assert_eq!(files(&after.config.paths.state.join("queue/spool")), 0);
    gate.add_permits(10);
    house.until_empty().await;
    house.keep().await;
    assert_eq!(files(&house.config.paths.state.join("queue/spool")), 0);
}

#[tokio::test]
async fn a_large_body_goes_when_its_message_is_finished_and_not_before() {
    let house = House::new().await;
    house.relay.then(busy);
    let spool = house.config.paths.state.join("queue/spool");
    let id = house.queue.accept(house.envelope(&["eve@far.example"]), Body::from_bytes(vec![b'y'; 400_000])).await.unwrap();
    assert_eq!(files(&spool), 1);
    house.until("it was tried", |h| h.relay.count() == 1).await;
    house.keep().await;
    house.keep().await;
    // It is parked now; the file under spool/ has served.
    assert_eq!((files(&spool), house.parked_files()), (0, 2));
    assert_eq!(house.queue.body(id).await.unwrap().len(), 400_000);
    house.relay.then(relayed);
    house.pass(60);
    house.until_empty().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 0);
}

#[tokio::test]
async fn only_the_recipients_left_are_tried_after_a_crash() {
    let house = House::new().await;
    house.relay.then(|got| {
        let each = got.to.iter().map(|to| match to.as_str() {
            "b@far.example" => Outcome::Deferred { reply: Reply::plain(450, "later") },
            _ => Outcome::Relayed { reply: Reply::plain(250, "ok"), dsn: true },
        });
        Reaction::Each(each.collect())
    });
    house.send(&["a@far.example", "b@far.example", "c@far.example"], "x").await;
    house.until("they were tried", |h| h.queue.health().recipients == 1).await;
    let after = house.killed("another boot").await;
    after.pass(60);
    after.until_empty().await;
    assert_eq!(after.relay.addressees(), ["b@far.example"]);
}

#[tokio::test]
async fn local_deliveries_are_repeated_after_a_power_cut_until_they_were_synced() {
    let house = House::new().await;
    house.send(&["bob@local.example"], "x").await;
    house.until_empty().await;
    house.queue.journal.flush().await.unwrap().unwrap();
    assert_eq!(house.killed("boot").await.queue.health().messages, 0);
    let other = house.killed("another boot").await;
    other.until_empty().await;
    assert!(other.local.got.lock()[0].replayed);
    let before = house.local.syncs.load(Ordering::SeqCst);
    house.queue.keeper.hurry();
    house.queue.shutdown().await;
    assert!(house.local.syncs.load(Ordering::SeqCst) > before);
    let other = house.killed("another boot").await;
    assert_eq!((other.queue.health().messages, other.local.count()), (0, 0));
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_its_message_along() {
    let house = House::new().await;
    for _ in 0..50 {
        let envelope = house.envelope(&["bob@local.example"]);
        let accepting = house.queue.accept(envelope, Body::from_bytes("x"));
        // Polled once, so that it is on its way, then dropped.
        _ = futures::FutureExt::now_or_never(accepting);
    }
    house.until("all were delivered", |h| h.local.count() == 50).await;
    house.until_empty().await;
}

#[tokio::test]
async fn segments_are_taken_back_and_the_journal_stays_small() {
    let house = House::new().await;
    for _ in 0..60 {
        house.send(&["bob@local.example"], &"y".repeat(100_000)).await;
    }
    house.until_empty().await;
    house.keep().await;
    house.keep().await;
    assert_eq!(house.queue.health().journal.segments, 1);
    assert!(files(&house.config.paths.state.join("queue/journal")) <= 4);
    assert!(house.local.syncs.load(Ordering::SeqCst) >= 1);
    assert_eq!(house.killed("another boot").await.queue.health().messages, 0);
}

#[tokio::test]
async fn bodies_in_memory_are_counted_and_given_up_under_pressure() {
    let house = House::with(|c| c.limits.body_memory = ByteSize(300_000)).await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    for n in 0..20 {
        let body = format!("{n:02}").repeat(25_000);
        house.send(&["eve@far.example"], &body).await;
    }
    assert!(house.queue.health().body_memory <= 300_000);
    gate.add_permits(100);
    house.until_empty().await;
    let mut firsts: Vec<Bytes> = house.relay.got.lock().iter().map(|g| g.body.slice(..4)).collect();
    firsts.sort();
    assert_eq!(firsts.len(), 20);
    assert_eq!((&firsts[0][..], &firsts[19][..]), (&b"0000"[..], &b"1919"[..]));
    assert_eq!(house.queue.health().body_memory, 0);
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_the_reason() {
    let house = House::new().await;
    let none = house.queue.accept(house.envelope(&[]), Body::from_bytes("x")).await;
    assert!(matches!(none, Err(AcceptError::NoRecipient)));
    let full = House::with(|c| c.limits.free_space = ByteSize(u64::MAX)).await;
    assert!(matches!(full.queue.admission(), Err(AcceptError::DiskFull { .. })));
    let refused = full.queue.accept(full.envelope(&["bob@local.example"]), Body::from_bytes("x")).await;
    assert!(matches!(refused, Err(AcceptError::DiskFull { .. })));
    assert!(full.queue.health().disk.nearly_full && !full.queue.health().healthy);
    house.queue.shutdown().await;
    let late = house.queue.accept(house.envelope(&["bob@local.example"]), Body::from_bytes("x")).await;
    assert!(matches!(late, Err(AcceptError::ShuttingDown)));
}

#[tokio::test]
async fn two_processes_cannot_have_one_queue() {
    let house = House::new().await;
    let transports = Transports { mailbox: house.local.clone(), relay: house.relay.clone() };
    let second = Queue::open(&house.config, transports, Arc::new(ToMailbox)).await;
    assert!(matches!(second, Err(OpenError::InUse(_))));
}

#[tokio::test]
async fn a_deliverer_that_panics_or_drops_puts_its_mail_off() {
    let house = House::new().await;
    house.relay.then(|got| if got.to[0].starts_with("panic") { Reaction::Panic } else { Reaction::Drop });
    house.send(&["panic@far.example"], "x").await;
    house.send(&["drop@else.example"], "x").await;
    house.until("both were tried", |h| h.relay.count() == 2).await;
    house.until("no run is left", |h| h.queue.health().runs == 0).await;
    assert_eq!(house.queue.health().messages, 2);
    house.relay.then(relayed);
    house.pass(60);
    house.until_empty().await;
    assert!(house.relay.got.lock()[3].replayed, "earlier work may be found");
}

#[tokio::test]
async fn ids_go_on_after_a_restart_with_the_clock_set_back() {
    let house = House::new().await;
    let last = house.send(&["bob@local.example"], "x").await;
    house.until_empty().await;
    house.clock.set(T0 - 86_400_000);
    let house = house.restarted().await;
    assert!(house.queue.new_id() > last);
}

#[tokio::test]
async fn a_queue_with_nothing_to_do_leaves_the_disk_alone() {
    let house = House::new().await;
    house.send(&["bob@local.example"], "x").await;
    house.until_empty().await;
    house.keep().await;
    house.keep().await;
    let (commits, syncs) = (house.queue.health().journal.commits, house.local.syncs.load(Ordering::SeqCst));
    assert!(syncs > 0);
    house.keep().await;
    house.keep().await;
    assert_eq!((house.queue.health().journal.commits, house.local.syncs.load(Ordering::SeqCst)), (commits, syncs));
}

#[tokio::test]
async fn nothing_is_forgotten_while_somebody_wants_that() {
    let house = House::new().await;
    let remembered = house.queue.remember();
    let first = house.send(&["bob@local.example"], "first").await;
    for n in 0..14u8 {
        house.queue.accept(house.envelope(&["bob@local.example"]), Body::from_bytes(vec![n; 200_000])).await.unwrap();
    }
    house.until_empty().await;
    house.keep().await;
    house.keep().await;
    let after = house.killed("boot").await;
    assert!(after.queue.take_earlier().contains(&first), "finished long ago, and still known");
    assert!(after.queue.take_earlier().is_empty(), "given out once");
    drop(remembered);
    house.keep().await;
    house.keep().await;
    assert!(!house.killed("boot").await.queue.take_earlier().contains(&first), "its segment is used again");
}
