//! How the server is, and what would happen to mail.

use pillarbox_smtp::Mailbox;
use serde::{Deserialize, Serialize};

/// `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// Version of the program that answers.
    pub version: String,
    /// Name in banner and EHLO.
    pub hostname: String,
    /// Whether the daemon runs; without it only the directory can be told about.
    pub running: bool,
    /// What it listens on.
    pub listeners: Vec<ListenerInfo>,
    /// The queue in three numbers.
    pub queue: QueueNumbers,
    /// Certificates served.
    pub certificates: Vec<CertificateInfo>,
    /// Free space where mail and state are kept.
    #[serde(default)]
    pub disks: Vec<DiskInfo>,
    /// What the daemon has shut itself in with.
    #[serde(default)]
    pub sandbox: SandboxInfo,
    /// Nothing below needs the operator now.
    pub healthy: bool,
    /// What does, one sentence each.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What is good to know and needs nobody now, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What holds of the daemon's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Landlock, for files: "full", "partial" (an older kernel) or "none".
    pub files: String,
    /// Seccomp, for system calls.
    pub calls: bool,
    /// Why something is missing.
    pub why: String,
}

/// One socket that is listened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerInfo {
    /// "smtp", "submission", "submissions", "lmtp", "http", "https" or "metrics".
    pub name: String,
    /// The address as bound, `127.0.0.1:2525` or `unix:/path`.
    pub address: String,
}

/// The queue in three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueNumbers {
    /// Messages with an unfinished recipient.
    pub messages: u64,
    /// Unfinished recipients.
    pub recipients: u64,
    /// Age of the oldest message, seconds.
    pub oldest_seconds: u64,
}

/// One certificate that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// Its first name.
    pub name: String,
    /// When it ends.
    pub not_after: String,
    /// Signed by itself: other servers may encrypt to it, none can verify it but by DANE.
    pub self_signed: bool,
    /// All names it is good for.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Free space of one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// The folder asked about.
    pub path: String,
    /// Octets free for the daemon.
    pub free_bytes: u64,
    /// Octets in all.
    pub total_bytes: u64,
}

/// `route`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The address asked about.
    pub address: Mailbox,
    /// What was looked up and found, in order, in words.
    pub steps: Vec<String>,
    /// Where it would end.
    #[serde(rename = "final")]
    pub ends: Vec<RouteEnd>,
}

/// One end of a route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum RouteEnd {
    /// Stored here.
    Mailbox {
        /// The user.
        address: Mailbox,
        /// Folder wished for by the detail.
        folder: Option<String>,
        /// "maildir" or the LMTP server.
        deliver_to: String,
    },
    /// Sent on.
    Relay {
        /// To whom.
        address: Mailbox,
        /// "mx" or the next hop that the configuration names.
        via: String,
    },
    /// Refused.
    Reject {
        /// The reply that RCPT would get.
        reply: String,
    },
}

/// What became of a wish to send TLS reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsSent {
    /// How many went out.
    pub sent: usize,
}

/// How one probe of `check` or one record of `dns check` came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Works, but could be better.
    Warn,
    /// To be mended.
    Fail,
}

/// One line of `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What was probed: "system.disk", "dns.mx".
    pub name: String,
    /// How it came out.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What to do, in one sentence; empty when ok.
    #[serde(default)]
    pub fix: String,
}

impl Probe {
    /// As it should be.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), grade: Grade::Ok, found: found.into(), fix: String::new() }
    }
    /// Works, but could be better.
    pub fn warn(name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), grade: Grade::Warn, found: found.into(), fix: fix.into() }
    }
    /// To be mended.
    pub fn fail(name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), grade: Grade::Fail, found: found.into(), fix: fix.into() }
    }
}

/// One line of `dns check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsLine {
    /// Owner name.
    pub name: String,
    /// "MX", "TXT", …
    #[serde(rename = "type")]
    pub kind: String,
    /// The right value.
    pub wanted: String,
    /// What is there.
    pub found: Vec<String>,
    /// "ok", "missing", "wrong" or "optional" (missing, but nothing needs it).
    pub state: String,
    /// What is wrong with it.
    #[serde(default)]
    pub why: String,
}
