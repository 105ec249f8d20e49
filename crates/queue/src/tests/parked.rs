//! Mail that is late: parking, restarts, damage.

use super::*;

/// A house with `count` messages that were put off and parked.
async fn parked(count: usize) -> House {
    let house = House::new().await;
    house.relay.then(busy);
    for n in 0..count {
        house.send(&[&format!("user{n}@far.example")], &format!("Subject: {n}\r\n\r\nbody\r\n")).await;
    }
    house.until("all were tried", |h| h.relay.count() == count && h.queue.health().runs == 0).await;
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 2 * count);
    house
}

#[tokio::test]
async fn an_operator_can_read_what_is_parked() {
    let house = parked(1).await;
    let mut texts = Vec::new();
    let mut folders = vec![house.config.paths.state.join("queue/deferred")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { texts.push(std::fs::read_to_string(path).unwrap()) }
        }
    }
    texts.sort();
    assert_eq!(texts[0], "Subject: 0\r\n\r\nbody\r\n");
    for part in ["\"format\": 1", "\"from\": \"ada@example.net\"", "\"address\": \"user0@far.example\"", "busy"] {
        assert!(texts[1].contains(part), "{part} in {}", texts[1]);
    }
}

#[tokio::test]
async fn parked_mail_is_retried_after_a_crash_and_after_a_restart() {
    for proper in [false, true] {
        let house = parked(20).await;
        let after = if proper { house.restarted().await } else { house.killed("another boot").await };
        let before = after.relay.count();
        assert_eq!((after.queue.health().messages, after.queue.health().recipients), (20, 20));
        after.relay.then(relayed);
        after.pass(60);
        after.until_empty().await;
        assert_eq!(after.relay.count() - before, 20);
        assert!(after.relay.got.lock()[before..].iter().all(|g| g.replayed && g.envelope.recipients[0].attempts == 1));
        after.keep().await;
        assert_eq!(after.parked_files(), 0);
    }
}

#[tokio::test]
async fn a_proper_end_says_whether_anything_is_undelivered() {
    let house = House::new().await;
    let said = house.config.paths.state.join("queue/empty");
    house.send(&["bob@local.example"], "x").await;
    house.until_empty().await;
    house.queue.shutdown().await;
    assert!(said.exists());
    let again = house.killed("boot").await;
    assert!(!again.config.paths.state.join("queue/empty").exists(), "a queue that is open may hold mail at any moment");

    let house = parked(1).await;
    house.queue.shutdown().await;
    assert!(!house.config.paths.state.join("queue/empty").exists());
}

#[tokio::test]
async fn the_index_spares_reading_and_is_not_believed_where_files_differ() {
    let house = parked(10).await;
    let ids: Vec<QueueId> = house.queue.list(&ListFilter::default(), None, 100).await.iter().map(|e| e.id).collect();
    house.queue.shutdown().await;
    let index = house.config.paths.state.join("queue/deferred.index");
    assert!(index.exists());
    // One envelope is changed behind the index's back.
    let text = ids[3].to_string();
    let path = house.config.paths.state.join("queue/deferred").join(&text[9..11]).join(format!("{text}.json"));
    let changed = std::fs::read_to_string(&path).unwrap().replace("user3@far.example", "moved@near.example");
    std::fs::write(&path, changed).unwrap();
    let after = house.killed("boot").await;
    let destinations: Vec<String> = after.queue.summary().await.into_iter().map(|s| format!("{} {}", s.destination, s.messages)).collect();
    assert_eq!(destinations, ["mx:far.example 9", "mx:near.example 1"]);
}

#[tokio::test]
async fn folders_in_which_nothing_changed_are_believed_to_be_as_the_index_says() {
    let House { dir, config, clock, local, relay, queue } = parked(10).await;
    let ids: Vec<QueueId> = queue.list(&ListFilter::default(), None, 100).await.iter().map(|e| e.id).collect();
    let deferred = config.paths.state.join("queue/deferred");
    // Long enough ago that a further change shows.
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
    let settle = |folder: &Path| std::fs::File::open(folder).unwrap().set_modified(long_ago).unwrap();
    std::fs::read_dir(&deferred).unwrap().for_each(|folder| settle(&folder.unwrap().path()));
    queue.shutdown().await;
    drop(queue);
    // One envelope says nothing any more, which who does not read it cannot know.
    let text = ids[3].to_string();
    std::fs::write(deferred.join(&text[9..11]).join(format!("{text}.json")), "nothing").unwrap();
    // In a copy all folders and files are new.
    let elsewhere = Arc::new(tempfile::tempdir().unwrap());
    copy(&config.paths.state, &elsewhere.path().join("state"));
    let mut config_elsewhere = config.clone();
    (config_elsewhere.paths.state, config_elsewhere.paths.mail) = (elsewhere.path().join("state"), elsewhere.path().join("mail"));
    for (dir, config, found) in [(elsewhere, config_elsewhere, (9, 1)), (dir, config, (10, 0))] {
        let house = House::open(dir, config, clock.clone(), Arc::new(RealDisk), "boot", local.clone(), relay.clone()).await;
        assert_eq!((house.queue.health().messages, house.queue.health().damaged.len()), found);
        assert_eq!(house.queue.summary().await[0].messages, found.0);
        house.queue.shutdown().await;
    }
}

