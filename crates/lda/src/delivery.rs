//! Storing a batch of deliveries in Maildirs, on a thread that may block.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use pillarbox_directory::UserRecord;
use pillarbox_message::downgrade;
use pillarbox_queue::{Body, Delivery, Envelope, Outcome, Outcomes, Recipient, Route};
use pillarbox_smtp::{BodyType, EnhancedCode, Reply, ReversePath};
use rustix::io::Errno;

use crate::maildir::{
    Content, EarlierWork, FolderName, MailRoot, MaildirHandle, Missing, Place, StoreError, UniqueName, delivery_header, folder,
};
use crate::quota::{self, maildirsize::Account, warning};
use crate::settings::Settings;

/// Bodies up to this many octets are converted in memory, once for all their recipients; larger ones while they are copied.
const CONVERT_IN_MEMORY: u64 = 1024 * 1024;

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

/// Serves one batch. What it opens and lists is shared by the batch's messages.
pub(crate) struct Batch<'a> {
    root: &'a MailRoot,
    settings: &'a Settings,
    handles: HashMap<PathKey, Arc<MaildirHandle>>,
    listings: HashMap<PathBuf, EarlierWork>,
    buffer: Vec<u8>,
    now: SystemTime,
    vacations: Vec<Stored>,
}

/// User and folder.
type PathKey = (String, FolderName);

