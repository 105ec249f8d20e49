//! Deliveries a second into Maildirs, as the queue makes them: batches, then one sync.
//!
//! Each sample delivers into fresh mailboxes on the file system of `$PILLARBOX_BENCH_DIR` (default: the target folder), since a folder whose files were just deleted is
//! several times slower on ext4. Say which file system it was when quoting figures.

#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(missing_docs, reason = "divan writes an undocumented main")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::Bencher;
use divan::counter::ItemsCount;
use pillarbox_config::Config;
use pillarbox_directory::{Change, Directory, DomainRecord, MemoryDirectory, Quota, UserRecord};
use pillarbox_lda::{Hooks, MAILDIR, MailboxTransport};
use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Destination, Envelope, QueueId, Recipient, Route, Transport};
use pillarbox_smtp::{Mailbox, ReversePath};

fn main() {
    divan::main();
}

/// Deliveries in one sample: 2048, but at most 128 MiB.
fn messages(size: usize) -> u64 {
    (128 * 1024 * 1024 / size as u64).clamp(1, 2048)
}

struct House {
    _folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    transport: Arc<MailboxTransport>,
}

fn user(n: u64) -> Mailbox {
    format!("u{n}@example.org").parse().unwrap()
}

impl House {
    fn new(users: u64, quota: Option<Quota>) -> Self {
        let base = std::env::var_os("PILLARBOX_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        let folder = tempfile::tempdir_in(base).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut config = Config { hostname: "mail.example.org".into(), ..Config::default() };
        config.paths.mail = folder.path().join("mail");
        let transport = runtime.block_on(async {
            let directory = Arc::new(MemoryDirectory::new());
            let created = "2023-11-14T00:00:00Z".to_owned();
            let domain = DomainRecord { name: "example.org".parse().unwrap(), created: created.clone(), deliver_to: None, dkim: vec![] };
            let people = (0..users).map(|n| Change::PutUser(UserRecord { quota, ..UserRecord::new(user(n), created.clone()) }));
            directory.apply([Change::PutDomain(domain)].into_iter().chain(people).collect()).await.unwrap();
            let hooks = Hooks::new(Arc::new(|_, _| Box::pin(async {})));
            MailboxTransport::new(&config, directory as Arc<dyn Directory>, hooks).await.unwrap()
        });
        for n in 0..users {
            transport.root().create(&user(n)).unwrap();
        }
        Self { _folder: folder, runtime, transport }
    }

    fn queue(&self, users: u64, size: usize) -> FakeQueue {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let queue = FakeQueue::new();
        let lines = format!("{}\r\n", "x".repeat(70)).repeat(size / 72);
        let body = Body::from_bytes(format!("Received: by mail.example.org\r\nSubject: x\r\n\r\n{lines}").into_bytes());
        for n in 0..messages(size) {
            let recipient = Recipient::new(user(n % users), Route::Mailbox { folder: None });
            let mut envelope = Envelope::new(QueueId(IDS.fetch_add(1, Ordering::Relaxed)), ReversePath::Null, vec![recipient]);
            envelope.received = 1_700_000_000_000 + n;
            drop(queue.push(envelope, vec![0], body.clone()));
        }
        queue
    }

    fn drain(&self, queue: &FakeQueue, runs: usize) {
        self.runtime.block_on(async {
            let all: Vec<_> = (0..runs)
                .map(|_| {
                    let (transport, feed) = (Arc::clone(&self.transport), queue.feed());
                    tokio::spawn(async move { transport.run(Destination(MAILDIR.into()), feed).await })
                })
                .collect();
            for one in all {
                one.await.unwrap();
            }
        });
    }
}

fn deliver(bencher: Bencher<'_, '_>, users: u64, size: usize, runs: usize, quota: Option<Quota>, sync: bool) {
    bencher
        .counter(ItemsCount::new(messages(size)))
        .with_inputs(|| {
            let house = House::new(users, quota);
            let queue = house.queue(users, size);
            (house, queue)
        })
        .bench_values(|(house, queue)| {
            house.drain(&queue, runs);
            if sync {
                house.runtime.block_on(house.transport.sync()).unwrap();
            }
            // Dropped, and so deleted, outside of what is measured.
            house
        });
}

#[divan::bench(sample_count = 10, sample_size = 1, args = [1, 10, 100, 1000])]
fn four_kib_by_users(bencher: Bencher<'_, '_>, users: u64) {
    deliver(bencher, users, 4096, 2, None, false);
}

#[divan::bench(sample_count = 10, sample_size = 1, args = [1, 2, 4])]
fn four_kib_by_runs(bencher: Bencher<'_, '_>, runs: usize) {
    deliver(bencher, 100, 4096, runs, None, false);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn four_kib_and_sync(bencher: Bencher<'_, '_>) {
    deliver(bencher, 100, 4096, 2, None, true);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn four_kib_with_quota(bencher: Bencher<'_, '_>) {
    deliver(bencher, 100, 4096, 2, Some(Quota::Bytes(1 << 40)), false);
}

#[divan::bench(sample_count = 5, sample_size = 1, args = [1024, 102_400, 1_048_576])]
fn by_size(bencher: Bencher<'_, '_>, size: usize) {
    deliver(bencher, 100, size, 2, None, false);
}
