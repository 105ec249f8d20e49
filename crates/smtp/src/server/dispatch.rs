//! What each command does (RFC 5321 §4.1.1), and in which order they may come (§4.1.4).

use bytes::BytesMut;

use super::command::{Command, parse};
use super::event::{Abort, Event, HeloName, Step};
use super::params::{Offer, parse_mail, parse_rcpt};
use super::{Phase, Role, ServerSession, Wait, ehlo};
use crate::address::{ForwardPath, ReversePath};
use crate::replies;
use crate::reply::Reply;
use crate::text::printable;

impl ServerSession {
    /// Carries out a command line.
    pub(super) fn command(&mut self, line: &[u8], input: &mut BytesMut) -> Option<Step> {
        let command = match parse(line) {
            Ok(command) => command,
            Err(reply) => return self.fault(reply),
        };
        if let Some(reply) = self.out_of_bounds(command) {
            return self.refuse_in_group(reply);
        }
        match command {
            Command::Ehlo(_) | Command::Helo(_) if self.config.role == Role::Lmtp => self.fault(replies::no_smtp_here()),
            Command::Lhlo(_) if self.config.role != Role::Lmtp => self.fault(replies::no_lmtp_here()),
            Command::Ehlo(name) => self.helo(name, true, "EHLO hostname"),
            Command::Lhlo(name) => self.helo(name, true, "LHLO hostname"),
            Command::Helo(name) => self.helo(name, false, "HELO hostname"),
            Command::Mail(rest) => self.mail(rest),
            Command::Rcpt(rest) => self.rcpt(rest),
            Command::Data => self.data(input),
            Command::Bdat(rest) => self.bdat(rest),
            Command::Rset => {
                self.reset_transaction();
                self.idle(&replies::ok(), Event::Reset)
            }
            Command::Noop => self.idle(&replies::ok(), Event::Noop),
            Command::Vrfy("") => self.fault(replies::syntax("VRFY address")),
            Command::Vrfy(who) => self.idle(&replies::cannot_verify(), Event::Vrfy(printable(who.as_bytes()))),
            Command::Expn => self.idle(&replies::not_implemented(), Event::Refused(replies::not_implemented())),
            Command::Help => {
                let reply = replies::help(&self.config.hostname, &self.verbs());
                self.idle(&reply, Event::Noop)
            }
            Command::Quit => {
                let bye = replies::bye(&self.config.hostname);
                self.say(&bye);
                self.phase = Phase::Closed;
                Some(Step::Event(Event::Quit))
            }
            Command::StartTls => self.start_tls(input),
            Command::Auth(mechanism, initial) => self.auth(mechanism, initial),
            Command::NotHere => self.fault(replies::not_implemented()),
            Command::Http => {
                // A browser that was made to post here; what it posts must not be read as commands.
                self.phase = Phase::Closed;
                self.refuse(replies::not_http())
            }
        }
    }

    fn verbs(&self) -> String {
        let lmtp = self.config.role == Role::Lmtp;
        let list = [
            (lmtp, "LHLO"),
            (!lmtp, "EHLO HELO"),
            (self.config.tls_available && self.transaction.tls.is_none(), "STARTTLS"),
            (!self.config.mechanisms.is_empty(), "AUTH"),
            (true, "MAIL RCPT DATA"),
            (self.config.extensions.chunking, "BDAT"),
            (true, "RSET NOOP VRFY HELP QUIT"),
        ];
        list.iter().filter(|(known, _)| *known).map(|(_, verbs)| *verbs).collect::<Vec<_>>().join(" ")
    }

    /// 530 where TLS or a login must come first. BDAT sees to itself: its octets must be skipped whatever is said.
    fn out_of_bounds(&self, command: Command<'_>) -> Option<Reply> {
        let mail = matches!(command, Command::Mail(_) | Command::Rcpt(_) | Command::Data | Command::Vrfy(_) | Command::Expn);
        if mail { self.gate() } else { None }
    }

