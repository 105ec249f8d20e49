//! AUTH (RFC 4954): the exchange's lines, and the driver's answers to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::{Zeroize as _, Zeroizing};

use super::event::{AuthRequest, AuthResult, Event, Identity, Step};
use super::line::Line;
use super::{Phase, ServerSession, Wait, ehlo};
use crate::replies;
use crate::reply::Reply;
use crate::sasl::plain::{parse_login_name, parse_login_password, parse_plain};
use crate::sasl::scram::{ClientFirst, Keys, ScramError, ScramServer};
use crate::sasl::{Mechanism, random_nonce};

/// Where an exchange stands: what the next line answers, or what the driver is to answer.
pub(super) enum Exchange {
    /// Waits for the PLAIN message.
    Plain,
    /// Waits for LOGIN's user name.
    LoginName,
    /// Waits for LOGIN's password.
    LoginPassword(String),
    /// Waits for SCRAM's first message.
    ScramFirst(Mechanism),
    /// The driver looks keys up.
    ScramLookup(Mechanism, Box<ClientFirst>),
    /// Waits for SCRAM's last message.
    ScramLast { login: ScramLogin, server: Box<ScramServer>, decoy: bool },
    /// The client has proved itself and must acknowledge our proof with an empty line.
    ScramAcknowledge(ScramLogin),
    /// The driver decides.
    Decision { mechanism: Mechanism, proven: bool },
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exchange(…)")
    }
}

/// Who is logging in by SCRAM.
#[derive(Clone)]
pub(super) struct ScramLogin {
    mechanism: Mechanism,
    authzid: String,
    authcid: String,
}

impl ScramLogin {
    fn done(self, proven: bool) -> (Exchange, AuthRequest) {
        let Self { mechanism, authzid, authcid } = self;
        (Exchange::Decision { mechanism, proven }, AuthRequest::ScramDone { mechanism, authzid, authcid, proven })
    }
}

impl ServerSession {
    /// The AUTH command itself.
    pub(super) fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Option<Step> {
        if let Some(reply) = self.auth_refusal() {
            return self.fault(reply);
        }
        let mechanism = Mechanism::from_name(mechanism).filter(|m| ehlo::mechanisms(&self.config, &self.transaction).any(|o| o == *m));
        let exchange = match mechanism {
            None => return self.fault(replies::auth_unknown_mechanism()),
            Some(Mechanism::Plain) => Exchange::Plain,
            Some(Mechanism::Login) => Exchange::LoginName,
            Some(mechanism) => Exchange::ScramFirst(mechanism),
        };
        match initial {
            Some("=") => self.auth_answer(exchange, &[]),
            Some(initial) => self.auth_base64(exchange, initial.as_bytes()),
            None => self.challenge(if matches!(exchange, Exchange::LoginName) { b"Username:" } else { b"" }, exchange),
        }
    }

    fn auth_refusal(&self) -> Option<Reply> {
        let transaction = &self.transaction;
        if self.config.mechanisms.is_empty() {
            Some(replies::not_implemented())
        } else if transaction.tls.is_none() {
            Some(replies::auth_needs_tls())
        } else if transaction.helo.is_none() || !transaction.extended {
            Some(replies::need_helo("EHLO"))
        } else if transaction.identity.is_some() {
            Some(replies::bad_sequence("You are logged in already"))
        } else if transaction.from.is_some() {
            Some(replies::bad_sequence("Not in the middle of a message"))
        } else {
            None
        }
    }

    /// A line of the exchange. Its memory is wiped: it may be a password.
    pub(super) fn auth_line(&mut self, line: Line) -> Option<Step> {
        let Phase::Auth(exchange) = std::mem::replace(&mut self.phase, Phase::Command) else { return None };
        let mut line = match line {
            Line::TooLong => return self.fault(replies::auth_line_too_long()),
            Line::Text(line) => line,
        };
        if line.as_ref() == b"*" {
            return self.refuse(replies::auth_cancelled());
        }
        let step = self.auth_base64(exchange, &line);
        line.as_mut().zeroize();
        step
    }

    fn auth_base64(&mut self, exchange: Exchange, line: &[u8]) -> Option<Step> {
        match BASE64.decode(line) {
            Ok(octets) => self.auth_answer(exchange, &Zeroizing::new(octets)),
            Err(_) => self.fault(replies::auth_malformed()),
        }
    }

    fn auth_answer(&mut self, exchange: Exchange, octets: &[u8]) -> Option<Step> {
        match exchange {
            Exchange::Plain => match parse_plain(octets) {
                Some(message) => {
                    let (authzid, authcid, password) = (message.authzid, message.authcid, message.password);
                    let mechanism = Mechanism::Plain;
                    let request = AuthRequest::Password { mechanism, authzid, authcid, password };
                    self.ask(Exchange::Decision { mechanism, proven: true }, request)
                }
                None => self.fault(replies::auth_malformed()),
            },
            Exchange::LoginName => match parse_login_name(octets) {
                Some(name) => self.challenge(b"Password:", Exchange::LoginPassword(name)),
                None => self.fault(replies::auth_malformed()),
            },
            Exchange::LoginPassword(authcid) => match parse_login_password(octets) {
                Some(password) => {
                    let mechanism = Mechanism::Login;
                    let request = AuthRequest::Password { mechanism, authzid: String::new(), authcid, password };
                    self.ask(Exchange::Decision { mechanism, proven: true }, request)
                }
                None => self.fault(replies::auth_malformed()),
            },
            Exchange::ScramFirst(mechanism) => self.scram_first(mechanism, octets),
            Exchange::ScramLast { login, server, decoy } => self.scram_last(login, *server, decoy, octets),
            Exchange::ScramAcknowledge(login) if octets.is_empty() => {
                let (exchange, request) = login.done(true);
                self.ask(exchange, request)
            }
            Exchange::ScramAcknowledge(_) | Exchange::ScramLookup(..) | Exchange::Decision { .. } => self.fault(replies::auth_malformed()),
        }
    }

