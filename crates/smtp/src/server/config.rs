//! What a session offers and how much it bears.

use crate::sasl::Mechanism;

/// Which kind of server this is: it decides greeting, verbs and what must come before MAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Port 25: mail from other servers.
    Mta,
    /// Port 587 (RFC 6409): TLS by STARTTLS, then AUTH, then MAIL.
    Submission,
    /// Port 465 (RFC 8314 §3): TLS from the first octet; AUTH before MAIL.
    SubmissionTls,
    /// LMTP (RFC 2033): LHLO, one reply a recipient after the message.
    Lmtp,
}

impl Role {
    /// Whether users hand in mail here.
    pub fn is_submission(self) -> bool {
        matches!(self, Self::Submission | Self::SubmissionTls)
    }
}

/// Everything a session needs to know beforehand. Shared by all sessions of a listener.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// See [`Role`].
    pub role: Role,
    /// Our name in greeting and EHLO reply.
    pub hostname: String,
    /// Stands behind the hostname in the greeting.
    pub product: String,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`Extensions`].
    pub extensions: Extensions,
    /// STARTTLS is offered while there is no TLS.
    pub tls_available: bool,
    /// Mechanisms offered inside TLS; the PLUS one only where the connection has a channel binding.
    pub mechanisms: Vec<Mechanism>,
    /// Makes the salts of users that do not exist; random, one an installation.
    pub scram_decoy_key: [u8; 32],
    /// What a bare CR or LF in a message does.
    pub bare_line_ends: BareLineEnds,
    /// What a NUL octet in a message does (BINARYMIME messages excepted).
    pub nul: NulPolicy,
}

impl ServerConfig {
    /// The usual settings of a role, without TLS and AUTH.
    pub fn new(role: Role, hostname: impl Into<String>) -> Self {
        Self {
            role,
            hostname: hostname.into(),
            product: "Pillarbox".to_owned(),
            limits: Limits::default(),
            extensions: Extensions::for_role(role),
            tls_available: false,
            mechanisms: Vec::new(),
            scram_decoy_key: [0; 32],
            bare_line_ends: BareLineEnds::default(),
            nul: NulPolicy::default(),
        }
    }
}

/// How much a session bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most octets of a message; 0: no limit.
    pub message_size: u64,
    /// Most recipients of a transaction (452 4.5.3 for further ones).
    pub recipients: usize,
    /// Most transactions of a session (MAILMAX, RFC 9422); `None`: no limit.
    pub transactions: Option<u32>,
    /// Longest command line in octets, CRLF included; AUTH lines may have 12288 (RFC 4954 §4).
    pub command_line: usize,
    /// Longest line of a message in octets without its CRLF. RFC 5321 §4.5.3.1.6 lets senders use 998; many use more.
    pub text_line: usize,
    /// Errors (unknown verbs, bad syntax, wrong order), then 421.
    pub protocol_errors: u32,
    /// Commands that move nothing (NOOP, RSET, VRFY, EXPN, HELP, repeated EHLO) since the last accepted message; each further one
    /// counts as an error.
    pub idle_commands: u32,
    /// So many more recipients refused for good than accepted in one session, then 421: whoever guesses addresses must come back
    /// often, and a list with a few dead members among many need not.
    pub refused_recipients: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 50 * 1024 * 1024,
            recipients: 1000,
            transactions: None,
            command_line: 2048,
            text_line: 64 * 1024,
            protocol_errors: 10,
            idle_commands: 100,
            refused_recipients: 100,
        }
    }
}

/// Extensions offered in EHLO or LHLO. STARTTLS follows from `tls_available`, AUTH from `mechanisms`, REQUIRETLS from TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extensions {
    /// SIZE (RFC 1870).
    pub size: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030); needs `chunking`.
    pub binary_mime: bool,
    /// SMTPUTF8 (RFC 6531); needs `eight_bit_mime`.
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034); off: replies carry none.
    pub enhanced_status_codes: bool,
    /// REQUIRETLS (RFC 8689), offered inside TLS only.
    pub require_tls: bool,
    /// FUTURERELEASE (RFC 4865).
    pub future_release: Option<FutureRelease>,
    /// DELIVERBY (RFC 2852): the least by-time in seconds, 0 for none.
    pub deliver_by: Option<u32>,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// LIMITS (RFC 9422).
    pub limits: bool,
}

/// What FUTURERELEASE announces (RFC 4865 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FutureRelease {
    /// Longest HOLDFOR, seconds.
    pub max_interval: u64,
    /// Latest HOLDUNTIL, seconds since the epoch. The session has no clock: who wants both bounds to agree sets it when the
    /// configuration is made, and checks the interval at MAIL.
    pub max_until: u64,
}

impl Extensions {
    /// All that make sense for a role.
    pub fn for_role(role: Role) -> Self {
        let submission = role.is_submission();
        Self {
            size: true,
            pipelining: true,
            eight_bit_mime: true,
            chunking: true,
            binary_mime: true,
            smtputf8: true,
            dsn: true,
            enhanced_status_codes: true,
            require_tls: role != Role::Lmtp,
            // 30 days; the date is the end of the century, so that the interval is what binds.
            future_release: submission.then_some(FutureRelease { max_interval: 30 * 86_400, max_until: 4_102_444_799 }),
            deliver_by: submission.then_some(0),
            mt_priority: submission,
            limits: true,
        }
    }
}

/// What a bare CR or a bare LF in a message does. Neither ever ends a message, whatever is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareLineEnds {
    /// 550 5.5.2, and with DATA the connection is closed: the only reading on which two servers cannot differ.
    #[default]
    Refuse,
    /// Each becomes CRLF. For networks with devices that know no better.
    Normalise,
}

/// What a NUL octet in a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NulPolicy {
    /// 550 5.6.0: no message may hold one (RFC 5322 §3.5, obsolete forms §4 included), and many a reader stops at it.
    #[default]
    Refuse,
    /// Kept as it is.
    Accept,
}
