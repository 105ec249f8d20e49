//! Telling senders what became of their mail (RFC 3461 §5.2 and §6). A report is a message like any other: it enters by `accept`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use pillarbox_message::downgrade;
use pillarbox_message::report::{Action, DEFAULT_FULL_LIMIT, Report, ReportRecipient, Returned, build};
use pillarbox_smtp::{Mailbox, Notify, Reply, Ret, ReversePath, printable};

use crate::body::Body;
use crate::envelope::{Door, Envelope, Source, Status, UnixMillis};
use crate::journal::Note;
use crate::queue::{AcceptError, Queue};
use crate::schedule::{Entry, Live, News, NewsKind, Place, key};

/// The largest message that RET=FULL returns whole.
const FULL_MOST: usize = 1 << 20;

/// Reports to one address in one hour, at most: beyond, the failures are logged and not reported.
const MOST_AN_HOUR: u32 = 200;

/// Addresses counted at once; more than this many senders with failures in one hour are not told apart.
const MOST_COUNTED: usize = 10_000;

/// A report that could not be queued is tried again after this.
const RETRY: UnixMillis = 60_000;

const HOUR: UnixMillis = 3_600_000;

/// What a report is about, taken down under the lock.
struct Job {
    envelope: Arc<Envelope>,
    body: Body,
    news: Vec<News>,
}

/// Counts reports an address, so that a forged sender is not flooded.
#[derive(Debug, Default)]
pub(crate) struct BounceLimit {
    counts: HashMap<u32, (UnixMillis, u32)>,
}

