//! Mailboxes kept by another program, reached by LMTP (RFC 2033): Dovecot with Pigeonhole's Sieve, for those who want it.
//!
//! With several back ends each user always goes to the same one, so that two of them never work on one mailbox; while it is away its mail waits.

mod connection;

use std::time::Duration;

use pillarbox_queue::{Body, Envelope, Feed, Outcome, Outcomes, Recipient, Route};
use pillarbox_smtp::{Domain, EnhancedCode, LocalPart, MailParams, Mailbox, RcptParams, Reply};
use sha2::{Digest, Sha256};

use crate::transport::MailboxTransport;
use crate::way::Backend;
use connection::{Connection, LmtpError, Transaction};

/// Recipients in one transaction, unless the server wants fewer.
const RECIPIENTS: usize = 100;

/// The back end for a user: the one with the highest digest of both names (rendezvous hashing), so that adding or removing one moves few users.
pub(crate) fn backend_for<'a>(backends: &'a [Backend], user: &Mailbox) -> Option<&'a Backend> {
    if let [only] = backends {
        return Some(only);
    }
    backends.iter().max_by_key(|backend| {
        let mut digest = Sha256::new();
        digest.update(backend.to_string().as_bytes());
        digest.update([0]);
        digest.update(user.key().as_bytes());
        digest.finalize()
    })
}

/// What a run needs besides the feed.
pub(crate) struct Client<'a> {
    pub(crate) backend: &'a Backend,
    pub(crate) hostname: &'a str,
    /// Between user and folder in the address; empty: folders are not passed on.
    pub(crate) delimiter: &'a str,
    /// How long an idle connection is kept for the next message.
    pub(crate) patience: Duration,
    /// Knows who is suspended, and hears of what was taken.
    pub(crate) transport: &'a MailboxTransport,
}