impl<'a> Batch<'a> {
    pub(crate) fn new(root: &'a MailRoot, settings: &'a Settings, now: SystemTime) -> Self {
        Self { root, settings, now, handles: HashMap::new(), listings: HashMap::new(), buffer: Vec::new(), vacations: Vec::new() }
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
        let open = || body.reader().map(|reader| reader as Box<dyn Read>);
        let binary = delivery.envelope.body == BodyType::BinaryMime;
        let content = if body.len() <= CONVERT_IN_MEMORY || binary {
            match whole(body, binary) {
                Ok(octets) => {
                    let sizes = Content::convert(&octets, &mut buffer);
                    Ok(Content::Memory { body: &buffer, sizes })
                }
                Err(error) => Err(error),
            }
        } else {
            Ok(Content::Stream(&open))
        };
        let mut seen: HashSet<PathKey> = HashSet::new();
        let mut each = Vec::with_capacity(plans.len());
        for (recipient, plan) in delivery.recipients().zip(plans) {
            let user = match plan {
                Plan::Done(outcome) => {
                    each.push(outcome);
                    continue;
                }
                Plan::Store(user) => user,
            };
            let result = match &content {
                Ok(content) => self.store(&delivery, recipient, &user, content, &mut seen),
                Err(unusable) => {
                    each.push(unusable.clone());
                    continue;
                }
            };
            each.push(match result {
                Ok(()) => {
                    if user.vacation.is_some() {
                        let (envelope, body) = (Arc::clone(&delivery.envelope), delivery.body.clone());
                        self.vacations.push(Stored { envelope, body, recipient: recipient.clone(), user });
                    }
                    Outcome::Delivered
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

    fn store(
        &mut self,
        delivery: &Delivery,
        recipient: &Recipient,
        user: &UserRecord,
        content: &Content<'_>,
        seen: &mut HashSet<PathKey>,
    ) -> Result<(), Refused> {
        let envelope = &delivery.envelope;
        let (folder, handle) = self.place(envelope, recipient)?;
        if !seen.insert((recipient.address.key(), folder.clone())) {
            // Two addresses of the envelope lead to one mailbox: one copy is enough.
            return Ok(());
        }
        let name = UniqueName::new(envelope.id, envelope.received, &recipient.address, wish(recipient), &self.settings.host);
        let from = recipient.reverse_path.as_ref().unwrap_or(&envelope.from);
        let head = delivery_header(from, &recipient.address);
        if delivery.replayed {
            // The folder may have come or gone since the earlier attempt.
            let inbox = self.handle(recipient, FolderName::Inbox, Missing::Create)?;
            for place in [Some(Arc::clone(&handle)), inbox].into_iter().flatten() {
                let listing = match self.listings.entry(place.path.clone()) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(fresh) => fresh.insert(EarlierWork::list(&place)?),
                };
                if listing.settle(&place, &name, &head, content)?.is_some() {
                    return Ok(());
                }
            }
        }
        let Some(inbox) = self.handle(recipient, FolderName::Inbox, Missing::Create)? else { return Ok(()) };
        let limit = quota::limit(self.settings, user);
        let mut account = Account::open(&inbox, limit, self.now);
        let size = match content {
            Content::Memory { sizes, .. } => sizes.stored,
            Content::Stream(_) => delivery.body.len(),
        };
        let before = match account.usage(size.saturating_add(head.len() as u64)) {
            Ok(before) => before,
            Err(error) => {
                // Not knowing how full a mailbox is, is no reason to keep its mail from it.
                tracing::warn!(to = %recipient.address, %error, "a mailbox's use could not be read");
                None
            }
        };
        if let (Some(limit), Some(before)) = (limit, before)
            && before.bytes.saturating_add(size).saturating_add(head.len() as u64) > limit
        {
            return Err(Refused::Full);
        }
        // Without anything to count, nobody needs to wait for anybody.
        let account = before.is_some().then_some(account);
        let stored = match handle.store(&name, &head, content, &Place::New, None) {
            // The directories were removed or replaced while they were open here: look again, once.
            Err(error) if matches!(error.raw(), Some(Errno::NOENT | Errno::STALE)) => {
                self.root.forget(&handle.path);
                self.handles.remove(&(recipient.address.key(), folder));
                let (_, handle) = self.place(envelope, recipient)?;
                handle.store(&name, &head, content, &Place::New, None)?
            }
            other => other?,
        };
        if let Some(mut account) = account {
            let after = before.map_or(0, |before| before.bytes).saturating_add(stored.sizes.stored);
            let counted = account.add(stored.sizes.stored, 1).and_then(|()| match (limit, before) {
                (Some(limit), Some(before)) => self.warn(&inbox, &mut account, envelope, recipient, limit, before.bytes, after),
                _ => Ok(()),
            });
            if let Err(error) = counted {
                tracing::warn!(to = %recipient.address, %error, "a mailbox's use could not be written or warned of");
            }
        }
        Ok(())
    }

    /// Tells the user, in the mailbox itself, that it is nearly full. Such a message always fits.
    #[expect(clippy::too_many_arguments, reason = "all of it is already at hand in the one place that calls this")]
    fn warn(
        &self,
        inbox: &MaildirHandle,
        account: &mut Account<'_>,
        envelope: &Envelope,
        recipient: &Recipient,
        limit: u64,
        before: u64,
        after: u64,
    ) -> Result<(), StoreError> {
        let Some(mark) = warning::crossed(limit, before, after) else { return Ok(()) };
        let message = warning::message(&self.settings.hostname, &recipient.address, after, limit, self.now);
        let mut body = Vec::new();
        let sizes = Content::convert(&message, &mut body);
        let name = UniqueName::new(envelope.id, envelope.received, &recipient.address, &format!("\0quota-{mark}"), &self.settings.host);
        let head = delivery_header(&ReversePath::Null, &recipient.address);
        let stored = inbox.store(&name, &head, &Content::Memory { body: &body, sizes }, &Place::New, None)?;
        account.add(stored.sizes.stored, 1)
    }

    /// Where the message goes: the junk folder, the folder that the address names if it exists, or the inbox.
    fn place(&mut self, envelope: &Envelope, recipient: &Recipient) -> Result<(FolderName, Arc<MaildirHandle>), StoreError> {
        if envelope.junk && self.settings.junk_folder != FolderName::Inbox {
            let junk = self.settings.junk_folder.clone();
            if let Some(handle) = self.handle(recipient, junk.clone(), Missing::Report)? {
                return Ok((junk, handle));
            }
            if let Some(handle) = self.handle(recipient, junk.clone(), Missing::Create)? {
                folder::mark(&handle)?;
                if let Some(inbox) = self.handle(recipient, FolderName::Inbox, Missing::Create)?
                    && let Err(error) = folder::subscribe(&inbox, &junk)
                {
                    tracing::warn!(to = %recipient.address, %error, "the junk folder could not be subscribed");
                }
                return Ok((junk, handle));
            }
        }
        if let Some(wished) = FolderName::new(wish(recipient)).filter(|wished| *wished != FolderName::Inbox)
            && let Some(handle) = self.handle(recipient, wished.clone(), Missing::Report)?
        {
            return Ok((wished, handle));
        }
        match self.handle(recipient, FolderName::Inbox, Missing::Create)? {
            Some(handle) => Ok((FolderName::Inbox, handle)),
            None => Err(StoreError::errno("opening", recipient.address.to_string(), Errno::NOENT)),
        }
    }

    fn handle(&mut self, recipient: &Recipient, folder: FolderName, missing: Missing) -> Result<Option<Arc<MaildirHandle>>, StoreError> {
        let key = (recipient.address.key(), folder);
        if let Some(handle) = self.handles.get(&key) {
            return Ok(Some(Arc::clone(handle)));
        }
        let opened = match &key.1 {
            FolderName::Inbox => self.root.inbox(&recipient.address, missing)?,
            FolderName::Named { file_name } => {
                // A folder is only ever made inside a mailbox that is one.
                if missing == Missing::Create {
                    self.root.inbox(&recipient.address, missing)?;
                }
                self.root.folder(&recipient.address, file_name, missing)?
            }
        };
        if let Some(handle) = &opened {
            self.handles.insert(key, Arc::clone(handle));
        }
        Ok(opened)
    }
}

/// The whole body, as lines: binary parts (RFC 3030) are encoded, since a Maildir has no way to keep them apart from line ends.
fn whole(body: &Body, binary: bool) -> Result<Bytes, Outcome> {
    let octets = match body.in_memory() {
        Some(octets) => octets,
        None => body.read_to_bytes().map_err(|error| {
            tracing::warn!(%error, "a queued message cannot be read");
            outcome(StoreError::Body(error).reply())
        })?,
    };
    if !binary {
        return Ok(octets);
    }
    match downgrade::convert(&octets, downgrade::Hop { eight_bit: true, utf8_header: true, short_lines: false }) {
        Ok(Cow::Borrowed(_)) => Ok(octets),
        Ok(Cow::Owned(lines)) => Ok(lines.into()),
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
