//! What passes between a session and its driver.

use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;

use super::config::Role;
use crate::address::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::params::{MailParams, RcptParams};
use crate::reply::Reply;
use crate::sasl::Mechanism;
use crate::secret::Secret;

/// What the driver must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the output, then read more input.
    NeedInput,
    /// See [`Event`].
    Event(Event),
    /// Write the output, drop all input read so far, do the TLS handshake, call `tls_started`.
    StartTls,
    /// Write the output and close. Nothing more is read.
    Closed,
}

/// Something the driver decides or takes note of. [`Event::wants_reply`] tells which.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// EHLO, LHLO (`extended`) or HELO. Answer with `accept_helo` or `reply`.
    Helo {
        /// What the client calls itself.
        name: HeloName,
        /// EHLO or LHLO.
        extended: bool,
    },
    /// MAIL, its parameters checked. Answer with `reply`; 2xx opens the transaction.
    Mail {
        /// Who gets reports.
        path: ReversePath,
        /// Only parameters of extensions that were offered.
        params: MailParams,
    },
    /// RCPT, its parameters checked. Answer with `reply`; 2xx adds the recipient.
    Rcpt {
        /// The recipient.
        path: ForwardPath,
        /// Only parameters of extensions that were offered.
        params: RcptParams,
    },
    /// DATA, or the first BDAT, with at least one recipient. Answer with `reply`: 354 to go on (not sent for BDAT), anything else
    /// refuses the message.
    DataStart,
    /// Decoded octets of the message, dots undone, to be appended to the body. No answer.
    Content(Bytes),
    /// The message is complete. Answer with `reply` once it is safe: once in SMTP, in LMTP once a recipient in the order of
    /// [`Transaction::recipients`].
    MessageEnd,
    /// The message failed on the way; it was read to its end and answered. Drop the body. No answer.
    MessageAborted {
        /// Why.
        why: Abort,
    },
    /// AUTH: see [`AuthRequest`].
    Auth(AuthRequest),
    /// RSET, or EHLO in the middle: drop what was gathered for the transaction, body included. Answered.
    Reset,
    /// VRFY with its argument, safe to log. Answered.
    Vrfy(String),
    /// QUIT. Answered; `Closed` comes next.
    Quit,
    /// NOOP. Answered.
    Noop,
    /// The session itself refused a command, with this reply: for the log. Answered.
    Refused(Reply),
}

impl Event {
    /// Whether the driver must answer before `poll` goes on.
    pub fn wants_reply(&self) -> bool {
        matches!(self, Self::Helo { .. } | Self::Mail { .. } | Self::Rcpt { .. } | Self::DataStart | Self::MessageEnd | Self::Auth(_))
    }
}

/// Why a message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Abort {
    /// More octets than `message_size` (552 5.3.4).
    TooLarge,
    /// A bare CR or LF (550 5.5.2). With DATA the session is closed after it.
    BareLineEnd,
    /// A line longer than `text_line` (550 5.6.0).
    LineTooLong,
    /// A NUL (550 5.6.0).
    Nul,
    /// The client began to send before 354 (503 5.5.0, closed).
    EarlyData,
}

/// What AUTH asks of the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum AuthRequest {
    /// PLAIN or LOGIN. Answer with `auth_result`.
    Password {
        /// Which of the two.
        mechanism: Mechanism,
        /// Whom to act as; empty: the same.
        authzid: String,
        /// Who logs in, not yet normalised.
        authcid: String,
        /// With what.
        password: Secret,
    },
    /// SCRAM needs the user's keys. Answer with `scram_keys`, `None` for a user that has none (the exchange goes on with a decoy).
    ScramLookup {
        /// Which SCRAM.
        mechanism: Mechanism,
        /// Whom to act as; empty: the same.
        authzid: String,
        /// Who logs in.
        authcid: String,
    },
    /// SCRAM has ended. Answer with `auth_result`; when not `proven`, every answer but a `Refused` counts as `Rejected`.
    ScramDone {
        /// Which SCRAM.
        mechanism: Mechanism,
        /// Whom to act as; empty: the same.
        authzid: String,
        /// Who logs in.
        authcid: String,
        /// The client knows the password.
        proven: bool,
    },
}

