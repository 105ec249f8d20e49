//! `MailboxTransport`: takes deliveries for our mailboxes from the queue and brings them to Maildirs or to an LMTP server.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pillarbox_config::Config;
use pillarbox_directory::{Directory, DirectoryError, UserRecord};
use pillarbox_queue::{Delivery, Destination, Envelope, Feed, Outcome, Recipient, Transport};
use pillarbox_smtp::{EnhancedCode, Mailbox, Reply};

use crate::delivery::{Batch, Job, Plan};
use crate::hooks::Hooks;
use crate::maildir::MailRoot;
use crate::settings::Settings;

/// Deliveries stored by one visit to the blocking pool.
const BATCH: usize = 64;

/// The destination of everything stored in our own Maildirs.
pub const MAILDIR: &str = "maildir";

/// The deliverer for mailboxes.
pub struct MailboxTransport {
    settings: ArcSwap<Settings>,
    root: Arc<MailRoot>,
    directory: Arc<dyn Directory>,
    hooks: Hooks,
}

impl MailboxTransport {
    /// Opens the mail folder (creating it, mode 0700, when it is missing).
    ///
    /// # Errors
    /// When the mail folder can be neither created nor opened.
    pub fn new(config: &Config, directory: Arc<dyn Directory>, hooks: Hooks) -> io::Result<Arc<Self>> {
        let root = Arc::new(MailRoot::open(&config.paths.mail)?);
        Ok(Arc::new(Self { settings: ArcSwap::from_pointee(Settings::new(config)), root, directory, hooks }))
    }

    /// Takes a new configuration over; deliveries under way end by the old one. The mail folder stays where it was.
    pub fn reload(&self, config: &Config) {
        self.settings.store(Arc::new(Settings::new(config)));
    }

    /// The mail folder.
    pub fn root(&self) -> &Arc<MailRoot> {
        &self.root
    }

    /// Looks every user of a batch up once.
    async fn users(&self, mut wanted: Vec<Mailbox>) -> HashMap<Mailbox, Result<Option<Arc<UserRecord>>, DirectoryError>> {
        wanted.sort_unstable();
        wanted.dedup();
        let found = futures::future::join_all(wanted.iter().map(|address| self.directory.user(address))).await;
        wanted.into_iter().zip(found.into_iter().map(|found| found.map(|user| user.map(Arc::new)))).collect()
    }

    async fn run_maildir(&self, mut feed: Feed) {
        while let Some(batch) = feed.next_batch(BATCH).await {
            let settings = self.settings.load_full();
            let users = self.users(addresses(&batch)).await;
            let jobs: Vec<Job> = batch
                .into_iter()
                .map(|delivery| Job { plans: delivery.recipients().map(|r| plan(&settings, r, &users)).collect(), delivery })
                .collect();
            let root = Arc::clone(&self.root);
            let stored = tokio::task::spawn_blocking(move || {
                let mut batch = Batch::new(&root, &settings);
                for job in jobs {
                    batch.serve(job, |_, _, _| {});
                }
            })
            .await;
            if let Err(error) = stored {
                // Its deliveries were dropped and so are deferred; the others go on.
                tracing::error!(%error, "storing a batch of messages failed");
            }
        }
    }
}

fn addresses(batch: &[Delivery]) -> Vec<Mailbox> {
    batch.iter().flat_map(|delivery| delivery.recipients().map(|r| r.address.clone())).collect()
}

fn plan(settings: &Settings, recipient: &Recipient, users: &HashMap<Mailbox, Result<Option<Arc<UserRecord>>, DirectoryError>>) -> Plan {
    Plan::Done(match users.get(&recipient.address) {
        Some(Ok(Some(user))) if !user.suspended => return Plan::Store(Arc::clone(user)),
        Some(Ok(Some(_))) if settings.hold_suspended => {
            Outcome::Deferred { reply: Reply::new(450, EnhancedCode(4, 2, 1), "The mailbox is suspended; mail waits for it") }
        }
        Some(Ok(Some(_))) => {
            Outcome::Failed { reply: Reply::new(550, EnhancedCode(5, 2, 1), "The mailbox is suspended and takes no mail") }
        }
        Some(Ok(None)) => Outcome::Failed { reply: Reply::new(550, EnhancedCode(5, 1, 1), "No such user here any more") },
        Some(Err(error)) => {
            tracing::warn!(to = %recipient.address, %error, "a user could not be looked up");
            Outcome::Deferred { reply: Reply::new(451, EnhancedCode(4, 3, 0), "The directory of users cannot be read at the moment") }
        }
        None => Outcome::Deferred { reply: Reply::new(451, EnhancedCode(4, 3, 0), "The user was not looked up") },
    })
}

#[async_trait::async_trait]
impl Transport for MailboxTransport {
    fn destination(&self, _envelope: &Envelope, _recipient: &Recipient) -> Destination {
        Destination(MAILDIR.into())
    }

    fn concurrency(&self, _destination: &Destination) -> usize {
        std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
    }

    async fn run(&self, destination: Destination, feed: Feed) {
        _ = destination;
        self.run_maildir(feed).await;
    }

    async fn sync(&self) -> io::Result<()> {
        let root = Arc::clone(&self.root);
        tokio::task::spawn_blocking(move || root.devices().sync()).await.map_err(io::Error::other)?
    }
}
