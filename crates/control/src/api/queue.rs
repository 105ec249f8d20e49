//! The queue as the API shows it.

use pillarbox_queue::{Envelope, QueueId, Recipient, Status};
use pillarbox_smtp::Mailbox;
use serde::{Deserialize, Serialize};

use super::rfc3339;

/// `queue list`, `queue show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// The queue id.
    pub id: QueueId,
    /// Envelope sender; empty for reports.
    pub from: String,
    /// Octets of the message.
    pub size_bytes: u64,
    /// When it was accepted.
    pub received: String,
    /// The earliest next attempt of any recipient.
    pub next_attempt: Option<String>,
    /// Whether it waits for an operator.
    pub held: bool,
    /// Those it still has to reach and those it had.
    pub recipients: Vec<QueueRecipient>,
}

/// One recipient of a queued message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// Where it goes.
    pub address: Mailbox,
    /// "pending", "held", "delivered", "relayed", "failed" or "removed".
    pub status: Status,
    /// Attempts made.
    pub attempts: u32,
    /// The last reply in the remote's own words.
    pub last_reply: Option<String>,
    /// When the next attempt is due.
    #[serde(default)]
    pub next_attempt: Option<String>,
    /// The address that the sender wrote to, where an alias or a detail changed it.
    #[serde(default)]
    pub given: Option<Mailbox>,
}

impl From<&Envelope> for QueueEntry {
    fn from(envelope: &Envelope) -> Self {
        let open = || envelope.recipients.iter().filter(|r| !r.status.is_settled());
        let next = open().filter(|r| r.status == Status::Pending).filter_map(|r| r.next_attempt).min();
        Self {
            id: envelope.id,
            from: envelope.from.to_string(),
            size_bytes: envelope.size,
            received: rfc3339(envelope.received),
            next_attempt: next.or(envelope.hold_until).map(rfc3339),
            held: open().next().is_some() && open().all(|r| r.status == Status::Held),
            recipients: envelope.recipients.iter().map(QueueRecipient::from).collect(),
        }
    }
}

impl From<&Recipient> for QueueRecipient {
    fn from(recipient: &Recipient) -> Self {
        Self {
            address: recipient.address.clone(),
            status: recipient.status,
            attempts: recipient.attempts,
            last_reply: recipient.last_reply.as_ref().map(ToString::to_string),
            next_attempt: recipient.next_attempt.map(rfc3339),
            given: recipient.given.clone(),
        }
    }
}

/// `queue summary`: one line a destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueSummary {
    /// The destination as its deliverer calls it, such as `mx:example.net`.
    pub destination: String,
    /// Messages with an unfinished recipient there.
    pub messages: u64,
    /// Age of the oldest, seconds.
    pub oldest_seconds: u64,
    /// Deliveries under way.
    pub runs: u64,
    /// The earliest next attempt; `null`: now.
    pub next_attempt: Option<String>,
    /// Since when it cannot be reached as a whole.
    pub down_since: Option<String>,
    /// When it is asked again.
    pub next_probe: Option<String>,
    /// What it said last, when it is down.
    pub last_reply: Option<String>,
}

/// What `retry`, `hold`, `release` and `remove` did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct QueueDone {
    /// Messages it was done to.
    pub messages: u64,
}

/// `POST /v1/queue/hold`, `release`, `remove`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueIds {
    /// Which messages.
    pub ids: Vec<QueueId>,
}

/// `POST /v1/queue/retry`: these, or all mail to a domain, or all mail.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryMany {
    /// These.
    pub ids: Option<Vec<QueueId>>,
    /// All mail to this domain.
    pub to: Option<pillarbox_smtp::Domain>,
}

/// What `sendmail` and `deliver` hand over before the message itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalEnvelope {
    /// Envelope sender: an address, a bare local name, or empty for none.
    pub from: String,
    /// Recipients: addresses or bare local names.
    pub to: Vec<String>,
    /// RFC 3461 ENVID.
    pub envid: Option<String>,
    /// RFC 3461 NOTIFY, as written: `NEVER` or some of `SUCCESS,FAILURE,DELAY`.
    pub notify: Option<String>,
    /// RFC 3461 RET: `FULL` or `HDRS`.
    pub ret: Option<String>,
    /// Display name for a From field that has to be added.
    pub full_name: Option<String>,
    /// The local user who sends, as the system knows it; for Received.
    pub login: String,
    /// LDA mode (`pillarbox deliver`): the message is stored as it is, nothing is added for a missing Date, From or Message-ID, and only
    /// recipients of ours are taken.
    pub deliver: bool,
}

/// Answer to `POST /v1/submit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its id.
    pub id: QueueId,
    /// Recipients that were refused while others were taken, each with its reply; the sender is told by mail too.
    #[serde(default)]
    pub refused: Vec<String>,
}
