//! What a server's EHLO or LHLO reply offers (RFC 5321 §4.1.1.1).

use crate::reply::Reply;
use crate::sasl::Mechanism;
use crate::text::{split_word, strip_prefix_ignore_case};

/// The extensions a server offers, with their parameters. The default is a server that offers none, as after HELO.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The name the server gave itself.
    pub name: String,
    /// SIZE (RFC 1870) was offered.
    pub size: bool,
    /// The most octets the server takes, when SIZE gave a number other than 0.
    pub max_size: Option<u64>,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// CHUNKING (RFC 3030): BDAT.
    pub chunking: bool,
    /// BINARYMIME (RFC 3030); counted only together with CHUNKING.
    pub binary_mime: bool,
    /// SMTPUTF8 (RFC 6531); counted only together with 8BITMIME, which it needs.
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// AUTH (RFC 4954): mechanism names in upper case, in the server's order.
    pub auth: Vec<String>,
    /// DELIVERBY (RFC 2852): `Some(0)` when no minimum was given, otherwise the shortest by-time in seconds.
    pub deliver_by: Option<u64>,
    /// MT-PRIORITY (RFC 6710): the profile, empty when none was named.
    pub mt_priority: Option<String>,
    /// FUTURERELEASE (RFC 4865): the longest hold in seconds.
    pub future_release: Option<u64>,
    /// LIMITS (RFC 9422).
    pub limits: ServerLimits,
}

/// What LIMITS announces (RFC 9422 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerLimits {
    /// MAILMAX: transactions a session.
    pub mail_max: Option<u64>,
    /// RCPTMAX: recipients a transaction.
    pub rcpt_max: Option<u64>,
    /// RCPTDOMAINMAX: distinct recipient domains a transaction.
    pub rcpt_domain_max: Option<u64>,
}

impl Capabilities {
    /// Reads the reply to EHLO or LHLO. Unknown keywords and malformed parameters are passed over: what is not understood is
    /// not used. A reply that is not 250 offers nothing.
    pub fn parse(reply: &Reply) -> Self {
        let mut found = Self::default();
        let Some((greeting, keywords)) = reply.lines.split_first() else { return found };
        if reply.code != 250 {
            return found;
        }
        found.name = split_word(greeting).0.to_owned();
        for line in keywords {
            found.keyword(line);
        }
        found.binary_mime &= found.chunking;
        found.smtputf8 &= found.eight_bit_mime;
        found
    }

    /// Whether the server takes this mechanism.
    pub fn offers(&self, mechanism: Mechanism) -> bool {
        self.auth.iter().any(|name| name == mechanism.name())
    }

    fn keyword(&mut self, line: &str) {
        // `AUTH=LOGIN PLAIN` is how servers spoke to the clients of the last century; many still do, beside the right form.
        if let Some(mechanisms) = strip_prefix_ignore_case(line, "AUTH=") {
            return self.mechanisms(mechanisms);
        }
        let (keyword, rest) = split_word(line);
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => {
                self.size = true;
                self.max_size = number(rest).filter(|&n| n > 0);
            }
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.require_tls = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "AUTH" => self.mechanisms(rest),
            "DELIVERBY" => self.deliver_by = Some(number(rest).unwrap_or(0)),
            "MT-PRIORITY" => self.mt_priority = Some(split_word(rest).0.to_owned()),
            "FUTURERELEASE" => self.future_release = number(rest),
            "LIMITS" => self.limits(rest),
            _ => {}
        }
    }

    fn mechanisms(&mut self, names: &str) {
        for name in names.split_ascii_whitespace().take(32) {
            let name = name.to_ascii_uppercase();
            if !self.auth.contains(&name) {
                self.auth.push(name);
            }
        }
    }

    fn limits(&mut self, rest: &str) {
        for limit in rest.split_ascii_whitespace() {
            let Some((name, value)) = limit.split_once('=') else { continue };
            // A limit of nought would forbid all mail; RFC 9422 §3 allows none.
            let Some(value) = number(value).filter(|&n| n > 0) else { continue };
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => self.limits.mail_max = Some(value),
                "RCPTMAX" => self.limits.rcpt_max = Some(value),
                "RCPTDOMAINMAX" => self.limits.rcpt_domain_max = Some(value),
                _ => {}
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let word = split_word(text).0;
    if word.bytes().all(|b| b.is_ascii_digit()) { word.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Capabilities {
        Capabilities::parse(&Reply::lines(250, None, lines.iter().copied()))
    }

    #[test]
    fn a_full_server() {
        let caps = parse(&[
            "mx.example.org at your service",
            "size 1000000",
            "PIPELINING",
            "8BITMIME",
            "CHUNKING",
            "BINARYMIME",
            "SMTPUTF8",
            "DSN",
            "STARTTLS",
            "REQUIRETLS",
            "ENHANCEDSTATUSCODES",
            "AUTH=LOGIN",
            "AUTH plain LOGIN SCRAM-SHA-256",
            "DELIVERBY 240",
            "MT-PRIORITY MIXER",
            "FUTURERELEASE 604800 2030-01-01T00:00:00Z",
            "LIMITS RCPTMAX=100 mailmax=5 NEW=1 RCPTDOMAINMAX=0",
            "X-UNKNOWN",
        ]);
        assert_eq!(caps.name, "mx.example.org");
        assert_eq!(caps.max_size, Some(1_000_000));
        assert!(caps.pipelining && caps.eight_bit_mime && caps.chunking && caps.binary_mime && caps.smtputf8 && caps.dsn);
        assert!(caps.starttls && caps.require_tls && caps.enhanced_status_codes);
        assert_eq!(caps.auth, ["LOGIN", "PLAIN", "SCRAM-SHA-256"]);
        assert!(caps.offers(Mechanism::ScramSha256) && !caps.offers(Mechanism::ScramSha256Plus));
        assert_eq!((caps.deliver_by, caps.mt_priority.as_deref(), caps.future_release), (Some(240), Some("MIXER"), Some(604_800)));
        assert_eq!(caps.limits, ServerLimits { mail_max: Some(5), rcpt_max: Some(100), rcpt_domain_max: None });
    }

    #[test]
    fn what_needs_another_extension_is_not_counted_alone() {
        let caps = parse(&["h", "BINARYMIME", "SMTPUTF8", "SIZE 0"]);
        assert!(!caps.binary_mime && !caps.smtputf8 && caps.size);
        assert_eq!(caps.max_size, None);
    }

    #[test]
    fn refusals_offer_nothing() {
        assert_eq!(Capabilities::parse(&Reply::lines(500, None, ["x", "PIPELINING"])), Capabilities::default());
        assert_eq!(parse(&["only.a.name"]).name, "only.a.name");
    }
}
