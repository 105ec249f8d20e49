//! One mail transaction (RFC 5321 §3.3): MAIL, RCPT, DATA or BDAT, in as few writes as the host allows (RFC 2920).
//!
//! With PIPELINING the envelope goes out in one write; with CHUNKING a short message rides along as one BDAT LAST chunk, so that
//! a whole transaction costs one round trip. Each recipient keeps its own reply.

use futures::StreamExt;
use pillarbox_queue::{Body, Outcome};
use pillarbox_smtp::client::{Command, DotStuffer};
use pillarbox_smtp::{MailParams, Mailbox, RcptParams, Reply, ReversePath, Severity};

use super::content::INLINE;
use super::{Broken, Content, Session};
use crate::replies;

/// A transaction to run.
pub(crate) struct Job<'a> {
    /// MAIL FROM.
    pub(crate) from: &'a ReversePath,
    /// Its parameters.
    pub(crate) mail: MailParams,
    /// RCPT TO, each; at most a hundred.
    pub(crate) rcpts: Vec<Rcpt<'a>>,
    /// The message.
    pub(crate) content: &'a Content,
}

/// One recipient of a job.
pub(crate) struct Rcpt<'a> {
    /// Which recipient of the delivery it is.
    pub(crate) slot: usize,
    /// RCPT TO.
    pub(crate) to: &'a Mailbox,
    /// Its parameters.
    pub(crate) params: RcptParams,
}

/// What became of one recipient in a transaction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// The connection broke before the host took responsibility; it may be tried at once on another.
    Untried,
    /// The host takes no more recipients in this transaction (452), and took some: a further transaction serves it.
    Overflow,
    /// Settled for this attempt.
    Done(Outcome),
}

/// How a transaction ended.
pub(crate) struct End {
    /// In the order of [`Job::rcpts`].
    pub(crate) fates: Vec<Fate>,
    /// The connection is of no further use, and why.
    pub(crate) broken: Option<Reply>,
}

/// The replies to an envelope, as far as they came.
#[derive(Default)]
struct Answers {
    mail: Option<Reply>,
    rcpts: Vec<Reply>,
    /// The reply to DATA, or to the chunk that rode along.
    body: Option<Reply>,
}

/// What goes out together with the envelope.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rider {
    Nothing,
    Data,
    Chunk,
}

/// The outcome that a host's reply means for a recipient.
fn outcome(reply: Reply, dsn: bool) -> Outcome {
    match reply.severity() {
        Severity::Positive => Outcome::Relayed { reply, dsn },
        Severity::Permanent => Outcome::Failed { reply },
        Severity::Intermediate | Severity::Transient => Outcome::Deferred { reply },
    }
}

impl Session {
    /// Runs a transaction.
    pub(crate) async fn transact(&mut self, job: &Job<'_>) -> End {
        self.transactions += 1;
        let mut fates = vec![Fate::Untried; job.rcpts.len()];
        let (broken, phase) = match self.run(job, &mut fates).await {
            Ok(()) => return End { fates, broken: None },
            Err(failure) => failure,
        };
        End { fates, broken: Some(broken.reply(&self.label, phase)) }
    }

    async fn run(&mut self, job: &Job<'_>, fates: &mut [Fate]) -> Result<(), (Broken, &'static str)> {
        let rider = self.rider(job);
        let mut answers = Answers::default();
        let given = if self.capabilities.pipelining {
            self.envelope_in_one_write(job, rider, &mut answers).await
        } else {
            self.envelope_step_by_step(job, &mut answers).await
        };
        let accepted = judge(&answers, fates);
        if self.security.tls.is_empty() {
            await_tls(fates);
        }
        if let Err(broken) = given {
            if rider == Rider::Chunk && !accepted.is_empty() {
                // The message went out with the envelope: the host may have taken it.
                let lost = broken.reply(&self.label, AFTER_END);
                fates.iter_mut().filter(|fate| **fate == Fate::Untried).for_each(|fate| *fate = Fate::Done(outcome(lost.clone(), false)));
            }
            return Err((broken, "while giving the envelope"));
        }
        // A transaction stands half done unless the host took the message or refused MAIL.
        self.needs_reset = answers.mail.is_some_and(|mail| mail.is_positive());
        if accepted.is_empty() {
            return self.abandon(rider, answers.body).await.map_err(|broken| (broken, "while giving up a transaction"));
        }
        let sent = match (rider, answers.body) {
            (Rider::Chunk, Some(reply)) => Ok(Sent { reply, whole: true }),
            (_, data) => self.send(job, data).await,
        };
        match sent {
            Ok(Sent { reply, whole }) => {
                let mut replies = vec![reply];
                // RFC 2033 §4.2: a reply for each accepted recipient once the whole message was given.
                let further = if self.lmtp && whole { accepted.len() - 1 } else { 0 };
                let result = self.replies(further, &mut replies).await;
                let rest = match &result {
                    Err(broken) => Some(broken.reply(&self.label, AFTER_END)),
                    Ok(()) => replies.last().cloned(),
                };
                self.needs_reset = !replies.iter().any(Reply::is_positive);
                settle(fates, &accepted, &replies, rest.as_ref(), self.capabilities.dsn);
                result.map_err(|broken| (broken, AFTER_END))
            }
            Err(Stopped::Before(broken)) => Err((broken, "while sending the message")),
            Err(Stopped::Said(reply, broken)) => {
                settle(fates, &accepted, &[], Some(&reply), false);
                Err((broken, "while sending the message"))
            }
            Err(Stopped::After(broken)) => {
                // The host may have taken the message: trying again at once could only make a second copy sooner.
                settle(fates, &accepted, &[], Some(&broken.reply(&self.label, AFTER_END)), false);
                Err((broken, AFTER_END))
            }
        }
    }

