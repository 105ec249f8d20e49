//! Macros (RFC 7208 §7): text with holes for what is known of the client and the sender.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::Malformed;

/// Longest domain name in text (§7.3).
const LONGEST_DOMAIN: usize = 253;

/// What text with macros is for: each has letters and characters of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A name to look up, or a modifier.
    Domain,
    /// An explanation (§6.2): spaces and the letters c, r, t as well.
    Explanation,
}

/// What does not change during a check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) client: IpAddr,
    pub(super) helo: &'a str,
    pub(super) local: &'a str,
    pub(super) sender_domain: &'a str,
    pub(super) hostname: &'a str,
}

/// Parsed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MacroString(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Macro(Macro),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Macro {
    /// In lower case.
    letter: char,
    /// Written in upper case: the value is escaped for URLs.
    escaped: bool,
    /// Parts kept from the right.
    keep: Option<usize>,
    reversed: bool,
    /// Empty: the dot.
    delimiters: String,
}

impl MacroString {
    /// Parses `macro-string`, or `explain-string`.
    pub(super) fn parse(text: &str, purpose: Purpose) -> Result<Self, Malformed> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('%') => literal.push('%'),
                    Some('_') => literal.push(' '),
                    Some('-') => literal.push_str("%20"),
                    Some('{') => {
                        let (inside, rest) = chars.as_str().split_once('}').ok_or(Malformed)?;
                        if !literal.is_empty() {
                            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                        }
                        pieces.push(Piece::Macro(Macro::parse(inside, purpose)?));
                        chars = rest.chars();
                    }
                    _ => return Err(Malformed),
                },
                ' ' if purpose == Purpose::Explanation => literal.push(' '),
                '\x21'..='\x7e' => literal.push(c),
                _ => return Err(Malformed),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// Whether the last thing is a macro, so that the text's end is not known yet.
    pub(super) fn ends_in_macro(&self) -> bool {
        matches!(self.0.last(), Some(Piece::Macro(_)))
    }

    /// Whether the client's validated name is needed.
    pub(super) fn needs_validated_name(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Macro(m) if m.letter == 'p'))
    }

    /// Fills the holes. `domain` is the one being checked, `validated` the client's validated name.
    pub(super) fn expand(&self, facts: &Facts<'_>, domain: &str, validated: &str) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Macro(m) => m.expand(facts, domain, validated, &mut out),
            }
        }
        out
    }

    /// The same as a name to look up: labels are cut on the left until it fits (§7.3).
    pub(super) fn expand_domain(&self, facts: &Facts<'_>, domain: &str, validated: &str) -> String {
        let name = self.expand(facts, domain, validated);
        let mut name = name.strip_suffix('.').unwrap_or(&name);
        while name.len() > LONGEST_DOMAIN {
            name = name.split_once('.').map_or("", |(_, rest)| rest);
        }
        name.to_owned()
    }
}

impl Macro {
    fn parse(inside: &str, purpose: Purpose) -> Result<Self, Malformed> {
        let mut chars = inside.chars();
        let letter = chars.next().ok_or(Malformed)?;
        let known = match letter.to_ascii_lowercase() {
            's' | 'l' | 'o' | 'd' | 'i' | 'p' | 'h' | 'v' => true,
            'c' | 'r' | 't' => purpose == Purpose::Explanation,
            _ => false,
        };
        let rest = chars.as_str();
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = rest.split_at(digits);
        let keep = match number {
            "" => None,
            // More parts than anything can have is as good as all of them.
            number => Some(number.parse::<usize>().unwrap_or(usize::MAX)).filter(|n| *n > 0).map(Some).ok_or(Malformed)?,
        };
        let (reversed, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if !known || !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return Err(Malformed);
        }
        Ok(Self {
            letter: letter.to_ascii_lowercase(),
            escaped: letter.is_ascii_uppercase(),
            keep,
            reversed,
            delimiters: delimiters.to_owned(),
        })
    }

    fn expand(&self, facts: &Facts<'_>, domain: &str, validated: &str, out: &mut String) {
        let value = self.value(facts, domain, validated);
        let plain = self.keep.is_none() && !self.reversed && self.delimiters.is_empty();
        let value = if plain {
            value
        } else {
            let cut = if self.delimiters.is_empty() { "." } else { self.delimiters.as_str() };
            let mut parts: Vec<&str> = value.split(|c| cut.contains(c)).collect();
            if self.reversed {
                parts.reverse();
            }
            let skip = parts.len().saturating_sub(self.keep.unwrap_or(usize::MAX));
            parts.get(skip..).unwrap_or_default().join(".")
        };
        if !self.escaped {
            out.push_str(&value);
            return;
        }
        for octet in value.bytes() {
            // RFC 3986 §2.3: the unreserved characters stand for themselves.
            if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                out.push(char::from(octet));
            } else {
                let _ = write!(out, "%{octet:02X}");
            }
        }
    }

    fn value(&self, facts: &Facts<'_>, domain: &str, validated: &str) -> String {
        match self.letter {
            's' => format!("{}@{}", facts.local, facts.sender_domain),
            'l' => facts.local.to_owned(),
            'o' => facts.sender_domain.to_owned(),
            'd' => domain.to_owned(),
            'i' => match facts.client {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => {
                    let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                    nibbles.map(|nibble| format!("{nibble:X}")).collect::<Vec<_>>().join(".")
                }
            },
            'c' => facts.client.to_string(),
            'v' => if facts.client.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            'h' => facts.helo.to_owned(),
            'p' => validated.to_owned(),
            'r' => facts.hostname.to_owned(),
            't' => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).to_string(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, client: &str) -> String {
        let facts = Facts {
            client: client.parse().unwrap(),
            helo: "helo.example",
            local: "strong-bad",
            sender_domain: "email.example.com",
            hostname: "mx.example.org",
        };
        MacroString::parse(text, Purpose::Domain).unwrap().expand(&facts, "email.example.com", "unknown")
    }

    /// The examples of RFC 7208 §7.4.
    #[test]
    fn macros_expand_as_the_rfc_shows() {
        for (text, result) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ] {
            assert_eq!(expanded(text, "192.0.2.3"), result, "{text}");
        }
        assert_eq!(
            expanded("%{ir}.%{v}._spf.%{d2}", "2001:db8::cb01"),
            "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6._spf.example.com"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_macro_string_or_refused(text in "([%{}a-zA-Z0-9._+/=,-]|%\\{[a-zA-Z][0-9r.-]{0,4}\\}){0,30}") {
            for purpose in [Purpose::Domain, Purpose::Explanation] {
                if let Ok(parsed) = MacroString::parse(&text, purpose) {
                    let facts = Facts { client: "2001:db8::1".parse().unwrap(), helo: "h", local: "l", sender_domain: "o.example", hostname: "r" };
                    proptest::prop_assert!(parsed.expand_domain(&facts, "d.example", "unknown").len() <= LONGEST_DOMAIN);
                }
            }
        }
    }
}
