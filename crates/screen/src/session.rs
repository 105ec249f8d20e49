//! One connection under the screen: what is asked at each command, and what is remembered until the end of DATA.

use std::sync::Arc;

use bytes::Bytes;
use pillarbox_smtp::{MailParams, Mailbox, Reply, ReversePath};
use tokio_util::task::AbortOnDropHandle;

use crate::auth::{AuthResult, SpfCheck, check_spf};
use crate::dnsbl::Listings;
use crate::facts::SessionFacts;
use crate::judge::Case;
use crate::milter::{Chain, Refusal};
use crate::screen::Screen;
use crate::verdict::{Action, Verdict};
use crate::{replies, sender};

/// Screens one connection. Asked in the order of the protocol: `connect`, `helo`, then for each message `mail`, `rcpt` for each
/// recipient that the directory knows, and `judge`; `reset` where a transaction ends without `judge`, `quit` at the end.
///
/// A client that logged in is not judged, nor is one from a network on the allow list.
pub struct ScreenSession {
    screen: Arc<Screen>,
    facts: SessionFacts,
    /// A network on the allow list: never judged.
    allowed: bool,
    listings: Pending<Listings>,
    spf: Pending<Option<SpfCheck>>,
    filters: Chain,
    /// A filter wants the message dropped, and said so before its end.
    discard: bool,
}

/// An answer that is fetched while the client talks.
enum Pending<T> {
    Asked(AbortOnDropHandle<T>),
    Known(T),
}

impl<T: Default + Send + 'static> Pending<T> {
    fn ask(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Asked(AbortOnDropHandle::new(tokio::spawn(work)))
    }

    /// Waits for the answer; what cannot be had is nothing.
    async fn get(&mut self) -> &mut T {
        if let Self::Asked(task) = self {
            *self = Self::Known(task.await.unwrap_or_default());
        }
        loop {
            match self {
                Self::Known(answer) => return answer,
                Self::Asked(_) => *self = Self::Known(T::default()),
            }
        }
    }
}

impl ScreenSession {
    pub(crate) fn new(screen: Arc<Screen>, facts: SessionFacts) -> Self {
        let allowed = screen.allow.has_client(facts.client);
        let filters = Chain::new(&screen.hostname, &screen.milters);
        Self { screen, facts, allowed, listings: Pending::Known(Listings::default()), spf: Pending::Known(None), filters, discard: false }
    }

    /// What is known of the client.
    pub fn facts(&self) -> &SessionFacts {
        &self.facts
    }

    /// Keeps the facts current.
    pub fn facts_mut(&mut self) -> &mut SessionFacts {
        &mut self.facts
    }

    /// At the connection, before the greeting: deny list, rate, and block lists asked in the background. After `Err` the session closes.
    pub async fn connect(&mut self) -> Result<(), Reply> {
        if self.allowed {
            return Ok(());
        }
        if self.screen.deny.has_client(self.facts.client) {
            return Err(refused("deny", replies::client_denied(self.facts.client)));
        }
        if !self.screen.connections.take(self.facts.client) {
            return Err(refused("connection_rate", replies::connection_rate()));
        }
        if self.screen.lists.concerns(self.facts.client) {
            let (screen, client) = (self.screen.clone(), self.facts.client);
            self.listings = Pending::ask(async move { screen.lists.check(&screen.dns, client).await });
        }
        Ok(())
    }

    /// At HELO or EHLO.
    pub async fn helo(&mut self, name: &str) -> Result<(), Reply> {
        self.facts.helo = name.to_owned();
        // Filters learn the name anew, with what TLS told meanwhile.
        self.filters.quit().await;
        if self.judged() && self.screen.deny.has_domain(name) {
            return Err(refused("deny", replies::helo_denied()));
        }
        Ok(())
    }

    /// At MAIL: deny list, rate, whether the sender's domain exists, filters; SPF is asked in the background. `queue_id` names the
    /// transaction to filters and in the log.
    pub async fn mail(&mut self, queue_id: &str, from: &ReversePath, params: &MailParams) -> Result<(), Reply> {
        self.facts.queue_id = queue_id.to_owned();
        self.discard = false;
        self.spf = Pending::Known(None);
        if self.judged() {
            self.mail_rules(from).await?;
        }
        if self.filtered() {
            let answer = self.filters.mail(&self.facts, from, params).await;
            self.heed(answer)?;
        }
        Ok(())
    }

    async fn mail_rules(&mut self, from: &ReversePath) -> Result<(), Reply> {
        let screen = &self.screen;
        if !screen.messages.take(self.facts.client) {
            return Err(refused("message_rate", replies::message_rate()));
        }
        if let Some(mailbox) = from.mailbox() {
            if screen.deny.has_sender(mailbox) {
                return Err(refused("deny", replies::sender_denied()));
            }
            if !screen.senders.take(mailbox) {
                return Err(refused("sender_rate", replies::sender_rate()));
            }
            let ours = matches!(screen.directory.has_domain(&mailbox.domain).await, Ok(true));
            if !ours && !screen.allow.has_sender(mailbox) {
                sender::check(&screen.dns, &mailbox.domain).await.map_err(|reply| refused("sender_domain", reply))?;
            }
        }
        if screen.config.spf {
            let (screen, client, helo, from) = (screen.clone(), self.facts.client, self.facts.helo.clone(), from.clone());
            self.spf = Pending::ask(async move { Some(check_spf(&screen.dns, client, &helo, &from, &screen.hostname).await) });
        }
        Ok(())
    }