    /// Submission wants TLS, then a login (RFC 8314 §3, RFC 6409 §4.3).
    pub(super) fn gate(&self) -> Option<Reply> {
        if !self.config.role.is_submission() {
            None
        } else if self.transaction.tls.is_none() {
            Some(replies::tls_required())
        } else if self.transaction.identity.is_none() {
            Some(replies::authentication_required())
        } else {
            None
        }
    }

    /// A command that moves nothing: answered, and counted so that nobody lives on them.
    fn idle(&mut self, reply: &Reply, event: Event) -> Option<Step> {
        if self.idles_too_long() {
            return self.refuse(replies::too_many_errors());
        }
        self.say(reply);
        Some(Step::Event(event))
    }

    /// Refuses what may be the mere outcome of something refused before it in a pipelined group: no error then, but not to be
    /// repeated forever either.
    pub(super) fn refuse_in_group(&mut self, reply: Reply) -> Option<Step> {
        if self.is_fault(&reply) {
            return self.fault(reply);
        }
        let reply = if self.idles_too_long() { replies::too_many_errors() } else { reply };
        self.refuse(reply)
    }

    fn idles_too_long(&mut self) -> bool {
        self.counters.idle = self.counters.idle.saturating_add(1);
        if self.counters.idle > self.config.limits.idle_commands {
            self.count_error();
        }
        matches!(self.phase, Phase::Closed)
    }

    fn helo(&mut self, name: &str, extended: bool, form: &str) -> Option<Step> {
        let Some(name) = HeloName::new(name) else { return self.fault(replies::syntax(form)) };
        if self.transaction.helo.is_some() && self.idles_too_long() {
            return self.refuse(replies::too_many_errors());
        }
        self.phase = Phase::Waiting(Wait::Helo { name: name.clone(), extended });
        Some(Step::Event(Event::Helo { name, extended }))
    }

    fn mail(&mut self, rest: &str) -> Option<Step> {
        // Until it is accepted; not so where one is open already.
        self.mail_refused = self.transaction.from.is_none();
        if self.transaction.helo.is_none() {
            let verb = if self.config.role == Role::Lmtp { "LHLO" } else { "EHLO" };
            return self.fault(replies::need_helo(verb));
        }
        if self.transaction.from.is_some() {
            return self.fault(if self.chunks.is_some() { replies::between_chunks() } else { replies::nested_mail() });
        }
        if self.config.limits.transactions.is_some_and(|max| self.counters.transactions >= max) {
            self.phase = Phase::Closed;
            return self.refuse(replies::too_many_transactions());
        }
        let (path, params) = match ReversePath::parse(rest) {
            Ok(parsed) => parsed,
            Err(why) => return self.fault(replies::bad_sender(why)),
        };
        let ascii = path_is_ascii(rest, params);
        let offered = ehlo::mechanisms(&self.config, &self.transaction).next().is_some();
        let params = match parse_mail(params, &Offer::new(&self.config, &self.transaction, offered)) {
            Ok(params) => params,
            // Too large is no error of the client's: it asked before sending.
            Err(reply) if reply.code == 552 => return self.refuse_in_group(reply),
            Err(reply) => return self.fault(reply),
        };
        if !ascii && !params.smtputf8 {
            return self.refuse_in_group(replies::needs_smtputf8());
        }
        self.phase = Phase::Waiting(Wait::Mail(path.clone(), params.clone()));
        Some(Step::Event(Event::Mail { path, params }))
    }

