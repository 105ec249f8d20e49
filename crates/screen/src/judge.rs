//! The end of DATA: checks, rules, greylisting and filters in order, and the verdict they come to.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pillarbox_message::header::{fields, split};
use pillarbox_smtp::{Mailbox, ReversePath, printable};

use crate::auth::{AuthResult, Authentication, Checks, SpfCheck, authenticate};
use crate::dnsbl::Listings;
use crate::facts::SessionFacts;
use crate::greylist::Greylist;
use crate::milter::{Changes, Message, Refusal};
use crate::policy::{self, Opinion};
use crate::results::{self, VERDICT};
use crate::screen::Screen;
use crate::verdict::{Action, Verdict};
use crate::{milter, replies};

/// One message before the screen.
pub(crate) struct Case<'a> {
    pub(crate) screen: &'a Screen,
    pub(crate) facts: &'a SessionFacts,
    pub(crate) from: &'a ReversePath,
    pub(crate) rcpts: &'a [Mailbox],
    pub(crate) message: Bytes,
}

impl Case<'_> {
    /// Mail that is not judged: only what pretends to be ours goes.
    pub(crate) fn unjudged(&self) -> Verdict {
        Verdict {
            remove: results::forged(&self.message, &self.screen.hostname),
            body_offset: split(&self.message).body,
            ..Verdict::accept()
        }
    }

    /// Everything up to the filters.
    pub(crate) async fn judge(&self, listings: &Listings, spf: Option<SpfCheck>) -> Verdict {
        let config = &self.screen.config;
        let checks = Checks { dkim: config.dkim, dmarc: config.dkim && config.spf && config.dmarc != "off", arc: config.arc };
        let auth = authenticate(&self.screen.dns, checks, self.from, spf, self.message.clone()).await;
        let list = fields(&self.message).any(|field| field.is("List-Id"));
        let mut opinion = policy::weigh(config, listings, &auth, list);
        if self.vouched_for(&auth) {
            opinion = Opinion { why: vec!["sender is on the allow list".to_owned()], ..Opinion::default() };
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if let Some(reports) = &self.screen.reports {
            reports.note(self.facts.client, self.from, &auth, &opinion, now).await;
        }
        let mut verdict = self.unjudged();
        verdict.score = opinion.score;
        verdict.dmarc = auth.dmarc.as_ref().map(|dmarc| dmarc.result.as_str());
        verdict.why = opinion.why;
        verdict.action = match opinion.refuse {
            Some(reply) => Action::Reject(reply),
            None if opinion.junk || opinion.score >= config.junk_score => Action::Junk,
            None => Action::Accept,
        };
        if matches!(verdict.action, Action::Accept | Action::Junk) && config.greylist && !self.passes(&auth) {
            let greylist = Greylist::new(self.screen.directory.clone());
            if let Err(reply) = greylist.check(self.facts.client, &self.facts.helo, self.from, self.rcpts, now).await {
                verdict.why.push("greylisted".to_owned());
                verdict.action = Action::Defer(reply);
            }
        }
        verdict.prepend = results::write(&self.screen.hostname, &policy::statements(&auth, config.dkim)).into_bytes();
        verdict
    }

    /// Whether the sender is on the allow list and SPF does not say that someone else speaks in its name.
    fn vouched_for(&self, auth: &Authentication) -> bool {
        let denied = auth.spf.as_ref().is_some_and(|spf| matches!(spf.result, AuthResult::Fail | AuthResult::SoftFail));
        let allow = &self.screen.allow;
        (!denied && self.from.mailbox().is_some_and(|mailbox| allow.has_sender(mailbox)))
            || auth.dkim.iter().any(|dkim| dkim.result == AuthResult::Pass && allow.has_domain(&dkim.domain))
    }

    /// Whether the sender proved who it is, which spares it the grey list.
    fn passes(&self, auth: &Authentication) -> bool {
        auth.spf.as_ref().is_some_and(|spf| spf.result == AuthResult::Pass)
            || auth.dkim.iter().any(|dkim| dkim.result == AuthResult::Pass)
            || self.vouched_for(auth)
    }

    /// Shows the message to the filters, unless it is refused already.
    pub(crate) async fn filter(&self, chain: &mut milter::Chain, verdict: &mut Verdict) {
        if !matches!(verdict.action, Action::Accept | Action::Junk) || chain.is_empty() {
            return;
        }
        let mut message = Message::new(&verdict.prepend, &self.message, &verdict.remove);
        let mut changes = Changes::default();
        match chain.message(self.facts, &mut message, &mut changes).await {
            Ok(()) => {}
            Err(Refusal::Discard) => {
                verdict.why.push("a milter discards the message".to_owned());
                verdict.action = Action::Discard;
                return;
            }
            Err(Refusal::Reply(reply)) => {
                verdict.why.push(format!("a milter says {}", printable(reply.to_string().as_bytes())));
                verdict.action = if reply.code >= 500 { Action::Reject(reply) } else { Action::Defer(reply) };
                return;
            }
        }
        if let Some(reason) = &changes.quarantine {
            verdict.why.push(format!("a milter quarantines it: {reason}"));
            verdict.action = Action::Junk;
        } else if changes.spam {
            verdict.why.push("a milter calls it spam".to_owned());
            verdict.action = Action::Junk;
        }
        verdict.header = changes.header.then(|| message.header());
        verdict.body = changes.body.then(|| message.body().to_vec());
        (verdict.add_recipients, verdict.remove_recipients) = (changes.add_recipients, changes.remove_recipients);
        verdict.change_from = changes.change_from;
    }

    /// Puts the explanation first, as a field that people and rules can read.
    pub(crate) fn explain(&self, verdict: &mut Verdict) {
        let word = match &verdict.action {
            Action::Accept => "accept",
            Action::Junk => "junk",
            Action::Reject(_) | Action::Defer(_) | Action::Discard => return,
        };
        let mut field = format!("{VERDICT}: {word}, score={:.1} required={:.1}", verdict.score, self.screen.config.junk_score);
        for why in &verdict.why {
            let line: String = why.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(400).collect();
            field.push_str(";\r\n\t");
            field.push_str(&line);
        }
        field.push_str("\r\n");
        match &mut verdict.header {
            Some(header) => drop(header.splice(0..0, field.into_bytes())),
            None => drop(verdict.prepend.splice(0..0, field.into_bytes())),
        }
    }
}

/// The verdict when the judges cannot be had: try again later.
pub(crate) fn unavailable() -> Verdict {
    Verdict::of(Action::Defer(replies::milter_tempfail()))
}
