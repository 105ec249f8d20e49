//! From a complete message to the queue: trace fields, fix-ups, signatures, the verdict's changes, and responsibility.

use bytes::Bytes;
use pillarbox_message::header::{self, SectionEnd};
use pillarbox_message::submission::{self, Submission};
use pillarbox_message::trace::{Protocol, Received};
use pillarbox_queue::{Body, Door, Envelope, QueueId, Source};
use pillarbox_smtp::{Domain, Hold, Mailbox, Reply, printable, replies};

use crate::commands::accept_reply;
use crate::draft::Draft;
use crate::service::{Ingest, Settings};

/// Messages up to this size are held in memory as a whole without asking; larger ones take their turn.
const SMALL: u64 = 256 * 1024;

/// Where a message came from, as far as its trace fields and its envelope are concerned.
pub(crate) struct Origin {
    pub(crate) door: Door,
    pub(crate) client: Option<std::net::IpAddr>,
    pub(crate) helo: String,
    /// Version and cipher.
    pub(crate) tls: Option<(&'static str, String)>,
    pub(crate) user: Option<Mailbox>,
    /// The user's name, for a `From` that is missing.
    pub(crate) user_name: String,
    pub(crate) protocol: Protocol,
}

/// What the screen wants changed, or nothing.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) verdict: Option<pillarbox_screen::Verdict>,
    /// An ARC set for copies that are forwarded.
    pub(crate) forward_header: String,
    pub(crate) junk: bool,
}

/// A message in hand: its body, and as much of it in memory as its making needs.
pub(crate) struct Arrived {
    pub(crate) body: Body,
    /// The whole message, where it is small or its turn has come; otherwise its header section.
    pub(crate) head: Bytes,
    /// `head` is the whole message.
    pub(crate) whole: bool,
    pub(crate) now: u64,
}

impl Arrived {
    /// Refuses loops and endless headers before anybody spends more on them.
    pub(crate) async fn new(settings: &Settings, body: Body) -> Result<Self, Reply> {
        let whole = body.len() <= SMALL;
        let head = if whole { body.bytes().await } else { body.header().await };
        let head = head.map_err(|error| {
            tracing::error!(%error, "a message could not be read back");
            replies::try_later()
        })?;
        let summary = header::summary(&head, header::Limits::default());
        if summary.received > settings.config.limits.hops {
            metrics::counter!("pillarbox_ingest_messages_refused_total", "why" => "loop").increment(1);
            return Err(replies::mail_loop());
        }
        if summary.end == SectionEnd::Limit {
            metrics::counter!("pillarbox_ingest_messages_refused_total", "why" => "header").increment(1);
            return Err(replies::header_too_large());
        }
        Ok(Self { body, head, whole, now: now_millis() })
    }

    /// Brings a large message into memory; the permit bounds how much of that happens at once.
    pub(crate) async fn load<'a>(&mut self, ingest: &'a Ingest) -> Result<Option<tokio::sync::SemaphorePermit<'a>>, Reply> {
        if self.whole {
            return Ok(None);
        }
        // A reload may have raised the largest size above what there is to share out; such a message then takes it all.
        let kib = u32::try_from(self.body.len() / 1024 + 1).unwrap_or(u32::MAX).min(ingest.large_permits);
        let permit = ingest.large_messages.acquire_many(kib).await.map_err(|_| replies::try_later())?;
        self.head = self.body.bytes().await.map_err(|error| {
            tracing::error!(%error, "a message could not be read back");
            replies::try_later()
        })?;
        self.whole = true;
        Ok(Some(permit))
    }

    /// A body of these pieces.
    pub(crate) async fn assembled(ingest: &Ingest, pieces: &[&[u8]]) -> Result<Body, Reply> {
        let mut writer = ingest.rooms.queue.body_writer();
        for piece in pieces {
            writer.write(piece).await.map_err(|e| body_error(&e))?;
        }
        writer.finish().await.map_err(|e| body_error(&e))
    }
}

