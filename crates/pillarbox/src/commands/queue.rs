//! `pillarbox queue`, and `mailq`.

use std::io::IsTerminal;

use futures::StreamExt;
use hyper::Method;
use pillarbox_control::api::{QueueDone, QueueEntry, QueueIds, QueueSummary, RetryMany};
use pillarbox_control::{Client, escaped};
use pillarbox_queue::{QueueId, Status};
use pillarbox_smtp::{Domain, ReversePath};

use super::{node, parsed};
use crate::args::{QueueFilter, QueueVerb};
use crate::failure::{Failure, Trying};
use crate::out::{age, safe, size};
use crate::prompt::consent;
use crate::session::Session;

/// How many the API gives at once at most.
const PAGE: usize = 1000;

pub(crate) async fn run(session: &Session, verb: QueueVerb) -> Result<(), Failure> {
    match verb {
        QueueVerb::List { filter, all_nodes: false } => list(session, &filter).await,
        QueueVerb::List { filter, all_nodes: true } => node::list_queues(session, &filter).await,
        QueueVerb::Evacuate { folder, yes } => node::evacuate(session, &folder, yes).await,
        QueueVerb::Show { id } => show(session, parsed("queue id", &id)?).await,
        QueueVerb::Cat { id } => cat(session, parsed("queue id", &id)?).await,
        QueueVerb::Retry { ids, all, to } => {
            let to: Option<Domain> = to.map(|d| parsed("domain", &d)).transpose()?;
            let ids = if all || to.is_some() { None } else { Some(parse_ids(&ids)?) };
            let done: QueueDone = session.api().await?.send(Method::POST, "/v1/queue/retry", &RetryMany { ids, to }).await?;
            told(session, &done, "tried now")
        }
        QueueVerb::Hold { ids } => change(session, "hold", parse_ids(&ids)?, "held until `pillarbox queue release`").await,
        QueueVerb::Release { ids } => change(session, "release", parse_ids(&ids)?, "released").await,
        QueueVerb::Remove { ids, yes } => {
            let ids = parse_ids(&ids)?;
            consent(yes, &format!("Throw away {} from the queue? Nobody is told.", counted(ids.len() as u64)))?;
            change(session, "remove", ids, "thrown away").await
        }
        QueueVerb::Summary => summary(session).await,
    }
}

fn parse_ids(texts: &[String]) -> Result<Vec<QueueId>, Failure> {
    texts.iter().map(|t| parsed("queue id", t)).collect()
}

pub(super) fn counted(n: u64) -> String {
    if n == 1 { "1 message".into() } else { format!("{n} messages") }
}

fn told(session: &Session, done: &QueueDone, what: &str) -> Result<(), Failure> {
    if session.out.json { session.out.value(done) } else { session.out.line(format!("{} {what}.", counted(done.messages))) }
}

async fn change(session: &Session, verb: &str, ids: Vec<QueueId>, what: &str) -> Result<(), Failure> {
    let done: QueueDone = session.api().await?.send(Method::POST, &format!("/v1/queue/{verb}"), &QueueIds { ids }).await?;
    told(session, &done, what)
}

/// The part of the query that says which messages.
fn query(filter: &QueueFilter) -> Result<String, Failure> {
    let mut query = String::new();
    if let Some(to) = &filter.to {
        query.push_str(&format!("&to={}", escaped(parsed::<Domain>("domain", to)?.as_str())));
    }
    if let Some(from) = &filter.from {
        let from: ReversePath = parsed("address", from)?;
        query.push_str(&format!("&from={}", escaped(&format!("<{from}>"))));
    }
    if filter.held {
        query.push_str("&held=true");
    }
    Ok(query)
}

/// Hands over the messages page by page, the first one at once: a queue of a million is never held here as a whole.
async fn pages(api: &Client, filter: &QueueFilter, each: impl FnMut(&[QueueEntry]) -> Result<(), Failure>) -> Result<(), Failure> {
    pages_of(api, "/v1/queue", filter, each).await
}

