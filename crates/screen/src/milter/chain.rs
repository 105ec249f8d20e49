//! Several filters in order: each sees the message as those before it left it.

use pillarbox_smtp::{MailParams, Mailbox, Reply, ReversePath};

use super::edit::{Changes, Message};
use super::filter::{Filter, Settings};
use super::macros::Macros;
use crate::facts::SessionFacts;

/// Why a step does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// With this 4xx or 5xx reply.
    Reply(Reply),
    /// The message is to be dropped without a word.
    Discard,
}

/// The filters of one session.
pub struct Chain {
    hostname: String,
    filters: Vec<Filter>,
    /// The sender of the open transaction.
    from: Option<ReversePath>,
}

impl Chain {
    /// Filters that are not connected yet.
    pub fn new(hostname: &str, settings: &[Settings]) -> Self {
        Self { hostname: hostname.to_owned(), filters: settings.iter().cloned().map(Filter::new).collect(), from: None }
    }

    /// At MAIL; filters not yet connected are, and learn of the connection and HELO first.
    pub async fn mail(&mut self, facts: &SessionFacts, from: &ReversePath, params: &MailParams) -> Result<(), Refusal> {
        self.reset().await;
        let macros = Macros { hostname: &self.hostname, facts, from: Some(from), rcpt: None };
        for filter in &mut self.filters {
            filter.mail(&macros, from, params).await?;
        }
        self.from = Some(from.clone());
        Ok(())
    }

    /// At RCPT.
    pub async fn rcpt(&mut self, facts: &SessionFacts, rcpt: &Mailbox) -> Result<(), Refusal> {
        let macros = Macros { hostname: &self.hostname, facts, from: self.from.as_ref(), rcpt: Some(rcpt) };
        for filter in &mut self.filters {
            filter.rcpt(&macros, rcpt).await?;
        }
        Ok(())
    }

    /// At the end of DATA. Changes are made to `message` and noted in `changes`.
    pub async fn message(&mut self, facts: &SessionFacts, message: &mut Message, changes: &mut Changes) -> Result<(), Refusal> {
        let macros = Macros { hostname: &self.hostname, facts, from: self.from.as_ref(), rcpt: None };
        let mut outcome = Ok(());
        for filter in &mut self.filters {
            outcome = filter.message(&macros, message, changes).await;
            if outcome.is_err() {
                break;
            }
        }
        self.reset().await;
        outcome
    }

    /// The transaction ended.
    pub async fn reset(&mut self) {
        self.from = None;
        for filter in &mut self.filters {
            filter.reset().await;
        }
    }

    /// The session ended, or begins anew after HELO, STARTTLS or AUTH told something that filters should know.
    pub async fn quit(&mut self) {
        self.from = None;
        for filter in &mut self.filters {
            filter.quit().await;
        }
    }

    /// Whether there is any filter.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }
}
