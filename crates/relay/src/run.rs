//! Serving one destination: a session that outlives its messages, other hosts when one fails, and each recipient's outcome.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use pillarbox_queue::{Delivery, Destination, Feed, Outcome, Outcomes};
use pillarbox_smtp::Reply;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::dns::hosts::MailHost;
use crate::path::{Demand, HostPolicy, MAX_ADDRESSES, NoPath, Path};
use crate::plan::{self, Work};
use crate::reach;
use crate::replies;
use crate::route::NextHop;
use crate::session::{Dial, Endpoint, Fate, Job, Refusal, Session, Stream, TlsTrouble, open_on};
use crate::shared::Shared;
use crate::tls::Policy;
use crate::tlsrpt::SessionResult;

/// No further address is tried once a destination has cost this much time.
const CONNECT_TIME: std::time::Duration = std::time::Duration::from_secs(300);
/// Fresh connections that may break during one delivery before it waits for its next turn.
const MAX_BREAKS: usize = 3;

/// Why no session came about.
enum NoSession {
    /// There is no way, and there will be none.
    Never(Reply),
    /// No host answers as it should: the destination is down.
    Down(Reply),
    /// Each host that answers broke off over this very message; others may fare better.
    Tried,
}

impl From<NoPath> for NoSession {
    fn from(none: NoPath) -> Self {
        match none {
            NoPath::Never(reply) => Self::Never(reply),
            NoPath::Down(reply) => Self::Down(reply),
        }
    }
}

/// One run of the transport.
pub(crate) struct Run {
    shared: Arc<Shared>,
    hop: NextHop,
    feed: Feed,
    session: Option<Session>,
    /// Addresses that failed since the last success.
    failed: HashSet<String>,
}

/// Serves `destination` until its feed ends.
pub(crate) async fn run(shared: Arc<Shared>, destination: Destination, mut feed: Feed) {
    let Some(hop) = shared.routes.hop(&destination) else {
        while let Some(delivery) = feed.next().await {
            delivery.finish_all(Outcome::Deferred { reply: replies::unknown_destination() }, "");
        }
        return;
    };
    let mut run = Run { shared, hop, feed, session: None, failed: HashSet::new() };
    while let Some(delivery) = run.next().await {
        run.deliver(delivery).await;
    }
    if let Some(session) = run.session.take() {
        // A host that is slow to say goodbye holds nobody up.
        tokio::spawn(session.quit());
    }
}

impl Run {
    /// The next delivery; an open connection waits a moment for one, and is given up when it went stale meanwhile.
    async fn next(&mut self) -> Option<Delivery> {
        if self.session.is_none() {
            return self.feed.next().await;
        }
        if let Some(delivery) = self.feed.next().await {
            return Some(delivery);
        }
        let delivery = self.feed.next_within(self.shared.timeouts.idle).await?;
        if self.session.as_mut().is_some_and(Session::is_stale) {
            self.session = None;
        }
        Some(delivery)
    }

