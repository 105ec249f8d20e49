//! The queue as a whole, with scripted deliverers and a clock that is moved by hand.

mod adopted;
mod at_once;
mod crash;
mod faulty;
mod journalled;
mod leased;
mod operated;
mod parked;
mod recorder;
mod reported;
mod scheduled;
mod suspended;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pillarbox_config::{ByteSize, Config};
use pillarbox_smtp::{EnhancedCode, Mailbox, Reply};

use crate::clock::Clock;
use crate::disk::{Disk, RealDisk};
use crate::fake::ManualClock;
use crate::*;

/// The clock's first reading in every test.
pub(crate) const T0: UnixMillis = 1_795_500_000_000;

/// What a deliverer saw.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) id: QueueId,
    pub(crate) to: Vec<String>,
    pub(crate) body: Bytes,
    pub(crate) replayed: bool,
    pub(crate) envelope: Arc<Envelope>,
}

/// What a deliverer does with a delivery.
pub(crate) enum Reaction {
    All(Outcome),
    Each(Vec<Outcome>),
    /// The destination is down; the delivery is put off.
    Down(Reply),
    Drop,
    Panic,
    /// Waits for a permit, then does this.
    Wait(Arc<tokio::sync::Semaphore>, Box<Reaction>),
}

type Script = Box<dyn FnMut(&Got) -> Reaction + Send>;

/// A deliverer that does as it is told and remembers what it got.
pub(crate) struct Scripted {
    script: Mutex<Script>,
    pub(crate) got: Mutex<Vec<Got>>,
    pub(crate) syncs: AtomicUsize,
    /// What is asked of it at once ends so; `None`: it is dropped.
    pub(crate) at_once: Mutex<Option<Outcome>>,
    pub(crate) asked_at_once: AtomicUsize,
    pub(crate) most: usize,
    running: AtomicUsize,
    pub(crate) most_running: AtomicUsize,
    batch: usize,
    /// Each run waits there before it asks for anything, and before it ends.
    pub(crate) gate: Mutex<Option<Arc<Gate>>>,
}

/// A place to wait at.
pub(crate) struct Gate {
    pub(crate) arrived: tokio::sync::Semaphore,
    pub(crate) go: tokio::sync::Semaphore,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { arrived: tokio::sync::Semaphore::new(0), go: tokio::sync::Semaphore::new(0) })
    }
}

impl Scripted {
    pub(crate) fn new(script: impl FnMut(&Got) -> Reaction + Send + 'static) -> Arc<Self> {
        Self::with_most(4, script)
    }

    pub(crate) fn with_most(most: usize, script: impl FnMut(&Got) -> Reaction + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            most,
            script: Mutex::new(Box::new(script)),
            got: Mutex::default(),
            syncs: AtomicUsize::new(0),
            at_once: Mutex::default(),
            asked_at_once: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            batch: 1,
            gate: Mutex::default(),
        })
    }

    pub(crate) fn then(&self, script: impl FnMut(&Got) -> Reaction + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    async fn pass_gate(&self) {
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.arrived.add_permits(1);
            gate.go.acquire().await.unwrap().forget();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.got.lock().len()
    }

    pub(crate) fn addressees(&self) -> Vec<String> {
        let mut all: Vec<String> = self.got.lock().iter().flat_map(|g| g.to.clone()).collect();
        all.sort();
        all
    }
}

#[async_trait::async_trait]
impl Transport for Scripted {
    fn destination(&self, _envelope: &Envelope, recipient: &Recipient) -> Destination {
        match recipient.route {
            Route::Mailbox { .. } => Destination("local".into()),
            Route::Relay => Destination(format!("mx:{}", recipient.address.domain).into()),
        }
    }

    fn concurrency(&self, _destination: &Destination) -> usize {
        self.most
    }

    async fn run(&self, _destination: Destination, mut feed: Feed) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        struct Done<'a>(&'a AtomicUsize);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let _done = Done(&self.running);
        self.pass_gate().await;
        while let Some(batch) = feed.next_batch(self.batch).await {
            for delivery in batch {
                let got = Got {
                    id: delivery.envelope.id,
                    to: delivery.recipients().map(|r| r.address.to_string()).collect(),
                    body: delivery.body.bytes().await.unwrap(),
                    replayed: delivery.replayed,
                    envelope: Arc::clone(&delivery.envelope),
                };
                let mut reaction = (self.script.lock())(&got);
                self.got.lock().push(got);
                while let Reaction::Wait(permit, then) = reaction {
                    permit.acquire().await.unwrap().forget();
                    reaction = *then;
                }
                tokio::task::yield_now().await;
                match reaction {
                    Reaction::All(outcome) => delivery.finish_all(outcome, "mx.example[192.0.2.1]:25"),
                    Reaction::Each(each) => {
                        delivery.finish(Outcomes { each, relay: "mx.example[192.0.2.1]:25".into(), tls: String::new() });
                    }
                    Reaction::Down(reply) => {
                        feed.destination_down(reply.clone());
                        delivery.finish_all(Outcome::Deferred { reply }, "");
                    }
                    Reaction::Panic => panic!("scripted"),
                    Reaction::Drop | Reaction::Wait(..) => drop(delivery),
                }
            }
        }
        self.pass_gate().await;
    }

    async fn deliver_at_once(&self, delivery: Delivery) {
        self.asked_at_once.fetch_add(1, Ordering::SeqCst);
        if let Some(outcome) = self.at_once.lock().clone() {
            delivery.finish_all(outcome, "maildir");
        }
    }

    async fn sync(&self) -> std::io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Routes reports to mailboxes, unless the local part is `nobody`.
