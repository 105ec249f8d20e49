//! Mail handed in on this machine: `sendmail`, `pillarbox deliver`, the drop folder.

use std::time::Instant;

use pillarbox_directory::{Resolved, resolve};
use pillarbox_message::trace::Protocol;
use pillarbox_queue::{Body, Door, QueueId};
use pillarbox_smtp::{MailParams, Mailbox, RcptParams, Reply, ReversePath, printable, replies};

use crate::draft::Draft;
use crate::intake::{Arrived, Changes, Origin};
use crate::routing;
use crate::service::Ingest;

/// A message with its envelope, from a program on this machine.
pub struct LocalMail {
    /// Where reports go.
    pub from: ReversePath,
    /// To whom, with their DSN parameters.
    pub recipients: Vec<(Mailbox, RcptParams)>,
    /// RET, ENVID and the like.
    pub params: MailParams,
    /// The message, CRLF line ends.
    pub body: Body,
    /// Who hands it in, for `Received` and the log: a system user's name.
    pub submitter: String,
    /// The id to take it under; a fresh one where there is none.
    pub id: Option<QueueId>,
    /// `false`: final delivery for another mail server (`pillarbox deliver`); the message is stored as it is, only our own
    /// mailboxes are reachable.
    pub submission: bool,
}

/// A recipient or the whole message was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The recipient at fault; `None`: the message.
    pub recipient: Option<Mailbox>,
    /// Why.
    pub reply: Reply,
}

impl Ingest {
    /// Takes responsibility for a local message, for all its recipients or none. Durable once it returns `Ok`.
    pub async fn take_local(&self, mail: LocalMail) -> Result<QueueId, Refused> {
        let settings = self.settings();
        let message = |reply: Reply| Refused { recipient: None, reply };
        self.rooms.queue.admission().map_err(|e| message(crate::commands::accept_reply(&e)))?;
        if mail.body.len() > settings.config.limits.message_size.bytes() {
            return Err(message(replies::message_too_large()));
        }
        let mut draft = Draft::new(mail.id.unwrap_or_else(|| self.rooms.queue.new_id()), mail.from, mail.params);
        draft.body_began = Some(Instant::now());
        let directory = self.rooms.directory.as_ref();
        let hold = settings.config.mailbox.suspended == "hold";
        for (given, params) in &mail.recipients {
            let refused = |reply: Reply| Refused { recipient: Some(given.clone()), reply };
            let away = |error: pillarbox_directory::DirectoryError| {
                tracing::error!(%error, "the directory did not answer a local submission");
                refused(replies::try_later())
            };
            let text = printable(given.to_string().as_bytes());
            let resolution = resolve(directory, &settings.policy, given).await.map_err(away)?;
            let held = if hold { routing::held(given, &resolution.suspended, params, &mut draft.seen) } else { Vec::new() };
            match resolution.outcome {
                Resolved::Deliver(targets) => {
                    let found = routing::recipients(directory, &settings.policy, given, targets, params, &draft.from, &mut draft.seen);
                    draft.recipients.extend(found.await.map_err(away)?);
                    draft.recipients.extend(held);
                }
                Resolved::Suspended if hold => draft.recipients.extend(held),
                Resolved::NotOurs if mail.submission => draft.recipients.extend(routing::relayed(given, params, &mut draft.seen)),
                Resolved::NotOurs => return Err(refused(replies::relay_denied(&text))),
                Resolved::Unknown => return Err(refused(replies::unknown_recipient(&text))),
                Resolved::Suspended => return Err(refused(replies::recipient_suspended(&text))),
                Resolved::Loop => return Err(refused(replies::alias_loop())),
                Resolved::TooMany => return Err(refused(replies::alias_too_wide())),
            }
            draft.given.push(given.clone());
        }
        let arrived = Arrived::new(&settings, mail.body).await.map_err(message)?;
        let origin = Origin {
            door: Door::Local,
            client: None,
            helo: mail.submitter,
            tls: None,
            user: None,
            user_name: String::new(),
            protocol: Protocol::Local,
        };
        let taken = if mail.submission {
            self.take_submission(&settings, &origin, &mut draft, arrived).await
        } else {
            self.take_in(&settings, &origin, &mut draft, arrived, Changes::default()).await
        };
        taken.map_err(message)
    }
}
