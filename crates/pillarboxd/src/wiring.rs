//! What the rooms ask of each other, answered: routes for mail made here, quota for sessions, a door for replies.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pillarbox_config::Config;
use pillarbox_control::api::now_millis;
use pillarbox_control::{LocalDoor, LocalMail, LocalRefused};
use pillarbox_directory::{Directory, ResolvePolicy, Resolved, resolve};
use pillarbox_ingest::{Ingest, MailboxCheck, routing};
use pillarbox_lda::QuotaCheck;
use pillarbox_message::notice::{Letter, notice};
use pillarbox_queue::{Body, Door, Envelope, Queue, QueueId, Recipient};
use pillarbox_relay::mta_sts::SharedPolicies;
use pillarbox_smtp::{Domain, Mailbox, RcptParams, Reply, ReversePath};

/// How often the postmaster hears of one user and one limit.
const NOTICE_EVERY: Duration = Duration::from_secs(3600);

/// MTA-STS policies in the directory's state, where several nodes share it.
pub(crate) struct CommonPolicies(pub(crate) Arc<dyn Directory>);

/// State table of [`CommonPolicies`].
const POLICIES: &str = "mta-sts";

#[async_trait::async_trait]
impl SharedPolicies for CommonPolicies {
    async fn get(&self, domain: &Domain) -> Option<Vec<u8>> {
        self.0.registry()?;
        self.0.state_get(POLICIES, domain.as_str().as_bytes()).await.ok()?
    }

    async fn put(&self, domain: &Domain, value: &[u8], keep: Duration) {
        if self.0.registry().is_some()
            && let Err(error) = self.0.state_put(POLICIES, domain.as_str().as_bytes(), value, keep).await
        {
            tracing::debug!(%domain, %error, "an MTA-STS policy was not shared with other nodes");
        }
    }
}

/// Routes and accepts mail that is made here: reports, vacation replies, notices.
pub(crate) struct InternalMail {
    directory: Arc<dyn Directory>,
    policy: Arc<ArcSwap<ResolvePolicy>>,
    config: Arc<ArcSwap<Config>>,
    queue: OnceLock<Arc<Queue>>,
}

impl InternalMail {
    pub(crate) fn new(directory: Arc<dyn Directory>, policy: Arc<ArcSwap<ResolvePolicy>>, config: Arc<ArcSwap<Config>>) -> Arc<Self> {
        Arc::new(Self { directory, policy, config, queue: OnceLock::new() })
    }

    /// The queue exists later than those who want to hand mail to it.
    pub(crate) fn connect(&self, queue: Arc<Queue>) {
        let _ = self.queue.set(queue);
    }

    /// Where a report to `address` goes; `None`: nowhere, it is ours and unknown.
    pub(crate) async fn route(&self, address: &Mailbox) -> Result<Vec<Recipient>, String> {
        let params = RcptParams::default();
        let policy = self.policy.load_full();
        let mut seen = std::collections::HashSet::new();
        let resolution = resolve(self.directory.as_ref(), &policy, address).await.map_err(|e| e.to_string())?;
        let hold = self.config.load().mailbox.suspended == "hold";
        let held = if hold { routing::held(address, &resolution.suspended, &params, &mut seen) } else { Vec::new() };
        match resolution.outcome {
            Resolved::Deliver(targets) => {
                let found = routing::recipients(self.directory.as_ref(), &policy, address, targets, &params, &ReversePath::Null, &mut seen);
                let mut recipients = found.await.map_err(|e| e.to_string())?;
                recipients.extend(held);
                Ok(recipients)
            }
            Resolved::Suspended => Ok(held),
            Resolved::NotOurs => Ok(routing::relayed(address, &params, &mut seen).into_iter().collect()),
            Resolved::Unknown | Resolved::Loop | Resolved::TooMany => Ok(Vec::new()),
        }
    }

    /// Mail to the postmaster of this host.
    async fn tell_postmaster(&self, hostname: &str, user: &Mailbox, limit: &str, rate: &str) {
        let Ok(to) = format!("postmaster@{hostname}").parse::<Mailbox>() else { return };
        let now = now_millis();
        let letter = Letter { hostname, to: &to, now, random: rand::random() };
        let subject = format!("{user} reached a sending limit");
        let text = format!(
            "The user {user} reached the limit {limit} = \"{rate}\".\n\nFurther recipients are answered 450 until the rate falls below it. If {user} did not send this \
             much mail on purpose, the password may be stolen: change it with\n\n    pillarbox user passwd {user}\n\nand look at what was sent with\n\n    pillarbox \
             trace {user}\n"
        );
        let message = notice(&letter, &subject, &text);
        self.submit(internal_envelope(to, now), message).await;
    }