    async fn deliver(&mut self, delivery: Delivery) {
        let work = Work::from(&delivery);
        let mut outcomes: Vec<Option<Outcome>> = vec![None; delivery.recipients.len()];
        let (mut relay, mut tls) = (String::new(), String::new());
        let mut breaks = 0;
        let mut keep = true;
        let mut lost: Option<Reply> = None;
        loop {
            let open: Vec<usize> = (0..outcomes.len()).filter(|&slot| outcomes.get(slot).is_some_and(Option::is_none)).collect();
            if open.is_empty() {
                break;
            }
            let mut session = match self.session.take() {
                Some(session) => session,
                None => {
                    let mut opened = self.connect(false).await;
                    if matches!(&opened, Err(NoSession::Down(_))) && work.is_lenient().await {
                        opened = self.connect(true).await;
                        // For this message alone: others want the policies kept.
                        keep = opened.is_err();
                    }
                    match opened {
                        Ok(session) => session,
                        Err(trouble) => {
                            let outcome = match trouble {
                                NoSession::Never(reply) => Outcome::Failed { reply },
                                NoSession::Tried => Outcome::Deferred { reply: last_words(lost.take(), &self.hop) },
                                NoSession::Down(reply) => {
                                    self.feed.destination_down(reply.clone());
                                    Outcome::Deferred { reply }
                                }
                            };
                            fill(&mut outcomes, &outcome);
                            break;
                        }
                    }
                }
            };
            let was_used = session.is_used();
            relay.clone_from(&session.label);
            tls.clone_from(&session.security.tls);
            match serve(&mut session, &work, &open, &mut outcomes).await {
                None if session.is_exhausted() || !keep => session.quit().await,
                None => {
                    self.failed.clear();
                    self.session = Some(session);
                }
                // A host may close between messages at any time; that costs nobody an attempt.
                Some(_) if was_used => {}
                Some(reply) => {
                    self.failed.insert(session.label.clone());
                    breaks += 1;
                    if breaks >= MAX_BREAKS {
                        fill(&mut outcomes, &Outcome::Deferred { reply: reply.clone() });
                    }
                    // 421 before anything was taken speaks of the host, not of the message (RFC 5321 §3.8).
                    if reply.code == 421 && breaks >= MAX_BREAKS && outcomes.iter().flatten().all(|o| !matches!(o, Outcome::Relayed { .. }))
                    {
                        self.feed.destination_down(reply.clone());
                    }
                    lost = Some(reply);
                }
            }
        }
        let each =
            outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Outcome::Deferred { reply: replies::unknown_destination() }));
        delivery.finish(Outcomes { each: each.collect(), relay, tls });
    }

    /// Opens a session with the first host and address that will have one. With `lenient`, for messages that say so (RFC 8689
    /// §5), policies that other people published bind no one.
    async fn connect(&mut self, lenient: bool) -> Result<Session, NoSession> {
        let shared = self.shared.clone();
        let path = Path::find(&shared, &self.hop).await?;
        let started = Instant::now();
        let mut last: Option<Reply> = None;
        let mut tried = 0;
        // Hosts that gave no connection lately come last, or each message would wait for them again.
        let mut hosts: Vec<(Vec<Endpoint>, &MailHost)> = path.hosts.iter().map(|host| (path.endpoints(&shared, host), host)).collect();
        hosts.sort_by_key(|(endpoints, _)| !endpoints.is_empty() && endpoints.iter().all(|endpoint| shared.was_unreachable(endpoint)));
        for (mut endpoints, host) in hosts {
            if host.addresses.is_empty()
                && let Some(trouble) = &host.trouble
            {
                last = Some(trouble.clone());
                continue;
            }
            let mut demand = match path.policy(&shared, host).await {
                HostPolicy::Use(demand) => demand,
                HostPolicy::Skip(_, demand) if lenient => demand,
                HostPolicy::Skip(reply, demand) => {
                    count(&shared, &demand, &host.name, None, demand.note.clone());
                    last = Some(reply);
                    continue;
                }
            };
            if lenient && path.is_mx() {
                demand.policy = Policy::Opportunistic;
            }
            endpoints.sort_by_key(|endpoint| shared.was_unreachable(endpoint));
            while started.elapsed() < CONNECT_TIME {
                endpoints.retain(|endpoint| !self.failed.contains(&endpoint.label(&host.name)));
                endpoints.truncate(MAX_ADDRESSES - tried);
                let Some((endpoint, stream)) = self.reach(&host.name, &endpoints, &mut tried, &mut last).await else { break };
                let label = endpoint.label(&host.name);
                let ip = endpoint.ip();
                let dial = Dial {
                    host: &host.name,
                    source: shared.source_for(&endpoint),
                    endpoint,
                    policy: &demand.policy,
                    implicit_tls: path.implicit_tls(),
                    lmtp: path.is_lmtp(),
                    credentials: path.credentials().await.map_err(NoSession::Down)?,
                    helo: &shared.helo,
                    tls: &shared.tls,
                    timeouts: shared.timeouts,
                    judge: demand.judge,
                };
                match open_on(&dial, stream).await {
                    Ok(session) => {
                        let plain = session.security.tls.is_empty() && session.security.would_fail.is_none();
                        let plain = plain.then(|| TlsTrouble { result: "starttls-not-supported", detail: "no STARTTLS offered".into() });
                        let failure = session.security.would_fail.clone().or(demand.note.clone()).or(plain);
                        count(&shared, &demand, &host.name, ip, failure);
                        metrics::counter!("pillarbox_relay_connections_total", "result" => "open").increment(1);
                        return Ok(session);
                    }
                    Err(refusal) => {
                        if refusal.tls.is_some() {
                            count(&shared, &demand, &host.name, ip, refusal.tls.clone());
                        }
                        last = Some(self.gave_none(label, refusal));
                    }
                }
            }
        }
        self.failed.clear();
        Err(match last {
            Some(reply) => NoSession::Down(reply),
            None => NoSession::Tried,
        })
    }

    /// A connection to one of a host's addresses: to the first that answers, each with a head start over the next.
    async fn reach(
        &mut self,
        host: &str,
        endpoints: &[Endpoint],
        tried: &mut usize,
        last: &mut Option<Reply>,
    ) -> Option<(Endpoint, Stream)> {
        let shared = self.shared.clone();
        let attempts = endpoints.iter().map(|endpoint| endpoint.connect(shared.source_for(endpoint), shared.timeouts.connect));
        let reached = reach::first(attempts.collect(), reach::HEAD_START).await;
        let at = |n: usize| endpoints.get(n);
        for (n, error) in reached.failed {
            let Some(endpoint) = at(n) else { continue };
            *tried += 1;
            shared.note_unreachable(endpoint);
            let label = endpoint.label(host);
            let refusal = Refusal::unreachable(&label, &error);
            *last = Some(self.gave_none(label, refusal));
        }
        // They may do better than what answered; they come after it from now on, and were not found wanting.
        reached.slow.into_iter().filter_map(at).for_each(|endpoint| shared.note_unreachable(endpoint));
        let (n, stream) = reached.first?;
        *tried += 1;
        Some((at(n)?.clone(), stream))
    }

    /// Takes note of an address that gave no session, and answers why.
    fn gave_none(&mut self, label: String, refusal: Refusal) -> Reply {
        tracing::debug!(host = %label, reply = %refusal.reply, "a host gave no session");
        metrics::counter!("pillarbox_relay_connections_total", "result" => "failed").increment(1);
        self.failed.insert(label);
        refusal.reply
    }
}

