//! What a DKIM key's record says besides the key (RFC 6376 §3.6.1): for which hash algorithms and services it stands, and whether its
//! domain is only testing. `mail-auth` reads the key and heeds none of this.

use hickory_resolver::proto::rr::{RData, RecordType};
use mail_auth::DkimOutput;

use super::AuthResult;
use super::dkim::DkimCheck;
use crate::dns::{Answer, Dns};

/// The terms of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Terms {
    /// `h=`: the hash algorithms it may be used with; `None` is any.
    hashes: Option<Vec<String>>,
    /// `s=`: what it is for; `None` is anything.
    services: Option<Vec<String>>,
    /// `t=y`: a signature that fails is as good as none.
    testing: bool,
}

impl Terms {
    fn parse(record: &str) -> Self {
        let list = |value: &str| value.split(':').map(|item| item.trim().to_ascii_lowercase()).collect::<Vec<_>>();
        let mut terms = Self::default();
        for (name, value) in record.split(';').filter_map(|tag| tag.split_once('=')) {
            match name.trim() {
                "h" => terms.hashes = Some(list(value)),
                "s" => terms.services = Some(list(value)),
                "t" => terms.testing = list(value).iter().any(|flag| flag == "y"),
                _ => {}
            }
        }
        terms
    }

    /// Why a signature with SHA-256 (there is no other) on mail may not lean on this key.
    fn objection(&self) -> Option<&'static str> {
        if self.hashes.as_ref().is_some_and(|hashes| !hashes.iter().any(|hash| hash == "sha256")) {
            return Some("the key is not for this hash algorithm");
        }
        if self.services.as_ref().is_some_and(|services| !services.iter().any(|service| matches!(service.as_str(), "*" | "email"))) {
            return Some("the key is not for mail");
        }
        None
    }
}

/// Heeds the terms of the keys behind `outputs`: signatures against them count as malformed and are taken out of `outputs`, so that DMARC
/// does not believe them either. Returns what each came to.
pub(super) async fn heed(dns: &Dns, outputs: &mut Vec<DkimOutput<'_>>) -> Vec<DkimCheck> {
    let mut checks: Vec<DkimCheck> = outputs.iter().map(DkimCheck::from).collect();
    for check in &mut checks {
        if !matches!(check.result, AuthResult::Pass | AuthResult::Fail) || check.domain.is_empty() {
            continue;
        }
        let Some(terms) = terms_of(dns, &check.selector, &check.domain).await else { continue };
        check.testing = terms.testing;
        if check.result == AuthResult::Pass
            && let Some(reason) = terms.objection()
        {
            check.result = AuthResult::PermError;
            check.reason = Some(reason.to_owned());
        }
    }
    let mut believed = checks.iter().map(|check| check.result != AuthResult::PermError);
    outputs.retain(|_| believed.next().unwrap_or(false));
    checks
}

/// The record was asked for a moment ago, so the resolver has it at hand. What cannot be had now restricts nothing.
async fn terms_of(dns: &Dns, selector: &str, domain: &str) -> Option<Terms> {
    let Answer::Found(lookup) = dns.lookup(&format!("{selector}._domainkey.{domain}."), RecordType::TXT).await else { return None };
    lookup.answers().iter().find_map(|record| {
        let RData::TXT(txt) = &record.data else { return None };
        let octets = txt.txt_data.concat();
        let text = String::from_utf8_lossy(&octets);
        text.split(';').any(|tag| tag.trim_start().starts_with('p')).then(|| Terms::parse(&text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read() {
        assert_eq!(Terms::parse("v=DKIM1; k=rsa; p=AAAA").objection(), None);
        for fine in ["h=sha1:sha256", "h = SHA256", "s=email", "s=*", "s= tlsrpt : email ", "t=s"] {
            let terms = Terms::parse(&format!("v=DKIM1; p=AAAA; {fine}"));
            assert_eq!((terms.objection(), terms.testing), (None, false), "{fine}");
        }
        for bad in ["h=sha1", "h=sha512", "h=", "s=tlsrpt", "s=other:more"] {
            assert!(Terms::parse(&format!("p=AAAA;{bad};")).objection().is_some(), "{bad}");
        }
        assert!(Terms::parse("t=s:y; p=AAAA").testing);
    }
}
