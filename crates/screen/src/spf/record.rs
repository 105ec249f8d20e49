//! An SPF record as text becomes terms (RFC 7208 §4.6.1, §5, §6, §12). A record is right as a whole or not at all.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::macros::{MacroString, Purpose};
use crate::auth::AuthResult;

/// The record is malformed: a permanent error (§4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A whole record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    pub(super) directives: Vec<(AuthResult, Mechanism)>,
    pub(super) redirect: Option<MacroString>,
    pub(super) exp: Option<MacroString>,
}

/// What a client is matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    /// `None`: the domain being checked.
    A(Option<MacroString>, Prefix),
    Mx(Option<MacroString>, Prefix),
    Ptr(Option<MacroString>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(MacroString),
}

/// Prefix lengths for both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

/// Whether a TXT record is an SPF record at all (§4.5).
pub(super) fn is_spf(text: &[u8]) -> bool {
    text.get(..6).is_some_and(|version| version.eq_ignore_ascii_case(b"v=spf1")) && matches!(text.get(6), None | Some(b' '))
}

impl Record {
    /// Parses a record that [`is_spf`].
    pub(super) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii()).ok_or(Malformed)?;
        let mut record = Self::default();
        for term in text.get(6..).unwrap_or("").split(' ').filter(|term| !term.is_empty()) {
            let end = term.find([':', '/', '=']).unwrap_or(term.len());
            let (name, rest) = term.split_at(end);
            match rest.strip_prefix('=') {
                Some(value) => record.modifier(name, value)?,
                None => record.directives.push(directive(name, rest)?),
            }
        }
        Ok(record)
    }

    fn modifier(&mut self, name: &str, value: &str) -> Result<(), Malformed> {
        let mut letters = name.bytes();
        let valid = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !valid {
            return Err(Malformed);
        }
        let slot = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.exp,
            _ => return MacroString::parse(value, Purpose::Domain).map(drop),
        };
        // Each at most once (§6).
        if slot.replace(domain_spec(value)?).is_some() { Err(Malformed) } else { Ok(()) }
    }
}

fn directive(name: &str, rest: &str) -> Result<(AuthResult, Mechanism), Malformed> {
    let (qualifier, name) = match name.split_at_checked(1) {
        Some(("+", name)) => (AuthResult::Pass, name),
        Some(("-", name)) => (AuthResult::Fail, name),
        Some(("~", name)) => (AuthResult::SoftFail, name),
        Some(("?", name)) => (AuthResult::Neutral, name),
        _ => (AuthResult::Pass, name),
    };
    let argument = rest.strip_prefix(':');
    let needed = || argument.ok_or(Malformed);
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain_spec(needed()?)?),
        "exists" => Mechanism::Exists(domain_spec(needed()?)?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain_spec(needed()?)?)),
        "a" => {
            let (domain, prefix) = domain_and_prefix(rest)?;
            Mechanism::A(domain, prefix)
        }
        "mx" => {
            let (domain, prefix) = domain_and_prefix(rest)?;
            Mechanism::Mx(domain, prefix)
        }
        "ip4" => {
            let (address, prefix) = address_and_prefix(needed()?, 32)?;
            Mechanism::Ip4(address.parse().map_err(|_| Malformed)?, prefix)
        }
        "ip6" => {
            let (address, prefix) = address_and_prefix(needed()?, 128)?;
            Mechanism::Ip6(address.parse().map_err(|_| Malformed)?, prefix)
        }
        _ => return Err(Malformed),
    };
    Ok((qualifier, mechanism))
}

/// `domain-spec`: macros and literals that end in a macro or in a top label that is no number (§7.1).
fn domain_spec(text: &str) -> Result<MacroString, Malformed> {
    let parsed = MacroString::parse(text, Purpose::Domain)?;
    if parsed.ends_in_macro() {
        return Ok(parsed);
    }
    let (_, label) = text.strip_suffix('.').unwrap_or(text).rsplit_once('.').ok_or(Malformed)?;
    let valid = !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.bytes().all(|b| b.is_ascii_digit())
        && !label.starts_with('-')
        && !label.ends_with('-');
    if valid { Ok(parsed) } else { Err(Malformed) }
}

/// `[":" domain-spec] ["/" n] ["//" n]`.
fn domain_and_prefix(rest: &str) -> Result<(Option<MacroString>, Prefix), Malformed> {
    let (rest, v6) = match rest.rsplit_once("//") {
        Some((head, digits)) if is_number(digits) => (head, prefix(digits, 128)?),
        _ => (rest, 128),
    };
    let (rest, v4) = match rest.rsplit_once('/') {
        Some((head, digits)) if is_number(digits) => (head, prefix(digits, 32)?),
        _ => (rest, 32),
    };
    let domain = match rest.strip_prefix(':') {
        Some(domain) => Some(domain_spec(domain)?),
        None if rest.is_empty() => None,
        None => return Err(Malformed),
    };
    Ok((domain, Prefix { v4, v6 }))
}

fn address_and_prefix(text: &str, longest: u8) -> Result<(&str, u8), Malformed> {
    match text.split_once('/') {
        Some((address, digits)) => Ok((address, prefix(digits, longest)?)),
        None => Ok((text, longest)),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A prefix length: no leading zero, no more than the address has bits.
fn prefix(digits: &str, longest: u8) -> Result<u8, Malformed> {
    if !is_number(digits) || (digits.len() > 1 && digits.starts_with('0')) {
        return Err(Malformed);
    }
    digits.parse().ok().filter(|length| *length <= longest).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_records_are_read() {
        let record = Record::parse(b"v=spf1 a:x.example/24//64  -MX ip6:2001:db8::/32 ?ptr x-new=%{d} redirect=_spf.%{d}").unwrap();
        assert_eq!(record.directives.len(), 4);
        assert!(matches!(record.directives[0], (AuthResult::Pass, Mechanism::A(Some(_), Prefix { v4: 24, v6: 64 }))));
        assert!(matches!(record.directives[1], (AuthResult::Fail, Mechanism::Mx(None, Prefix { v4: 32, v6: 128 }))));
        assert!(record.redirect.is_some());
    }

    #[test]
    fn bad_records_are_refused_whole() {
        for text in [
            "v=spf1 a:",
            "v=spf1 ip4:1.2.3",
            "v=spf1 ip4:1.2.3.4/33",
            "v=spf1 ip4:1.2.3.4/032",
            "v=spf1 a/",
            "v=spf1 all:x",
            "v=spf1 moo",
            "v=spf1 redirect=a.b redirect=a.b",
            "v=spf1 =x",
            "v=spf1 include:example.123",
            "v=spf1 exists:%{c}.example",
            "v=spf1 a:%{d0}",
            "v=spf1 -all\t",
            "v=spf1 a\u{e9}",
            "v=spf1 a:example.com:8080",
            "v=spf1 --all",
            "v=spf1 %{x}=y",
            "v=spf1 x=%{z}",
        ] {
            assert_eq!(Record::parse(text.as_bytes()), Err(Malformed), "{text}");
        }
        assert!(is_spf(b"V=SPF1") && is_spf(b"v=spf1 ") && !is_spf(b"v=spf10") && !is_spf(b"v=spf1\tall"));
    }

    proptest::proptest! {
        #[test]
        fn any_record_is_read_or_refused(text in "v=spf1( [-+~?]?[a-z46]{1,7}[:=/]?[%{}a-z0-9./:_-]{0,20}){0,6}") {
            let _ = Record::parse(text.as_bytes());
        }
    }
}
