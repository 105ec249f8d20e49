//! The server's side of SMTP and LMTP as a state machine: octets in, events and replies out (docs/design.md, "smtp::server").
//!
//! The driver reads octets into a buffer and calls [`ServerSession::poll`] until it says [`Step::NeedInput`]; it answers each event
//! that wants an answer before it polls again, and writes [`ServerSession::output`] before it reads more. So a pipelined group of
//! commands is answered in order and in one write.

mod auth;
mod command;
mod config;
mod dispatch;
mod ehlo;
mod event;
mod line;
mod message;
mod params;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use zeroize::Zeroize as _;

pub use config::{BareLineEnds, Extensions, FutureRelease, Limits, NulPolicy, Role, ServerConfig};
pub use event::{Abort, AuthRequest, AuthResult, Event, HeloKind, HeloName, Identity, Step, TlsInfo, Transaction};

use crate::content::DataDecoder;
use crate::replies;
use crate::reply::Reply;
use auth::Exchange;
use line::{Expect, Line, LineReader};
use message::{Chunk, Chunks};

/// One client's session.
pub struct ServerSession {
    config: Arc<ServerConfig>,
    transaction: Transaction,
    phase: Phase,
    lines: LineReader,
    output: BytesMut,
    /// Events that follow the one just returned.
    queued: VecDeque<Event>,
    /// The message that is coming by BDAT, between its chunks too.
    chunks: Option<Chunks>,
    /// RCPT was tried in this transaction, so that "none valid" can be told from "none given".
    rcpt_tried: bool,
    /// The last MAIL was refused: what a pipelining client sent behind it (RFC 2920 §3.1) fails, and is no fault of the client's.
    mail_refused: bool,
    /// See [`Limits`].
    counters: Counters,
    /// Our part of SCRAM nonces where a test needs to know it; otherwise random.
    fixed_nonce: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    errors: u32,
    idle: u32,
    /// Refused recipients less accepted ones.
    refused_recipients: u32,
    transactions: u32,
}

/// What the next octets of input are.
#[derive(Debug)]
enum Phase {
    /// A command line.
    Command,
    /// A line of an AUTH exchange.
    Auth(Exchange),
    /// Nothing: the driver has an event to answer.
    Waiting(Wait),
    /// DATA content. `fresh` until 354 is known to have been written.
    Data { decoder: Box<DataDecoder>, fresh: bool },
    /// The octets of one BDAT chunk.
    Chunk(Chunk),
    /// All content is there; the driver is told next.
    Complete,
    /// A TLS handshake.
    Handshake,
    /// Nothing any more.
    Closed,
}

/// What the driver is to answer.
#[derive(Debug)]
enum Wait {
    Helo {
        name: HeloName,
        extended: bool,
    },
    Mail(crate::address::ReversePath, crate::params::MailParams),
    Rcpt(crate::address::ForwardPath, crate::params::RcptParams),
    Data,
    /// The first chunk, whose octets wait for the answer.
    FirstChunk {
        size: u64,
        last: bool,
    },
    /// This many answers are still due.
    MessageEnd {
        left: usize,
    },
    Auth(Exchange),
}

