//! From the two-part stream to the local door.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use pillarbox_message::header;
use pillarbox_queue::{Body, QueueId};
use pillarbox_smtp::{MailParams, Notify, OriginalRecipient, RcptParams, Ret, Severity};

use super::addresses::Qualifier;
use super::header::mend;
use super::{LocalDoor, LocalError, LocalMail, LocalRefused};
use crate::admin::Admin;
use crate::api::LocalEnvelope;
use crate::error::ApiError;

/// Longest envelope line, octets.
const ENVELOPE: usize = 1 << 20;
/// Longest header section that is mended, octets; a longer one goes on as it is.
const HEADER: usize = 1 << 20;
/// Longest wait for the next piece of the message.
const PIECE: Duration = Duration::from_secs(60);

/// What became of a message that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Its id.
    pub id: QueueId,
    /// Recipients that were refused for good while others were taken; the sender is told of them by mail.
    pub refused: Vec<LocalRefused>,
}

/// Reads envelope and message from `stream` and hands them over. Whose file it is, where that is known, replaces who the envelope claims to come from;
/// the message is taken under the id beside it.
///
/// # Errors
/// When nothing was taken: the message makes no sense, every recipient is refused, or it cannot be stored now.
pub async fn accept<S, E>(admin: &Admin, stream: S, owner: Option<(String, QueueId)>) -> Result<Accepted, LocalError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let mut stream = std::pin::pin!(stream);
    let mut buffer = BytesMut::new();
    let envelope = envelope(&mut stream, &mut buffer).await?;
    let body = Received { stream, buffer };
    take(admin, envelope, body, owner).await
}

/// The rest of the stream, of which `buffer` was read already.
struct Received<S> {
    stream: S,
    buffer: BytesMut,
}

async fn envelope<S, E>(stream: &mut S, buffer: &mut BytesMut) -> Result<LocalEnvelope, LocalError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    loop {
        if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line = buffer.split_to(end + 1);
            let bad =
                |e: serde_json::Error| ApiError::usage(format!("the envelope: {}", pillarbox_smtp::printable(e.to_string().as_bytes())));
            return Ok(serde_json::from_slice(&line).map_err(bad)?);
        }
        if buffer.len() > ENVELOPE {
            return Err(ApiError::usage(format!("the envelope is longer than {ENVELOPE} octets")).into());
        }
        match next(stream).await? {
            Some(chunk) => buffer.extend_from_slice(&chunk),
            None => return Err(ApiError::usage("the envelope is missing: a line of JSON comes before the message").into()),
        }
    }
}

async fn take<S, E>(
    admin: &Admin,
    envelope: LocalEnvelope,
    mut received: Received<S>,
    owner: Option<(String, QueueId)>,
) -> Result<Accepted, LocalError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    let door = admin.local_door()?;
    let (config, directory) = (admin.config(), admin.directory.as_ref());
    let qualifier = Qualifier::new(&config, directory).await?;
    let no_address = |text: &str| ApiError::usage(format!("{} is no address", pillarbox_smtp::printable(text.as_bytes())));
    let from = qualifier.sender(&envelope.from).ok_or_else(|| no_address(&envelope.from))?;
    let notify = notify(envelope.notify.as_deref())?;
    let mut recipients = Vec::with_capacity(envelope.to.len());
    for text in &envelope.to {
        let mailbox = qualifier.recipient(text, &config, directory).await.map_err(ApiError::from)?.ok_or_else(|| no_address(text))?;
        let orcpt = notify.explicit.then(|| OriginalRecipient { address_type: "rfc822".into(), address: mailbox.to_string() });
        recipients.push((mailbox, RcptParams { notify, orcpt }));
    }
    if recipients.is_empty() {
        return Err(ApiError::usage("no recipient was named").into());
    }
    let params = MailParams { ret: ret(envelope.ret.as_deref())?, envid: envelope.envid, ..MailParams::default() };
    let limit = config.limits.message_size.bytes();
    let mut writer = admin.queue()?.body_writer();
    if !envelope.deliver {
        let head = head(&mut received).await?;
        let mended = mend(&head, &qualifier, &from, envelope.full_name.as_deref());
        writer.write(&mended).await.map_err(|e| stored(&e))?;
    }
    let rest = received.buffer.split().freeze();
    writer.write_bytes(rest).await.map_err(|e| stored(&e))?;
    while let Some(chunk) = next(&mut received.stream).await? {
        writer.write_bytes(chunk).await.map_err(|e| stored(&e))?;
        if writer.len() > limit {
            return Err(
                ApiError::refused(format!("the message is larger than limits.message_size ({})", config.limits.message_size)).into()
            );
        }
    }
    let body: Body = writer.finish().await.map_err(|e| stored(&e))?;
    let (submitter, id) = owner.map_or((envelope.login, None), |(submitter, id)| (submitter, Some(id)));
    let mail = LocalMail { from, recipients, params, body, submitter, id, submission: !envelope.deliver };
    let accepted = hand_over(door.as_ref(), mail.clone()).await?;
    if !accepted.refused.is_empty() {
        // The message is ours whatever becomes of this: an error would have it sent again.
        if let Err(error) = super::notice::tell_sender(admin, &mail, &accepted.refused).await {
            tracing::error!(id = %accepted.id, %error, "the sender of a local message could not be told of the recipients that were refused");
        }
    }
    Ok(accepted)
}