    async fn replies(&mut self, count: usize, into: &mut Vec<Reply>) -> Result<(), Broken> {
        for _ in 0..count {
            into.push(self.reply(self.timeouts.end).await?);
        }
        Ok(())
    }

    fn rider(&self, job: &Job<'_>) -> Rider {
        match job.content {
            _ if !self.capabilities.pipelining => Rider::Nothing,
            Content::Binary(_) => Rider::Nothing,
            Content::Lines(bytes) if self.capabilities.chunking && !self.lmtp && bytes.len() <= INLINE => Rider::Chunk,
            Content::Lines(_) | Content::Stream(_) => Rider::Data,
        }
    }

    /// RFC 2920: RSET where due, MAIL, every RCPT, and DATA or a whole chunk; then the replies in order.
    async fn envelope_in_one_write(&mut self, job: &Job<'_>, rider: Rider, answers: &mut Answers) -> Result<(), Broken> {
        let reset = std::mem::take(&mut self.needs_reset);
        let (capabilities, out) = (&self.capabilities, &mut self.output);
        if reset {
            Command::Rset.write_to(out);
        }
        Command::Mail { from: job.from, params: &job.mail, capabilities }.write_to(out);
        for rcpt in &job.rcpts {
            Command::Rcpt { to: rcpt.to, params: &rcpt.params, capabilities, smtputf8: job.mail.smtputf8 }.write_to(out);
        }
        match (rider, job.content) {
            (Rider::Chunk, Content::Lines(bytes)) => {
                Command::Bdat { size: bytes.len() as u64, last: true }.write_to(out);
                out.extend_from_slice(bytes);
            }
            (Rider::Data, _) => Command::Data.write_to(out),
            _ => {}
        }
        let waits = self.timeouts;
        self.flush(waits.block).await?;
        if reset {
            self.reply(waits.mail).await?;
        }
        answers.mail = Some(self.reply(waits.mail).await?);
        answers.rcpts.reserve(job.rcpts.len());
        for _ in &job.rcpts {
            answers.rcpts.push(self.reply(waits.rcpt).await?);
        }
        answers.body = match rider {
            Rider::Nothing => None,
            Rider::Data => Some(self.reply(waits.data).await?),
            Rider::Chunk => Some(self.reply(waits.end).await?),
        };
        Ok(())
    }

    async fn envelope_step_by_step(&mut self, job: &Job<'_>, answers: &mut Answers) -> Result<(), Broken> {
        let waits = self.timeouts;
        if std::mem::take(&mut self.needs_reset) {
            self.command(Command::Rset, waits.mail).await?;
        }
        let capabilities = self.capabilities.clone();
        let mail = Command::Mail { from: job.from, params: &job.mail, capabilities: &capabilities };
        let mail = answers.mail.insert(self.command(mail, waits.mail).await?);
        if !mail.is_positive() {
            return Ok(());
        }
        for rcpt in &job.rcpts {
            let smtputf8 = job.mail.smtputf8;
            let command = Command::Rcpt { to: rcpt.to, params: &rcpt.params, capabilities: &capabilities, smtputf8 };
            answers.rcpts.push(self.command(command, waits.rcpt).await?);
        }
        Ok(())
    }

    /// Nobody was accepted. A host that nevertheless wants the message gets an empty one (RFC 2920 §3.1), which it must refuse.
    async fn abandon(&mut self, rider: Rider, body: Option<Reply>) -> Result<(), Broken> {
        if rider == Rider::Data && body.is_some_and(|reply| reply.code == 354) {
            if self.lmtp {
                return Err(Broken::Closed);
            }
            self.output.extend_from_slice(b".\r\n");
            self.flush(self.timeouts.block).await?;
            self.reply(self.timeouts.end).await?;
        }
        Ok(())
    }

