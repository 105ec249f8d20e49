//! Three fixed scenarios whose instructions `scripts/bench` counts: what changes here changes on every machine alike.
//!
//! Without a word it lists them, with a name it runs one. All work is done in one thread as far as it can be, so that counts repeat.

#![allow(clippy::unwrap_used, reason = "a measurement ends when something is wrong")]

use std::sync::Arc;

use bytes::BytesMut;
use pillarbox_config::Config;
use pillarbox_directory::{Change, Directory, DomainRecord, MemoryDirectory, UserRecord};
use pillarbox_lda::{MAILDIR, MailboxTransport};
use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{
    Body, Delivery, Destination, Envelope, Feed, Hooks, Outcome, Queue, QueueId, Recipient, Route, Transport, Transports,
};
use pillarbox_smtp::server::{Event, Role, ServerConfig, ServerSession, Step};
use pillarbox_smtp::{Mailbox, ReversePath, replies};

const SCENARIOS: [(&str, fn()); 3] = [("1000 sessions", sessions), ("1000 journal records", journal), ("1000 deliveries", deliveries)];
const MESSAGES: u64 = 1000;

fn main() {
    match std::env::args().nth(1) {
        None => SCENARIOS.iter().for_each(|(name, _)| println!("{name}")),
        Some(wanted) => SCENARIOS.iter().find(|(name, _)| *name == wanted).unwrap().1(),
    }
}

/// Header, body and line ends of a 4 KiB message.
fn message() -> Vec<u8> {
    let line = "The quick brown fox jumps over the lazy dog, and the dog sleeps on as it did.\r\n";
    format!("From: <a@src.test>\r\nTo: <u1@bench.test>\r\nSubject: load\r\n\r\n{}", line.repeat(51)).into_bytes()
}

/// The protocol alone: greeting, EHLO, a pipelined envelope, 4 KiB, QUIT; replies are written and thrown away.
fn sessions() {
    let config = Arc::new(ServerConfig::new(Role::Mta, "mx.bench.test"));
    let message = message();
    let groups: [&[u8]; 4] = [
        b"EHLO client.test\r\n",
        b"MAIL FROM:<a@src.test> SIZE=4096 BODY=8BITMIME\r\nRCPT TO:<u1@bench.test>\r\nRCPT TO:<u2@bench.test>\r\nDATA\r\n",
        &message,
        b".\r\nQUIT\r\n",
    ];
    let (mut octets, mut ended) = (0, 0);
    for _ in 0..MESSAGES {
        let mut session = ServerSession::new(Arc::clone(&config));
        session.greet();
        for group in groups {
            let mut input = BytesMut::from(group);
            loop {
                match session.poll(&mut input) {
                    Step::NeedInput | Step::Closed => break,
                    Step::StartTls => {}
                    Step::Event(Event::Helo { .. }) => session.accept_helo(),
                    Step::Event(Event::Mail { .. }) => session.reply(replies::sender_ok()),
                    Step::Event(Event::Rcpt { .. }) => session.reply(replies::recipient_ok()),
                    Step::Event(Event::DataStart) => session.reply(replies::start_input()),
                    Step::Event(Event::Content(content)) => octets += content.len(),
                    Step::Event(Event::MessageEnd) => {
                        ended += 1;
                        session.reply(replies::queued("1m868n4sn7hqj"));
                    }
                    Step::Event(_) => {}
                }
            }
            session.output().clear();
        }
    }
    assert_eq!((ended, octets as u64), (MESSAGES, MESSAGES * message.len() as u64));
}

/// Takes everything at once.
struct Taker;

#[async_trait::async_trait]
impl Transport for Taker {
    fn destination(&self, _: &Envelope, _: &Recipient) -> Destination {
        Destination("taker".into())
    }
    fn concurrency(&self, _: &Destination) -> usize {
        1
    }
    async fn run(&self, _: Destination, mut feed: Feed) {
        while let Some(batch) = feed.next_batch(64).await {
            batch.into_iter().for_each(|delivery: Delivery| delivery.finish_all(Outcome::Delivered, "taker"));
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

fn user(n: u64) -> Mailbox {
    format!("u{n}@bench.test").parse().unwrap()
}

/// Responsibility alone: one 4 KiB message after the other made durable, and handed to a deliverer that takes it at once.
fn journal() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.paths.state = folder.path().join("state");
    config.paths.mail = folder.path().join("mail");
    std::fs::create_dir_all(&config.paths.mail).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let taker: Arc<dyn Transport> = Arc::new(Taker);
        let transports = Transports { mailbox: Arc::clone(&taker), relay: taker };
        let queue = Queue::open(&config, transports, Arc::new(Nobody)).await.unwrap();
        let body = Body::from_bytes(message());
        for n in 0..MESSAGES {
            let recipient = Recipient::new(user(n % 16), Route::Mailbox { folder: None });
            let envelope = Envelope::new(queue.new_id(), "a@src.test".parse().unwrap(), vec![recipient]);
            queue.accept(envelope, body.clone()).await.unwrap();
        }
        queue.shutdown().await;
    });
}

/// Storing alone: 4 KiB messages into 16 Maildirs.
fn deliveries() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { hostname: "mx.bench.test".into(), ..Config::default() };
    config.paths.mail = folder.path().join("mail");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = Arc::new(MemoryDirectory::new());
        let created = "2023-11-14T00:00:00Z".to_owned();
        let domain = DomainRecord { name: "bench.test".parse().unwrap(), created: created.clone(), deliver_to: None, dkim: vec![] };
        let person = |n| UserRecord::new(user(n), created.clone());
        let people = (0..16).map(|n| Change::PutUser(person(n)));
        directory.apply([Change::PutDomain(domain)].into_iter().chain(people).collect()).await.unwrap();
        let hooks = pillarbox_lda::Hooks::new(Arc::new(|_, _| Box::pin(async {})));
        let transport = MailboxTransport::new(&config, directory as Arc<dyn Directory>, hooks).await.unwrap();
        let queue = FakeQueue::new();
        let body = Body::from_bytes(message());
        let pushed: Vec<_> = (0..MESSAGES)
            .map(|n| {
                let recipient = Recipient::new(user(n % 16), Route::Mailbox { folder: None });
                let mut envelope = Envelope::new(QueueId(n + 1), ReversePath::Null, vec![recipient]);
                envelope.received = 1_700_000_000_000 + n;
                queue.push(envelope, vec![0], body.clone())
            })
            .collect();
        transport.run(Destination(MAILDIR.into()), queue.feed()).await;
        for one in pushed {
            assert_eq!(one.outcomes().await.unwrap().each, [Outcome::Delivered]);
        }
        transport.sync().await.unwrap();
    });
}