impl Client<'_> {
    /// Serves the feed over one connection.
    pub(crate) async fn run(&self, feed: &mut Feed) {
        let mut connection: Option<Connection> = None;
        while let Some(delivery) = feed.next_within(if connection.is_some() { self.patience } else { Duration::ZERO }).await {
            let wanted: Vec<Mailbox> = delivery.recipients().map(|recipient| recipient.address.clone()).collect();
            let users = self.transport.users(wanted).await;
            let mut each: Vec<Outcome> = Vec::with_capacity(delivery.recipients.len());
            let mut work: Vec<(usize, Recipient)> = Vec::new();
            for (at, recipient) in delivery.recipients().enumerate() {
                match self.transport.suspension(users.get(&recipient.address)) {
                    Some(outcome) => each.push(outcome),
                    None => {
                        work.push((at, recipient.clone()));
                        each.push(Outcome::Deferred { reply: interrupted() });
                    }
                }
            }
            let mut gone = None;
            for group in groups(work, connection.as_ref()) {
                let replies = match self.send(&mut connection, &delivery.envelope, &delivery.body, &group).await {
                    Ok(replies) => replies,
                    Err((error, connected)) => {
                        connection = None;
                        let reply = error.reply(self.backend);
                        for (at, _) in &group {
                            if let Some(slot) = each.get_mut(*at) {
                                *slot = Outcome::Deferred { reply: reply.clone() };
                            }
                        }
                        if !connected {
                            gone = Some(reply);
                            break;
                        }
                        continue;
                    }
                };
                let dsn = connection.as_ref().is_some_and(|connection| connection.capabilities.dsn);
                for ((at, recipient), reply) in group.iter().zip(replies) {
                    if reply.is_positive() {
                        metrics::counter!("pillarbox_lda_lmtp_accepted_total").increment(1);
                    }
                    if let (true, Some(Ok(Some(user)))) = (reply.is_positive(), users.get(&recipient.address)) {
                        self.transport.stored(&delivery.envelope, &delivery.body, recipient, user).await;
                    }
                    if let Some(slot) = each.get_mut(*at) {
                        *slot = outcome(reply, dsn);
                    }
                }
            }
            if let Some(reply) = &gone {
                for slot in each.iter_mut().filter(|slot| matches!(slot, Outcome::Deferred { reply } if *reply == interrupted())) {
                    *slot = Outcome::Deferred { reply: reply.clone() };
                }
            }
            delivery.finish(Outcomes { each, relay: format!("lmtp:{}", self.backend), tls: String::new() });
            if let Some(reply) = gone {
                feed.destination_down(reply);
                return;
            }
        }
        if let Some(connection) = connection {
            connection.quit().await;
        }
    }

    /// Sends to one group, connecting when needed. The error says whether a connection had been made.
    async fn send(
        &self,
        connection: &mut Option<Connection>,
        envelope: &Envelope,
        body: &Body,
        group: &[(usize, Recipient)],
    ) -> Result<Vec<Reply>, (LmtpError, bool)> {
        // What Sieve scripts look for; a Maildir of ours has its own junk folder instead.
        let body = if envelope.junk { body.prefixed("X-Spam-Flag: YES\r\n") } else { body.clone() };
        let params = MailParams {
            size: Some(body.len()),
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            ret: envelope.ret,
            envid: envelope.envid.clone(),
            ..MailParams::default()
        };
        let from = group.first().and_then(|(_, recipient)| recipient.reverse_path.as_ref()).unwrap_or(&envelope.from);
        let recipients = group
            .iter()
            .map(|(_, recipient)| (self.address(recipient), RcptParams { notify: recipient.notify, orcpt: recipient.orcpt.clone() }))
            .collect();
        let transaction = Transaction { from, params, recipients, body: &body };
        if let Some(open) = connection.as_mut() {
            let exhausted = open.capabilities.limits.mail_max.is_some_and(|most| open.messages >= most);
            if !exhausted {
                match open.send(&transaction).await {
                    Ok(replies) => return Ok(replies),
                    // An idle connection that the server gave up meanwhile: nothing was sent yet that it took.
                    Err(LmtpError::Closed | LmtpError::Io(_)) if open.is_unanswered() => {}
                    Err(error) => return Err((error, true)),
                }
            }
            *connection = None;
        }
        let name = Domain::new(self.hostname).unwrap_or_else(|_| Domain::literal(std::net::Ipv4Addr::LOCALHOST.into()));
        let fresh = connection.insert(Connection::open(self.backend, &name).await.map_err(|error| (error, false))?);
        fresh.send(&transaction).await.map_err(|error| (error, true))
    }

    /// The address with the folder that was asked for, as the server's own `recipient_delimiter` reads it.
    fn address(&self, recipient: &Recipient) -> Mailbox {
        match &recipient.route {
            Route::Mailbox { folder: Some(folder) } if !self.delimiter.is_empty() => {
                match LocalPart::new(&format!("{}{}{folder}", recipient.address.local.as_str(), self.delimiter)) {
                    Ok(local) => Mailbox::new(local, recipient.address.domain.clone()),
                    Err(_) => recipient.address.clone(),
                }
            }
            _ => recipient.address.clone(),
        }
    }
}

/// Recipients that can share a transaction.
fn groups(work: Vec<(usize, Recipient)>, connection: Option<&Connection>) -> Vec<Vec<(usize, Recipient)>> {
    let most = connection.and_then(|connection| connection.capabilities.limits.rcpt_max).unwrap_or(RECIPIENTS as u64);
    let most = usize::try_from(most).unwrap_or(RECIPIENTS).clamp(1, RECIPIENTS);
    let mut groups: Vec<Vec<(usize, Recipient)>> = Vec::new();
    for (at, recipient) in work {
        let shares = |group: &&mut Vec<(usize, Recipient)>| {
            group.len() < most && group.first().is_some_and(|(_, first)| first.reverse_path == recipient.reverse_path)
        };
        match groups.iter_mut().find(shares) {
            Some(group) => group.push((at, recipient)),
            None => groups.push(vec![(at, recipient)]),
        }
    }
    groups
}

fn interrupted() -> Reply {
    Reply::new(451, EnhancedCode(4, 4, 2), "The delivery was interrupted")
}

fn outcome(reply: Reply, dsn: bool) -> Outcome {
    if reply.is_positive() {
        // LMTP's yes is final delivery (RFC 2033 §4.2); only a server that speaks DSN reports it itself.
        if dsn { Outcome::Relayed { reply, dsn } } else { Outcome::Delivered }
    } else if (500..600).contains(&reply.code) {
        Outcome::Failed { reply }
    } else {
        Outcome::Deferred { reply }
    }
}
