//! `MailboxTransport`: takes deliveries for our mailboxes from the queue and brings them to Maildirs or to an LMTP server.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use pillarbox_config::Config;
use pillarbox_directory::{Directory, DirectoryError, UserRecord};
use pillarbox_queue::{Body, Delivery, Destination, Envelope, Feed, Outcome, Recipient, Transport};
use pillarbox_smtp::{EnhancedCode, Mailbox, Reply};

use crate::delivery::{Batch, Job, Plan, Stored};
use crate::hooks::Hooks;
use crate::lmtp::{Client, backend_for};
use crate::maildir::{Durability, MailRoot};
use crate::quota::QuotaCheck;
use crate::settings::Settings;
use crate::vacation::Replier;
use crate::way::Way;
use crate::ways::Ways;

/// Deliveries stored in one go.
const BATCH: usize = 64;
/// How long a thread that stores waits for more before it ends: while mail comes, nobody has to be woken but itself.
const PATIENCE: Duration = Duration::from_millis(100);
/// Connections to one LMTP server at once.
const LMTP_CONNECTIONS: usize = 8;

/// The destination of everything stored in our own Maildirs.
pub const MAILDIR: &str = "maildir";

/// A user as the directory answered.
pub(crate) type Found = Result<Option<Arc<UserRecord>>, DirectoryError>;

/// The deliverer for mailboxes.
///
/// Everything for Maildirs is one destination, served by as many threads as there are cores, each taking batches: a message waits for nobody's mailbox but its own, and
/// names carry the time of acceptance, so that the order in which two threads store does not show.
pub struct MailboxTransport {
    me: Weak<Self>,
    settings: Arc<ArcSwap<Settings>>,
    root: Arc<MailRoot>,
    ways: Arc<Ways>,
    directory: Arc<dyn Directory>,
    hooks: Hooks,
    maildir: Destination,
    /// Runs for Maildirs at once: one a core. Asked once, since the answer is read from files.
    runs: usize,
}

impl MailboxTransport {
    /// Opens the mail folder (creating it, mode 0700, when it is missing), reads which way each domain's mail goes, and follows changes of that.
    ///
    /// # Errors
    /// When the mail folder can be neither created nor opened.
    pub async fn new(config: &Config, directory: Arc<dyn Directory>, hooks: Hooks) -> io::Result<Arc<Self>> {
        let root = Arc::new(MailRoot::open(&config.paths.mail)?);
        let settings = Arc::new(ArcSwap::from_pointee(Settings::new(config)));
        let ways = Ways::follow(Arc::clone(&directory)).await;
        let runs = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
        let maildir = Destination(MAILDIR.into());
        Ok(Arc::new_cyclic(|me| Self { me: me.clone(), settings, root, ways, directory, hooks, maildir, runs }))
    }

    /// Takes a new configuration over; deliveries under way end by the old one. The mail folder stays where it was.
    pub fn reload(&self, config: &Config) {
        self.settings.store(Arc::new(Settings::new(config)));
    }

    /// The mail folder.
    pub fn root(&self) -> &Arc<MailRoot> {
        &self.root
    }

    /// Answers about quotas, for the RCPT door and for `user show`.
    pub fn quota(&self) -> QuotaCheck {
        QuotaCheck::new(Arc::clone(&self.root), Arc::clone(&self.settings))
    }

    /// Whether everything stored can still be made durable. False after a failed sync: nothing is forgotten by the queue from then on, and a restart is needed.
    pub fn is_healthy(&self) -> bool {
        !self.root.devices().failed()
    }

    /// Whether the mail folder still stands where it did: it may have been unmounted or removed, and is held open all the same.
    pub fn is_in_place(&self) -> bool {
        self.root.is_in_place()
    }

    /// The way that an address's mail takes: what its domain says, else what the configuration says for the domain, else for all.
    pub fn way(&self, address: &Mailbox) -> Arc<Way> {
        self.ways.of(&address.domain).unwrap_or_else(|| {
            let settings = self.settings.load();
            Arc::clone(settings.deliver_to_domains.get(&address.domain).unwrap_or(&settings.deliver_to))
        })
    }

    /// Looks every user of a batch up once.
    pub(crate) async fn users(&self, mut wanted: Vec<Mailbox>) -> HashMap<Mailbox, Found> {
        wanted.sort_unstable();
        wanted.dedup();
        let found = futures::future::join_all(wanted.iter().map(|address| self.directory.user(address))).await;
        wanted.into_iter().zip(found.into_iter().map(|found| found.map(|user| user.map(Arc::new)))).collect()
    }

    /// What is decided already about mail for a user who is suspended.
    pub(crate) fn suspension(&self, user: Option<&Found>) -> Option<Outcome> {
        match user {
            Some(Ok(Some(user))) if user.suspended => Some(suspended(&self.settings.load())),
            _ => None,
        }
    }

    /// Hears of each recipient whose mailbox took a message.
    pub(crate) async fn stored(&self, envelope: &Envelope, body: &Body, recipient: &Recipient, user: &Arc<UserRecord>) {
        if user.vacation.is_none() {
            return;
        }
        let settings = self.settings.load_full();
        let replier =
            Replier { directory: &self.directory, hooks: &self.hooks, hostname: &settings.hostname, delimiter: &settings.delimiter };
        replier.consider(envelope, body, recipient, user).await;
    }

