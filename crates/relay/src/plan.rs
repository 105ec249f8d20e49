//! What of a delivery a given session can carry, and in which transactions: sizes, 8-bit text, internationalised addresses, REQUIRETLS, DELIVERBY.
//!
//! Decided once per session, since each host offers something else. What cannot go gets its outcome here; the rest becomes
//! groups of recipients that share a reverse path and a message.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pillarbox_message::downgrade::{self, Hop, Unconvertible};
use pillarbox_message::header;
use pillarbox_queue::{Body, Delivery, Envelope, Outcome, Recipient};
use pillarbox_smtp::{BodyType, DeliverBy, MailParams, OriginalRecipient, RcptParams, Reply, ReversePath};

use crate::replies;
use crate::session::{Content, Rcpt, Session};

/// Recipients of one transaction (RFC 5321 §4.5.3.1.8: every server takes a hundred).
const MAX_RCPTS: usize = 100;
/// Messages larger than this are not held in memory to be converted for a host without 8BITMIME.
const MAX_CONVERTED: u64 = 64 * 1024 * 1024;

/// What a delivery asks for, apart from the way back to the queue.
pub(crate) struct Work {
    /// The envelope.
    pub(crate) envelope: Arc<Envelope>,
    /// Which of its recipients, a slot each.
    pub(crate) recipients: Vec<usize>,
    /// The message.
    pub(crate) body: Body,
}

impl From<&Delivery> for Work {
    fn from(delivery: &Delivery) -> Self {
        let Delivery { envelope, recipients, body, .. } = delivery;
        Self { envelope: envelope.clone(), recipients: recipients.clone(), body: body.clone() }
    }
}

impl Work {
    /// `TLS-Required: No` (RFC 8689 §5): the sender would rather have it delivered than protected. REQUIRETLS outweighs it.
    pub(crate) async fn is_lenient(&self) -> bool {
        if self.envelope.require_tls {
            return false;
        }
        let Ok(header) = self.body.header().await else { return false };
        header::first(&header, "TLS-Required").is_some_and(|field| field.text().trim().eq_ignore_ascii_case("no"))
    }
}

/// Recipients that share a reverse path and a message.
pub(crate) struct Group<'a> {
    /// MAIL FROM.
    pub(crate) from: &'a ReversePath,
    /// Forwarded: `forward_header` stands before the message.
    pub(crate) forwarded: bool,
    /// Which recipients of the delivery, and who they are.
    pub(crate) members: Vec<(usize, &'a Recipient)>,
}

/// A group's message and parameters, ready for a session.
pub(crate) struct Prepared {
    /// MAIL's parameters.
    pub(crate) mail: MailParams,
    /// The message.
    pub(crate) content: Content,
}

/// Groups the recipients in `slots` by reverse path and message.
pub(crate) fn groups<'a>(work: &'a Work, slots: &[usize]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for &slot in slots {
        let Some(recipient) = work.recipients.get(slot).and_then(|&index| work.envelope.recipients.get(index)) else { continue };
        let forwarded = recipient.reverse_path.is_some();
        let from = recipient.reverse_path.as_ref().unwrap_or(&work.envelope.from);
        match groups.iter_mut().find(|group| group.forwarded == forwarded && group.from == from) {
            Some(group) => group.members.push((slot, recipient)),
            None => groups.push(Group { from, forwarded, members: vec![(slot, recipient)] }),
        }
    }
    groups
}

/// How many recipients a transaction may have.
pub(crate) fn max_rcpts(session: &Session) -> usize {
    let announced = session.capabilities.limits.rcpt_max.and_then(|n| usize::try_from(n).ok());
    announced.unwrap_or(MAX_RCPTS).clamp(1, MAX_RCPTS)
}

/// Makes a group's message fit for a session. The error is the outcome for the whole group.
pub(crate) async fn prepare(session: &Session, work: &Work, group: &Group<'_>) -> Result<Prepared, Outcome> {
    let envelope = &*work.envelope;
    let (capabilities, host) = (&session.capabilities, session.label.as_str());
    let failed = |reply| Outcome::Failed { reply };
    let protected = session.security.local || (session.security.authenticated && capabilities.require_tls);
    if envelope.require_tls && !protected {
        return Err(failed(replies::require_tls(host)));
    }
    let by = deliver_by(envelope, session, unix_seconds()).map_err(failed)?;
    let body = match group.forwarded && !envelope.forward_header.is_empty() {
        true => work.body.prefixed(envelope.forward_header.clone()),
        false => work.body.clone(),
    };
    let from_needs = group.from.mailbox().is_some_and(|m| !m.is_ascii());
    let mut header_needs = false;
    if envelope.smtputf8 {
        if from_needs && !capabilities.smtputf8 {
            return Err(failed(replies::needs_smtputf8(host)));
        }
        header_needs = downgrade::needs_smtputf8(&work.body.header().await.map_err(unreadable)?);
    }
    let some_rcpt_needs = group.members.iter().any(|(_, r)| !r.address.is_ascii());
    let smtputf8 = capabilities.smtputf8 && (header_needs || from_needs || some_rcpt_needs);
    let (content, body_type) = content(session, envelope.body, &body, header_needs && !smtputf8).await?;
    if let Some(limit) = capabilities.max_size.filter(|&limit| content.len() > limit) {
        return Err(failed(replies::too_large(host, content.len(), limit)));
    }
    let mail = MailParams {
        size: Some(content.len()),
        body: body_type,
        smtputf8,
        require_tls: envelope.require_tls,
        ret: envelope.ret,
        envid: envelope.envid.clone(),
        auth: None,
        by,
        hold: None,
        priority: (envelope.priority != 0).then_some(envelope.priority),
    };
    Ok(Prepared { mail, content })
}