impl ServerSession {
    /// A session before its greeting.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            config,
            transaction: Transaction::default(),
            phase: Phase::Command,
            lines: LineReader::default(),
            output: BytesMut::new(),
            queued: VecDeque::new(),
            chunks: None,
            rcpt_tried: false,
            mail_refused: false,
            counters: Counters::default(),
            fixed_nonce: None,
        }
    }

    /// The same with a fixed nonce for SCRAM. For tests: a nonce used twice makes SCRAM replayable.
    pub fn with_nonce(config: Arc<ServerConfig>, nonce: &str) -> Self {
        Self { fixed_nonce: Some(nonce.to_owned()), ..Self::new(config) }
    }

    /// Puts the greeting into the output. Where TLS comes first, call [`tls_started`](Self::tls_started) before.
    pub fn greet(&mut self) {
        let Self { config, .. } = self;
        let greeting = if config.role == Role::Lmtp { replies::lmtp_greeting } else { replies::greeting };
        let reply = greeting(&config.hostname, &config.product);
        self.say(&reply);
    }

    /// Takes what it can from `input` and says what the driver must do next. While an event waits for its answer this is
    /// `NeedInput`, and nothing is taken.
    pub fn poll(&mut self, input: &mut BytesMut) -> Step {
        loop {
            if let Some(event) = self.queued.pop_front() {
                return Step::Event(event);
            }
            let step = match &mut self.phase {
                Phase::Closed => return Step::Closed,
                Phase::Waiting(_) => return Step::NeedInput,
                Phase::Handshake => return Step::StartTls,
                Phase::Command => self.poll_command(input),
                Phase::Auth(_) => match self.lines.next(input, Expect::Answer) {
                    None => Some(Step::NeedInput),
                    Some(line) => self.auth_line(line),
                },
                Phase::Data { .. } => self.poll_data(input),
                Phase::Chunk(_) => self.poll_chunk(input),
                Phase::Complete => {
                    let left = if self.config.role == Role::Lmtp { self.transaction.recipients.len() } else { 1 };
                    self.phase = Phase::Waiting(Wait::MessageEnd { left });
                    Some(Step::Event(Event::MessageEnd))
                }
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Replies that wait to be written. The driver takes them when `poll` says `NeedInput`, `StartTls` or `Closed`.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Answers the event in hand. 2xx to Mail and Rcpt moves the state on; 421 to anything closes the session. Without an event in
    /// hand it does nothing.
    pub fn reply(&mut self, reply: Reply) {
        if !self.wants_reply() {
            return;
        }
        let Phase::Waiting(wait) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        if let Wait::MessageEnd { left } = wait {
            self.message_reply(left, &reply);
        } else {
            self.answer(wait, &reply);
        }
        if reply.code == 421 {
            self.phase = Phase::Closed;
        }
    }

    /// Answers HELO, EHLO or LHLO with what the configuration offers.
    pub fn accept_helo(&mut self) {
        let Phase::Waiting(Wait::Helo { name, extended }) = &self.phase else { return };
        let (name, extended) = (name.clone(), *extended);
        if self.transaction.from.is_some() {
            self.reset_transaction();
            self.queued.push_back(Event::Reset);
        }
        self.transaction.helo = Some(name);
        self.transaction.extended = extended;
        self.phase = Phase::Command;
        let reply = if extended { ehlo::reply(&self.config, &self.transaction) } else { replies::helo(&self.config.hostname) };
        self.say(&reply);
    }

    /// Answers a ScramLookup with the user's keys. `None`: the user has none; the exchange goes on with a decoy and fails at its end.
    pub fn scram_keys(&mut self, keys: Option<crate::sasl::scram::Keys>) {
        self.scram_challenge(keys);
    }

    /// Answers an Auth event other than ScramLookup.
    pub fn auth_result(&mut self, result: AuthResult) {
        self.conclude_auth(result);
    }

    /// After the TLS handshake: everything learned before is forgotten (RFC 3207 §4.2). The driver has dropped all input that it
    /// had read before the handshake.
    pub fn tls_started(&mut self, info: TlsInfo) {
        self.transaction = Transaction { tls: Some(info), ..Transaction::default() };
        self.phase = Phase::Command;
        self.lines = LineReader::default();
        self.output.clear();
        self.queued.clear();
        self.chunks = None;
        self.rcpt_tried = false;
        self.mail_refused = false;
    }

    /// Ends the session from the driver's side, with 421 at shut-down and time-outs or another reply instead of a greeting.
    pub fn close(&mut self, reply: Reply) {
        if !matches!(self.phase, Phase::Closed) {
            self.say(&reply);
            self.phase = Phase::Closed;
        }
    }

    /// What the session has learned so far. At MessageEnd it is still that message's; after the last answer it is the next one's.
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// What the session was configured with.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether the driver owes an answer.
    pub fn wants_reply(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_))
    }

    /// Writes a reply in the form the client understands: HELO clients get one line and no enhanced code.
    fn say(&mut self, reply: &Reply) {
        let helo = self.transaction.helo.is_some() && !self.transaction.extended;
        if helo {
            let flat = Reply { code: reply.code, enhanced: None, lines: vec![reply.lines.join("; ")] };
            flat.write_short_to(&mut self.output);
        } else if self.config.extensions.enhanced_status_codes {
            reply.write_to(&mut self.output);
        } else {
            reply.write_plain_to(&mut self.output);
        }
    }

    /// Refuses a command for a reason that is no fault of syntax or order.
    fn refuse(&mut self, reply: Reply) -> Option<Step> {
        self.say(&reply);
        Some(Step::Event(Event::Refused(reply)))
    }

    /// Refuses a command that should not have come, and closes when there were too many of them.
    fn fault(&mut self, reply: Reply) -> Option<Step> {
        self.count_error();
        let reply = if matches!(self.phase, Phase::Closed) { replies::too_many_errors() } else { reply };
        self.refuse(reply)
    }

    fn count_error(&mut self) {
        self.counters.errors = self.counters.errors.saturating_add(1);
        if self.counters.errors > self.config.limits.protocol_errors {
            self.phase = Phase::Closed;
        }
    }

    /// Forgets the message in hand, keeps the session.
    fn reset_transaction(&mut self) {
        self.transaction.reset();
        self.chunks = None;
        self.rcpt_tried = false;
        self.mail_refused = false;
    }

    fn poll_command(&mut self, input: &mut BytesMut) -> Option<Step> {
        // A ClientHello would wait for a line end that never comes, and its sender for an answer.
        if input.first() == Some(&0x16) && self.transaction.helo.is_none() {
            self.phase = Phase::Closed;
            return self.refuse(replies::tls_not_yet());
        }
        match self.lines.next(input, Expect::Command(self.config.limits.command_line)) {
            None => Some(Step::NeedInput),
            Some(Line::TooLong) => self.fault(replies::line_too_long()),
            Some(Line::Text(mut line)) => {
                let step = self.command(&line, input);
                if line::is_auth(&line) {
                    // The initial response may be a password.
                    line.as_mut().zeroize();
                }
                step
            }
        }
    }
}
