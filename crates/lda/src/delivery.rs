//! Storing a batch of deliveries in Maildirs, on a thread that may block.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use pillarbox_directory::UserRecord;
use pillarbox_message::downgrade;
use pillarbox_queue::{Body, Delivery, Envelope, Outcome, Outcomes, Recipient, Route};
use pillarbox_smtp::{BodyType, EnhancedCode, Reply, ReversePath};
use rustix::io::Errno;

use crate::folders::Folders;
use crate::maildir::{
    self, Content, Durability, EarlierWork, FolderName, MailRoot, MaildirHandle, Manner, Sizes, StoreError, UniqueName, delivery_header,
};
use crate::quota;
use crate::quota::maildirsize::Account;
use crate::quota::warning::{self, Crossing};
use crate::settings::Settings;

/// Bodies up to this many octets are converted in memory, once for all their recipients; larger ones while they are copied.
const CONVERT_FOR_SEVERAL: u64 = 4 * 1024 * 1024;
/// With one recipient nothing is gained by that, but for one write instead of two.
const CONVERT_FOR_ONE: u64 = 128 * 1024;

/// What is to be done for one recipient.
pub(crate) enum Plan {
    /// Store into this user's mailbox.
    Store(Arc<UserRecord>),
    /// Decided already.
    Done(Outcome),
}

/// A delivery with a plan for each of its recipients.
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    /// In the order of `delivery.recipients`.
    pub(crate) plans: Vec<Plan>,
}

/// What a vacation reply is decided on.
pub(crate) struct Stored {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) body: Body,
    pub(crate) recipient: Recipient,
    pub(crate) user: Arc<UserRecord>,
}

/// Why a mailbox did not take a message.
enum Refused {
    Full,
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One recipient's part of a delivery.
#[derive(Clone, Copy)]
struct Task<'a, 'c> {
    delivery: &'a Delivery,
    recipient: &'a Recipient,
    user: &'a UserRecord,
    content: &'a Content<'c>,
}

/// Serves one batch. What it opens and lists is shared by the batch's messages.
pub(crate) struct Batch<'a> {
    root: &'a MailRoot,
    settings: &'a Settings,
    /// By folded address.
    users: HashMap<String, Folders<'a>>,
    listings: HashMap<PathBuf, EarlierWork>,
    buffer: Vec<u8>,
    now: SystemTime,
    vacations: Vec<Stored>,
    durability: Durability,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(root: &'a MailRoot, settings: &'a Settings, now: SystemTime, durability: Durability) -> Self {
        let (users, listings, buffer, vacations) = Default::default();
        Self { root, settings, now, users, listings, buffer, vacations, durability }
    }

    /// The messages stored for users who have a vacation text.
    pub(crate) fn into_vacations(self) -> Vec<Stored> {
        self.vacations
    }