pub(crate) struct ToMailbox;

#[async_trait::async_trait]
impl Hooks for ToMailbox {
    async fn route(&self, address: &Mailbox) -> std::io::Result<Vec<Recipient>> {
        let known = address.local.as_str() != "nobody";
        Ok(known.then(|| Recipient::new(address.clone(), Route::Mailbox { folder: None })).into_iter().collect())
    }
}

/// A queue in a folder of its own, with both deliverers.
pub(crate) struct House {
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) config: Config,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) local: Arc<Scripted>,
    pub(crate) relay: Arc<Scripted>,
    pub(crate) queue: Arc<Queue>,
}

pub(crate) fn delivered(_: &Got) -> Reaction {
    Reaction::All(Outcome::Delivered)
}

pub(crate) fn relayed(_: &Got) -> Reaction {
    Reaction::All(Outcome::Relayed { reply: Reply::new(250, EnhancedCode(2, 0, 0), "taken"), dsn: false })
}

pub(crate) fn busy(_: &Got) -> Reaction {
    Reaction::All(Outcome::Deferred { reply: Reply::new(450, EnhancedCode(4, 2, 0), "busy") })
}

pub(crate) fn refused(_: &Got) -> Reaction {
    Reaction::All(Outcome::Failed { reply: Reply::new(550, EnhancedCode(5, 1, 1), "no such user") })
}

pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config { hostname: "mail.example.org".into(), ..Config::default() };
    config.paths.state = dir.join("state");
    config.paths.mail = dir.join("mail");
    config.limits.free_space = ByteSize(1);
    config.queue.segment_size = ByteSize(1 << 20);
    config.queue.retry = [60, 300, 900].map(Duration::from_secs).to_vec();
    config
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut config = config(dir.path());
        change(&mut config);
        Self::open(dir, config, Arc::new(ManualClock::at(T0)), Arc::new(RealDisk), "boot", Scripted::new(delivered), Scripted::new(relayed))
            .await
    }

    pub(crate) async fn open(
        dir: Arc<tempfile::TempDir>,
        config: Config,
        clock: Arc<ManualClock>,
        disk: Arc<dyn Disk>,
        boot: &str,
        local: Arc<Scripted>,
        relay: Arc<Scripted>,
    ) -> Self {
        std::fs::create_dir_all(&config.paths.mail).unwrap();
        let tools = Tools { disk, clock: clock.clone(), random: Box::new(|| 0.0), boot: boot.into() };
        let transports = Transports { mailbox: local.clone(), relay: relay.clone() };
        let queue = Queue::open_with(&config, transports, Arc::new(ToMailbox), tools).await.unwrap();
        Self { dir, config, clock, local, relay, queue }
    }

    /// What a SIGKILL at this moment would leave, opened again with fresh deliverers.
    pub(crate) async fn killed(&self, boot: &str) -> Self {
        self.killed_with(boot, Scripted::new(delivered)).await
    }

    /// The same with this deliverer for mailboxes.
    pub(crate) async fn killed_with(&self, boot: &str, local: Arc<Scripted>) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        copy(&self.dir.path().join("state"), &dir.path().join("state"));
        let mut config = self.config.clone();
        config.paths.state = dir.path().join("state");
        config.paths.mail = dir.path().join("mail");
        let clock = Arc::new(ManualClock::at(self.clock.now()));
        Self::open(dir, config, clock, Arc::new(RealDisk), boot, local, Scripted::new(relayed)).await
    }

    /// Ends properly and opens again in the same place, with the same deliverers.
    pub(crate) async fn restarted(self) -> Self {
        self.queue.shutdown().await;
        drop(self.queue);
        Self::open(self.dir, self.config, self.clock, Arc::new(RealDisk), "boot", self.local, self.relay).await
    }

    pub(crate) fn envelope(&self, to: &[&str]) -> Envelope {
        let recipient = |address: &&str| {
            let address: Mailbox = address.parse().unwrap();
            let route = if address.domain.as_str() == "local.example" { Route::Mailbox { folder: None } } else { Route::Relay };
            Recipient::new(address, route)
        };
        Envelope::new(self.queue.new_id(), "ada@example.net".parse().unwrap(), to.iter().map(recipient).collect())
    }

    pub(crate) async fn send(&self, to: &[&str], body: &str) -> QueueId {
        self.queue.accept(self.envelope(to), Body::from_bytes(body.to_owned())).await.unwrap()
    }

    /// Waits until this holds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for _ in 0..20_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        panic!("never: {what}; {:?}", self.queue.health());
    }

    pub(crate) async fn until_empty(&self) {
        self.until("the queue is empty", |house| house.queue.health().messages == 0).await;
    }

    /// Lets the keeper do what it would do soon.
    pub(crate) async fn keep(&self) {
        let queue = Arc::clone(&self.queue);
        tokio::task::spawn_blocking(move || queue.keeper.wait_round()).await.unwrap();
    }

    /// Moves the clock and lets what becomes due happen as far as it does not take other tasks.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Files under `deferred/`.
    pub(crate) fn parked_files(&self) -> usize {
        files(&self.config.paths.state.join("queue/deferred"))
    }
}

pub(crate) fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // A file may go while its folder is copied, as it may while a machine goes down.
            match std::fs::copy(entry.path(), &target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    }
}
