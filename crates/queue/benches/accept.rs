//! What it costs to take responsibility: `accept` until it answers, with deliverers that take everything at once.
//!
//! The folder is made where `PILLARBOX_BENCH_DIR` says, else where temporary files go. Use a journaled file system on a real disk,
//! and say which when you quote a figure; on a memory file system (`/dev/shm`) the figures are those of the processor alone.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use pillarbox_config::Config;
use pillarbox_queue::{Body, Delivery, Destination, Envelope, Feed, Hooks, Outcome, Queue, Recipient, Route, Transport, Transports};
use pillarbox_smtp::Mailbox;
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

/// Takes everything, a batch at a time.
struct Sink;

#[async_trait::async_trait]
impl Transport for Sink {
    fn destination(&self, _: &Envelope, _: &Recipient) -> Destination {
        Destination("sink".into())
    }
    fn concurrency(&self, _: &Destination) -> usize {
        2
    }
    async fn run(&self, _: Destination, mut feed: Feed) {
        while let Some(batch) = feed.next_batch(64).await {
            let done = |delivery: Delivery| delivery.finish_all(Outcome::Delivered, "sink");
            batch.into_iter().for_each(done);
        }
    }
}

struct Nobody;

#[async_trait::async_trait]
impl Hooks for Nobody {
    async fn route(&self, _: &Mailbox) -> std::io::Result<Vec<Recipient>> {
        Ok(Vec::new())
    }
}

struct Bench {
    runtime: Runtime,
    queue: Arc<Queue>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Self> {
        let dir = match std::env::var_os("PILLARBOX_BENCH_DIR") {
            Some(path) => tempfile::tempdir_in(path).ok()?,
            None => tempfile::tempdir().ok()?,
        };
        let mut config = Config::default();
        config.paths.state = dir.path().join("state");
        config.paths.mail = dir.path().join("mail");
        std::fs::create_dir_all(&config.paths.mail).ok()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().ok()?;
        let sink: Arc<dyn Transport> = Arc::new(Sink);
        let transports = Transports { mailbox: Arc::clone(&sink), relay: sink };
        let queue = runtime.block_on(Queue::open(&config, transports, Arc::new(Nobody))).ok()?;
        Some(Self { runtime, queue, _dir: dir })
    }

    fn envelope(&self) -> Option<Envelope> {
        let to: Mailbox = "bob@local.example".parse().ok()?;
        let from = "ada@example.net".parse().ok()?;
        Some(Envelope::new(self.queue.new_id(), from, vec![Recipient::new(to, Route::Mailbox { folder: None })]))
    }

    /// Sends `each` messages from each of `sessions` tasks.
    fn run(&self, sessions: usize, each: usize, size: usize) {
        let body = Body::from_bytes(vec![b'x'; size]);
        self.runtime.block_on(async {
            let tasks: Vec<_> = (0..sessions)
                .map(|_| {
                    let (queue, body) = (Arc::clone(&self.queue), body.clone());
                    let envelopes: Vec<Envelope> = (0..each).filter_map(|_| self.envelope()).collect();
                    tokio::spawn(async move {
                        for envelope in envelopes {
                            assert!(queue.accept(envelope, body.clone()).await.is_ok());
                        }
                    })
                })
                .collect();
            for task in tasks {
                assert!(task.await.is_ok());
            }
        });
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.runtime.block_on(self.queue.shutdown());
    }
}

#[divan::bench(args = [1, 5, 20, 100], sample_count = 10, sample_size = 1)]
fn messages_of_4_kib(bencher: Bencher, sessions: usize) {
    let Some(bench) = Bench::new() else { return };
    let each = 4000 / sessions.max(4);
    bencher.counter(ItemsCount::new(sessions * each)).bench_local(|| bench.run(sessions, each, 4096));
}

#[divan::bench(args = [1024, 102_400, 1_048_576], sample_count = 5, sample_size = 1)]
fn twenty_sessions(bencher: Bencher, size: usize) {
    let Some(bench) = Bench::new() else { return };
    let each = (4_000_000 / size).clamp(5, 200);
    bencher.counter(BytesCount::new(size * each * 20)).bench_local(|| bench.run(20, each, size));
}
