//! Parked mail that takes long to read: the start does not wait for it, and nothing is lost, doubled or kept quiet.

use std::io::Write;
use std::path::PathBuf;

use super::parked::parked;
use super::*;

const COUNT: usize = 20;

/// An envelope that is a pipe, which nobody reads to the end before somebody writes it, so that the reading lasts as long as a test wants.
struct Pipe {
    path: PathBuf,
    kept: PathBuf,
}

impl Pipe {
    fn in_place_of(path: PathBuf, kept: PathBuf) -> Self {
        std::fs::rename(&path, &kept).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        Self { path, kept }
    }

    /// Waits until somebody reads it.
    async fn reached(self) -> ReachedPipe {
        loop {
            match rustix::fs::open(&self.path, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK, rustix::fs::Mode::empty()) {
                Ok(end) => return ReachedPipe { pipe: self, end: end.into() },
                Err(error) => assert_eq!(error, rustix::io::Errno::NXIO),
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

/// One that somebody reads.
struct ReachedPipe {
    pipe: Pipe,
    end: std::fs::File,
}

impl ReachedPipe {
    /// Ends the reading: what is kept is read, and is in the place of the pipe.
    fn let_go(mut self) {
        let text = std::fs::read(&self.pipe.kept).unwrap();
        std::fs::rename(&self.pipe.kept, &self.pipe.path).unwrap();
        self.end.write_all(&text).unwrap();
    }
}

/// A house that was opened, so many seconds after it was left, while what is parked takes long to read; there is no index.
async fn reading(seconds: u64) -> (House, ReachedPipe, Vec<QueueId>) {
    let House { dir, config, clock, local, relay, queue } = parked(COUNT).await;
    let ids: Vec<QueueId> = queue.list(&ListFilter::default(), None, 100).await.iter().map(|e| e.id).collect();
    queue.shutdown().await;
    drop(queue);
    std::fs::remove_file(config.paths.state.join("queue/deferred.index")).unwrap();
    let text = ids[0].to_string();
    let path = config.paths.state.join("queue/deferred").join(&text[9..11]).join(format!("{text}.json"));
    let pipe = Pipe::in_place_of(path, dir.path().join("kept"));
    clock.advance(Duration::from_secs(seconds));
    let tools = tools(&clock);
    (House::open_with(dir, config, clock, tools, local, relay).await, pipe.reached().await, ids)
}

fn tools(clock: &Arc<ManualClock>) -> Tools {
    Tools { clock: clock.clone(), random: Box::new(|| 0.0), boot: "boot".into(), patience: Duration::ZERO, ..Tools::default() }
}

#[tokio::test]
async fn mail_flows_while_parked_mail_is_read_and_whoever_looks_sees_all_of_it() {
    let (house, pipe, mut ids) = reading(0).await;
    let health = house.queue.health();
    assert!(health.unread > 0 && health.healthy, "{health:?}");
    assert_eq!((health.messages, health.recipients), (COUNT as u64, COUNT as u64));
    house.send(&["bob@local.example"], "x").await;
    house.until("local mail is delivered", |h| h.local.count() == 1).await;
    // What is put off meanwhile is parked beside what is read.
    ids.push(house.send(&["late@far.example"], "x").await);
    house.until("it was put off", |h| h.relay.count() == COUNT + 1 && h.queue.health().runs == 0).await;
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 2 * (COUNT + 1));
    let filter = ListFilter::default();
    let mut list = Box::pin(house.queue.list(&filter, None, 100));
    assert!(futures::poll!(&mut list).is_pending(), "a list without some of them would be a wrong answer");
    pipe.let_go();
    assert_eq!(list.await.iter().map(|e| e.id).collect::<Vec<_>>(), ids);
    assert_eq!(house.queue.health().unread, 0);

    let before = house.relay.count();
    house.relay.then(relayed);
    house.pass(60);
    house.until_empty().await;
    let mut went: Vec<QueueId> = house.relay.got.lock()[before..].iter().map(|g| g.id).collect();
    went.sort_unstable();
    assert_eq!(went, ids);
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 0);
}

#[tokio::test]
async fn what_is_due_is_tried_as_soon_as_it_is_read() {
    let (house, pipe, ids) = reading(60).await;
    house
        .until("what is read was tried, and nothing else", |h| {
            let health = h.queue.health();
            h.relay.count() as u64 == 2 * COUNT as u64 - health.unread && health.runs == 0
        })
        .await;
    assert!(house.relay.got.lock()[COUNT..].iter().all(|got| got.id != ids[0]));
    house.relay.then(relayed);
    pipe.let_go();
    house.until("it was tried", |h| h.relay.got.lock()[COUNT..].iter().any(|got| got.id == ids[0])).await;
    house.pass(600);
    house.until_empty().await;
}

#[tokio::test]
async fn an_end_while_parked_mail_is_read_claims_nothing() {
    let (house, pipe, ids) = reading(0).await;
    let queue = house.queue.clone();
    let end = tokio::spawn(async move { queue.shutdown().await });
    house.until("it is told to end", |h| h.queue.stop.is_cancelled()).await;
    // Nobody is left waiting for what will not come.
    house.queue.whole().await;
    pipe.let_go();
    end.await.unwrap();
    let folder = house.config.paths.state.join("queue");
    assert!(!folder.join("empty").exists() && !folder.join("deferred.index").exists());
    let House { dir, config, clock, local, relay, queue } = house;
    drop(queue);
    let again = House::open(dir, config, clock, Arc::new(RealDisk), "boot", local, relay).await;
    assert_eq!(again.queue.list(&ListFilter::default(), None, 100).await.iter().map(|e| e.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn what_cannot_be_read_behind_the_start_is_said_and_the_rest_goes_on() {
    let (house, pipe, ids) = reading(0).await;
    std::fs::write(&pipe.pipe.kept, r#"{"format": 99, "envelope": {}}"#).unwrap();
    let path = pipe.pipe.path.clone();
    pipe.let_go();
    house.queue.whole().await;
    let health = house.queue.health();
    assert_eq!((health.messages, health.unread, health.healthy), (COUNT as u64 - 1, 0, false));
    assert!(health.damaged[0].contains("newer"), "{:?}", health.damaged);
    house.relay.then(relayed);
    house.pass(60);
    house.until_empty().await;
    house.queue.shutdown().await;
    assert!(path.exists() && !house.config.paths.state.join("queue/empty").exists(), "{} is still there", ids[0]);
    // Where it is found in time it stops the start, as ever.
    let transports = Transports { mailbox: house.local.clone(), relay: house.relay.clone() };
    let tools = Tools { patience: Duration::from_secs(600), ..tools(&house.clock) };
    let refused = Queue::open_with(&house.config, transports, Arc::new(ToMailbox), tools).await;
    assert!(matches!(refused.err(), Some(OpenError::Newer(_))));
}
