//! What to publish, as zone-file lines.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::facts::Facts;

/// What a record is for; decides how it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The host's own address.
    Address,
    /// Where mail for the domain goes.
    Mx,
    /// Who may send for the domain (RFC 7208).
    Spf,
    /// The same for the host's own name, used in HELO and by reports.
    HeloSpf,
    /// A signature key (RFC 6376).
    Dkim,
    /// What to do with mail that proves neither (RFC 7489).
    Dmarc,
    /// There is an MTA-STS policy (RFC 8461).
    MtaSts,
    /// The host that serves it.
    MtaStsHost,
    /// Where TLS reports go (RFC 8460).
    TlsReports,
    /// The certificate's key (RFC 7672).
    Tlsa,
    /// Where mail programs find a service (RFC 6186, RFC 8314).
    Service,
    /// Where Thunderbird and Outlook find their settings.
    Autoconfig,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRecord {
    /// Owner name without the last dot.
    pub name: String,
    /// "A", "MX", "TXT", …
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// Its data; a TXT record's text without quotes.
    pub value: String,
    /// What it is for.
    pub role: Role,
    /// Why it is wanted, in one sentence.
    pub why: Cow<'static, str>,
    /// Mail suffers without it.
    pub required: bool,
}

impl ZoneRecord {
    /// The line of a zone file.
    pub fn zone_line(&self) -> String {
        let data = if self.kind == "TXT" { quoted(&self.value) } else { self.value.clone() };
        format!("{}. IN {} {data}", self.name, self.kind)
    }
}

/// RFC 1035 §5.1: strings of at most 255 octets, each in quotes.
fn quoted(text: &str) -> String {
    let mut strings = vec![String::new()];
    for c in text.chars() {
        let octets = strings.last().map_or(0, |s: &String| s.replace('\\', "").len());
        if octets + c.len_utf8() > 255 {
            strings.push(String::new());
        }
        if let Some(last) = strings.last_mut() {
            if c == '"' || c == '\\' {
                last.push('\\');
            }
            last.push(c);
        }
    }
    strings.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(" ")
}

/// All records of a domain, the most needed first.
pub fn records(facts: &Facts) -> Vec<ZoneRecord> {
    let (domain, host) = (facts.domain.as_str(), facts.hostname.as_str());
    let mut out = Vec::new();
    let mut add = |name: String, kind: &'static str, value: String, role, why: &'static str, required| {
        out.push(ZoneRecord { name, kind: kind.into(), value, role, why: why.into(), required });
    };
    for ip in &facts.addresses {
        let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
        add(host.into(), kind, text(*ip), Role::Address, "the address of this server", true);
    }
    add(domain.into(), "MX", format!("10 {host}."), Role::Mx, "where mail for the domain goes", true);
    add(domain.into(), "TXT", "v=spf1 mx -all".into(), Role::Spf, "only this server sends mail for the domain", true);
    if host != domain {
        add(
            host.into(),
            "TXT",
            "v=spf1 a -all".into(),
            Role::HeloSpf,
            "the same for reports, which this server sends in its own name",
            true,
        );
    }
    for (name, value) in &facts.dkim {
        add(name.clone(), "TXT", value.clone(), Role::Dkim, "the key that proves this server's signatures", true);
    }
    let dmarc = format!("v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}");
    add(
        format!("_dmarc.{domain}"),
        "TXT",
        dmarc,
        Role::Dmarc,
        "what others do with mail that proves nothing, and where they report it",
        true,
    );
    let report = format!("v=TLSRPTv1; rua=mailto:postmaster@{domain}");
    add(format!("_smtp._tls.{domain}"), "TXT", report, Role::TlsReports, "where others report failures of encryption", true);
    if let Some(hash) = &facts.spki_sha256 {
        let name = format!("_25._tcp.{host}");
        // Without DNSSEC nobody may believe it, so its absence hurts only in a signed zone; `check` finds out.
        add(name, "TLSA", format!("3 1 1 {hash}"), Role::Tlsa, "the key of the certificate (counts in a zone signed with DNSSEC)", false);
    }
    if facts.http {
        let id = policy_id(facts);
        add(format!("_mta-sts.{domain}"), "TXT", format!("v=STSv1; id={id}"), Role::MtaSts, "there is an MTA-STS policy", true);
        let why = "the host that serves the policy over HTTPS";
        add(format!("mta-sts.{domain}"), "CNAME", format!("{host}."), Role::MtaStsHost, why, true);
        let why = "where Thunderbird finds its settings";
        add(format!("autoconfig.{domain}"), "CNAME", format!("{host}."), Role::Autoconfig, why, true);
        let why = "where Outlook finds its settings";
        add(format!("autodiscover.{domain}"), "CNAME", format!("{host}."), Role::Autoconfig, why, true);
    }
    let why = "where mail programs send and read mail";
    if let Some(port) = facts.submissions {
        add(format!("_submissions._tcp.{domain}"), "SRV", format!("0 1 {port} {host}."), Role::Service, why, true);
    }
    if let Some(port) = facts.submission {
        add(format!("_submission._tcp.{domain}"), "SRV", format!("0 1 {port} {host}."), Role::Service, why, true);
    }
    add(format!("_imaps._tcp.{domain}"), "SRV", format!("0 1 993 {host}."), Role::Service, why, true);
    out
}