impl BounceLimit {
    /// Counts one more report to this address; false when it is one too many.
    pub(crate) fn allows(&mut self, address: &Mailbox, now: UnixMillis) -> bool {
        if self.counts.len() >= MOST_COUNTED {
            self.counts.retain(|_, (start, _)| now.saturating_sub(*start) < HOUR);
        }
        let slot = if self.counts.len() >= MOST_COUNTED { 0 } else { key(&address.key()) };
        let (start, count) = self.counts.entry(slot).or_insert((now, 0));
        if now.saturating_sub(*start) >= HOUR {
            (*start, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MOST_AN_HOUR
    }
}

impl Queue {
    /// Sends the news of a message to its sender, in the background. Called under the lock; `live.reporting` is set.
    pub(crate) fn report(&self, live: &Live) {
        let Some(queue) = self.me.upgrade() else { return };
        let job = Job { envelope: Arc::clone(&live.envelope), body: live.body.clone(), news: live.news.clone() };
        self.runtime.spawn(async move {
            if !queue.may_report(&job) {
                return queue.told(&job);
            }
            while let Err(error) = queue.send(&job).await {
                tracing::warn!(id = %job.envelope.id, %error, "a delivery report could not be queued; it is tried again");
                let until = queue.clock.now().saturating_add(RETRY);
                while queue.clock.now() < until {
                    tokio::select! {
                        () = queue.clock.sleep_until(until) => {}
                        () = queue.stop.cancelled() => return,
                    }
                }
            }
            queue.told(&job);
        });
    }

    /// Whether the sender may hear of one more failure this hour. Asked once a report, not once a try: an outage must not use the limit up.
    fn may_report(&self, job: &Job) -> bool {
        let Some(sender) = job.envelope.from.mailbox() else { return true };
        let allowed = self.bounces.lock().allows(sender, self.clock.now());
        if !allowed {
            let (id, to) = (job.envelope.id, printable(sender.to_string().as_bytes()));
            tracing::warn!(%id, %to, "too many reports to one sender in an hour: this one is not sent");
            metrics::counter!("pillarbox_queue_reports_dropped_total").increment(1);
        }
        allowed
    }

    /// Builds and queues one report for all the news.
    async fn send(&self, job: &Job) -> Result<(), AcceptError> {
        let envelope = &*job.envelope;
        let id = envelope.id;
        let Some(sender) = envelope.from.mailbox() else { return Ok(()) };
        let now = self.clock.now();
        let storage = |error: std::io::Error| AcceptError::Storage(error.to_string());
        let mut to = self.hooks.route(sender).await.map_err(storage)?;
        if to.is_empty() {
            tracing::warn!(%id, to = %printable(sender.to_string().as_bytes()), "nobody can be told: the sender's address leads nowhere");
            return Ok(());
        }
        to.iter_mut().for_each(|recipient| recipient.notify = Notify::NEVER);
        let failed = job.news.iter().any(|n| matches!(n.what, NewsKind::Failed(_)));
        let limit = if envelope.ret == Some(Ret::Full) { FULL_MOST } else { DEFAULT_FULL_LIMIT };
        let whole = failed && envelope.ret != Some(Ret::Hdrs) && job.body.len() <= limit as u64;
        let original = if whole { job.body.bytes().await } else { job.body.header().await };
        // A message that cannot be read any more can still be reported on.
        let original = original.unwrap_or_else(|error| {
            tracing::error!(%id, %error, "a message cannot be read for its report");
            Bytes::new()
        });
        let recipients: Vec<ReportRecipient> = job.news.iter().filter_map(|news| self.about(envelope, news, now)).collect();
        let text = build(&Report {
            hostname: &self.hostname,
            to: sender,
            smtputf8: envelope.smtputf8,
            now,
            random: rand::random(),
            queue_id: &id.to_string(),
            arrival: envelope.received,
            received_from: envelope.source.user.is_none().then_some(envelope.source.helo.as_str()).filter(|helo| !helo.is_empty()),
            envid: envelope.envid.as_deref(),
            ret: envelope.ret,
            original: if whole { Returned::Message(&original) } else { Returned::Header(&original) },
            full_limit: limit,
            recipients: &recipients,
        });
        let needs = downgrade::needs(&text);
        let report = Envelope {
            received: now,
            body: needs.body,
            smtputf8: needs.utf8_header || !sender.is_ascii(),
            source: Source { door: Door::Internal, ..Source::default() },
            ..Envelope::new(self.new_id(), ReversePath::Null, to)
        };
        let report_id = report.id;
        let fates: Vec<(u16, Status)> = failures(&job.news).map(|n| (u16::try_from(n).unwrap_or(u16::MAX), Status::Failed)).collect();
        let notes = if fates.is_empty() { vec![] } else { vec![Note::Settled(id, fates)] };
        let size = text.len() as u64;
        self.accept_with(report, Body::from_bytes(text), &notes, false).await?;
        let action = recipients.iter().map(|r| r.action).min().unwrap_or(Action::Failed);
        tracing::info!(
            target: "pillarbox::event",
            event = "accept",
            id = report_id.to_string(),
            parent = id.to_string(),
            to = printable(sender.to_string().as_bytes()),
            size,
            status = "report",
            action = action.keyword(),
        );
        metrics::counter!("pillarbox_queue_reports_total", "action" => action.keyword()).increment(1);
        Ok(())
    }

    /// One recipient's part of a report.
    fn about(&self, envelope: &Envelope, news: &News, now: UnixMillis) -> Option<ReportRecipient> {
        let recipient = envelope.recipients.get(news.recipient)?;
        let (action, reply): (Action, Option<&Reply>) = match &news.what {
            NewsKind::Delivered => (Action::Delivered, None),
            NewsKind::Relayed(reply) => (Action::Relayed, Some(reply)),
            NewsKind::Failed(reply) => (Action::Failed, Some(reply)),
            NewsKind::Delayed(reply) => (Action::Delayed, reply.as_ref()),
        };
        let status = reply.map_or(default_status(action), Reply::status);
        let mut about = ReportRecipient::new(recipient.address.clone(), action, status);
        about.given = recipient.given.clone();
        about.original = recipient.orcpt.clone();
        about.reply = reply.cloned();
        about.remote = remote_host(&news.remote);
        about.last_attempt = (recipient.attempts > 0 || action != Action::Delayed).then_some(now);
        about.will_retry_until = (action == Action::Delayed).then(|| self.times.expires(envelope));
        Some(about)
    }

    /// The sender knows; what depended on that is settled.
    fn told(&self, job: &Job) {
        let id = job.envelope.id;
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(Entry::Live(live)) = state.messages.get_mut(&id) else { return };
        let mut live = std::mem::replace(&mut **live, Live::hollow());
        live.reporting = false;
        live.news.drain(..job.news.len().min(live.news.len()));
        let settled: Vec<usize> = failures(&job.news).collect();
        if !settled.is_empty() {
            // Written with the report already, where one was sent; saying it twice does no harm.
            let fates = settled.iter().map(|n| (u16::try_from(*n).unwrap_or(u16::MAX), Status::Failed)).collect();
            self.journal.note(&Note::Settled(id, fates), true);
        }
        settled.into_iter().for_each(|recipient| state.settle(&mut live, recipient, Status::Failed));
        let envelope = Arc::make_mut(&mut live.envelope);
        for news in job.news.iter().filter(|n| matches!(n.what, NewsKind::Delayed(_))) {
            if let Some(recipient) = envelope.recipients.get_mut(news.recipient) {
                recipient.delay_reported = true;
            }
        }
        live.dirty |= live.parking || matches!(live.place, Place::Deferred);
        self.put_back(&mut state, id, live, now);
        drop(state);
        self.changed.notify_waiters();
    }
}

/// The recipients that the news say have failed.
fn failures(news: &[News]) -> impl Iterator<Item = usize> {
    news.iter().filter(|n| matches!(n.what, NewsKind::Failed(_))).map(|n| n.recipient)
}

fn default_status(action: Action) -> pillarbox_smtp::EnhancedCode {
    match action {
        Action::Failed => pillarbox_smtp::EnhancedCode(5, 0, 0),
        Action::Delayed => pillarbox_smtp::EnhancedCode(4, 0, 0),
        Action::Relayed | Action::Expanded | Action::Delivered => pillarbox_smtp::EnhancedCode(2, 0, 0),
    }
}

/// The host's name from `mx.example.net[192.0.2.1]:25`; none for stores of our own, which have no address.
fn remote_host(relay: &str) -> Option<String> {
    let (host, _) = relay.split_once('[')?;
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_to_one_address_are_limited_and_the_limit_passes() {
        let mut limit = BounceLimit::default();
        let ada: Mailbox = "ada@example.net".parse().unwrap();
        let bob: Mailbox = "bob@example.net".parse().unwrap();
        let sent = (0..500).filter(|n| limit.allows(&ada, *n)).count();
        assert_eq!(sent, MOST_AN_HOUR as usize);
        assert!(limit.allows(&bob, 500));
        assert!(limit.allows(&ada, HOUR + 1));
    }

    #[test]
    fn the_count_of_addresses_is_bounded() {
        let mut limit = BounceLimit::default();
        for n in 0..2 * MOST_COUNTED {
            let address: Mailbox = format!("user{n}@example.net").parse().unwrap();
            _ = limit.allows(&address, 1);
        }
        assert!(limit.counts.len() <= MOST_COUNTED + 1);
    }

    #[test]
    fn only_hosts_are_named_as_remotes() {
        assert_eq!(remote_host("mx.example.net[192.0.2.1]:25").as_deref(), Some("mx.example.net"));
        assert_eq!(remote_host("maildir"), None);
        assert_eq!(remote_host(""), None);
        assert_eq!(remote_host("[192.0.2.1]:25"), None);
    }
}
