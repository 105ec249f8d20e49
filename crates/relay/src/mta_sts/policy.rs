//! The text of a policy (RFC 8461 §3.2) and of the record that announces it (§3.1).

use serde::{Deserialize, Serialize};

/// Longest life that counts (RFC 8461 §3.2): about a year.
const MAX_AGE: u64 = 31_557_600;
/// `mx` patterns kept.
const MAX_PATTERNS: usize = 200;

/// How strict a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Hosts that fail get no mail.
    Enforce,
    /// Failures are reported and mail goes on.
    Testing,
    /// No policy any more.
    None,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StsPolicy {
    /// How strict.
    pub mode: Mode,
    /// Seconds it may be kept.
    pub max_age: u64,
    /// Host patterns, lower case; `*.` stands for one label.
    pub mx: Vec<String>,
}

/// Why a policy is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not UTF-8.
    #[error("the policy is not text")]
    NotText,
    /// A line without a colon, or an unusable name.
    #[error("line {0} of the policy is malformed")]
    Line(usize),
    /// A field is missing.
    #[error("the policy has no {0}")]
    Missing(&'static str),
    /// A field's value is not allowed.
    #[error("the policy's {0} is malformed")]
    Value(&'static str),
}

impl StsPolicy {
    /// Reads a policy. Unknown fields are passed over, repeated ones but `mx` count once (RFC 8461 §3.2).
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let text = std::str::from_utf8(text).map_err(|_| PolicyError::NotText)?;
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for (number, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(PolicyError::Line(number + 1))?;
            let (key, value) = (key.trim_end_matches([' ', '\t']), value.trim_start_matches([' ', '\t']));
            if !is_name(key) || value.chars().any(char::is_control) {
                return Err(PolicyError::Line(number + 1));
            }
            match key {
                "version" => drop(version.get_or_insert(value)),
                "mode" => drop(mode.get_or_insert(value)),
                "max_age" => drop(max_age.get_or_insert(value)),
                "mx" if mx.len() < MAX_PATTERNS => mx.push(pattern(value).ok_or(PolicyError::Value("mx"))?),
                _ => {}
            }
        }
        match version {
            None => return Err(PolicyError::Missing("version")),
            Some("STSv1") => {}
            Some(_) => return Err(PolicyError::Value("version")),
        }
        let mode = match mode.ok_or(PolicyError::Missing("mode"))? {
            "enforce" => Mode::Enforce,
            "testing" => Mode::Testing,
            "none" => Mode::None,
            _ => return Err(PolicyError::Value("mode")),
        };
        let max_age = max_age.ok_or(PolicyError::Missing("max_age"))?;
        let digits = !max_age.is_empty() && max_age.len() <= 10 && max_age.bytes().all(|b| b.is_ascii_digit());
        let max_age: u64 = if digits { max_age.parse().ok() } else { None }.ok_or(PolicyError::Value("max_age"))?;
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyError::Missing("mx"));
        }
        Ok(Self { mode, max_age: max_age.min(MAX_AGE), mx })
    }

    /// Whether a host from the domain's MX records is one that the policy names (RFC 8461 §4.1).
    pub fn allows(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(suffix) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix),
            None => *pattern == host,
        })
    }

    /// The policy's lines, as TLS reports quote them.
    pub fn lines(&self) -> Vec<String> {
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        };
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {mode}"), format!("max_age: {}", self.max_age)];
        lines.extend(self.mx.iter().map(|mx| format!("mx: {mx}")));
        lines
    }
}

