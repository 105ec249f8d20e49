//! The second part of a report: message/delivery-status (RFC 3464 §2), or message/global-delivery-status (RFC 6533 §4).

use pillarbox_smtp::Mailbox;

use super::{Action, Report, ReportRecipient};
use crate::date;
use crate::encode::{one_line, push_structured};

/// Whether the Unicode form is due: some address is not ASCII, and the sender is known to read such reports (RFC 6533 §3).
pub(super) fn is_global(report: &Report<'_>) -> bool {
    report.smtputf8
        && (!report.to.is_ascii()
            || report.recipients.iter().any(|r| !r.address.is_ascii() || r.original.as_ref().is_some_and(|o| !o.address.is_ascii())))
}

/// Writes the part: its header, a blank line, the fields.
pub(super) fn push_part(out: &mut Vec<u8>, report: &Report<'_>, global: bool) {
    let kind = if global { "message/global-delivery-status" } else { "message/delivery-status" };
    let mut fields = Vec::with_capacity(512);
    push_per_message(&mut fields, report);
    for recipient in report.recipients {
        fields.extend_from_slice(b"\r\n");
        push_per_recipient(&mut fields, recipient, global);
    }
    push_structured(out, "Content-Type", kind);
    push_structured(out, "Content-Description", "Delivery report");
    if !fields.is_ascii() {
        push_structured(out, "Content-Transfer-Encoding", "8bit");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&fields);
}

/// RFC 3464 §2.2.
fn push_per_message(out: &mut Vec<u8>, report: &Report<'_>) {
    if let Some(envid) = report.envid {
        push_structured(out, "Original-Envelope-Id", &ascii(envid));
    }
    push_structured(out, "Reporting-MTA", &format!("dns; {}", ascii(report.hostname)));
    if let Some(from) = report.received_from.filter(|f| !f.is_empty()) {
        push_structured(out, "Received-From-MTA", &format!("dns; {}", ascii(from)));
    }
    push_structured(out, "Arrival-Date", &date::rfc5322(report.arrival));
    push_structured(out, "X-Pillarbox-Queue-ID", &ascii(report.queue_id));
}

/// RFC 3464 §2.3.
fn push_per_recipient(out: &mut Vec<u8>, recipient: &ReportRecipient, global: bool) {
    if let Some(original) = &recipient.original {
        let kind: String = original.address_type.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let kind = if original.address.is_ascii() { kind } else { "utf-8".to_owned() };
        push_structured(out, "Original-Recipient", &format!("{kind}; {}", typed_text(&original.address, global)));
    }
    push_structured(out, "Final-Recipient", &typed(&recipient.address, global));
    push_structured(out, "Action", recipient.action.keyword());
    push_structured(out, "Status", &recipient.consistent_status().to_string());
    if let Some(remote) = &recipient.remote {
        push_structured(out, "Remote-MTA", &format!("dns; {}", ascii(remote)));
        // Diagnostic-Code is for a remote's words; our own reasons stand in the first part.
        if let Some(reply) = &recipient.reply {
            push_structured(out, "Diagnostic-Code", &format!("smtp; {}", diagnostic(&reply.to_string(), global)));
        }
    } else if let (Some(reply), Action::Failed | Action::Delayed) = (&recipient.reply, recipient.action) {
        push_structured(out, "Diagnostic-Code", &format!("X-Pillarbox; {}", diagnostic(&reply.lines.join(" / "), global)));
    }
    if let Some(at) = recipient.last_attempt {
        push_structured(out, "Last-Attempt-Date", &date::rfc5322(at));
    }
    if let Some(id) = &recipient.final_log_id {
        push_structured(out, "Final-Log-ID", &ascii(id));
    }
    if let (Some(at), Action::Delayed) = (recipient.will_retry_until, recipient.action) {
        push_structured(out, "Will-Retry-Until", &date::rfc5322(at));
    }
}

/// `rfc822; a@b`, or `utf-8; …` in the form that the report allows (RFC 6533 §3).
fn typed(mailbox: &Mailbox, global: bool) -> String {
    let kind = if mailbox.is_ascii() { "rfc822" } else { "utf-8" };
    format!("{kind}; {}", typed_text(&mailbox.to_string(), global))
}

/// utf-8-addr-unitext in a global report, utf-8-addr-xtext elsewhere: `\x{E9}` for a character that is not plain ASCII.
fn typed_text(address: &str, global: bool) -> String {
    let address = one_line(address);
    if address.is_ascii() || global {
        return address.into_owned();
    }
    address
        .chars()
        .map(|c| match c {
            '\\' | '+' | '=' => format!("\\x{{{:02X}}}", u32::from(c)),
            c if c.is_ascii() => c.to_string(),
            c => format!("\\x{{{:02X}}}", u32::from(c)),
        })
        .collect()
}

/// Text for a field of an ASCII-only part: control characters become spaces, anything beyond ASCII `?`.
fn ascii(text: &str) -> String {
    one_line(text).chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// A remote's words, cut to what fits a line with folds: no word of them is longer than 900 octets.
fn diagnostic(text: &str, global: bool) -> String {
    let cleaned = if global { one_line(text).into_owned() } else { ascii(text) };
    let short: String = cleaned.chars().take(2000).collect();
    short.split(' ').map(|word| word.chars().take(200).collect::<String>()).collect::<Vec<_>>().join(" ")
}