    fn scram_first(&mut self, mechanism: Mechanism, octets: &[u8]) -> Option<Step> {
        let plus = mechanism == Mechanism::ScramSha256Plus;
        let offered = ehlo::mechanisms(&self.config, &self.transaction).any(|m| m == Mechanism::ScramSha256Plus);
        let parsed =
            std::str::from_utf8(octets).map_err(|_| ScramError::Malformed).and_then(|text| ClientFirst::parse(text, plus, offered));
        match parsed {
            Ok(first) => {
                let (authzid, authcid) = (first.authzid().to_owned(), first.username().to_owned());
                let request = AuthRequest::ScramLookup { mechanism, authzid, authcid };
                self.ask(Exchange::ScramLookup(mechanism, Box::new(first)), request)
            }
            // The offer was tampered with, or the client binds in a way that is not spoken here: a failed login.
            Err(ScramError::Binding) => self.fault(replies::auth_rejected()),
            Err(_) => self.fault(replies::auth_malformed()),
        }
    }

    /// The driver's keys, or a decoy.
    pub(super) fn scram_challenge(&mut self, keys: Option<Keys>) {
        let (mechanism, first) = match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Waiting(Wait::Auth(Exchange::ScramLookup(mechanism, first))) => (mechanism, *first),
            other => {
                self.phase = other;
                return;
            }
        };
        let login = ScramLogin { mechanism, authzid: first.authzid().to_owned(), authcid: first.username().to_owned() };
        let decoy = keys.is_none();
        let keys = keys.unwrap_or_else(|| Keys::decoy(&self.config.scram_decoy_key, &login.authcid));
        let binding = self.transaction.tls.as_ref().and_then(|tls| tls.exporter.clone());
        let nonce = self.fixed_nonce.clone().unwrap_or_else(random_nonce);
        let server = Box::new(ScramServer::new(first, keys, &nonce, binding));
        let challenge = server.first();
        let _ = self.challenge(challenge.as_bytes(), Exchange::ScramLast { login, server, decoy });
    }

    fn scram_last(&mut self, login: ScramLogin, mut server: ScramServer, decoy: bool, octets: &[u8]) -> Option<Step> {
        let checked = std::str::from_utf8(octets).map_err(|_| ScramError::Malformed).and_then(|text| server.last(text));
        match checked {
            Ok(proof) if !decoy => self.challenge(proof.as_bytes(), Exchange::ScramAcknowledge(login)),
            Err(ScramError::Malformed | ScramError::Extension) => self.fault(replies::auth_malformed()),
            Ok(_) | Err(_) => {
                let (exchange, request) = login.done(false);
                self.ask(exchange, request)
            }
        }
    }

    /// 334 with this challenge; the next line belongs to `exchange`.
    fn challenge(&mut self, octets: &[u8], exchange: Exchange) -> Option<Step> {
        self.say(&replies::auth_challenge(&BASE64.encode(octets)));
        self.phase = Phase::Auth(exchange);
        None
    }

    fn ask(&mut self, exchange: Exchange, request: AuthRequest) -> Option<Step> {
        self.phase = Phase::Waiting(Wait::Auth(exchange));
        Some(Step::Event(Event::Auth(request)))
    }

    /// The driver's verdict.
    pub(super) fn conclude_auth(&mut self, result: AuthResult) {
        let (mechanism, proven) = match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Waiting(Wait::Auth(Exchange::Decision { mechanism, proven })) => (mechanism, proven),
            // A look-up cannot be accepted, only broken off.
            Phase::Waiting(Wait::Auth(Exchange::ScramLookup(mechanism, _))) => (mechanism, false),
            other => {
                self.phase = other;
                return;
            }
        };
        let reply = match result {
            AuthResult::Refused(reply) if !reply.is_positive() => reply,
            AuthResult::Unavailable => replies::auth_unavailable(),
            AuthResult::Accepted { user } if proven => {
                self.transaction.identity = Some(Identity { user, mechanism });
                replies::authenticated()
            }
            AuthResult::TooWeak if proven => replies::auth_too_weak(),
            AuthResult::PasswordTransition if proven => replies::auth_password_transition(),
            _ => replies::auth_rejected(),
        };
        if reply.code == 535 {
            // Guessing ends with the session, whatever the driver remembers of the client.
            self.count_error();
        }
        self.say(&reply);
        if reply.code == 421 {
            self.phase = Phase::Closed;
        } else if matches!(self.phase, Phase::Closed) {
            self.say(&replies::too_many_errors());
        }
    }

    /// `reply` instead of `auth_result`: whatever it says, nobody is logged in.
    pub(super) fn auth_refused(&mut self, exchange: Exchange, reply: &Reply) {
        self.phase = Phase::Waiting(Wait::Auth(exchange));
        self.conclude_auth(AuthResult::Refused(reply.clone()));
    }
}