/// Whether one recipient can be given to this session at all.
pub(crate) fn admits(session: &Session, group: &Group<'_>, recipient: &Recipient) -> Result<(), Reply> {
    let ascii = recipient.address.is_ascii() && group.from.mailbox().is_none_or(|m| m.is_ascii());
    if ascii || session.capabilities.smtputf8 { Ok(()) } else { Err(replies::needs_smtputf8(&session.label)) }
}

/// A recipient's RCPT command.
pub(crate) fn rcpt<'a>(slot: usize, recipient: &'a Recipient) -> Rcpt<'a> {
    // RFC 3461 §5.2.1: whoever is to be reported on keeps the address that the sender knows.
    let original = || OriginalRecipient {
        address_type: if recipient.given.as_ref().unwrap_or(&recipient.address).is_ascii() { "rfc822" } else { "utf-8" }.into(),
        address: recipient.given.as_ref().unwrap_or(&recipient.address).to_string(),
    };
    let orcpt = recipient.orcpt.clone().or_else(|| recipient.notify.explicit.then(original));
    Rcpt { slot, to: &recipient.address, params: RcptParams { notify: recipient.notify, orcpt } }
}

/// The message in a form that the host takes, converted where it must be; `ascii_header` when it takes no UTF-8 in headers.
async fn content(session: &Session, holds: BodyType, body: &Body, ascii_header: bool) -> Result<(Content, BodyType), Outcome> {
    let (capabilities, host) = (&session.capabilities, session.label.as_str());
    let fits = match holds {
        BodyType::SevenBit => true,
        BodyType::EightBitMime => capabilities.eight_bit_mime,
        BodyType::BinaryMime => capabilities.binary_mime,
    };
    if fits && !ascii_header {
        let content = match holds {
            BodyType::BinaryMime => Content::Binary(body.clone()),
            _ => Content::lines(body).await.map_err(unreadable)?,
        };
        return Ok((content, holds));
    }
    if body.len() > MAX_CONVERTED {
        return Err(Outcome::Failed { reply: replies::cannot_convert(host, "it is too large") });
    }
    let bytes = body.bytes().await.map_err(unreadable)?;
    let hop = Hop { eight_bit: capabilities.eight_bit_mime, utf8_header: !ascii_header, short_lines: holds == BodyType::BinaryMime };
    let converted = tokio::task::spawn_blocking(move || match downgrade::convert(&bytes, hop) {
        Ok(Cow::Borrowed(_)) => Ok(bytes),
        Ok(Cow::Owned(converted)) => Ok(Bytes::from(converted)),
        Err(why) => Err(why),
    });
    match converted.await.map_err(|e| unreadable(e.into()))? {
        Ok(converted) => {
            let now = if hop.eight_bit && holds != BodyType::SevenBit { BodyType::EightBitMime } else { BodyType::SevenBit };
            Ok((Content::from_bytes(converted), now))
        }
        Err(Unconvertible::Address(_)) => Err(Outcome::Failed { reply: replies::needs_smtputf8(host) }),
        Err(why) => Err(Outcome::Failed { reply: replies::cannot_convert(host, &why.to_string()) }),
    }
}

fn unreadable(error: std::io::Error) -> Outcome {
    Outcome::Deferred { reply: replies::body_unreadable(&pillarbox_smtp::printable(error.to_string().as_bytes())) }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// BY= with the seconds that are left (RFC 2852 §4.1.4); `None` where there is nothing to pass on.
fn deliver_by(envelope: &Envelope, session: &Session, now: u64) -> Result<Option<DeliverBy>, Reply> {
    let Some(by) = envelope.by else { return Ok(None) };
    let gone = i64::try_from(now.saturating_sub(envelope.received / 1000)).unwrap_or(i64::MAX);
    let seconds = by.seconds.saturating_sub(gone);
    if !by.return_when_late {
        return Ok(Some(DeliverBy { seconds, ..by }));
    }
    if seconds <= 0 {
        return Err(replies::deliver_by_passed());
    }
    // Mode R: only to a host that promises to return the message when late, and that can be that quick.
    match session.capabilities.deliver_by {
        Some(least) if i64::try_from(least).unwrap_or(i64::MAX) <= seconds => Ok(Some(DeliverBy { seconds, ..by })),
        _ if session.security.local => Ok(None),
        _ => Err(replies::no_deliver_by(&session.label)),
    }
}
