//! What each command means here: who may send, who is reachable, and what is said otherwise.

use pillarbox_directory::{Resolved, resolve};
use pillarbox_message::trace;
use pillarbox_queue::AcceptError;
use pillarbox_smtp::server::{Event, HeloName, Role};
use pillarbox_smtp::{ForwardPath, Hold, LocalPart, MailParams, Mailbox, RcptParams, Reply, ReversePath, printable, replies};

use crate::connection::Connection;
use crate::draft::Draft;
use crate::intake::now_millis;
use crate::routing;

impl Connection {
    /// Decides an event or takes note of it. Each in a box of its own size: a future as large as the largest would be made, and copied, for
    /// every command.
    pub(crate) async fn on_event(&mut self, event: Event) {
        match event {
            Event::Helo { name, .. } => Box::pin(self.on_helo(name)).await,
            Event::Mail { path, params } => {
                let answer = Box::pin(self.on_mail(path, params)).await;
                self.answer(answer, replies::sender_ok());
            }
            Event::Rcpt { path, params } => {
                let answer = Box::pin(self.on_rcpt(path, params)).await;
                self.answer(answer, replies::recipient_ok());
            }
            Event::DataStart => self.on_data_start(),
            Event::Content(octets) => self.on_content(octets).await,
            Event::MessageEnd => Box::pin(self.on_message_end()).await,
            Event::MessageAborted { why } => {
                metrics::counter!("pillarbox_ingest_messages_refused_total", "why" => "content").increment(1);
                self.log_reject("", None, &format!("the message was refused on the way: {why:?}"));
                Box::pin(self.drop_draft()).await;
            }
            Event::Auth(request) => Box::pin(self.on_auth(request)).await,
            Event::Reset => Box::pin(self.drop_draft()).await,
            Event::Refused(reply) => self.log_reject("", None, &reply.to_string()),
            Event::Vrfy(_) | Event::Quit | Event::Noop => {}
        }
    }

    fn answer(&mut self, answer: Result<(), Reply>, ok: Reply) {
        self.smtp.reply(answer.err().unwrap_or(ok));
    }

    /// Forgets the transaction.
    pub(crate) async fn drop_draft(&mut self) {
        if self.draft.take().is_some()
            && let Some(screen) = &mut self.screen
        {
            screen.reset().await;
        }
    }

    async fn on_helo(&mut self, name: HeloName) {
        let refused = match &mut self.screen {
            Some(screen) => screen.helo(name.as_str()).await.err(),
            None => None,
        };
        match refused {
            Some(reply) => {
                self.log_reject("", None, &reply.to_string());
                self.smtp.reply(reply);
            }
            None => self.smtp.accept_helo(),
        }
    }

    async fn on_mail(&mut self, from: ReversePath, params: MailParams) -> Result<(), Reply> {
        let admitted = self.ingest.rooms.queue.admission().map_err(|e| accept_reply(&e));
        let answer = match admitted {
            Ok(()) => self.check_sender(&from, &params).await,
            Err(reply) => Err(reply),
        };
        match answer {
            Ok(id) => {
                self.draft = Some(Box::new(Draft::new(id, from, params)));
                Ok(())
            }
            Err(reply) => {
                self.log_reject(&from.to_string(), None, &reply.to_string());
                Err(reply)
            }
        }
    }

    async fn check_sender(&mut self, from: &ReversePath, params: &MailParams) -> Result<pillarbox_queue::QueueId, Reply> {
        let id = self.ingest.rooms.queue.new_id();
        if self.role.is_submission() {
            let user = self.user().ok_or_else(replies::authentication_required)?;
            self.check_login().await?;
            if let Some(Hold::Until(at)) = params.hold
                && at > (now_millis() / 1000).saturating_add(FURTHEST_HOLD)
            {
                return Err(replies::hold_too_long());
            }
            if let Some(sender) = from.mailbox() {
                self.ingest.check_ownership(&user, sender).await?;
            }
        }
        if let Some(screen) = &mut self.screen {
            screen.mail(&id.to_string(), from, params).await?;
        }
        Ok(id)
    }

    async fn on_rcpt(&mut self, path: ForwardPath, params: RcptParams) -> Result<(), Reply> {
        let given = match path {
            ForwardPath::Mailbox(mailbox) => mailbox,
            ForwardPath::Postmaster => self.own_postmaster()?,
        };
        let Some(mut draft) = self.draft.take() else { return Err(replies::need_mail()) };
        let answer = self.add_recipient(&mut draft, &given, &params).await;
        if let Err(reply) = &answer {
            let from = draft.from.to_string();
            metrics::counter!("pillarbox_ingest_recipients_refused_total").increment(1);
            self.log_reject(&from, Some(&given), &reply.to_string());
        }
        self.draft = Some(draft);
        answer
    }

    /// RFC 5321 §4.5.1: `<postmaster>` without a domain reaches whoever runs this host.
    fn own_postmaster(&self) -> Result<Mailbox, Reply> {
        let local = LocalPart::new("postmaster").map_err(|_| replies::unknown_recipient("postmaster"))?;
        let domain = self.settings.policy.hostname.clone().ok_or_else(|| replies::unknown_recipient("postmaster"))?;
        Ok(Mailbox::new(local, domain))
    }