/// A program that sends to many must not fail for one: recipients that are refused for good are left out and told about. The first of them is
/// the answer when nobody is left.
async fn hand_over(door: &dyn LocalDoor, mut mail: LocalMail) -> Result<Accepted, LocalError> {
    let mut refused: Vec<LocalRefused> = Vec::new();
    loop {
        let why = match door.take(mail.clone()).await {
            Ok(id) => return Ok(Accepted { id, refused }),
            Err(why) => why,
        };
        let before = mail.recipients.len();
        if let (Severity::Permanent, Some(recipient)) = (why.reply.severity(), &why.recipient) {
            mail.recipients.retain(|(mailbox, _)| !mailbox.same_as(recipient));
        }
        // Not one recipient's fault, or one that cannot be found: then it is the message's.
        if mail.recipients.len() == before {
            return Err(LocalError::Refused(why));
        }
        refused.push(why);
        if mail.recipients.is_empty() {
            return Err(LocalError::Refused(refused.swap_remove(0)));
        }
    }
}

/// Splits the header section off, its blank line included. An endless one is given back empty and goes on unmended.
async fn head<S, E>(received: &mut Received<S>) -> Result<Bytes, LocalError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    loop {
        let split = header::split(&received.buffer);
        if split.body < received.buffer.len() || split.body > split.header {
            return Ok(received.buffer.split_to(split.body).freeze());
        }
        if received.buffer.len() > HEADER {
            return Ok(Bytes::new());
        }
        match next(&mut received.stream).await? {
            Some(chunk) => received.buffer.extend_from_slice(&chunk),
            None => return Ok(received.buffer.split().freeze()),
        }
    }
}

/// The next piece, within bounds of time; `None` at the end.
async fn next<S, E>(stream: &mut S) -> Result<Option<Bytes>, LocalError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    match tokio::time::timeout(PIECE, stream.next()).await {
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(error))) => Err(broken(&error)),
        Ok(None) => Ok(None),
        Err(_) => Err(ApiError::usage(format!("the message broke off: nothing came for {} s", PIECE.as_secs())).into()),
    }
}

fn broken(error: &dyn std::fmt::Display) -> LocalError {
    ApiError::usage(format!("the message broke off: {}", pillarbox_smtp::printable(error.to_string().as_bytes()))).into()
}

fn stored(error: &std::io::Error) -> LocalError {
    ApiError::unavailable(format!("the message cannot be stored: {error}")).into()
}

/// RFC 3461 §4.1: `NEVER`, or some of SUCCESS, FAILURE, DELAY.
fn notify(text: Option<&str>) -> Result<Notify, ApiError> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Notify::default()) };
    let mut notify = Notify::NEVER;
    let words: Vec<String> = text.split(',').map(|w| w.trim().to_ascii_lowercase()).collect();
    for word in &words {
        match word.as_str() {
            "never" if words.len() == 1 => return Ok(Notify::NEVER),
            "success" => notify.success = true,
            "failure" => notify.failure = true,
            "delay" => notify.delay = true,
            _ => return Err(ApiError::usage("NOTIFY is \"never\", or some of \"success,failure,delay\"")),
        }
    }
    Ok(notify)
}

/// RFC 3461 §4.3.
fn ret(text: Option<&str>) -> Result<Option<Ret>, ApiError> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("") => Ok(None),
        Some("full") => Ok(Some(Ret::Full)),
        Some("hdrs") => Ok(Some(Ret::Hdrs)),
        Some(_) => Err(ApiError::usage("RET is \"full\" or \"hdrs\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses `bad…` for good and `later…` for now.
    struct Picky;

    #[async_trait::async_trait]
    impl LocalDoor for Picky {
        async fn take(&self, mail: LocalMail) -> Result<QueueId, LocalRefused> {
            for (recipient, _) in &mail.recipients {
                let code = match recipient.local.as_str() {
                    name if name.starts_with("bad") => 550,
                    name if name.starts_with("later") => 450,
                    _ => continue,
                };
                let reply = pillarbox_smtp::Reply::new(code, pillarbox_smtp::EnhancedCode(u8::try_from(code / 100).unwrap(), 1, 1), "no");
                return Err(LocalRefused { recipient: Some(recipient.clone()), reply });
            }
            Ok(QueueId(mail.recipients.len() as u64))
        }
    }

    #[tokio::test]
    async fn one_bad_recipient_does_not_keep_the_message_from_the_others() {
        let mail = |names: &[&str]| LocalMail {
            from: pillarbox_smtp::ReversePath::Null,
            recipients: names.iter().map(|n| (format!("{n}@x.org").parse().unwrap(), RcptParams::default())).collect(),
            params: MailParams::default(),
            body: Body::from_bytes("x"),
            submitter: "me".into(),
            id: None,
            submission: true,
        };
        let taken = hand_over(&Picky, mail(&["a", "bad1", "b", "bad2"])).await.unwrap();
        assert_eq!((taken.id, taken.refused.len()), (QueueId(2), 2));
        let error = hand_over(&Picky, mail(&["bad1", "bad2"])).await.unwrap_err();
        assert!(error.to_string().starts_with("bad1@x.org: 550"), "{error}");
        let error = hand_over(&Picky, mail(&["a", "later1"])).await.unwrap_err();
        assert!(error.to_string().starts_with("later1@x.org: 450"), "{error}");
    }

    #[test]
    fn dsn_words() {
        assert_eq!(notify(Some("never")).unwrap(), Notify::NEVER);
        assert_eq!(notify(None).unwrap(), Notify::default());
        let some = notify(Some("SUCCESS, delay")).unwrap();
        assert!(some.success && some.delay && !some.failure && some.explicit);
        assert!(notify(Some("never,success")).is_err());
        assert!(notify(Some("always")).is_err());
        assert_eq!(ret(Some("HDRS")).unwrap(), Some(Ret::Hdrs));
        assert!(ret(Some("some")).is_err());
    }
}