    /// Sends the message to recipients that were accepted; `data` is the reply to a DATA that rode along.
    async fn send(&mut self, job: &Job<'_>, data: Option<Reply>) -> Result<Sent, Stopped> {
        if let Content::Binary(body) = job.content {
            return self.send_chunks(body).await;
        }
        let waits = self.timeouts;
        let go = match data {
            Some(reply) => reply,
            None => self.command(Command::Data, waits.data).await.map_err(Stopped::Before)?,
        };
        if go.code != 354 {
            let reply = if go.is_positive() { replies::garbled(&self.label, "after DATA", "354 was due") } else { go };
            return Ok(Sent { reply, whole: false });
        }
        let mut stuffer = DotStuffer::new();
        match job.content {
            Content::Lines(bytes) => {
                for piece in bytes.chunks(INLINE) {
                    stuffer.encode(piece, &mut self.output);
                    if self.output.len() >= INLINE {
                        self.push().await?;
                    }
                }
            }
            Content::Stream(body) | Content::Binary(body) => {
                let mut chunks = body.chunks();
                while let Some(chunk) = chunks.next().await {
                    stuffer.encode(&chunk.map_err(|e| self.unreadable(&e))?, &mut self.output);
                    if self.output.len() >= INLINE {
                        self.push().await?;
                    }
                }
            }
        }
        stuffer.finish(&mut self.output);
        self.push().await?;
        self.reply(waits.end).await.map(|reply| Sent { reply, whole: true }).map_err(Stopped::After)
    }

    /// BDAT chunks (RFC 3030 §4.2), each waiting for its reply.
    async fn send_chunks(&mut self, body: &Body) -> Result<Sent, Stopped> {
        let mut chunks = body.chunks();
        let mut next = chunks.next().await;
        loop {
            let chunk = next.transpose().map_err(|e| self.unreadable(&e))?.unwrap_or_default();
            next = chunks.next().await;
            let last = next.is_none();
            Command::Bdat { size: chunk.len() as u64, last }.write_to(&mut self.output);
            self.output.extend_from_slice(&chunk);
            self.push().await?;
            let wait = if last { self.timeouts.end } else { self.timeouts.block };
            let reply = self.reply(wait).await.map_err(if last { Stopped::After } else { Stopped::Before })?;
            if last || !reply.is_positive() {
                return Ok(Sent { reply, whole: last });
            }
        }
    }

    /// Writes a piece of the message. A host that hangs up in the middle often says why before it does.
    async fn push(&mut self) -> Result<(), Stopped> {
        let Err(broken) = self.flush(self.timeouts.block).await else { return Ok(()) };
        self.output.clear();
        match self.reply(self.timeouts.quit).await {
            Ok(reply) if !reply.is_positive() => Err(Stopped::Said(reply, broken)),
            Err(Broken::Bye(reply)) => Err(Stopped::Said(reply, broken)),
            _ => Err(Stopped::Before(broken)),
        }
    }

    /// The stored message cannot be read: the connection is dropped without the final dot, so that no half of it is taken.
    fn unreadable(&mut self, error: &std::io::Error) -> Stopped {
        self.output.clear();
        Stopped::Said(replies::body_unreadable(&super::io_reason(error)), Broken::Closed)
    }
}

/// Where a connection breaks when the message may have been taken already.
const AFTER_END: &str = "after the end of the message";

/// The first reply to a message.
struct Sent {
    reply: Reply,
    /// The whole message was given before it.
    whole: bool,
}

/// Settles those whom an envelope's replies refuse, and returns who was accepted.
fn judge(answers: &Answers, fates: &mut [Fate]) -> Vec<usize> {
    let Some(mail) = &answers.mail else { return vec![] };
    if !mail.is_positive() {
        fates.fill(Fate::Done(outcome(mail.clone(), false)));
        return vec![];
    }
    let replies = || answers.rcpts.iter().enumerate();
    let accepted: Vec<usize> = replies().filter(|(_, reply)| reply.is_positive()).map(|(index, _)| index).collect();
    for (index, reply) in replies().filter(|(_, reply)| !reply.is_positive()) {
        // RFC 5321 §4.5.3.1.10: 452 after accepted recipients means "in another transaction"; some say 552. 4.2.2 is a full mailbox.
        let full = matches!(reply.code, 452 | 552) && !accepted.is_empty() && reply.status().1 != 2;
        if let Some(fate) = fates.get_mut(index) {
            *fate = if full { Fate::Overflow } else { Fate::Done(outcome(reply.clone(), false)) };
        }
    }
    accepted
}

/// 530 on a connection without TLS asks for TLS (RFC 3207 §4.3): what kept it away may pass, so nobody fails for it.
fn await_tls(fates: &mut [Fate]) {
    for fate in fates {
        if let Fate::Done(Outcome::Failed { reply }) = fate
            && reply.code == 530
        {
            *fate = Fate::Done(Outcome::Deferred { reply: reply.clone() });
        }
    }
}

/// Why sending the message stopped.
enum Stopped {
    /// The connection broke before the end of the message was sent.
    Before(Broken),
    /// The same, and this is the reason to give.
    Said(Reply, Broken),
    /// It broke after the end was sent and before a reply.
    After(Broken),
}

/// Gives each accepted recipient its reply; those without one of their own get `rest`.
fn settle(fates: &mut [Fate], accepted: &[usize], replies: &[Reply], rest: Option<&Reply>, dsn: bool) {
    for (n, &index) in accepted.iter().enumerate() {
        if let (Some(fate), Some(reply)) = (fates.get_mut(index), replies.get(n).or(rest)) {
            *fate = Fate::Done(outcome(reply.clone(), dsn));
        }
    }
}
