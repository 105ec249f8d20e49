//! The last octet has come: the message is judged or fixed up, made durable, and answered.

use pillarbox_queue::{Door, Route};
use pillarbox_screen::{Action, Verdict};
use pillarbox_smtp::server::Role;
use pillarbox_smtp::{Mailbox, Reply, printable, replies};

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
            let shown = (proven && arrived.whole).then(|| arrived.head.clone());
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
                tracing::info!(
                    target: "pillarbox::event",
                    event = "reject",
                    id = draft.id.to_string(),
                    client = self.peer.text(),
                    from = draft.from.to_string(),
                    status = "discarded",
                    verdict = verdict.why.join("; "),
                );
                return Ok(false);
            }
        }
        if let Some(from) = &verdict.change_from {
            draft.from = from.clone();
        }
        for gone in &verdict.remove_recipients {
            draft.recipients.retain(|r| !r.given.as_ref().unwrap_or(&r.address).same_as(gone));
        }
        for added in &verdict.add_recipients {
            self.add_for_milter(draft, added).await;
        }
        Ok(!draft.recipients.is_empty())
    }

    async fn add_for_milter(&self, draft: &mut Draft, added: &Mailbox) {
        let rooms = &self.ingest.rooms;
        let params = pillarbox_smtp::RcptParams::default();
        let policy = &self.settings.policy;
        match pillarbox_directory::resolve(rooms.directory.as_ref(), policy, added).await.map(|r| r.outcome) {
            Ok(pillarbox_directory::Resolved::Deliver(targets)) => {
                let more =
                    crate::routing::recipients(rooms.directory.as_ref(), policy, added, targets, &params, &draft.from, &mut draft.seen);
                match more.await {
                    Ok(more) => draft.recipients.extend(more),
                    Err(error) => tracing::error!(%error, "a recipient that a milter added was lost"),
                }
            }
            Ok(pillarbox_directory::Resolved::NotOurs) => {
                draft.recipients.extend(crate::routing::relayed(added, &params, &mut draft.seen));
            }
            other => tracing::warn!(recipient = %added, ?other, "a milter added a recipient that cannot be reached"),
        }
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
