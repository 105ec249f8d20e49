//! Addresses as RFC 5321 §4.1.2 and RFC 6531 spell them: local parts, domains, mailboxes and paths.
//!
//! Text from the network becomes one of these types once, at the door; after that no code asks again whether it is well formed.

mod parse;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

/// Longest local part in octets that everyone must be able to handle (RFC 5321 §4.5.3.1.1). Addresses of our own keep to it.
pub const MAX_LOCAL_PART: usize = 64;
/// Longest local part in octets that is understood: return addresses of mailing lists and forwarders (VERP, SRS) pass 64 often.
pub const MAX_FOREIGN_LOCAL_PART: usize = 255;
/// Longest domain in octets (RFC 5321 §4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;
/// Longest path in octets, source route included. RFC 5321 §4.5.3.1.3 promises 256; two long parts make more.
pub const MAX_PATH: usize = 1024;

/// Why a piece of text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing between the brackets, or nothing before or after the `@`.
    #[error("the address is empty or lacks a part")]
    Empty,
    /// No `@` where one is needed.
    #[error("the address has no domain")]
    NoDomain,
    /// A local part that is neither a dot-string nor a quoted string.
    #[error("the part before the @ is malformed")]
    LocalPart,
    /// A domain that is neither a name nor an address literal.
    #[error("the part after the @ is malformed")]
    Domain,
    /// An angle bracket or a quote that is not closed, or text that touches a closed one.
    #[error("the path is not enclosed in angle brackets")]
    Unclosed,
    /// A source route that is none.
    #[error("the source route is malformed")]
    Route,
    /// Longer than RFC 5321 §4.5.3.1 allows.
    #[error("the address is too long")]
    TooLong,
}

/// The part before the `@`, unquoted (RFC 5321 §4.1.2, RFC 6531 §3.3). Never empty, holds no control character.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(Arc<str>);

/// A domain name in lower-case A-labels, without a trailing dot, or an address literal in brackets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

/// `local-part@domain` (RFC 5321 §2.3.11).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    /// The part before the `@`.
    pub local: LocalPart,
    /// The part after it.
    pub domain: Domain,
}

/// What MAIL FROM names (RFC 5321 §4.1.1.2): a mailbox, or nobody for reports.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ReversePath {
    /// `<>`: the message is itself a report and is never answered.
    #[default]
    Null,
    /// Where reports about the message go.
    Mailbox(Mailbox),
}

/// What RCPT TO names (RFC 5321 §4.1.1.3).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in any case: always accepted.
    Postmaster,
    /// A mailbox; a source route before it was dropped.
    Mailbox(Mailbox),
}

impl LocalPart {
    /// Takes unquoted text. Fails when it is empty, too long, or holds a control character.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > MAX_FOREIGN_LOCAL_PART {
            return Err(AddressError::TooLong);
        }
        // Characters that reorder or break a line would let an address look like another one.
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')) {
            return Err(AddressError::LocalPart);
        }
        Ok(Self(text.into()))
    }

    /// The text without quotes or backslashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that look-ups use: NFC and lower case, since no one here keeps `Bob` and `bob` apart.
    pub fn key(&self) -> String {
        if self.0.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
            return self.0.to_string();
        }
        self.0.nfc().flat_map(char::to_lowercase).nfc().collect()
    }

    /// Whether it keeps to [`MAX_LOCAL_PART`], as every address that is hosted here must.
    pub fn is_hostable(&self) -> bool {
        self.0.len() <= MAX_LOCAL_PART
    }

    /// Whether it can stand without quotes: atoms joined by single dots.
    pub fn is_dot_string(&self) -> bool {
        self.0.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
    }

    /// Whether all characters are ASCII, so that no SMTPUTF8 is needed.
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

/// `atext` of RFC 5322 §3.2.3 with the non-ASCII characters of RFC 6532.
pub(crate) fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || (!c.is_ascii() && !c.is_control()) || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

impl Domain {
    /// Takes a name in A- or U-labels, with or without a trailing dot, or an address literal such as `[192.0.2.1]` or `[IPv6:::1]`.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > 4 * MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AddressError::Domain)?;
            let ip: IpAddr = match inner.get(..5) {
                Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
                    IpAddr::V6(inner.get(5..).unwrap_or("").parse().map_err(|_| AddressError::Domain)?)
                }
                _ => IpAddr::V4(inner.parse().map_err(|_| AddressError::Domain)?),
            };
            return Ok(Self::literal(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let ascii = if name.is_ascii() {
            name.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(name).map_err(|_| AddressError::Domain)?
        };
        if ascii.len() > MAX_DOMAIN {
            return Err(AddressError::TooLong);
        }
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // A name that ends in digits is an address without brackets; resolvers would take it for one.
        let numeric = ascii.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if numeric || !ascii.split('.').all(label_ok) {
            return Err(AddressError::Domain);
        }
        Ok(Self(ascii.into()))
    }

    /// The domain that stands for an IP address: `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
    pub fn literal(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(v4) => format!("[{v4}]").into(),
            IpAddr::V6(v6) => format!("[IPv6:{v6}]").into(),
        })
    }

    /// Lower-case A-labels, or the literal with its brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address when this is a literal.
    pub fn ip(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.strip_prefix("IPv6:") {
            Some(v6) => v6.parse().ok().map(IpAddr::V6),
            None => inner.parse().ok().map(IpAddr::V4),
        }
    }

    /// U-labels for people to read.
    pub fn to_unicode(&self) -> String {
        if self.0.contains("xn--") { idna::domain_to_unicode(&self.0).0 } else { self.0.to_string() }
    }
}

impl Mailbox {
    /// Joins the two parts.
    pub fn new(local: LocalPart, domain: Domain) -> Self {
        Self { local, domain }
    }

    /// The key under which directories, limits and memories file this mailbox: folded local part, `@`, A-label domain.
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.key(), self.domain.as_str())
    }

    /// Whether it needs SMTPUTF8 to be sent on (RFC 6531 §3.4).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// Whether both name the same mailbox once case and normalisation are folded.
    pub fn same_as(&self, other: &Mailbox) -> bool {
        self.domain == other.domain && self.local.key() == other.local.key()
    }

    /// Splits `user+detail` at the first `delimiter`. `None` when there is none, or nothing before it.
    pub fn split_detail(&self, delimiter: &str) -> Option<(Mailbox, String)> {
        if delimiter.is_empty() {
            return None;
        }
        let (user, detail) = self.local.as_str().split_once(delimiter)?;
        let local = LocalPart::new(user).ok()?;
        Some((Mailbox::new(local, self.domain.clone()), detail.to_owned()))
    }
}

impl ReversePath {
    /// The mailbox, unless it is `<>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(m) => Some(m),
        }
    }

    /// Whether it is `<>`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl From<Mailbox> for ReversePath {
    fn from(mailbox: Mailbox) -> Self {
        Self::Mailbox(mailbox)
    }
}

impl fmt::Display for LocalPart {
    /// As SMTP wants it: quoted only where it must be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dot_string() {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Display for ForwardPath {
    /// Without brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(m) => m.fmt(f),
        }
    }
}

impl fmt::Display for ReversePath {
    /// Without brackets; the null path is the empty string.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(m) => m.fmt(f),
        }
    }
}

macro_rules! text_forms {
    ($($type:ty),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "<{self}>")
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_forms!(Domain, Mailbox, ReversePath);

impl fmt::Debug for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests;
