//! Taking over the queue of a node that is gone.

use super::*;

/// A node that died with mail journalled and parked, large and small, some recipients served.
async fn dead() -> (House, Vec<QueueId>) {
    let house = House::new().await;
    house.relay.then(|got| if got.to[0].starts_with("done") { relayed(got) } else { busy(got) });
    let mut ids = Vec::new();
    ids.push(house.send(&["slow@far.example", "done@near.example"], "parked").await);
    ids.push(house.queue.accept(house.envelope(&["slow@far.example"]), Body::from_bytes(vec![b'p'; 400_000])).await.unwrap());
    house.until("they were tried", |h| h.queue.health().recipients == 2 && h.queue.health().runs == 0).await;
    house.keep().await;
    house.keep().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    house.relay.then(move |got| Reaction::Wait(gate.clone(), Box::new(busy(got))));
    ids.push(house.send(&["slow@else.example"], "journalled").await);
    ids.push(house.queue.accept(house.envelope(&["slow@else.example"]), Body::from_bytes(vec![b'j'; 400_000])).await.unwrap());
    let copied = Arc::new(tempfile::tempdir().unwrap());
    copy(&house.dir.path().join("state"), &copied.path().join("state"));
    (House { dir: copied, ..house }, ids)
}

/// Nobody minds.
async fn free() -> Result<(), String> {
    Ok(())
}

#[tokio::test]
async fn everything_unfinished_is_taken_over_once() {
    let (dead, ids) = dead().await;
    let folder = dead.dir.path().join("state/queue");
    let house = House::new().await;
    let told = parking_lot::Mutex::new(Vec::new());
    let adopted = house.queue.adopt(&folder, free(), &|done, total| told.lock().push((done, total))).await.unwrap();
    assert_eq!((adopted.messages, adopted.known, adopted.damaged.len()), (4, 0, 0));
    assert_eq!(told.into_inner(), [(0, 4), (4, 4)], "how far it is");
    assert!(!folder.exists() && adopted.folder.ends_with("queue.adopted"));
    house.pass(120);
    house.until_empty().await;
    let mut got: Vec<(QueueId, String, usize, bool)> =
        house.relay.got.lock().iter().map(|g| (g.id, g.to[0].clone(), g.body.len(), g.replayed)).collect();
    got.sort();
    let expected =
        [(0, "slow@far.example", 6), (1, "slow@far.example", 400_000), (2, "slow@else.example", 10), (3, "slow@else.example", 400_000)];
    let expected: Vec<_> = expected.iter().map(|(n, to, len)| (ids[*n], (*to).to_owned(), *len, true)).collect();
    assert_eq!(got, expected);
    assert!(house.queue.new_id() > ids[3]);
}

#[tokio::test]
async fn an_adoption_that_was_interrupted_goes_on() {
    let (dead, ids) = dead().await;
    let folder = dead.dir.path().join("state/queue");
    std::fs::write(folder.join("adopted"), format!("{}\n{}\n{}", ids[0], ids[2], &ids[3].to_string()[..5])).unwrap();
    let mut config = dead.config.clone();
    config.paths.state = dead.dir.path().join("state");
    let transports = Transports { mailbox: dead.local.clone(), relay: dead.relay.clone() };
    let refused = Queue::open(&config, transports, Arc::new(ToMailbox)).await;
    assert!(matches!(refused, Err(OpenError::Adopted(_))), "half of it belongs to another node");
    let house = House::new().await;
    let adopted = house.queue.adopt(&folder, free(), &|_, _| {}).await.unwrap();
    assert_eq!((adopted.messages, adopted.known), (2, 2));
}

#[tokio::test]
async fn a_queue_in_use_is_not_adopted() {
    let (house, other) = (House::new().await, House::new().await);
    let refused =
        house.queue.adopt(&other.config.paths.state.join("queue"), async { panic!("not asked while it is in use") }, &|_, _| {}).await;
    assert!(matches!(refused, Err(AdoptError::Open(OpenError::InUse(_)))));
}

#[tokio::test]
async fn what_was_accepted_and_not_listed_is_neither_sent_before_nor_taken_twice() {
    let (dead, ids) = dead().await;
    let folder = dead.dir.path().join("state/queue");
    let again = Arc::new(tempfile::tempdir().unwrap());
    copy(&folder, &again.path().join("queue"));
    let house = House::new().await;
    let mut by_hand = house.envelope(&["x@by.example"]);
    by_hand.id = QueueId(ids[3].0 + 1);
    by_hand.recipients[0].status = Status::Held;
    house.queue.accept(by_hand, Body::from_bytes("an operator's")).await.unwrap();
    // As a crash leaves it between accepting and listing: the folder is as before, the messages are here and held.
    let held: Vec<(Envelope, Body)> = {
        let other = House::new().await;
        other.relay.then(busy);
        other.queue.adopt(&again.path().join("queue"), free(), &|_, _| {}).await.unwrap();
        let mut all = Vec::new();
        for id in &ids {
            let body = other.queue.body(*id).await.unwrap().bytes().await.unwrap();
            all.push((other.queue.show(*id).await.unwrap(), Body::from_bytes(body)));
        }
        other.queue.shutdown().await;
        all
    };
    for (mut envelope, body) in held {
        envelope.recipients.iter_mut().filter(|r| r.status == Status::Pending).for_each(|r| r.status = Status::Held);
        house.queue.accept_with(envelope, body, &[], true).await.unwrap();
    }
    house.pass(120);
    assert_eq!(house.relay.count(), 0, "nothing goes out that the list does not have");
    let adopted = house.queue.adopt(&folder, free(), &|_, _| {}).await.unwrap();
    assert_eq!((adopted.messages, adopted.known), (0, 4));
    house.pass(120);
    house.until("they are gone", |h| h.queue.health().messages == 1 && h.queue.health().runs == 0).await;
    let mut sent: Vec<QueueId> = house.relay.got.lock().iter().map(|g| g.id).collect();
    sent.sort();
    assert_eq!(sent, ids);
    let left = house.queue.list(&ListFilter { held: true, ..ListFilter::default() }, None, 10).await;
    assert_eq!(left.len(), 1, "what an operator holds stays");
}

#[tokio::test]
async fn a_refused_claim_leaves_the_folder_as_it_is() {
    let (dead, _) = dead().await;
    let folder = dead.dir.path().join("state/queue");
    let house = House::new().await;
    let refused = house.queue.adopt(&folder, async { Err("it is alive".to_owned()) }, &|_, _| {}).await;
    assert!(matches!(refused, Err(AdoptError::Claim(why)) if why == "it is alive"));
    assert!(folder.exists() && !folder.join("adopted").exists());
}

#[test]
fn a_folder_keeps_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("queue");
    assert_eq!(known_folder_id(&folder).unwrap(), None);
    let id = folder_id(&folder).unwrap();
    assert_eq!(folder_id(&folder).unwrap(), id);
    assert_eq!(known_folder_id(&folder).unwrap(), Some(id));
}