fn text(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

/// Changes whenever the policy does: when the host changes, and when its certificate becomes one that others can verify.
fn policy_id(facts: &Facts) -> String {
    let mode = if facts.verifiable { "enforce" } else { "testing" };
    let digest = Sha256::digest(format!("{mode} {}", facts.hostname));
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn facts() -> Facts {
        Facts {
            domain: "example.org".parse().unwrap(),
            hostname: "mail.example.org".into(),
            addresses: vec!["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            dkim: vec![("s1._domainkey.example.org".into(), format!("v=DKIM1; k=rsa; p={}", "A".repeat(400)))],
            spki_sha256: Some("ab".repeat(32)),
            verifiable: true,
            http: true,
            submission: Some(587),
            submissions: Some(465),
        }
    }

    #[test]
    fn all_that_a_domain_needs_is_there_as_zone_lines() {
        let lines: Vec<String> = records(&facts()).iter().map(ZoneRecord::zone_line).collect();
        for wanted in [
            "mail.example.org. IN A 198.51.100.7",
            "mail.example.org. IN AAAA 2001:db8::7",
            "example.org. IN MX 10 mail.example.org.",
            "example.org. IN TXT \"v=spf1 mx -all\"",
            "mail.example.org. IN TXT \"v=spf1 a -all\"",
            "_dmarc.example.org. IN TXT \"v=DMARC1; p=quarantine; rua=mailto:postmaster@example.org\"",
            "_smtp._tls.example.org. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@example.org\"",
            "mta-sts.example.org. IN CNAME mail.example.org.",
            "_submissions._tcp.example.org. IN SRV 0 1 465 mail.example.org.",
            "_imaps._tcp.example.org. IN SRV 0 1 993 mail.example.org.",
        ] {
            assert!(lines.iter().any(|l| l == wanted), "{wanted} is not among\n{}", lines.join("\n"));
        }
        assert!(lines.iter().any(|l| l.starts_with("_25._tcp.mail.example.org. IN TLSA 3 1 1 abab")));
    }

    #[test]
    fn long_texts_are_cut_into_strings() {
        let line = quoted(&"x".repeat(600));
        let sizes: Vec<usize> = line.split(' ').map(|s| s.len() - 2).collect();
        assert_eq!(sizes, [255, 255, 90]);
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
    }

    #[test]
    fn the_policy_id_changes_with_the_policy() {
        let (a, mut b) = (facts(), facts());
        b.verifiable = false;
        assert_ne!(policy_id(&a), policy_id(&b));
        assert_eq!(policy_id(&a), policy_id(&facts()));
    }
}