/// The same for the queue at a path of the API.
pub(super) async fn pages_of(
    api: &Client,
    path: &str,
    filter: &QueueFilter,
    mut each: impl FnMut(&[QueueEntry]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let query = query(filter)?;
    let mut after = String::new();
    loop {
        let page: Vec<QueueEntry> = api.get(&format!("{path}?limit={PAGE}{query}{after}")).await?;
        each(&page)?;
        match page.last() {
            Some(last) if page.len() == PAGE => after = format!("&after={}", last.id),
            _ => return Ok(()),
        }
    }
}

async fn list(session: &Session, filter: &QueueFilter) -> Result<(), Failure> {
    let (out, api) = (session.out, session.api().await?);
    let mut listed = 0usize;
    pages(&api, filter, |page| {
        if out.json {
            for entry in page {
                let text = serde_json::to_string(entry).map_err(|e| Failure::failed(e.to_string()))?;
                out.line(format!("{}{text}", if listed == 0 { "[" } else { "," }))?;
                listed += 1;
            }
            return Ok(());
        }
        // Each page has its own column widths; the heads stand over the first alone.
        let heads: &[&str] = if listed == 0 { &["ID", "SIZE", "RECEIVED", "NEXT", "FROM", "TO", "WHY"] } else { &[] };
        listed += page.len();
        if page.is_empty() { Ok(()) } else { out.table(heads, page.iter().map(row).collect()) }
    })
    .await?;
    match (out.json, listed) {
        (true, 0) => out.line("[]"),
        (true, _) => out.line("]"),
        (false, 0) => out.line("The queue is empty."),
        (false, _) => Ok(()),
    }
}

pub(super) fn row(entry: &QueueEntry) -> Vec<String> {
    let open: Vec<_> = entry.recipients.iter().filter(|r| !r.status.is_settled()).collect();
    let to = match open.as_slice() {
        [] => String::new(),
        [only] => only.address.to_string(),
        [first, rest @ ..] => format!("{} and {} more", first.address, rest.len()),
    };
    let why = open.iter().find_map(|r| r.last_reply.clone()).unwrap_or_default();
    let next = if entry.held { "held".into() } else { entry.next_attempt.as_deref().map_or_else(|| "now".into(), short_time) };
    let from = if entry.from.is_empty() { "<>".into() } else { entry.from.clone() };
    vec![entry.id.to_string(), size(entry.size_bytes), short_time(&entry.received), next, from, to, why]
}

/// `2026-11-24T07:15:08Z` → `11-24 07:15`.
fn short_time(time: &str) -> String {
    time.get(5..16).map_or_else(|| time.to_owned(), |t| t.replace('T', " "))
}

async fn show(session: &Session, id: QueueId) -> Result<(), Failure> {
    let entry: QueueEntry = session.api().await?.get(&format!("/v1/queue/{id}")).await?;
    if session.out.json {
        return session.out.value(&entry);
    }
    let from = if entry.from.is_empty() { "<> (a report)".to_owned() } else { entry.from.clone() };
    let next = if entry.held { "held".into() } else { entry.next_attempt.clone().unwrap_or_else(|| "now".into()) };
    session.out.record(
        &entry,
        &[
            ("id", entry.id.to_string()),
            ("from", from),
            ("size", size(entry.size_bytes)),
            ("received", entry.received.clone()),
            ("next attempt", next),
        ],
    )?;
    for recipient in &entry.recipients {
        let given = recipient.given.as_ref().map(|g| format!(" (for {g})")).unwrap_or_default();
        let status = status_word(recipient.status);
        session.out.line(format!("  {}{given}: {status}, {} attempts", safe(&recipient.address.to_string()), recipient.attempts))?;
        if let Some(reply) = &recipient.last_reply {
            session.out.line(format!("    {}", safe(reply)))?;
        }
    }
    Ok(())
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Pending => "waiting",
        Status::Held => "held",
        Status::Delivered => "delivered",
        Status::Relayed => "relayed",
        Status::Failed => "failed",
        Status::Removed => "removed",
    }
}