    /// Accepts a generated message for one address.
    pub(crate) async fn submit(&self, mut envelope: Envelope, message: Vec<u8>) {
        let Some(queue) = self.queue.get() else { return };
        let Some(to) = envelope.recipients.first().map(|r| r.address.clone()) else { return };
        match self.route(&to).await {
            Ok(recipients) if recipients.is_empty() => {
                tracing::info!(%to, "a generated message has nowhere to go and was dropped");
            }
            Ok(recipients) => {
                envelope.id = queue.new_id();
                envelope.recipients = recipients;
                envelope.size = message.len() as u64;
                envelope.source.door = Door::Internal;
                let (id, from, size) = (envelope.id.to_string(), envelope.from.to_string(), envelope.size);
                match queue.accept(envelope, Body::from_bytes(message)).await {
                    Ok(_) => {
                        tracing::info!(target: "pillarbox::event", event = "accept", id, from, to = to.to_string(), size, status = "internal")
                    }
                    Err(error) => tracing::error!(%to, %error, "a generated message was lost: the queue did not take it"),
                }
            }
            Err(error) => tracing::error!(%to, error, "a generated message was lost: its recipient could not be looked up"),
        }
    }
}

/// Quota at RCPT.
pub(crate) struct Mailboxes {
    directory: Arc<dyn Directory>,
    quota: QuotaCheck,
}

impl Mailboxes {
    pub(crate) fn new(directory: Arc<dyn Directory>, quota: QuotaCheck) -> Arc<Self> {
        Arc::new(Self { directory, quota })
    }
}

#[async_trait::async_trait]
impl MailboxCheck for Mailboxes {
    async fn admit(&self, user: &Mailbox, size: Option<u64>) -> Result<(), Reply> {
        // A user that vanished between resolution and this look is the deliverer's business.
        let Ok(Some(record)) = self.directory.addressee(user).await else { return Ok(()) };
        self.quota.would_exceed(&record, size.unwrap_or(0)).await.map_or(Ok(()), Err)
    }
}

/// Answers the queue's questions.
pub(crate) struct QueueHooks(pub(crate) Arc<InternalMail>);

#[async_trait::async_trait]
impl pillarbox_queue::Hooks for QueueHooks {
    async fn route(&self, address: &Mailbox) -> std::io::Result<Vec<Recipient>> {
        self.0.route(address).await.map_err(std::io::Error::other)
    }
}

/// Tells the postmaster what the screen noticed, as mail, once an hour a user and limit at most.
pub(crate) fn notices(internal: &Arc<InternalMail>, config: &Arc<ArcSwap<Config>>) -> pillarbox_screen::Notify {
    let (internal, config) = (internal.clone(), config.clone());
    let told: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    Arc::new(move |notice| {
        let pillarbox_screen::Notice::UserOverLimit { user, limit, rate } = notice else { return };
        let key = format!("{} {limit}", user.key());
        {
            let mut told = told.lock();
            told.retain(|_, at| at.elapsed() < NOTICE_EVERY);
            if told.contains_key(&key) {
                return;
            }
            told.insert(key, Instant::now());
        }
        let (internal, hostname) = (internal.clone(), config.load().hostname.clone());
        tokio::spawn(async move { internal.tell_postmaster(&hostname, &user, limit, &rate).await });
    })
}

/// The envelope of mail that is made here: nobody is told when it fails.
pub(crate) fn internal_envelope(to: Mailbox, now: u64) -> Envelope {
    let recipient = Recipient { notify: pillarbox_smtp::Notify::NEVER, ..Recipient::new(to, pillarbox_queue::Route::Relay) };
    Envelope {
        received: now,
        source: pillarbox_queue::Source { door: Door::Internal, ..Default::default() },
        ..Envelope::new(pillarbox_queue::QueueId(0), ReversePath::Null, vec![recipient])
    }
}

/// Mail from programs on this machine, taken by the rules of submission.
pub(crate) struct LocalMailDoor(pub(crate) Arc<Ingest>);

#[async_trait::async_trait]
impl LocalDoor for LocalMailDoor {
    async fn take(&self, mail: LocalMail) -> Result<QueueId, LocalRefused> {
        self.0
            .take_local(pillarbox_ingest::LocalMail {
                from: mail.from,
                recipients: mail.recipients,
                params: mail.params,
                body: mail.body,
                submitter: mail.submitter,
                id: mail.id,
                submission: mail.submission,
            })
            .await
            .map_err(|refused| LocalRefused { recipient: refused.recipient, reply: refused.reply })
    }
}
