//! The last octet has come: the message is judged or fixed up, made durable, and answered.

use pillarbox_directory::Resolved;
use pillarbox_queue::{Door, Route};
use pillarbox_screen::{Action, Verdict};
use pillarbox_smtp::server::Role;
use pillarbox_smtp::{Mailbox, RcptParams, Reply, printable, replies};

use crate::connection::Connection;
use crate::draft::Draft;
use crate::intake::{Arrived, Changes, Origin, body_error};

impl Connection {
    /// Answers the end of a message: once, in LMTP once a recipient (RFC 2033 §4.2).
    pub(crate) async fn on_message_end(&mut self) {
        let Some(mut draft) = self.draft.take() else {
            while self.smtp.wants_reply() {
                self.smtp.reply(replies::need_mail());
            }
            return;
        };
        let answer = self.finish(&mut draft).await;
        match &answer {
            Ok(()) => self.messages = self.messages.saturating_add(1),
            Err(reply) => self.log_reject(&draft.from.to_string(), draft.given.first(), &reply.to_string()),
        }
        let id = draft.id.to_string();
        match answer {
            Err(reply) if self.role == Role::Lmtp => draft.given.iter().for_each(|_| self.smtp.reply(reply.clone())),
            Ok(()) if self.role == Role::Lmtp => {
                draft.given.iter().for_each(|given| self.smtp.reply(replies::delivered(&id, &printable(given.to_string().as_bytes()))));
            }
            Err(reply) => self.smtp.reply(reply),
            Ok(()) => self.smtp.reply(replies::queued(&id)),
        }
    }

    /// `Ok`: the message is safe.
    async fn finish(&mut self, draft: &mut Draft) -> Result<(), Reply> {
        if let Some(error) = draft.body_failed.take() {
            return Err(body_error(&error));
        }
        let writer = draft.body.take().ok_or_else(replies::need_mail)?;
        let body = writer.finish().await.map_err(|e| body_error(&e))?;
        let (ingest, settings) = (self.ingest.clone(), self.settings.clone());
        let mut arrived = Arrived::new(&settings, body).await?;
        let origin = self.origin().await;
        if self.role.is_submission() {
            if let Some(screen) = &mut self.screen {
                let _permit = arrived.load(&ingest).await?;
                let verdict = screen.judge(&draft.from, &draft.given, arrived.head.clone()).await;
                if !self.heed(draft, &verdict, &mut Changes::default()).await? {
                    return Ok(());
                }
                if !verdict.leaves_unchanged() {
                    arrived = Arrived::new(&settings, Arrived::assembled(&ingest, &verdict.pieces(&arrived.head)).await?).await?;
                }
            }
            ingest.take_submission(&settings, &origin, draft, arrived).await?;
        } else {
            let mut changes = Changes::default();
            let _permit = match self.screen.as_ref().is_some_and(|screen| screen.reads_bodies()) {
                true => arrived.load(&ingest).await?,
                false => None,
            };
            if let Some(screen) = &mut self.screen {
                let verdict = screen.judge(&draft.from, &draft.given, arrived.head.clone()).await;
                if !self.heed(draft, &verdict, &mut changes).await? {
                    // RFC 5321 has no word for it, but a milter that discards wants the sender to believe in success.
                    return Ok(());
                }
                changes.verdict = Some(verdict);
            }
            if changes.junk {
                keep_junk_here(draft)?;
            }
            if draft.recipients.iter().any(|r| r.route == Route::Relay) {
                changes.forward_header = self.seal(draft, &arrived, &changes).await;
            }
            let proven = changes.verdict.as_ref().is_some_and(|verdict| verdict.dmarc == Some("pass"));
            let shown = (proven && arrived.whole && !changes.junk).then(|| arrived.head.clone());
            ingest.take_in(&settings, &origin, draft, arrived, changes).await?;
            if let Some(message) = shown {
                ingest.rooms.reports.offer(message);
            }
        }
        Ok(())
    }

    /// Does what the verdict asks of the envelope. `false`: drop the message, yet answer 250.
    async fn heed(&mut self, draft: &mut Draft, verdict: &Verdict, changes: &mut Changes) -> Result<bool, Reply> {
        match &verdict.action {
            Action::Accept => {}
            Action::Junk => changes.junk = true,
            Action::Reject(reply) | Action::Defer(reply) => {
                metrics::counter!("pillarbox_ingest_messages_refused_total", "why" => "verdict").increment(1);
                return Err(reply.clone());
            }
            Action::Discard => {
                self.log_discarded(draft, verdict);
                return Ok(false);
            }
        }
        if let Some(from) = &verdict.change_from {
            draft.from = from.clone();
        }
        if !verdict.remove_recipients.is_empty() || !verdict.add_recipients.is_empty() {
            self.readdress(draft, verdict).await?;
        }
        if draft.recipients.is_empty() {
            self.log_discarded(draft, verdict);
        }
        Ok(!draft.recipients.is_empty())
    }