    /// Stores one message for its recipients and reports each.
    pub(crate) fn serve(&mut self, job: Job) {
        let Job { delivery, plans } = job;
        let mut buffer = std::mem::take(&mut self.buffer);
        let body = &delivery.body;
        let open = || body.reader().map(|reader| reader as Box<dyn BufRead>);
        let several = plans.len() > 1;
        let binary = delivery.envelope.body == BodyType::BinaryMime;
        let most = if several { CONVERT_FOR_SEVERAL } else { CONVERT_FOR_ONE };
        let content = if body.len() <= most || binary {
            converted(body, binary, &mut buffer).map(|sizes| Content::Memory { body: &buffer, sizes })
        } else {
            Ok(Content::Stream(&open))
        };
        let mut served: HashMap<PathBuf, Outcome> = HashMap::new();
        let mut each = Vec::with_capacity(plans.len());
        for (recipient, plan) in delivery.recipients().zip(plans) {
            let (user, content) = match (plan, &content) {
                (Plan::Store(user), Ok(content)) => (user, content),
                (Plan::Done(outcome), _) => {
                    each.push(outcome);
                    continue;
                }
                (_, Err(unusable)) => {
                    each.push(unusable.clone());
                    continue;
                }
            };
            let key = recipient.address.key();
            let mut folders = self.users.remove(&key).unwrap_or_else(|| Folders::new(self.root, recipient.address.clone()));
            let result = folders.place(self.junk(&delivery.envelope), wish(recipient)).map_err(Refused::from).and_then(|handle| {
                if several && let Some(outcome) = served.get(&handle.path) {
                    // Two addresses of the envelope lead to one folder: one copy is enough.
                    return Ok((None, outcome.clone()));
                }
                let task = Task { delivery: &delivery, recipient, user: &user, content };
                let path = several.then(|| handle.path.clone());
                self.store(&task, &mut folders, handle).map(|()| (path, Outcome::Delivered))
            });
            self.users.insert(key, folders);
            each.push(match result {
                Ok((path, outcome)) => {
                    if let Some(path) = path {
                        served.insert(path, outcome.clone());
                    }
                    if user.vacation.is_some() && outcome == Outcome::Delivered {
                        let (envelope, body) = (Arc::clone(&delivery.envelope), delivery.body.clone());
                        self.vacations.push(Stored { envelope, body, recipient: recipient.clone(), user });
                    }
                    outcome
                }
                Err(Refused::Full) => outcome(quota::over_quota(self.settings)),
                Err(Refused::Store(error)) => {
                    tracing::warn!(id = %delivery.envelope.id, to = %recipient.address, %error, "a message could not be stored");
                    outcome(error.reply())
                }
            });
        }
        self.buffer = buffer;
        delivery.finish(Outcomes { each, relay: "maildir".into(), tls: String::new() });
    }

