//! Mail handed in on this machine: `sendmail`, `pillarbox deliver`, and the drop folder for when no daemon runs.
//!
//! One form serves the control socket and the drop folder: a line of JSON ([`LocalEnvelope`](crate::api::LocalEnvelope)) and behind it the message with CRLF line ends.

mod accept;
mod addresses;
mod claim;
mod drop;
mod header;
mod notice;

use pillarbox_queue::{Body, QueueId};
use pillarbox_smtp::{MailParams, Mailbox, RcptParams, Reply, ReversePath, Severity};

pub use accept::{Accepted, accept};
pub use drop::{DROP_MODE, drop_folder, watch};

use crate::error::{ApiError, Kind};

/// A message with its envelope, from a program on this machine.
#[derive(Clone)]
pub struct LocalMail {
    /// Where reports go.
    pub from: ReversePath,
    /// To whom, with their DSN parameters.
    pub recipients: Vec<(Mailbox, RcptParams)>,
    /// RET, ENVID and the like.
    pub params: MailParams,
    /// The message, CRLF line ends.
    pub body: Body,
    /// Who hands it in: a system user's name.
    pub submitter: String,
    /// The id to take it under; a fresh one where there is none.
    pub id: Option<QueueId>,
    /// `false`: final delivery for another mail server (`pillarbox deliver`): only our own mailboxes are reachable, the message stays as it is.
    pub submission: bool,
}

/// A recipient or the whole message was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRefused {
    /// The recipient at fault; `None`: the message.
    pub recipient: Option<Mailbox>,
    /// Why.
    pub reply: Reply,
}

/// Takes responsibility for local mail, for all its recipients or none; the daemon answers by its rules for submission.
#[async_trait::async_trait]
pub trait LocalDoor: Send + Sync + 'static {
    /// Durable once it returns `Ok`.
    async fn take(&self, mail: LocalMail) -> Result<QueueId, LocalRefused>;
}

/// Why a local message was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LocalError {
    /// By the rules of mail.
    #[error("{}", refused_text(.0))]
    Refused(LocalRefused),
    /// It could not be read or stored.
    #[error(transparent)]
    Api(#[from] ApiError),
}

fn refused_text(refused: &LocalRefused) -> String {
    match &refused.recipient {
        Some(recipient) => format!("{recipient}: {}", refused.reply),
        None => refused.reply.to_string(),
    }
}

impl From<LocalError> for ApiError {
    /// `NotFound` for an unknown user (EX_NOUSER), `Unavailable` for a 4xx (EX_TEMPFAIL), else `Refused` (EX_NOPERM).
    fn from(error: LocalError) -> Self {
        let text = error.to_string();
        match error {
            LocalError::Api(api) => api,
            LocalError::Refused(refused) => {
                let status = refused.reply.status();
                let kind = match refused.reply.severity() {
                    Severity::Transient => Kind::Unavailable,
                    _ if (status.1, status.2) == (1, 1) => Kind::NotFound,
                    _ => Kind::Refused,
                };
                Self::new(kind, text)
            }
        }
    }
}
