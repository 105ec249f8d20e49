//! What MAIL and RCPT carry besides a path: the parameters of the extensions, as values.

mod date_time;

pub use date_time::{format_date_time, parse_date_time};

use serde::{Deserialize, Serialize};

use crate::address::Mailbox;

/// BODY= of MAIL (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyType {
    /// Lines of ASCII.
    #[default]
    #[serde(rename = "7bit")]
    SevenBit,
    /// Lines that may hold octets above 127.
    #[serde(rename = "8bitmime")]
    EightBitMime,
    /// Any octets, line ends not guaranteed; only with BDAT.
    BinaryMime,
}

/// RET= of MAIL (RFC 3461 §4.3): how much of the message a failure report returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header section only.
    Hdrs,
}

/// NOTIFY= of RCPT (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notify {
    /// Report when delivered or relayed out of sight.
    pub success: bool,
    /// Report when it failed.
    pub failure: bool,
    /// Report when it is late.
    pub delay: bool,
    /// NOTIFY was given by the client, as against the default.
    pub explicit: bool,
}

impl Default for Notify {
    /// Without NOTIFY: failures and delays are reported, success is not (RFC 3461 §4.1).
    fn default() -> Self {
        Self { success: false, failure: true, delay: true, explicit: false }
    }
}

impl Notify {
    /// NOTIFY=NEVER.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false, explicit: true };
}

/// ORCPT= of RCPT (RFC 3461 §4.2), decoded from xtext.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OriginalRecipient {
    /// `rfc822` or `utf-8`, lower case.
    pub address_type: String,
    /// The address as the sender wrote it.
    pub address: String,
}

/// BY= of MAIL (RFC 2852).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeliverBy {
    /// Seconds from acceptance; negative only in notify mode, once the time has passed at an earlier hop.
    pub seconds: i64,
    /// `R`: return when late. Otherwise `N`: notify of the delay and go on.
    pub return_when_late: bool,
    /// `T`: the sender wants a trace of relaying.
    pub trace: bool,
}

/// HOLDFOR= or HOLDUNTIL= of MAIL (RFC 4865).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Seconds from acceptance.
    For(u64),
    /// Seconds since the epoch.
    Until(u64),
}

/// All parameters of a MAIL command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MailParams {
    /// SIZE=, octets (RFC 1870).
    pub size: Option<u64>,
    /// BODY=.
    pub body: BodyType,
    /// SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS was given (RFC 8689).
    pub require_tls: bool,
    /// RET=.
    pub ret: Option<Ret>,
    /// ENVID=, decoded from xtext.
    pub envid: Option<String>,
    /// AUTH= (RFC 4954 §5): `Some(None)` is `AUTH=<>`.
    pub auth: Option<Option<Mailbox>>,
    /// BY=.
    pub by: Option<DeliverBy>,
    /// HOLDFOR= or HOLDUNTIL=.
    pub hold: Option<Hold>,
    /// MT-PRIORITY= (RFC 6710), -9 to 9.
    pub priority: Option<i8>,
}

/// All parameters of a RCPT command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RcptParams {
    /// NOTIFY=.
    pub notify: Notify,
    /// ORCPT=.
    pub orcpt: Option<OriginalRecipient>,
}