/// `1*32(ALPHA / DIGIT / "_" / "-" / ".")`, beginning with a letter or digit.
fn is_name(key: &str) -> bool {
    (1..=32).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn pattern(value: &str) -> Option<String> {
    let name = value.strip_prefix("*.").unwrap_or(value);
    let domain = pillarbox_smtp::Domain::new(name).ok().filter(|domain| domain.ip().is_none())?;
    Some(if value.starts_with("*.") { format!("*.{domain}") } else { domain.to_string() })
}

/// The `id` of the record at `_mta-sts.DOMAIN`; `None` unless there is exactly one and it is well formed (RFC 8461 §3.1).
pub fn record_id(records: &[String]) -> Option<String> {
    let mut ours = records.iter().filter(|text| text.strip_prefix("v=STSv1").is_some_and(|rest| rest.trim_start().starts_with(';')));
    let (Some(record), None) = (ours.next(), ours.next()) else { return None };
    let mut id = None;
    for field in record.split(';').skip(1).map(str::trim).filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once('=')?;
        if key.trim() == "id" && id.is_none() {
            id = Some(value.trim());
        }
    }
    let id = id?;
    ((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_policy_with_all_that_is_allowed() {
        let text = "version: STSv1\r\nmode: enforce\r\nmx: Mail.Example.com\nmx: *.example.net\r\nmode: none\r\nx-new: what: ever\r\nmax_age: 604800\r\n\r\n";
        let policy = StsPolicy::parse(text.as_bytes()).unwrap();
        assert_eq!(
            policy,
            StsPolicy { mode: Mode::Enforce, max_age: 604_800, mx: vec!["mail.example.com".into(), "*.example.net".into()] }
        );
        for (host, allowed) in [
            ("mail.example.com", true),
            ("MAIL.example.com.", true),
            ("a.mail.example.com", false),
            ("a.example.net", true),
            ("example.net", false),
            ("a.b.example.net", false),
            (".example.net", false),
            ("", false),
        ] {
            assert_eq!(policy.allows(host), allowed, "{host}");
        }
    }

    #[test]
    fn what_is_no_policy() {
        let good = ["version: STSv1", "mode: testing", "max_age: 1", "mx: a.b"];
        for missing in 0..4 {
            let lines: Vec<_> = good.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, l)| *l).collect();
            assert!(StsPolicy::parse(lines.join("\n").as_bytes()).is_err(), "without line {missing}");
        }
        for (from, to) in [
            ("STSv1", "STSv2"),
            ("testing", "strict"),
            ("max_age: 1", "max_age: -1"),
            ("max_age: 1", "max_age: 1e3"),
            ("max_age: 1", "max_age: 99999999999"),
            ("a.b", "a..b"),
            ("a.b", "a.*.b"),
            ("a.b", "[192.0.2.1]"),
            ("mode: testing", "mode testing"),
            ("mode", "-mode"),
        ] {
            assert!(StsPolicy::parse(good.join("\n").replace(from, to).as_bytes()).is_err(), "{to}");
        }
        assert!(StsPolicy::parse(b"version: STSv1\nmode: none\nmax_age: 0").is_ok());
        assert!(StsPolicy::parse(b"\xff").is_err());
        assert!(StsPolicy::parse(b"<html>").is_err());
    }

    #[test]
    fn one_record_and_only_one() {
        let id = |records: &[&str]| record_id(&records.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>());
        assert_eq!(id(&["v=STSv1; id=20160831085700Z;"]), Some("20160831085700Z".into()));
        assert_eq!(id(&["other", "v=STSv1;id=1"]), Some("1".into()));
        for bad in
            [&["v=STSv1; id=1", "v=STSv1; id=2"][..], &["v=STSv1"], &["v=STSv1; id="], &["v=STSv1; id=a-b"], &["v=STSv10; id=1"], &[]]
        {
            assert_eq!(id(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = StsPolicy::parse(&bytes);
            let _ = record_id(&[String::from_utf8_lossy(&bytes).into_owned()]);
        }

        #[test]
        fn what_a_policy_says_reads_back(max_age in 0u64..MAX_AGE, hosts in proptest::collection::vec("(\\*\\.)?[a-z]{1,8}\\.[a-z]{2,5}", 1..5)) {
            let policy = StsPolicy { mode: Mode::Testing, max_age, mx: hosts };
            prop_assert_eq!(StsPolicy::parse(policy.lines().join("\r\n").as_bytes()), Ok(policy));
        }
    }
}
