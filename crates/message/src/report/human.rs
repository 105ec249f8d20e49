//! The first part of a report: what happened, to whom, the remote's exact words, what to do.

use super::{Action, Report, ReportRecipient, explain};
use crate::date;
use crate::encode;
use crate::header;

/// The subject line.
pub(super) fn subject(action: Action) -> &'static str {
    match action {
        Action::Failed => "Your message could not be delivered",
        Action::Delayed => "Your message is delayed",
        Action::Relayed => "Your message was passed on",
        Action::Expanded => "Your message was passed on to a list",
        Action::Delivered => "Your message was delivered",
    }
}

/// The paragraph over the recipients that share an action.
fn introduction(action: Action) -> &'static str {
    match action {
        Action::Failed => "Your message could not be delivered to:",
        Action::Delayed => {
            "Your message has not been delivered yet to the recipients below. You need not send it\r\n\
             again: we keep trying."
        }
        Action::Relayed => {
            "Your message was handed to another server that does not report deliveries. It took\r\n\
             responsibility for:"
        }
        Action::Expanded => "Your message was passed on to the members of:",
        Action::Delivered => "Your message was delivered to:",
    }
}

/// Writes the part: its header, a blank line, the text.
pub(super) fn push_part(out: &mut Vec<u8>, report: &Report<'_>) {
    let text = text(report);
    encode::push_structured(out, "Content-Description", "Notification");
    encode::push_text(out, text.as_bytes());
}

/// The text, CRLF line ends.
fn text(report: &Report<'_>) -> String {
    let mut text = format!("This is the mail server {}.\r\n", encode::one_line(report.hostname));
    for action in [Action::Failed, Action::Delayed, Action::Relayed, Action::Expanded, Action::Delivered] {
        let mut of_this_kind = report.recipients.iter().filter(|r| r.action == action).peekable();
        if of_this_kind.peek().is_some() {
            text.push_str("\r\n");
            text.push_str(introduction(action));
            text.push_str("\r\n");
        }
        for recipient in of_this_kind {
            text.push_str("\r\n");
            push_recipient(&mut text, report, recipient);
        }
    }
    push_message(&mut text, report);
    text
}

/// One recipient's paragraph.
fn push_recipient(text: &mut String, report: &Report<'_>, recipient: &ReportRecipient) {
    match &recipient.given {
        Some(given) if *given != recipient.address => text.push_str(&format!("  {given} (which leads to {})\r\n", recipient.address)),
        _ => text.push_str(&format!("  {}\r\n", recipient.address)),
    }
    let waiting = matches!(recipient.action, Action::Failed | Action::Delayed);
    if let Some(reply) = recipient.reply.as_ref().filter(|_| waiting) {
        match &recipient.remote {
            Some(remote) => text.push_str(&format!("    The server {} said:\r\n", encode::one_line(remote))),
            None => text.push_str("    The reason:\r\n"),
        }
        for line in &reply.lines {
            let code = if recipient.remote.is_some() {
                let enhanced = reply.enhanced.map(|e| format!("{e} ")).unwrap_or_default();
                format!("{} {enhanced}", reply.code)
            } else {
                String::new()
            };
            text.push_str(&format!("      {code}{}\r\n", encode::one_line(line).trim_end()));
        }
    } else if let Some(remote) = recipient.remote.as_ref().filter(|_| recipient.action == Action::Relayed) {
        text.push_str(&format!("    It was taken by {}.\r\n", encode::one_line(remote)));
    }
    match recipient.action {
        Action::Failed => {
            let tried = recipient.status.0 == 4;
            let waited = report.now.saturating_sub(report.arrival);
            if tried && waited > 0 {
                text.push_str(&format!("    We tried for {}.\r\n", span(waited)));
            }
            text.push_str("    ");
            text.push_str(explain::failure(recipient.consistent_status()));
            text.push_str("\r\n");
        }
        Action::Delayed => {
            if let Some(until) = recipient.will_retry_until {
                let left = until.saturating_sub(report.now);
                text.push_str(&format!("    We shall try until {} (another {}).\r\n", date::rfc5322(until), span(left)));
            }
        }
        Action::Relayed | Action::Expanded | Action::Delivered => {}
    }
}

/// Which message this is about.
fn push_message(text: &mut String, report: &Report<'_>) {
    text.push_str("\r\nThe message:\r\n");
    let original = report.original.header();
    for name in ["From", "To", "Subject", "Date"] {
        if let Some(value) = readable(original, name) {
            text.push_str(&format!("  {name}: {value}\r\n"));
        }
    }
    text.push_str(&format!("  Received here: {}\r\n", date::rfc5322(report.arrival)));
    text.push_str(&format!("  Our number for it: {}\r\n", encode::one_line(report.queue_id)));
}

/// A field of the original, decoded, cut at 200 characters.
fn readable(original: &[u8], name: &str) -> Option<String> {
    let value = header::decoded(original, name)?;
    match value.char_indices().nth(200) {
        Some((at, _)) => Some(format!("{}…", value.get(..at).unwrap_or_default())),
        None => Some(value),
    }
}

/// A span of time in the unit people would use.
fn span(millis: u64) -> String {
    let (amount, unit) = match millis / 1000 {
        s @ 0..=119 => (s, "second"),
        s @ 120..=7_199 => (s / 60, "minute"),
        s @ 7_200..=172_799 => (s / 3_600, "hour"),
        s => (s / 86_400, "day"),
    };
    format!("{amount} {unit}{}", if amount == 1 { "" } else { "s" })
}
