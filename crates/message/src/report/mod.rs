//! Delivery reports: multipart/report messages (RFC 3461, 3464, 6522; RFC 6533 where addresses need UTF-8).
//!
//! A report has three parts: plain English for the person, fields for programs, and what is returned of the message. The
//! null reverse path it must travel with is the envelope's business; so is not reporting on reports.

mod explain;
mod human;
mod machine;
mod returned;

use pillarbox_smtp::{EnhancedCode, Mailbox, OriginalRecipient, Reply, Ret};

use crate::date::{self, UnixMillis};
use crate::encode;
use crate::header;

pub use returned::Returned;

/// Up to this many octets a message is returned whole when the sender did not say (RET absent); above it, its header only.
pub const DEFAULT_FULL_LIMIT: usize = 64 << 10;

/// What happened to a recipient (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet delivered, still being tried.
    Delayed,
    /// Handed to a host that does not speak DSN: nothing more will be heard.
    Relayed,
    /// Handed to a list or alias whose members get no further reports.
    Expanded,
    /// In the mailbox.
    Delivered,
}

impl Action {
    /// The word of RFC 3464 §2.3.3.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
            Self::Delivered => "delivered",
        }
    }
}

/// One recipient's part of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportRecipient {
    /// Where delivery was attempted: `Final-Recipient`.
    pub address: Mailbox,
    /// The address the sender wrote, when an alias or a forwarding rule changed it; people are told this one first.
    pub given: Option<Mailbox>,
    /// ORCPT of RFC 3461 §4.2: `Original-Recipient`.
    pub original: Option<OriginalRecipient>,
    /// What happened.
    pub action: Action,
    /// RFC 3463; its class is made to agree with `action`.
    pub status: EnhancedCode,
    /// The last reply: the remote's own words when `remote` names a host, ours otherwise.
    pub reply: Option<Reply>,
    /// The host that gave `reply` or took the message, such as `mx.example.net`.
    pub remote: Option<String>,
    /// When it was last tried.
    pub last_attempt: Option<UnixMillis>,
    /// For [`Action::Delayed`]: when we shall give up.
    pub will_retry_until: Option<UnixMillis>,
    /// The id the remote gave it, when it told us (RFC 3464 §2.3.9).
    pub final_log_id: Option<String>,
}

impl ReportRecipient {
    /// A recipient with nothing known but what became of it.
    pub fn new(address: Mailbox, action: Action, status: EnhancedCode) -> Self {
        Self {
            address,
            given: None,
            original: None,
            action,
            status,
            reply: None,
            remote: None,
            last_attempt: None,
            will_retry_until: None,
            final_log_id: None,
        }
    }

    /// The status with the class that RFC 3464 §2.3.4 wants beside this action.
    pub fn consistent_status(&self) -> EnhancedCode {
        let EnhancedCode(_, subject, detail) = self.status;
        let class = match self.action {
            Action::Failed => 5,
            Action::Delayed => 4,
            Action::Relayed | Action::Expanded | Action::Delivered => 2,
        };
        // A 4.x.x that was retried until the queue's lifetime ended stays 4.x.x (RFC 3463 §2: persistent transient failure).
        if self.action == Action::Failed && self.status.0 == 4 {
            return self.status;
        }
        if self.status.0 == class {
            self.status
        } else {
            EnhancedCode(class, if class == 2 { 0 } else { subject }, if class == 2 { 0 } else { detail })
        }
    }
}

/// Everything a report is made of.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// Our name: `Reporting-MTA`, and the domain of Message-ID and From.
    pub hostname: &'a str,
    /// Who gets the report: the sender of the original.
    pub to: &'a Mailbox,
    /// The original's reverse path was used with SMTPUTF8, so the report may use RFC 6533's Unicode forms.
    pub smtputf8: bool,
    /// When the report is written.
    pub now: UnixMillis,
    /// Fresh random bits for Message-ID and boundary.
    pub random: u64,
    /// Our id of the original, told to people so that they can ask us about it.
    pub queue_id: &'a str,
    /// When we took responsibility for the original.
    pub arrival: UnixMillis,
    /// The host that gave us the original, as it named itself: `Received-From-MTA`. Left out when unknown or a logged-in user's machine.
    pub received_from: Option<&'a str>,
    /// ENVID of RFC 3461 §4.4, decoded from xtext.
    pub envid: Option<&'a str>,
    /// RET of RFC 3461 §4.3.
    pub ret: Option<Ret>,
    /// The original message, as far as the caller has it.
    pub original: Returned<'a>,
    /// Largest message to return whole; [`DEFAULT_FULL_LIMIT`] where the sender did not ask for FULL, more by the caller's choice.
    pub full_limit: usize,
    /// At least one recipient.
    pub recipients: &'a [ReportRecipient],
}

impl Report<'_> {
    /// The gravest action among the recipients decides what the report is called.
    pub fn gravest(&self) -> Action {
        self.recipients.iter().map(|r| r.action).min().unwrap_or(Action::Failed)
    }

    /// Whether anything was not delivered, for which alone RET=FULL holds (RFC 3461 §4.3).
    pub fn has_failure(&self) -> bool {
        self.recipients.iter().any(|r| r.action == Action::Failed)
    }
}

/// Builds the report: a whole message with CRLF line ends, to be queued with a null reverse path.
///
/// It needs 8BITMIME only when the returned message does, and SMTPUTF8 only when the sender's own address is not ASCII:
/// [`crate::downgrade::needs`] tells both.
pub fn build(report: &Report<'_>) -> Vec<u8> {
    let original_header = report.original.header();
    let boundary = encode::boundary(report.random);
    let mut out = Vec::with_capacity(4096 + report.original.octets().min(report.full_limit));

    encode::push_structured(&mut out, "Date", &date::rfc5322(report.now));
    encode::push_structured(&mut out, "From", &format!("Mail Delivery System <postmaster@{}>", report.hostname));
    encode::push_structured(&mut out, "To", &format!("<{}>", report.to));
    encode::push_unstructured(&mut out, "Subject", human::subject(report.gravest()));
    encode::push_structured(&mut out, "Message-ID", &encode::message_id(report.now, report.random, report.hostname));
    if let Some(id) = header::message_id(original_header) {
        encode::push_structured(&mut out, "In-Reply-To", &id);
        encode::push_structured(&mut out, "References", &id);
    }
    // RFC 3834 §5, so that no vacation program answers.
    encode::push_structured(&mut out, "Auto-Submitted", "auto-replied");
    encode::push_structured(&mut out, "MIME-Version", "1.0");
    let global = machine::is_global(report);
    let report_type = if global { "global-delivery-status" } else { "delivery-status" };
    encode::push_structured(&mut out, "Content-Type", &format!("multipart/report; report-type={report_type}; boundary=\"{boundary}\""));
    out.extend_from_slice(b"\r\nThis is a delivery report in MIME format.\r\n");

    part(&mut out, &boundary);
    human::push_part(&mut out, report);
    part(&mut out, &boundary);
    machine::push_part(&mut out, report, global);
    if !original_header.is_empty() {
        part(&mut out, &boundary);
        returned::push_part(&mut out, report);
    }
    out.extend_from_slice(b"\r\n--");
    out.extend_from_slice(boundary.as_bytes());
    out.extend_from_slice(b"--\r\n");
    out
}

/// A delimiter line.
fn part(out: &mut Vec<u8>, boundary: &str) {
    out.extend_from_slice(b"\r\n--");
    out.extend_from_slice(boundary.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
