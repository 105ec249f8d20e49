//! `pillarbox send-test`: a message on its way, followed to its end.

use std::time::{Duration, Instant};

use hyper::Method;
use pillarbox_control::api::{DomainInfo, LocalEnvelope, QueueEntry, Submitted};
use pillarbox_control::{Client, escaped};
use pillarbox_queue::QueueId;
use pillarbox_smtp::Mailbox;
use serde_json::Value;

use super::{parsed, trace};
use crate::failure::{Failure, NOT_FOUND};
use crate::out::safe;
use crate::session::Session;

/// How long it is followed.
const FOLLOW: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn run(session: &Session, address: &str, from: Option<&str>) -> Result<(), Failure> {
    let to: Mailbox = parsed("address", address)?;
    let api = session.api().await?;
    let from: Mailbox = match from {
        Some(text) => parsed("address", text)?,
        None => postmaster(&api).await?,
    };
    let envelope =
        LocalEnvelope { from: from.to_string(), to: vec![to.to_string()], login: "send-test".into(), ..LocalEnvelope::default() };
    let mut body = serde_json::to_vec(&envelope).map_err(|e| Failure::failed(e.to_string()))?;
    body.push(b'\n');
    body.extend_from_slice(message(&from, &to).as_bytes());
    let sent: Submitted = api.json(Method::POST, "/v1/submit", body.into(), FOLLOW).await?;
    if !session.out.json {
        session.out.line(format!("{} from {from} to {to} is on its way.", sent.id))?;
    }
    follow(session, &api, sent.id).await
}

async fn postmaster(api: &Client) -> Result<Mailbox, Failure> {
    let domains: Vec<DomainInfo> = api.get("/v1/domains").await?;
    let first = domains.first().ok_or_else(|| Failure::failed("there is no domain to send from; add one with `pillarbox domain add`"))?;
    parsed("address", &format!("postmaster@{}", first.name))
}

fn message(from: &Mailbox, to: &Mailbox) -> String {
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: Test of the mail server\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n\
         This message was sent by `pillarbox send-test`. In its header, Authentication-Results\r\n\
         tells what the receiving server thought of SPF, DKIM and DMARC.\r\n"
    )
}

/// Shows the events as they come, until the message has left the queue or a first attempt has failed.
async fn follow(session: &Session, api: &Client, id: QueueId) -> Result<(), Failure> {
    let began = Instant::now();
    let mut shown = 0;
    loop {
        let gone = match api.get::<QueueEntry>(&format!("/v1/queue/{id}")).await.map_err(Failure::from) {
            Ok(entry) => entry.recipients.iter().all(|r| r.status.is_settled() || r.attempts > 0),
            Err(failure) if failure.code == NOT_FOUND => true,
            Err(failure) => return Err(failure),
        };
        // The log of events is written a moment after the fact.
        if gone {
            tokio::time::sleep(LOOK).await;
        }
        let events = api.get::<Vec<Value>>(&format!("/v1/trace?what={}", escaped(&id.to_string()))).await.unwrap_or_default();
        if !session.out.json {
            for event in events.iter().skip(shown) {
                session.out.line(trace::line(event))?;
            }
        }
        shown = events.len();
        if gone || began.elapsed() > FOLLOW {
            return verdict(session, &events, id, gone);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn verdict(session: &Session, events: &[Value], id: QueueId, gone: bool) -> Result<(), Failure> {
    let has = |name: &str| events.iter().any(|e| e.get("event").and_then(Value::as_str) == Some(name));
    let delivered = gone && has("deliver") && !has("bounce") && !has("defer");
    if session.out.json {
        session.out.value(&serde_json::json!({ "id": id, "delivered": delivered, "events": events }))?;
        return if delivered { Ok(()) } else { Err(Failure::said()) };
    }
    if delivered {
        return session.out.line("It has arrived.");
    }
    let reply = events.iter().rev().filter_map(|e| e.get("reply").and_then(Value::as_str)).next().unwrap_or("no answer yet");
    if has("bounce") {
        return Err(Failure::failed(format!("it was refused: {}", safe(reply))));
    }
    Err(Failure::failed(format!("it has not arrived: {}; `pillarbox queue show {id}` tells when it is tried again", safe(reply))))
}