#[tokio::test]
async fn a_damaged_envelope_is_set_aside_and_the_rest_goes_on() {
    let house = parked(3).await;
    let ids: Vec<QueueId> = house.queue.list(&ListFilter::default(), None, 100).await.iter().map(|e| e.id).collect();
    let text = ids[1].to_string();
    let path = house.config.paths.state.join("queue/deferred").join(&text[9..11]).join(format!("{text}.json"));
    std::fs::write(&path, "{\"format\": 1, \"envelope\": {\"id\": \"").unwrap();
    let after = house.killed("boot").await;
    assert_eq!(after.queue.health().messages, 2);
    assert_eq!(after.queue.health().damaged.len(), 1);
    assert!(!after.queue.health().healthy);
    assert!(after.config.paths.state.join(format!("queue/damaged/{text}.msg")).exists());
    after.pass(60);
    after.until_empty().await;
}

#[tokio::test]
async fn a_message_finished_while_it_was_being_parked_leaves_nothing() {
    let house = House::new().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    for n in 0..30 {
        house.send(&[&format!("a@host{n}.example")], "x").await;
    }
    house.until("all are under way", |h| h.relay.count() == 30).await;
    house.pass(31);
    let queue = house.queue.clone();
    house.until("they were handed to the keeper", |_| queue.state.lock().fresh.is_empty()).await;
    gate.add_permits(30);
    house.until_empty().await;
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 0);
    assert_eq!(house.queue.health().journal.segments, 1);
    assert_eq!(house.killed("another boot").await.queue.health().messages, 0);
}

#[tokio::test]
async fn what_became_of_some_recipients_is_known_after_a_crash_before_it_was_written() {
    let house = House::new().await;
    house.relay.then(busy);
    house.send(&["a@far.example", "b@near.example"], "x").await;
    house.until("both were tried", |h| h.relay.count() == 2 && h.queue.health().runs == 0).await;
    house.keep().await;
    house.keep().await;
    house.relay.then(|got| if got.to[0] == "a@far.example" { relayed(got) } else { busy(got) });
    house.pass(60);
    house.until("one is left", |h| h.queue.health().recipients == 1 && h.queue.health().runs == 0).await;
    // The files may not say so yet; the journal does.
    let after = house.killed("another boot").await;
    assert_eq!(after.queue.health().recipients, 1);
    after.pass(600);
    after.until_empty().await;
    assert_eq!(after.relay.addressees(), ["b@near.example"]);
}

#[tokio::test]
async fn local_mail_is_synced_before_its_files_go() {
    let house = House::new().await;
    house.local.then(busy);
    house.send(&["bob@local.example"], "x").await;
    house.until("it was tried", |h| h.local.count() == 1 && h.queue.health().runs == 0).await;
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 2);
    let before = house.local.syncs.load(Ordering::SeqCst);
    house.local.then(delivered);
    house.pass(60);
    house.until_empty().await;
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 0);
    assert!(house.local.syncs.load(Ordering::SeqCst) > before);
}

#[tokio::test]
async fn a_parking_that_the_journal_did_not_hear_of_and_an_end_that_it_did() {
    // Killed after a message was parked and finished, before either was noted where the other could see it.
    use crate::journal::{Journal, Kind, NewMessage, Note, Pool, Start, message_head};
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let config = config(dir.path());
    let folder = config.paths.state.join("queue");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    for path in ["journal", "deferred"] {
        std::fs::create_dir_all(folder.join(path)).unwrap();
    }
    let pool = Arc::new(Pool::new(disk.clone(), folder.join("journal"), 1 << 20, 1, vec![]));
    let start = Start { boot: "boot".into(), last_id: 0, version: "test".into() };
    let journal = Journal::start(disk.clone(), pool, start, vec![], Arc::new(crate::id::Ids::after(0))).unwrap();
    let deferred = crate::deferred::Deferred::new(disk, folder.join("deferred"));
    for id in [1, 2] {
        let to = Recipient::new("eve@far.example".parse().unwrap(), Route::Relay);
        let envelope = Envelope { received: T0, size: 1, ..Envelope::new(QueueId(id << 20), "ada@example.net".parse().unwrap(), vec![to]) };
        let head = message_head(&envelope, None).unwrap();
        let message = NewMessage { kind: Kind::Message, head, rest: [Bytes::new(), Bytes::from_static(b"x")] };
        drop(journal.append(message, &[]).await.unwrap().unwrap());
        deferred.park(&[(envelope, Body::from_bytes("x"))]).unwrap();
    }
    journal.note_now(&Note::Settled(QueueId(1 << 20), vec![(0, Status::Relayed)]));
    drop(journal);
    let (local, relay) = (Scripted::new(delivered), Scripted::new(relayed));
    let house = House::open(dir, config, Arc::new(ManualClock::at(T0)), Arc::new(RealDisk), "boot", local, relay).await;
    house.until_empty().await;
    assert_eq!(house.relay.got.lock().iter().map(|g| g.id).collect::<Vec<_>>(), [QueueId(2 << 20)], "one is finished, the other is one");
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 0);
}