    fn rcpt(&mut self, rest: &str) -> Option<Step> {
        if self.transaction.from.is_none() {
            return self.refuse_in_group(replies::need_mail());
        }
        if self.chunks.is_some() {
            return self.fault(replies::between_chunks());
        }
        self.rcpt_tried = true;
        let (path, params) = match ForwardPath::parse(rest) {
            Ok(parsed) => parsed,
            Err(why) => return self.fault(replies::bad_recipient(why)),
        };
        let ascii = path_is_ascii(rest, params);
        let params = match parse_rcpt(params, &Offer::new(&self.config, &self.transaction, false)) {
            Ok(params) => params,
            Err(reply) => return self.fault(reply),
        };
        if !ascii && !self.transaction.params.smtputf8 {
            return self.refuse(replies::needs_smtputf8());
        }
        if self.transaction.recipients.len() >= self.config.limits.recipients {
            return self.refuse(replies::too_many_recipients());
        }
        self.phase = Phase::Waiting(Wait::Rcpt(path.clone(), params.clone()));
        Some(Step::Event(Event::Rcpt { path, params }))
    }

    fn start_tls(&mut self, input: &mut BytesMut) -> Option<Step> {
        if self.transaction.tls.is_some() {
            return self.fault(replies::tls_already());
        }
        if !self.config.tls_available {
            let lmtp = self.config.role == Role::Lmtp;
            return if lmtp { self.fault(replies::not_implemented()) } else { self.refuse_in_group(replies::tls_unavailable()) };
        }
        if !input.is_empty() {
            // CVE-2011-0411: what came in the clear must not be read as if it had come inside TLS.
            input.clear();
            self.phase = Phase::Closed;
            return self.refuse(replies::early_tls());
        }
        self.say(&replies::ready_for_tls());
        self.phase = Phase::Handshake;
        None
    }

    /// The driver's answer to anything but MessageEnd and AUTH.
    pub(super) fn answer(&mut self, wait: Wait, reply: &Reply) {
        match wait {
            Wait::Mail(path, params) if reply.is_positive() => {
                self.transaction.from = Some(path);
                self.transaction.params = params;
                self.counters.transactions = self.counters.transactions.saturating_add(1);
                self.mail_refused = false;
                self.rcpt_tried = false;
                self.say(reply);
            }
            Wait::Rcpt(path, params) if reply.is_positive() => {
                self.transaction.recipients.push((path, params));
                self.counters.refused_recipients = self.counters.refused_recipients.saturating_sub(1);
                self.say(reply);
            }
            Wait::Rcpt(..) => self.recipient_refused(reply),
            Wait::Data if reply.code == 354 => self.begin_data(reply),
            Wait::FirstChunk { size, last } => self.begin_chunks(size, last, reply),
            // 2xx without what it needs would leave the two sides at odds.
            Wait::Helo { .. } if reply.is_positive() => self.accept_helo_as(wait),
            Wait::Auth(exchange) => self.auth_refused(exchange, reply),
            Wait::Helo { .. } | Wait::Mail(..) | Wait::Data | Wait::MessageEnd { .. } => self.say(reply),
        }
    }

    fn accept_helo_as(&mut self, wait: Wait) {
        self.phase = Phase::Waiting(wait);
        self.accept_helo();
    }

    fn recipient_refused(&mut self, reply: &Reply) {
        self.say(reply);
        if reply.code >= 500 {
            self.counters.refused_recipients = self.counters.refused_recipients.saturating_add(1);
            if self.counters.refused_recipients > self.config.limits.refused_recipients {
                let last = replies::too_many_refused();
                self.say(&last);
                self.queued.push_back(Event::Refused(last));
                self.phase = Phase::Closed;
            }
        }
    }

    /// 503 and the end: the message was begun before 354 (RFC 2920 §3.1). What has come of it must not be read as commands.
    pub(super) fn early_data(&mut self, input: &mut BytesMut, began: bool) -> Option<Step> {
        input.clear();
        self.phase = Phase::Closed;
        let step = self.refuse(replies::early_data());
        if began { Some(Step::Event(Event::MessageAborted { why: Abort::EarlyData })) } else { step }
    }
}

/// Whether the path at the front of `rest`, before `params`, is ASCII; otherwise it needs SMTPUTF8.
fn path_is_ascii(rest: &str, params: &str) -> bool {
    rest.get(..rest.len().saturating_sub(params.len())).is_some_and(str::is_ascii)
}