impl Ingest {
    /// Takes responsibility for mail from outside: the verdict's changes below our `Received`.
    pub(crate) async fn take_in(
        &self,
        settings: &Settings,
        origin: &Origin,
        draft: &mut Draft,
        mut arrived: Arrived,
        changes: Changes,
    ) -> Result<QueueId, Reply> {
        let received = received(settings, origin, draft, arrived.now);
        let body = match &changes.verdict {
            None => arrived.body.prefixed(received),
            Some(verdict) if verdict.remove.is_empty() && verdict.header.is_none() && verdict.body.is_none() => {
                arrived.body.prefixed([received.into_bytes(), verdict.prepend.clone()].concat())
            }
            Some(verdict) => {
                let _permit = arrived.load(self).await?;
                let mut pieces = vec![received.as_bytes()];
                pieces.extend(verdict.pieces(&arrived.head));
                Arrived::assembled(self, &pieces).await?
            }
        };
        let message_id = header::message_id(&arrived.head).unwrap_or_default();
        let why = changes.verdict.as_ref().map(|v| v.why.join("; ")).unwrap_or_default();
        let envelope = envelope(origin, draft, &body, arrived.now, &changes);
        self.accept(envelope, body, origin, draft, &message_id, &why).await
    }

    /// Takes responsibility for mail from our own users: fix-ups (RFC 6409 §8), signatures, our `Received` above them.
    pub(crate) async fn take_submission(
        &self,
        settings: &Settings,
        origin: &Origin,
        draft: &mut Draft,
        mut arrived: Arrived,
    ) -> Result<QueueId, Reply> {
        let request = Submission {
            sender: &draft.from,
            user: origin.user.as_ref(),
            user_name: &origin.user_name,
            hostname: &settings.config.hostname,
            now: arrived.now,
            random: rand::random(),
            limits: header::Limits::default(),
        };
        let fixed = submission::fix_up(&arrived.head, &request).map_err(|refusal| refusal.reply())?;
        if let Some(user) = &origin.user {
            let named = if fixed.resent_from.is_empty() { &fixed.from } else { &fixed.resent_from };
            for address in named.iter().chain(fixed.sender.as_ref().filter(|_| fixed.resent_from.is_empty())) {
                self.check_ownership(user, address).await?;
            }
        }
        let received = received(settings, origin, draft, arrived.now);
        let sign_as = fixed.from.first().map(|from| from.domain.clone()).filter(|_| settings.config.submission.sign_dkim);
        let only_prepends = fixed.remove.is_empty() && fixed.blank_line_at.is_none();
        let needs_whole = sign_as.is_some() || !only_prepends;
        let _permit = if needs_whole { arrived.load(self).await? } else { None };
        let body = if needs_whole {
            let message = match fixed.is_unchanged() {
                true => arrived.head.clone(),
                false => Bytes::from(fixed.apply(&arrived.head)),
            };
            let signature = match sign_as {
                Some(domain) => self.signature(&domain, message.clone()).await?,
                None => Vec::new(),
            };
            Arrived::assembled(self, &[received.as_bytes(), &signature, &message]).await?
        } else {
            arrived.body.prefixed([received.as_bytes(), &fixed.prepend].concat())
        };
        let envelope = envelope(origin, draft, &body, arrived.now, &Changes::default());
        self.accept(envelope, body, origin, draft, &fixed.message_id, "").await
    }

    /// DKIM-Signature fields, or none for a domain that is not ours. Mail that should be signed and cannot be is not let out
    /// unsigned: with DMARC it would be refused elsewhere.
    async fn signature(&self, domain: &Domain, message: Bytes) -> Result<Vec<u8>, Reply> {
        match self.rooms.signer.sign(domain, message).await {
            Ok(signature) => Ok(signature.unwrap_or_default()),
            Err(error) => {
                metrics::counter!("pillarbox_ingest_signing_errors_total").increment(1);
                tracing::error!(%error, %domain, "a submitted message could not be signed");
                Err(replies::try_later())
            }
        }
    }

