//! A transport over a temporary mail folder and a directory in memory, fed by hand.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use pillarbox_config::Config;
use pillarbox_directory::{Change, Directory, DomainRecord, MemoryDirectory, UserRecord};
use pillarbox_lda::{Hooks, MailboxTransport};
use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Destination, Envelope, Outcome, Outcomes, QueueId, Recipient, Route, Transport};
use pillarbox_smtp::{Mailbox, ReversePath};

/// 2023-11-14T22:13:20Z.
pub const NOW: u64 = 1_700_000_000;

/// Envelopes and messages.
pub type Submitted = Arc<Mutex<Vec<(Envelope, Vec<u8>)>>>;

pub struct House {
    pub folder: tempfile::TempDir,
    /// The mail folder.
    pub mail: PathBuf,
    pub directory: Arc<MemoryDirectory>,
    pub transport: Arc<MailboxTransport>,
    /// What was handed to `Hooks::submit`.
    pub submitted: Submitted,
    /// Seconds since the epoch.
    pub clock: Arc<Mutex<u64>>,
}

pub fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

pub fn user(address: &str) -> UserRecord {
    UserRecord::new(mailbox(address), "2023-11-14T00:00:00Z".into())
}

pub fn recipient(address: &str) -> Recipient {
    Recipient::new(mailbox(address), Route::Mailbox { folder: None })
}

pub fn envelope(id: u64, from: &str, to: &[&str]) -> Envelope {
    let from: ReversePath = from.parse().unwrap();
    let mut envelope = Envelope::new(QueueId(id), from, to.iter().map(|to| recipient(to)).collect());
    envelope.received = NOW * 1000 + 42;
    envelope
}

impl House {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { hostname: "mail.example.org".into(), ..Config::default() };
        config.paths.mail = folder.path().join("mail");
        change(&mut config);
        let directory = Arc::new(MemoryDirectory::new());
        let domain =
            DomainRecord { name: "example.org".parse().unwrap(), created: "2023-11-14T00:00:00Z".into(), deliver_to: None, dkim: vec![] };
        let people = ["bob@example.org", "eve@example.org"].map(|address| Change::PutUser(user(address)));
        directory.apply([Change::PutDomain(domain)].into_iter().chain(people).collect()).await.unwrap();
        let submitted = Submitted::default();
        let clock = Arc::new(Mutex::new(NOW));
        let (keep, time) = (Arc::clone(&submitted), Arc::clone(&clock));
        let mut hooks = Hooks::new(Arc::new(move |envelope, message| {
            keep.lock().push((envelope, message));
            Box::pin(async {})
        }));
        hooks.lmtp_patience = Duration::ZERO;
        hooks.now = Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(*time.lock()));
        let transport = MailboxTransport::new(&config, Arc::clone(&directory) as Arc<dyn Directory>, hooks).await.unwrap();
        Self { mail: config.paths.mail, folder, directory, transport, submitted, clock }
    }

    pub async fn put(&self, user: UserRecord) {
        self.directory.apply(vec![Change::PutUser(user)]).await.unwrap();
    }

    pub async fn deliver(&self, envelope: Envelope, body: impl Into<Vec<u8>>) -> Outcomes {
        self.run(envelope, body, false).await
    }

    pub async fn replay(&self, envelope: Envelope, body: impl Into<Vec<u8>>) -> Outcomes {
        self.run(envelope, body, true).await
    }

    async fn run(&self, envelope: Envelope, body: impl Into<Vec<u8>>, replayed: bool) -> Outcomes {
        let queue = FakeQueue::new();
        let all = (0..envelope.recipients.len()).collect();
        let destination = envelope.recipients.first().map(|r| self.transport.destination(&envelope, r));
        let body = Body::from_bytes(body.into());
        let pushed = if replayed { queue.push_replayed(envelope, all, body) } else { queue.push(envelope, all, body) };
        self.transport.run(destination.unwrap_or(Destination("maildir".into())), queue.feed()).await;
        pushed.outcomes().await.unwrap()
    }

    /// The one outcome of a delivery to one recipient.
    pub async fn deliver_one(&self, envelope: Envelope, body: impl Into<Vec<u8>>) -> Outcome {
        self.deliver(envelope, body).await.each.pop().unwrap()
    }

    pub fn maildir(&self, user: &str) -> PathBuf {
        self.mail.join(pillarbox_lda::maildir::maildir_path(&mailbox(user)).unwrap())
    }

    /// File names in a subdirectory of a user's Maildir, sorted; none when it is missing.
    pub fn names(&self, user: &str, sub: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.maildir(user).join(sub)) else { return vec![] };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The one message in a subdirectory of a user's Maildir.
    pub fn only(&self, user: &str, sub: &str) -> (String, Vec<u8>) {
        let names = self.names(user, sub);
        assert_eq!(names.len(), 1, "{names:?}");
        let content = std::fs::read(self.maildir(user).join(sub).join(&names[0])).unwrap();
        (names[0].clone(), content)
    }
}