/// The message as it is; on a terminal with everything escaped that a terminal obeys.
async fn cat(session: &Session, id: QueueId) -> Result<(), Failure> {
    let body = session.api().await?.stream(&format!("/v1/queue/{id}/message")).await?;
    let mut chunks = body.into_data_stream();
    let mut escape = std::io::stdout().is_terminal().then(Escape::default);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.trying("read the message to its end")?;
        match &mut escape {
            Some(escape) => session.out.bytes(escape.push(&chunk).as_bytes())?,
            None => session.out.bytes(&chunk)?,
        }
    }
    match escape {
        Some(escape) => session.out.bytes(escape.finish().as_bytes()),
        None => Ok(()),
    }
}

/// Escapes a stream of octets line by line.
#[derive(Default)]
struct Escape {
    line: Vec<u8>,
}

/// A line without an end is shown in pieces of this size.
const LINE: usize = 64 * 1024;

impl Escape {
    fn push(&mut self, chunk: &[u8]) -> String {
        let mut out = String::new();
        for part in chunk.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LINE {
                out.push_str(&self.flush());
            }
        }
        out
    }

    fn flush(&mut self) -> String {
        let line = std::mem::take(&mut self.line);
        let ended = line.ends_with(b"\n");
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let mut out = safe(&String::from_utf8_lossy(text));
        if ended {
            out.push('\n');
        }
        out
    }

    fn finish(mut self) -> String {
        self.flush()
    }
}

async fn summary(session: &Session) -> Result<(), Failure> {
    let found: Vec<QueueSummary> = session.api().await?.get("/v1/queue/summary").await?;
    session.out.list(&found, &["DESTINATION", "MESSAGES", "OLDEST", "STATE", "WHY"], |s| {
        let state = match (&s.down_since, &s.next_probe, s.runs) {
            (Some(since), Some(probe), _) => format!("down since {}, asked again {}", short_time(since), short_time(probe)),
            (Some(since), None, _) => format!("down since {}", short_time(since)),
            (None, _, 0) => s.next_attempt.as_deref().map_or_else(|| "due".into(), |t| format!("next {}", short_time(t))),
            (None, _, runs) => format!("{runs} under way"),
        };
        vec![s.destination.clone(), s.messages.to_string(), age(s.oldest_seconds), state, s.last_reply.clone().unwrap_or_default()]
    })
}

/// What `mailq` and `sendmail -bp` print, near enough to Postfix's for those who parse its last line.
pub(crate) async fn mailq(session: &Session) -> Result<(), Failure> {
    let (out, api) = (session.out, session.api().await?);
    let (mut octets, mut messages) = (0u64, 0usize);
    pages(&api, &QueueFilter::default(), |page| {
        if messages == 0 && !page.is_empty() {
            out.line("-Queue ID-    --Size-- ----Arrival Time---- -Sender/Recipient-------")?;
        }
        messages += page.len();
        for entry in page {
            octets = octets.saturating_add(entry.size_bytes);
            let mark = if entry.held { '!' } else { ' ' };
            let from = if entry.from.is_empty() { "MAILER-DAEMON" } else { &entry.from };
            out.line(format!("{}{mark}{:>8} {:20} {}", entry.id, entry.size_bytes, entry.received, safe(from)))?;
            for recipient in entry.recipients.iter().filter(|r| !r.status.is_settled()) {
                if let Some(reply) = &recipient.last_reply {
                    out.line(format!("({})", safe(reply)))?;
                }
                out.line(format!("{:44}{}", "", safe(&recipient.address.to_string())))?;
            }
            out.line("")?;
        }
        Ok(())
    })
    .await?;
    match messages {
        0 => out.line("Mail queue is empty"),
        _ => out.line(format!("-- {} Kbytes in {messages} Requests.", octets / 1024)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_holds_cannot_command_the_terminal() {
        let mut escape = Escape::default();
        let mut out = escape.push(b"Subject: \x1b]0;own");
        out.push_str(&escape.push(b"ed\x07\r\nplain\r\n\xff"));
        out.push_str(&escape.finish());
        assert_eq!(out, "Subject: \\u{1b}]0;owned\\u{7}\nplain\n\u{fffd}");
    }
}
