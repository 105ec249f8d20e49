//! What the queue knows of a message besides its bytes: the envelope (RFC 5321 §2.3.1) and each recipient's fate.

use std::net::IpAddr;

use pillarbox_smtp::{BodyType, DeliverBy, Mailbox, Notify, OriginalRecipient, Reply, Ret, ReversePath};
use serde::{Deserialize, Serialize};

use crate::id::QueueId;

/// Milliseconds since the epoch, UTC. The queue stores no other form of time.
pub type UnixMillis = u64;

/// A message's envelope. Versioned JSON on disk: new fields have defaults, none changes its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Given out by [`crate::Queue::new_id`] before the body arrives, since `Received` names it.
    pub id: QueueId,
    /// Where reports go.
    pub from: ReversePath,
    /// Everyone this message still or ever had to reach.
    pub recipients: Vec<Recipient>,
    /// When responsibility was taken.
    pub received: UnixMillis,
    /// Octets of the stored body (header fields added at acceptance included).
    pub size: u64,
    /// What octets the body may hold.
    #[serde(default)]
    pub body: BodyType,
    /// The message needs SMTPUTF8 at the next hop.
    #[serde(default)]
    pub smtputf8: bool,
    /// RFC 8689.
    #[serde(default)]
    pub require_tls: bool,
    /// RFC 3461.
    #[serde(default)]
    pub ret: Option<Ret>,
    /// RFC 3461.
    #[serde(default)]
    pub envid: Option<String>,
    /// RFC 2852, seconds counted from `received`.
    #[serde(default)]
    pub by: Option<DeliverBy>,
    /// RFC 4865: no attempt before this time.
    #[serde(default)]
    pub hold_until: Option<UnixMillis>,
    /// RFC 6710, -9 to 9; 0 is ordinary.
    #[serde(default)]
    pub priority: i8,
    /// How it came.
    #[serde(default)]
    pub source: Source,
    /// Header fields (whole lines with CRLF) that stand before the body for forwarded recipients only, such as an ARC set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub forward_header: String,
    /// Judged to be junk: mailboxes file it in their junk folder, nothing forwards it.
    #[serde(default)]
    pub junk: bool,
}

impl Envelope {
    /// An envelope with nothing but the essentials; received at the epoch, size 0, for the caller to fill in.
    pub fn new(id: QueueId, from: ReversePath, recipients: Vec<Recipient>) -> Self {
        Self {
            id,
            from,
            recipients,
            received: 0,
            size: 0,
            body: BodyType::default(),
            smtputf8: false,
            require_tls: false,
            ret: None,
            envid: None,
            by: None,
            hold_until: None,
            priority: 0,
            source: Source::default(),
            forward_header: String::new(),
            junk: false,
        }
    }
}

impl Recipient {
    /// A recipient that nothing has happened to yet.
    pub fn new(address: Mailbox, route: Route) -> Self {
        Self {
            address,
            route,
            given: None,
            orcpt: None,
            notify: Notify::default(),
            reverse_path: None,
            status: Status::default(),
            attempts: 0,
            last_reply: None,
            next_attempt: None,
            delay_reported: false,
        }
    }
}

/// How a message came to us.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// By which door.
    pub door: Door,
    /// The client's address, where there was one.
    pub client: Option<IpAddr>,
    /// What it called itself.
    pub helo: String,
    /// Who had logged in.
    pub user: Option<Mailbox>,
}

/// The doors by which mail enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Port 25.
    #[default]
    Smtp,
    /// Ports 587 and 465.
    Submission,
    /// LMTP.
    Lmtp,
    /// `sendmail`, `pillarbox deliver`, the drop folder.
    Local,
    /// Made here: reports, vacation replies, notices. Never reported on.
    Internal,
}

/// One recipient after route resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipient {
    /// The final address: a mailbox of ours, or where a relay delivers.
    pub address: Mailbox,
    /// Which deliverer serves it, decided at RCPT.
    pub route: Route,
    /// The address given at RCPT, when aliases or details changed it.
    #[serde(default)]
    pub given: Option<Mailbox>,
    /// RFC 3461.
    #[serde(default)]
    pub orcpt: Option<OriginalRecipient>,
    /// RFC 3461.
    #[serde(default)]
    pub notify: Notify,
    /// Forwarding: the reverse path to use for this recipient instead of the envelope's (SRS).
    #[serde(default)]
    pub reverse_path: Option<ReversePath>,
    /// What has become of it.
    #[serde(default)]
    pub status: Status,
    /// Attempts made.
    #[serde(default)]
    pub attempts: u32,
    /// The last reply, in the remote's own words (or ours, for errors we found ourselves).
    #[serde(default)]
    pub last_reply: Option<Reply>,
    /// When the next attempt is due.
    #[serde(default)]
    pub next_attempt: Option<UnixMillis>,
    /// A delay report was sent.
    #[serde(default)]
    pub delay_reported: bool,
}

/// Which deliverer serves a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// A mailbox of ours; `folder` comes from the address's detail and is used only when it exists.
    Mailbox {
        /// Folder wished for, as in `user+folder@`.
        #[serde(default)]
        folder: Option<String>,
    },
    /// The world.
    Relay,
}

/// A recipient's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not yet tried, or to be tried again.
    #[default]
    Pending,
    /// Held by an operator.
    Held,
    /// Stored in a mailbox.
    Delivered,
    /// Taken over by another host.
    Relayed,
    /// Given up; a report was made where one is due.
    Failed,
    /// Removed by an operator.
    Removed,
}

impl Status {
    /// Whether nothing is left to do.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Held)
    }
}