/// What the driver found about a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthResult {
    /// 235 2.7.0.
    Accepted {
        /// Who it is from now on.
        user: Mailbox,
    },
    /// 535 5.7.8: unknown user and wrong password alike.
    Rejected,
    /// 454 4.7.0: cannot be checked now.
    Unavailable,
    /// 534 5.7.9: this user may not use this mechanism.
    TooWeak,
    /// 432 4.7.12: log in with PLAIN once, so that keys for this mechanism can be made.
    PasswordTransition,
    /// Anything else; 421 closes.
    Refused(Reply),
}

/// What a client calls itself: printable, without spaces, at most 255 octets, otherwise as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeloName {
    text: String,
    kind: HeloKind,
}

/// What the name is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeloKind {
    /// A domain name, as it should be.
    Domain(Domain),
    /// An address literal, as hosts without a name use.
    Address(IpAddr),
    /// Neither: a bare address, a name with an impossible character.
    Other,
}

impl HeloName {
    /// Checks the bounds above. `None` when they are passed.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= 255;
        if !fits || text.chars().any(|c| crate::text::is_unsafe(c) || c.is_whitespace()) {
            return None;
        }
        let kind = match Domain::new(text) {
            Ok(domain) => domain.ip().map_or(HeloKind::Domain(domain), HeloKind::Address),
            Err(_) => HeloKind::Other,
        };
        Some(Self { text: text.to_owned(), kind })
    }

    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// See [`HeloKind`].
    pub fn kind(&self) -> &HeloKind {
        &self.kind
    }
}

impl fmt::Display for HeloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the handshake settled.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsInfo {
    /// `TLSv1.3`.
    pub protocol: String,
    /// `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The name the client asked for (SNI).
    pub server_name: Option<String>,
    /// The `tls-exporter` channel binding (RFC 9266: label `EXPORTER-Channel-Binding`, no context, 32 octets; in TLS 1.2 only with the
    /// extended master secret). `None`: SCRAM-SHA-256-PLUS is not offered.
    pub exporter: Option<Vec<u8>>,
}

impl fmt::Debug for TlsInfo {
    /// Without the exporter value, which is key material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, cipher, server_name, exporter: _ } = self;
        f.debug_struct("TlsInfo").field("protocol", protocol).field("cipher", cipher).field("server_name", server_name).finish()
    }
}

/// Who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: Mailbox,
    /// By which mechanism.
    pub mechanism: Mechanism,
}

/// What a session has learned so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What the client calls itself.
    pub helo: Option<HeloName>,
    /// It said EHLO or LHLO.
    pub extended: bool,
    /// TLS is in force.
    pub tls: Option<TlsInfo>,
    /// Who logged in.
    pub identity: Option<Identity>,
    /// The reverse path, once MAIL was accepted.
    pub from: Option<ReversePath>,
    /// The parameters of MAIL.
    pub params: MailParams,
    /// Accepted recipients, in order.
    pub recipients: Vec<(ForwardPath, RcptParams)>,
    /// The message came, or is coming, by BDAT.
    pub chunking: bool,
}

impl Transaction {
    /// The `with` keyword of a Received field (RFC 3848; RFC 6531 §4.3 for the UTF8 forms).
    pub fn protocol(&self, role: Role) -> &'static str {
        let names = match (role, self.params.smtputf8, self.extended) {
            (Role::Lmtp, false, _) => ["LMTP", "LMTPA", "LMTPS", "LMTPSA"],
            (Role::Lmtp, true, _) => ["UTF8LMTP", "UTF8LMTPA", "UTF8LMTPS", "UTF8LMTPSA"],
            (_, true, _) => ["UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"],
            (_, false, true) => ["ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"],
            (_, false, false) => ["SMTP"; 4],
        };
        match (self.tls.is_some(), self.identity.is_some()) {
            (false, false) => names[0],
            (false, true) => names[1],
            (true, false) => names[2],
            (true, true) => names[3],
        }
    }

    /// Forgets the message, keeps the session.
    pub(super) fn reset(&mut self) {
        self.from = None;
        self.params = MailParams::default();
        self.recipients.clear();
        self.chunking = false;
    }
}