    /// Stores what the feed has until nothing comes any more. Blocks now and then: it has a thread to itself.
    async fn run_maildir(&self, mut feed: Feed) {
        while let Some(batch) = feed.next_batch_within(BATCH, PATIENCE).await {
            let work = self.plan(batch).await;
            self.all_stored(work.store(Durability::WithOthers)).await;
        }
    }

    /// Looks up what is to be done for each recipient.
    async fn plan(&self, deliveries: Vec<Delivery>) -> Work {
        let settings = self.settings.load_full();
        let users = self.users(addresses(&deliveries)).await;
        let jobs = deliveries
            .into_iter()
            .map(|delivery| Job { plans: delivery.recipients().map(|r| plan(&settings, r, &users)).collect(), delivery })
            .collect();
        Work { root: Arc::clone(&self.root), settings, now: (self.hooks.now)(), jobs }
    }

    async fn all_stored(&self, stored: Vec<Stored>) {
        let replies = stored.iter().map(|one| self.stored(&one.envelope, &one.body, &one.recipient, &one.user));
        futures::future::join_all(replies).await;
    }

    async fn run_lmtp(&self, destination: &Destination, mut feed: Feed) {
        let Some(Way::Lmtp(backends)) = Way::new(&destination.0) else {
            tracing::error!(%destination, "no way of delivery has this name");
            return;
        };
        let Some(backend) = backends.first() else { return };
        let settings = self.settings.load_full();
        let client = Client {
            backend,
            hostname: &settings.hostname,
            delimiter: &settings.delimiter,
            patience: self.hooks.lmtp_patience,
            transport: self,
        };
        client.run(&mut feed).await;
    }
}

/// Deliveries, and what is to be done for each of their recipients.
struct Work {
    root: Arc<MailRoot>,
    settings: Arc<Settings>,
    now: SystemTime,
    jobs: Vec<Job>,
}

impl Work {
    /// Stores all of it, and finishes the deliveries. Blocks.
    fn store(self, durability: Durability) -> Vec<Stored> {
        let mut batch = Batch::new(&self.root, &self.settings, self.now, durability);
        self.jobs.into_iter().for_each(|job| batch.serve(job));
        batch.into_vacations()
    }
}

fn addresses(batch: &[Delivery]) -> Vec<Mailbox> {
    batch.iter().flat_map(|delivery| delivery.recipients().map(|r| r.address.clone())).collect()
}

fn suspended(settings: &Settings) -> Outcome {
    if settings.hold_suspended {
        Outcome::Deferred { reply: Reply::new(450, EnhancedCode(4, 2, 1), "The mailbox is suspended; mail waits for it") }
    } else {
        Outcome::Failed { reply: Reply::new(550, EnhancedCode(5, 2, 1), "The mailbox is suspended and takes no mail") }
    }
}

fn plan(settings: &Settings, recipient: &Recipient, users: &HashMap<Mailbox, Found>) -> Plan {
    let deferred = |text: &str| Outcome::Deferred { reply: Reply::new(451, EnhancedCode(4, 3, 0), text) };
    Plan::Done(match users.get(&recipient.address) {
        Some(Ok(Some(user))) if user.suspended => suspended(settings),
        Some(Ok(Some(user))) => return Plan::Store(Arc::clone(user)),
        Some(Ok(None)) => Outcome::Failed { reply: Reply::new(550, EnhancedCode(5, 1, 1), "No such user here any more") },
        Some(Err(error)) => {
            tracing::warn!(to = %recipient.address, %error, "a user could not be looked up");
            deferred("The directory of users cannot be read at the moment")
        }
        None => deferred("The user was not looked up"),
    })
}

#[async_trait::async_trait]
impl Transport for MailboxTransport {
    fn destination(&self, _envelope: &Envelope, recipient: &Recipient) -> Destination {
        match &*self.way(&recipient.address) {
            Way::Maildir => self.maildir.clone(),
            Way::Lmtp(backends) => match backend_for(backends, &recipient.address) {
                Some(backend) => backend.destination(),
                None => self.maildir.clone(),
            },
        }
    }

    fn concurrency(&self, destination: &Destination) -> usize {
        if destination == &self.maildir { self.runs } else { LMTP_CONNECTIONS }
    }

    async fn run(&self, destination: Destination, feed: Feed) {
        if destination != self.maildir {
            return self.run_lmtp(&destination, feed).await;
        }
        let Some(this) = self.me.upgrade() else { return };
        let runtime = tokio::runtime::Handle::current();
        let thread = tokio::task::spawn_blocking(move || runtime.block_on(this.run_maildir(feed)));
        // The batch in hand was dropped then, and so is deferred; the next run goes on with the others.
        if let Err(error) = thread.await {
            tracing::error!(%error, "storing a batch of messages failed");
        }
    }

    async fn deliver_at_once(&self, delivery: Delivery) {
        let is_for_maildirs = delivery.recipients().all(|recipient| matches!(&*self.way(&recipient.address), Way::Maildir));
        if !is_for_maildirs || !self.is_healthy() {
            return;
        }
        let work = self.plan(vec![delivery]).await;
        match tokio::task::spawn_blocking(move || work.store(Durability::ByItself)).await {
            Ok(stored) => self.all_stored(stored).await,
            Err(error) => tracing::error!(%error, "storing a message failed; it goes by the journal"),
        }
    }

    async fn sync(&self) -> io::Result<()> {
        let root = Arc::clone(&self.root);
        tokio::task::spawn_blocking(move || root.devices().sync()).await.map_err(io::Error::other)?
    }
}