    async fn add_recipient(&mut self, draft: &mut Draft, given: &Mailbox, params: &RcptParams) -> Result<(), Reply> {
        let directory = self.ingest.rooms.directory.clone();
        let resolution = match resolve(directory.as_ref(), &self.settings.policy, given).await {
            Ok(resolution) => resolution,
            Err(error) => return Err(self.directory_away(&error)),
        };
        let user = self.user();
        if let Some(user) = &user {
            self.settings.user_rates.check(user, given).await?;
        }
        let held = self.settings.config.mailbox.suspended == "hold";
        match resolution.outcome {
            Resolved::Deliver(targets) => {
                self.admit(&targets, draft.params.size).await?;
                if let Some(screen) = &mut self.screen {
                    screen.rcpt(&draft.from, given).await?;
                }
                let mut recipients =
                    routing::recipients(directory.as_ref(), &self.settings.policy, given, targets, params, &draft.from, &mut draft.seen)
                        .await
                        .map_err(|e| self.directory_away(&e))?;
                if held {
                    recipients.extend(routing::held(given, &resolution.suspended, params, &mut draft.seen));
                }
                draft.recipients.append(&mut recipients);
            }
            Resolved::Suspended if held => {
                draft.recipients.extend(routing::held(given, &resolution.suspended, params, &mut draft.seen));
            }
            Resolved::Suspended => return Err(replies::recipient_suspended(&printable(given.to_string().as_bytes()))),
            Resolved::Unknown => return Err(replies::unknown_recipient(&printable(given.to_string().as_bytes()))),
            Resolved::NotOurs if user.is_some() => {
                if let Some(screen) = &mut self.screen {
                    screen.rcpt(&draft.from, given).await?;
                }
                draft.recipients.extend(routing::relayed(given, params, &mut draft.seen));
            }
            Resolved::NotOurs => return Err(replies::relay_denied(&printable(given.to_string().as_bytes()))),
            Resolved::Loop => return Err(replies::alias_loop()),
            Resolved::TooMany => return Err(replies::alias_too_wide()),
        }
        draft.given.push(given.clone());
        Ok(())
    }

    /// Refuses when every mailbox that the address leads to is full; a list with one full member still gets its mail.
    async fn admit(&self, targets: &[pillarbox_directory::Target], size: Option<u64>) -> Result<(), Reply> {
        let mut refused = None;
        for target in targets {
            let pillarbox_directory::Target::Mailbox { user, .. } = target else { return Ok(()) };
            match self.ingest.rooms.mailboxes.admit(user, size).await {
                Ok(()) => return Ok(()),
                Err(reply) => refused = Some(reply),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn on_data_start(&mut self) {
        let began = std::time::Instant::now();
        let body = self.ingest.rooms.queue.body_writer();
        match &mut self.draft {
            Some(draft) => {
                draft.body = Some(body);
                draft.body_began = Some(began);
                self.smtp.reply(replies::start_input());
            }
            None => self.smtp.reply(replies::need_mail()),
        }
    }

    /// Appends to the body. A failing disk is reported at the message's end, since nothing may be said before.
    pub(crate) async fn on_content(&mut self, octets: bytes::Bytes) {
        let Some(draft) = &mut self.draft else { return };
        let Some(body) = &mut draft.body else { return };
        if draft.body_failed.is_none()
            && let Err(error) = body.write_bytes(octets).await
        {
            draft.body_failed = Some(error);
        }
    }

    /// Who logged in.
    pub(crate) fn user(&self) -> Option<Mailbox> {
        self.smtp.transaction().identity.as_ref().map(|i| i.user.clone())
    }

    /// 451 for a directory that does not answer, with the cause in the log alone.
    pub(crate) fn directory_away(&self, error: &pillarbox_directory::DirectoryError) -> Reply {
        metrics::counter!("pillarbox_ingest_directory_errors_total").increment(1);
        tracing::error!(%error, client = self.peer.text(), "the directory did not answer a session");
        replies::try_later()
    }

    /// How this transaction's `Received` names its protocol.
    pub(crate) fn protocol(&self) -> trace::Protocol {
        let transaction = self.smtp.transaction();
        let (tls, auth, utf8) = (transaction.tls.is_some(), transaction.identity.is_some(), transaction.params.smtputf8);
        match self.role {
            Role::Lmtp => trace::Protocol::Lmtp { tls, auth, utf8 },
            _ if transaction.extended => trace::Protocol::Esmtp { tls, auth, utf8 },
            _ => trace::Protocol::Smtp,
        }
    }

    /// One `reject` event.
    pub(crate) fn log_reject(&self, from: &str, to: Option<&Mailbox>, reply: &str) {
        let to = to.map(|t| printable(t.to_string().as_bytes())).unwrap_or_default();
        tracing::info!(
            target: "pillarbox::event",
            event = "reject",
            client = self.peer.text(),
            helo = self.helo(),
            from = printable(from.as_bytes()),
            to,
            reply = printable(reply.as_bytes()),
        );
    }
}

/// How far in the future a message may be held, seconds; the same as FUTURERELEASE announces.
const FURTHEST_HOLD: u64 = 30 * 86_400;

/// The queue's refusal as a reply.
pub(crate) fn accept_reply(error: &AcceptError) -> Reply {
    match error {
        AcceptError::DiskFull { .. } => replies::disk_full(),
        AcceptError::ShuttingDown => replies::shutting_down(),
        AcceptError::TooLarge => replies::too_many_recipients(),
        _ => replies::try_later(),
    }
}
