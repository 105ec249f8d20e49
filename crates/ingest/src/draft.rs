//! A message on its way in: the envelope as it grows, and the body as it arrives.

use std::collections::HashSet;
use std::time::Instant;

use pillarbox_queue::{BodyWriter, QueueId, Recipient};
use pillarbox_smtp::{MailParams, Mailbox, ReversePath};

/// What MAIL, RCPT and DATA have gathered so far. At most one a session.
pub(crate) struct Draft {
    /// Its id in the queue, fixed at MAIL so that every log line of the transaction has it.
    pub(crate) id: QueueId,
    /// Where reports go.
    pub(crate) from: ReversePath,
    /// What MAIL asked for.
    pub(crate) params: MailParams,
    /// Addresses as the client named them, one an accepted RCPT.
    pub(crate) given: Vec<Mailbox>,
    /// Where they lead, without repetitions.
    pub(crate) recipients: Vec<Recipient>,
    /// Keys of `recipients`.
    pub(crate) seen: HashSet<String>,
    /// The body, from DATA or the first BDAT on.
    pub(crate) body: Option<BodyWriter>,
    /// When it began to arrive.
    pub(crate) body_began: Option<Instant>,
    /// Writing the body failed; the message is refused at its end.
    pub(crate) body_failed: Option<std::io::Error>,
}

impl Draft {
    pub(crate) fn new(id: QueueId, from: ReversePath, params: MailParams) -> Self {
        Self {
            id,
            from,
            params,
            given: Vec::new(),
            recipients: Vec::new(),
            seen: HashSet::new(),
            body: None,
            body_began: None,
            body_failed: None,
        }
    }
}