    /// The recipients as a milter wants them, resolved anew: two addresses may lead to one mailbox, and only one of them be taken out.
    async fn readdress(&self, draft: &mut Draft, verdict: &Verdict) -> Result<(), Reply> {
        let mut kept: Vec<(Mailbox, RcptParams)> = self
            .smtp
            .transaction()
            .recipients
            .iter()
            .zip(&draft.given)
            .filter(|(_, given)| !verdict.remove_recipients.iter().any(|gone| gone.same_as(given)))
            .map(|((_, params), given)| (given.clone(), params.clone()))
            .collect();
        kept.extend(verdict.add_recipients.iter().map(|added| (added.clone(), RcptParams::default())));
        draft.recipients.clear();
        draft.seen.clear();
        draft.given = kept.iter().map(|(given, _)| given.clone()).collect();
        for (address, params) in &kept {
            self.add_for_milter(draft, address, params).await?;
        }
        // A milter that named somebody did not ask for the message to vanish.
        if draft.recipients.is_empty() && !kept.is_empty() { Err(replies::try_later()) } else { Ok(()) }
    }

    fn log_discarded(&self, draft: &Draft, verdict: &Verdict) {
        tracing::info!(
            target: "pillarbox::event",
            event = "reject",
            id = draft.id.to_string(),
            client = self.peer.text(),
            from = draft.from.to_string(),
            status = "discarded",
            verdict = verdict.why.join("; "),
        );
    }

    async fn add_for_milter(&self, draft: &mut Draft, added: &Mailbox, params: &RcptParams) -> Result<(), Reply> {
        let directory = self.ingest.rooms.directory.as_ref();
        let policy = &self.settings.policy;
        let resolution = pillarbox_directory::resolve(directory, policy, added).await.map_err(|e| self.directory_away(&e))?;
        match resolution.outcome {
            Resolved::Deliver(targets) => {
                let more = crate::routing::recipients(directory, policy, added, targets, params, &draft.from, &mut draft.seen);
                draft.recipients.extend(more.await.map_err(|e| self.directory_away(&e))?);
            }
            Resolved::NotOurs => draft.recipients.extend(crate::routing::relayed(added, params, &mut draft.seen)),
            Resolved::Suspended if self.settings.config.mailbox.suspended == "hold" => {
                draft.recipients.extend(crate::routing::held(added, &resolution.suspended, params, &mut draft.seen));
            }
            other => tracing::warn!(recipient = %added, ?other, "a recipient that a milter named cannot be reached"),
        }
        Ok(())
    }

    /// An ARC set over the message as its forwarded copies will have it, so that the next host can believe our verdict (RFC 8617).
    async fn seal(&self, draft: &Draft, arrived: &Arrived, changes: &Changes) -> String {
        let Some(domain) = draft.given.first().map(|g| g.domain.clone()) else { return String::new() };
        if !arrived.whole {
            return String::new();
        }
        let message = match &changes.verdict {
            Some(verdict) => bytes::Bytes::from(verdict.pieces(&arrived.head).concat()),
            None => arrived.head.clone(),
        };
        match self.ingest.rooms.signer.seal(&domain, message).await {
            Ok(Some(set)) => String::from_utf8(set).unwrap_or_default(),
            Ok(None) => String::new(),
            Err(error) => {
                // A forward without a seal is still a forward.
                tracing::warn!(%error, %domain, "a forwarded message could not be sealed");
                String::new()
            }
        }
    }

    async fn origin(&self) -> Origin {
        let user = self.user();
        let user_name = match &user {
            Some(user) => match self.ingest.rooms.directory.user(user).await {
                Ok(Some(record)) => record.name.unwrap_or_default(),
                _ => String::new(),
            },
            None => String::new(),
        };
        Origin {
            door: match self.role {
                Role::Mta => Door::Smtp,
                Role::Submission | Role::SubmissionTls => Door::Submission,
                Role::Lmtp => Door::Lmtp,
            },
            client: self.peer.ip(),
            helo: self.helo(),
            tls: self.tls.as_ref().map(|t| (t.version, t.cipher.clone())),
            user,
            user_name,
            protocol: self.protocol(),
        }
    }
}

/// Junk is not sent on: whoever forwards it is taken for its source. Where only other hosts would have got it, the client hears so now.
fn keep_junk_here(draft: &mut Draft) -> Result<(), Reply> {
    draft.recipients.retain(|recipient| recipient.route != Route::Relay);
    if draft.recipients.is_empty() { Err(replies::junk_not_forwarded()) } else { Ok(()) }
}
