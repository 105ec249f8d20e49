//! One connection under the screen: what is asked at each command, and what is remembered until the end of DATA.

use std::sync::Arc;

use bytes::Bytes;
use pillarbox_smtp::{MailParams, Mailbox, Reply, ReversePath};
use tokio_util::task::AbortOnDropHandle;

use crate::dnsbl::Listings;
use crate::facts::SessionFacts;
use crate::screen::Screen;
use crate::verdict::Verdict;
use crate::{replies, sender};

/// Screens one connection. Asked in the order of the protocol: `connect`, `helo`, then for each message `mail`, `rcpt` for each
/// recipient that the directory knows, and `judge`; `reset` where a transaction ends without `judge`, `quit` at the end.
///
/// A client that logged in is not judged.
pub struct ScreenSession {
    screen: Arc<Screen>,
    facts: SessionFacts,
    /// A network on the allow list: never judged.
    allowed: bool,
    listings: Lists,
}

/// Answers of the block lists, asked for while the client says hello.
enum Lists {
    None,
    Asked(AbortOnDropHandle<Listings>),
    Known(Listings),
}

impl ScreenSession {
    pub(crate) fn new(screen: Arc<Screen>, facts: SessionFacts) -> Self {
        let allowed = screen.allow.has_client(facts.client);
        Self { screen, facts, allowed, listings: Lists::None }
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
            return Err(replies::client_denied(self.facts.client));
        }
        if !self.screen.connections.take(self.facts.client) {
            return Err(replies::connection_rate());
        }
        if self.screen.lists.concerns(self.facts.client) {
            let (screen, client) = (self.screen.clone(), self.facts.client);
            self.listings =
                Lists::Asked(AbortOnDropHandle::new(tokio::spawn(async move { screen.lists.check(&screen.dns, client).await })));
        }
        Ok(())
    }

    /// At HELO or EHLO.
    pub async fn helo(&mut self, name: &str) -> Result<(), Reply> {
        self.facts.helo = name.to_owned();
        if self.judged() && self.screen.deny.has_domain(name) {
            return Err(replies::helo_denied());
        }
        Ok(())
    }

    /// At MAIL: deny list, rate, and whether the sender's domain exists. `queue_id` names the transaction to milters and in the log.
    pub async fn mail(&mut self, queue_id: &str, from: &ReversePath, params: &MailParams) -> Result<(), Reply> {
        self.facts.queue_id = queue_id.to_owned();
        let _ = params;
        if !self.judged() {
            return Ok(());
        }
        if !self.screen.messages.take(self.facts.client) {
            return Err(replies::message_rate());
        }
        if let Some(mailbox) = from.mailbox() {
            if self.screen.deny.has_sender(mailbox) {
                return Err(replies::sender_denied());
            }
            let ours = matches!(self.screen.directory.domain(&mailbox.domain).await, Ok(Some(_)));
            if !ours && !self.screen.allow.has_sender(mailbox) {
                sender::check(&self.screen.dns, &mailbox.domain).await?;
            }
        }
        Ok(())
    }

    /// At RCPT, once the directory knows the recipient: rate and block lists.
    pub async fn rcpt(&mut self, from: &ReversePath, rcpt: &Mailbox) -> Result<(), Reply> {
        let _ = (from, rcpt);
        if !self.judged() {
            return Ok(());
        }
        if !self.screen.recipients.take(self.facts.client) {
            return Err(replies::recipient_rate());
        }
        let client = self.facts.client;
        if let Some(listing) = &self.listings().await.reject {
            return Err(replies::listed(client, &listing.zone, listing.text.as_deref()));
        }
        Ok(())
    }

    /// At the end of DATA: the verdict. `rcpts` are the recipients that were accepted.
    pub async fn judge(&mut self, from: &ReversePath, rcpts: &[Mailbox], message: Bytes) -> Verdict {
        let _ = (from, rcpts, message);
        let Ok(_turn) = self.screen.judging.acquire().await else { return Verdict::accept() };
        Verdict::accept()
    }

    /// The transaction ended: RSET, a new HELO, or an aborted DATA.
    pub async fn reset(&mut self) {
        self.facts.queue_id.clear();
    }

    /// The connection ends.
    pub async fn quit(self) {}

    /// Whether this client's mail is judged at all.
    fn judged(&self) -> bool {
        !self.allowed && self.facts.user.is_none()
    }

    async fn listings(&mut self) -> &Listings {
        if let Lists::Asked(task) = &mut self.listings {
            let listings = task.await.unwrap_or_default();
            self.listings = Lists::Known(listings);
        }
        match &self.listings {
            Lists::Known(listings) => listings,
            _ => {
                static NONE: Listings = Listings { allowed: None, reject: None, scored: Vec::new() };
                &NONE
            }
        }
    }
}