    /// At RCPT, once the directory knows the recipient: rate, block lists, filters. `postmaster` and `abuse` are reached from listed
    /// addresses too, so that a listing can be talked about.
    pub async fn rcpt(&mut self, from: &ReversePath, rcpt: &Mailbox) -> Result<(), Reply> {
        if self.judged() {
            if !self.screen.recipients.take(self.facts.client) {
                return Err(refused("recipient_rate", replies::recipient_rate()));
            }
            let client = self.facts.client;
            if let Some(listing) = self.listings.get().await.reject.clone()
                && !matches!(rcpt.local.key().as_str(), "postmaster" | "abuse")
                && !self.vouched_for(from).await
            {
                return Err(refused("dnsbl", replies::listed(client, &listing.zone, listing.text.as_deref())));
            }
            // Asked last, so that what is refused anyway does not use up what the recipient may get.
            let user = rcpt.split_detail(&self.screen.delimiter).map(|(user, _)| user);
            if !self.screen.mailboxes.take(user.as_ref().unwrap_or(rcpt)) {
                return Err(refused("mailbox_rate", replies::mailbox_rate()));
            }
        }
        if self.filtered() {
            let answer = self.filters.rcpt(&self.facts, rcpt).await;
            self.heed(answer)?;
        }
        Ok(())
    }

    /// At the end of DATA: the verdict. `rcpts` are the recipients that were accepted.
    pub async fn judge(&mut self, from: &ReversePath, rcpts: &[Mailbox], message: Bytes) -> Verdict {
        let screen = self.screen.clone();
        let Ok(_turn) = screen.judging.acquire().await else { return crate::judge::unavailable() };
        let case = Case { screen: &screen, facts: &self.facts, from, rcpts, message };
        let mut verdict = if !self.allowed && self.facts.user.is_none() {
            let spf = self.spf.get().await.take();
            let listings = self.listings.get().await;
            case.judge(listings, spf).await
        } else {
            case.unjudged()
        };
        if self.discard {
            verdict.why.push("a milter discards the message".to_owned());
            verdict.action = Action::Discard;
        } else if self.facts.user.is_none() || screen.milter_submission {
            case.filter(&mut self.filters, &mut verdict).await;
        }
        if !self.allowed && self.facts.user.is_none() {
            case.explain(&mut verdict);
        }
        let word = match &verdict.action {
            Action::Accept => "accept",
            Action::Junk => "junk",
            Action::Reject(_) => "reject",
            Action::Defer(_) => "defer",
            Action::Discard => "discard",
        };
        metrics::counter!("pillarbox_screen_verdicts_total", "action" => word).increment(1);
        self.reset().await;
        verdict
    }

    /// Whether `judge` looks behind the header section. Where it does not, the header alone will do, and a large message need not be
    /// brought into memory.
    pub fn reads_bodies(&self) -> bool {
        let config = &self.screen.config;
        self.filtered() || (self.judged() && (config.dkim || config.arc))
    }

    /// The transaction ended: RSET, or an aborted DATA.
    pub async fn reset(&mut self) {
        self.discard = false;
        self.facts.queue_id.clear();
        self.filters.reset().await;
    }

    /// The connection ends.
    pub async fn quit(mut self) {
        self.filters.quit().await;
    }

    /// Whether this client's mail is judged at all.
    fn judged(&self) -> bool {
        !self.allowed && self.facts.user.is_none()
    }

    /// Whether filters see it.
    fn filtered(&self) -> bool {
        !self.filters.is_empty() && !self.allowed && (self.facts.user.is_none() || self.screen.milter_submission)
    }

    /// Whether the sender is on the allow list, and SPF does not say that someone else speaks in its name.
    async fn vouched_for(&mut self, from: &ReversePath) -> bool {
        let listed = from.mailbox().is_some_and(|mailbox| self.screen.allow.has_sender(mailbox));
        listed && !self.spf.get().await.as_ref().is_some_and(|spf| matches!(spf.result, AuthResult::Fail | AuthResult::SoftFail))
    }

    fn heed(&mut self, answer: Result<(), Refusal>) -> Result<(), Reply> {
        match answer {
            Ok(()) => Ok(()),
            Err(Refusal::Reply(reply)) => Err(refused("milter", reply)),
            Err(Refusal::Discard) => {
                self.discard = true;
                Ok(())
            }
        }
    }
}

/// Counts a refusal by its rule.
fn refused(rule: &'static str, reply: Reply) -> Reply {
    metrics::counter!("pillarbox_screen_refusals_total", "rule" => rule).increment(1);
    reply
}