    /// 553 unless the user may send as this address (RFC 6409 §6.1).
    pub(crate) async fn check_ownership(&self, user: &Mailbox, address: &Mailbox) -> Result<(), Reply> {
        match pillarbox_directory::may_send_as(self.rooms.directory.as_ref(), user, address).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(replies::sender_not_owned(address)),
            Err(error) => {
                metrics::counter!("pillarbox_ingest_directory_errors_total").increment(1);
                tracing::error!(%error, "the directory did not answer a session");
                Err(replies::try_later())
            }
        }
    }

    /// A user who was resumed after RCPT and before the message was in the queue would wait for the next resumption.
    async fn resumed_meanwhile(&self, held: &[Mailbox]) {
        for user in held {
            // Without an answer it stays held, and `queue list` says why.
            if let Ok(Some(record)) = self.rooms.directory.user(user).await
                && !record.suspended
            {
                self.rooms.queue.resume(user).await;
            }
        }
    }

    async fn accept(
        &self,
        envelope: Envelope,
        body: Body,
        origin: &Origin,
        draft: &Draft,
        message_id: &str,
        why: &str,
    ) -> Result<QueueId, Reply> {
        let size = body.len();
        let priority = envelope.priority;
        let began = draft.body_began.map(|b| crate::connection::millis(b.elapsed())).unwrap_or(0);
        let held: Vec<Mailbox> = envelope.recipients.iter().filter(|r| r.waits_for_resumption()).map(|r| r.address.clone()).collect();
        match self.rooms.queue.take(envelope, body).await {
            Ok(taken) => {
                let id = taken.id();
                self.resumed_meanwhile(&held).await;
                metrics::counter!("pillarbox_ingest_messages_accepted_total").increment(1);
                tracing::info!(
                    target: "pillarbox::event",
                    event = "accept",
                    id = %id,
                    client = origin.client.map(tracing::field::display),
                    helo = origin.helo,
                    from = %draft.from,
                    to = %Addresses(&draft.given),
                    size,
                    message_id = printable(message_id.as_bytes()),
                    user = origin.user.as_ref().map(tracing::field::display),
                    tls = origin.tls.as_ref().map(|(version, cipher)| format!("{version} {cipher}")).unwrap_or_default(),
                    verdict = why,
                    priority = i64::from(priority),
                    delay_ms = began,
                );
                Ok(id)
            }
            Err(error) => {
                metrics::counter!("pillarbox_ingest_messages_refused_total", "why" => "queue").increment(1);
                tracing::error!(%error, "the queue did not take a message; the client was told to try again");
                Err(accept_reply(&error))
            }
        }
    }
}

/// Addresses with commas between them.
struct Addresses<'a>(&'a [Mailbox]);

impl std::fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if n > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

fn received(settings: &Settings, origin: &Origin, draft: &Draft, now: u64) -> String {
    let id = draft.id.to_string();
    let recipient = match draft.given.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    Received {
        helo: &origin.helo,
        client: origin.client,
        client_name: None,
        tls: origin.tls.as_ref().map(|(version, cipher)| (*version, cipher.as_str())),
        user: origin.user.as_ref(),
        by: &settings.config.hostname,
        with: origin.protocol,
        id: &id,
        recipient,
        at: now,
    }
    .field()
}

fn envelope(origin: &Origin, draft: &mut Draft, body: &Body, now: u64, changes: &Changes) -> Envelope {
    let params = &draft.params;
    Envelope {
        id: draft.id,
        from: draft.from.clone(),
        recipients: std::mem::take(&mut draft.recipients),
        received: now,
        size: body.len(),
        body: params.body,
        smtputf8: params.smtputf8,
        require_tls: params.require_tls,
        ret: params.ret,
        envid: params.envid.clone(),
        by: params.by,
        hold_until: params.hold.map(|hold| match hold {
            Hold::For(seconds) => now.saturating_add(seconds.saturating_mul(1000)),
            Hold::Until(at) => at.saturating_mul(1000),
        }),
        priority: params.priority.unwrap_or(0),
        source: Source { door: origin.door, client: origin.client, helo: origin.helo.clone(), user: origin.user.clone() },
        forward_header: changes.forward_header.clone(),
        junk: changes.junk,
    }
}

pub(crate) fn body_error(error: &std::io::Error) -> Reply {
    tracing::error!(%error, "a message body could not be written");
    if pillarbox_queue::is_full(error) { replies::disk_full() } else { replies::try_later() }
}

pub(crate) fn now_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
        .unwrap_or(0)
}