/// What a host said when it broke off, or the plain fact.
fn last_words(lost: Option<Reply>, hop: &NextHop) -> Reply {
    lost.unwrap_or_else(|| replies::unreachable(&hop_name(hop), "no host answered"))
}

/// Counts a session for TLS reports.
fn count(shared: &Shared, demand: &Demand, host: &str, address: Option<IpAddr>, failure: Option<TlsTrouble>) {
    let (Some(counter), Some(policy)) = (&shared.counter, demand.info.clone()) else { return };
    let failure = failure.map(|trouble| (trouble.result, trouble.detail));
    counter.record(OffsetDateTime::now_utc(), &SessionResult { policy, host, address, failure });
}

fn hop_name(hop: &NextHop) -> String {
    match hop {
        NextHop::Mx(domain) => domain.to_string(),
        NextHop::Host(hop) => hop.host.clone(),
        NextHop::Lmtp(_) => "the LMTP service".into(),
    }
}

/// Gives everyone without an outcome this one.
fn fill(outcomes: &mut [Option<Outcome>], outcome: &Outcome) {
    for slot in outcomes.iter_mut().filter(|slot| slot.is_none()) {
        *slot = Some(outcome.clone());
    }
}

/// Runs the transactions that a delivery needs on a session. Returns why the session broke, if it did.
async fn serve(session: &mut Session, work: &Work, open: &[usize], outcomes: &mut [Option<Outcome>]) -> Option<Reply> {
    for group in plan::groups(work, open) {
        let prepared = match plan::prepare(session, work, &group).await {
            Ok(prepared) => prepared,
            Err(outcome) => {
                for (slot, _) in &group.members {
                    set(outcomes, *slot, outcome.clone());
                }
                continue;
            }
        };
        let mut rcpts = Vec::with_capacity(group.members.len());
        for &(slot, recipient) in &group.members {
            match plan::admits(session, &group, recipient) {
                Ok(()) => rcpts.push(plan::rcpt(slot, recipient)),
                Err(reply) => set(outcomes, slot, Outcome::Failed { reply }),
            }
        }
        let max = plan::max_rcpts(session);
        while !rcpts.is_empty() {
            if session.is_exhausted() {
                return None;
            }
            let rest = rcpts.split_off(rcpts.len().min(max));
            let job = Job { from: group.from, mail: prepared.mail.clone(), rcpts, content: &prepared.content };
            let end = session.transact(&job).await;
            for (rcpt, fate) in job.rcpts.iter().zip(end.fates) {
                if let Fate::Done(outcome) = fate {
                    set(outcomes, rcpt.slot, outcome);
                }
            }
            if end.broken.is_some() {
                return end.broken;
            }
            rcpts = rest;
        }
    }
    None
}

fn set(outcomes: &mut [Option<Outcome>], slot: usize, outcome: Outcome) {
    if let Some(place) = outcomes.get_mut(slot) {
        *place = Some(outcome);
    }
}