    fn junk(&self, envelope: &Envelope) -> Option<&'a FolderName> {
        envelope.junk.then_some(&self.settings.junk_folder)
    }

    /// Stores a message for one recipient into `handle`, unless an earlier attempt did.
    fn store(&mut self, task: &Task<'_, '_>, folders: &mut Folders<'_>, handle: Arc<MaildirHandle>) -> Result<(), Refused> {
        let Task { delivery, recipient, user, content } = *task;
        let envelope = &delivery.envelope;
        let name = UniqueName::new(envelope.id, envelope.received, &recipient.address, wish(recipient), &self.settings.host);
        let from = recipient.reverse_path.as_ref().unwrap_or(&envelope.from);
        let head = delivery_header(from, &recipient.address);
        let inbox = folders.inbox()?;
        if delivery.replayed {
            // The folder may have come or gone since the earlier attempt, so the inbox is searched too.
            let places = if Arc::ptr_eq(&handle, &inbox) { vec![&handle] } else { vec![&handle, &inbox] };
            for place in places {
                let listing = match self.listings.entry(place.path.clone()) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(fresh) => fresh.insert(EarlierWork::list(place)?),
                };
                if listing.settle(place, &name, &head, content)?.is_some() {
                    metrics::counter!("pillarbox_lda_found_stored_total").increment(1);
                    return Ok(());
                }
            }
        }
        let limit = quota::limit(self.settings, user.quota);
        let size = match content {
            Content::Memory { sizes, .. } => sizes.stored,
            Content::Stream(_) => delivery.body.len(),
        }
        .saturating_add(head.len() as u64);
        let mut account = None;
        if limit.is_some() || !folders.uncounted {
            let mut open = Account::open(&inbox, limit, self.now);
            match open.usage(size) {
                Ok(Some(before)) => account = Some((open, before)),
                Ok(None) => folders.uncounted = true,
                // Not knowing how full a mailbox is, is no reason to keep its mail from it.
                Err(error) => tracing::warn!(to = %recipient.address, %error, "a mailbox's use could not be read"),
            }
        }
        if let (Some(limit), Some((_, before))) = (limit, &account)
            && before.bytes.saturating_add(size) > limit
        {
            metrics::counter!("pillarbox_lda_over_quota_total").increment(1);
            return Err(Refused::Full);
        }
        let stored = match self.put(&handle, &name, &head, content) {
            // The directories were removed or replaced while they were open here: look again, once.
            Err(error) if matches!(error.raw(), Some(Errno::NOENT | Errno::STALE)) => {
                folders.reopen();
                let handle = folders.place(self.junk(envelope), wish(recipient))?;
                self.put(&handle, &name, &head, content)?
            }
            other => other?,
        };
        metrics::counter!("pillarbox_lda_stored_total").increment(1);
        metrics::counter!("pillarbox_lda_stored_octets_total").increment(stored.sizes.stored);
        if let Some((mut account, before)) = account {
            let counted = account.add(stored.sizes.stored, 1).and_then(|()| match limit {
                Some(limit) => {
                    let after = before.bytes.saturating_add(stored.sizes.stored);
                    self.warn(task, &inbox, &mut account, Crossing { limit, before: before.bytes, after })
                }
                None => Ok(()),
            });
            if let Err(error) = counted {
                tracing::warn!(to = %recipient.address, %error, "a mailbox's use could not be written or warned of");
            }
        }
        Ok(())
    }

    fn put(&self, handle: &MaildirHandle, name: &UniqueName, head: &[u8], content: &Content<'_>) -> Result<maildir::Stored, StoreError> {
        if self.durability == Durability::ByItself {
            self.root.make_way_durable(handle)?;
        }
        handle.store(name, head, content, &Manner { durability: self.durability, ..Manner::default() })
    }

    /// Tells the user, in the mailbox itself, that it is nearly full. Such a message always fits.
    fn warn(&self, task: &Task<'_, '_>, inbox: &MaildirHandle, account: &mut Account<'_>, crossing: Crossing) -> Result<(), StoreError> {
        let Some(mark) = crossing.mark() else { return Ok(()) };
        let (envelope, to) = (&task.delivery.envelope, &task.recipient.address);
        let message = warning::message(&self.settings.hostname, to, crossing, self.now);
        let mut body = Vec::new();
        let failed = |source| StoreError::Io { doing: "converting", what: "a warning".into(), source };
        let sizes = Content::convert(&mut &message[..], &mut body).map_err(failed)?;
        let name = UniqueName::new(envelope.id, envelope.received, to, &format!("\0quota-{mark}"), &self.settings.host);
        let head = delivery_header(&ReversePath::Null, to);
        let stored = self.put(inbox, &name, &head, &Content::Memory { body: &body, sizes })?;
        account.add(stored.sizes.stored, 1)
    }
}

/// Brings the whole body into `out` as a mailbox stores it. Binary parts (RFC 3030) are encoded, since a Maildir has no way to keep them apart
/// from line ends.
fn converted(body: &Body, binary: bool, out: &mut Vec<u8>) -> Result<Sizes, Outcome> {
    let unreadable = |error| {
        tracing::warn!(%error, "a queued message cannot be read");
        outcome(StoreError::Body(error).reply())
    };
    if !binary {
        return body.reader().and_then(|mut reader| Content::convert(&mut *reader, out)).map_err(unreadable);
    }
    let octets = body.read_to_bytes().map_err(unreadable)?;
    match downgrade::convert(&octets, downgrade::Hop { eight_bit: true, utf8_header: true, short_lines: false }) {
        Ok(lines) => Content::convert(&mut &lines[..], out).map_err(unreadable),
        Err(why) => {
            let text = format!("The mailbox cannot keep this binary message: {why}");
            Err(Outcome::Failed { reply: Reply::new(554, EnhancedCode(5, 6, 3), text) })
        }
    }
}

/// The folder that the address asks for, as in `user+folder@`.
fn wish(recipient: &Recipient) -> &str {
    match &recipient.route {
        Route::Mailbox { folder } => folder.as_deref().unwrap_or(""),
        Route::Relay => "",
    }
}

/// A refusal as an outcome: for now, unless its reply says for ever.
fn outcome(reply: Reply) -> Outcome {
    match reply.code {
        500.. => Outcome::Failed { reply },
        _ => Outcome::Deferred { reply },
    }
}
