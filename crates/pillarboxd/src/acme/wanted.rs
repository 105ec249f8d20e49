//! Which certificates are wanted, and which of them are due.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::rr::{RData, RecordType};
use pillarbox_config::{Acme, Config};
use pillarbox_ingest::certificates::{CertificateInfo, acme_folder, domain_folder, domains_folder};
use pillarbox_screen::Dns;
use pillarbox_screen::dns::Answer;
use pillarbox_smtp::Domain;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{AGAIN, Later, Orders};

/// Names of a hosted domain that HTTPS serves: its MTA-STS policy (RFC 8461), Thunderbird's settings, Outlook's.
const WEB: [&str; 3] = ["mta-sts", "autoconfig", "autodiscover"];

/// A certificate to have.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Its names.
    pub(super) names: Vec<String>,
    /// Where it and its key lie.
    pub(super) folder: PathBuf,
    /// The hosted domain that it is for; `None` for the host's own.
    pub(super) domain: Option<Domain>,
}

impl Orders {
    /// All certificates that the configuration and the hosted domains ask for, the host's own first.
    pub(super) async fn candidates(&self, config: &Config, acme: &Acme) -> Vec<Wanted> {
        let mut found = Vec::new();
        if config.tls.certificate.as_os_str().is_empty() {
            let names = if acme.domains.is_empty() { vec![config.hostname.clone()] } else { acme.domains.clone() };
            found.push(Wanted { names, folder: acme_folder(config), domain: None });
        }
        if config.listen.https.is_empty() {
            return found;
        }
        // A directory that does not answer now answers at the next look.
        let Ok(domains) = self.directory.domains().await else { return found };
        let hosted: Vec<Domain> = domains.into_iter().map(|record| record.name).collect();
        self.forget_others(config, &hosted);
        for domain in hosted {
            let named = |name: &String| !acme.domains.iter().any(|n| n.eq_ignore_ascii_case(name)) && *name != config.hostname;
            let names: Vec<String> = WEB.iter().map(|label| format!("{label}.{domain}")).filter(named).collect();
            found.push(Wanted { names, folder: domain_folder(config, domain.as_str()), domain: Some(domain) });
        }
        found
    }

    /// Removes the certificates of domains that are no longer hosted.
    fn forget_others(&self, config: &Config, hosted: &[Domain]) {
        let folders = hosted.iter().map(|domain| domain_folder(config, domain.as_str())).collect::<BTreeSet<_>>();
        let mut gone = false;
        for entry in std::fs::read_dir(domains_folder(config)).into_iter().flatten().flatten() {
            if !folders.contains(&entry.path()) {
                gone |= std::fs::remove_dir_all(entry.path()).is_ok();
            }
        }
        if gone && let Err(error) = self.certificates.reload(config) {
            tracing::error!(%error, "certificates could not be loaded anew");
        }
    }

    /// The certificate with the names to order now; `None` when there is nothing to do, with the next look noted.
    pub(super) async fn due(&self, mut wanted: Wanted, config: &Config, acme: &Acme) -> Option<Wanted> {
        if wanted.domain.is_some() {
            wanted.names = leading_here(&self.dns, &config.hostname, wanted.names).await;
            if wanted.names.is_empty() {
                self.later.lock().insert(wanted.folder, Later { until: Some(Instant::now() + super::FIRST_WAIT), ..Later::default() });
                return None;
            }
        }
        let served = self.served(&wanted.folder);
        if served.is_some_and(|served| covers(&served, &wanted.names) && OffsetDateTime::now_utc() < renewal(&served, acme)) {
            self.rest(&wanted.folder, acme);
            return None;
        }
        Some(wanted)
    }

    fn served(&self, folder: &Path) -> Option<CertificateInfo> {
        self.certificates.infos().into_iter().find(|served| served.path.parent() == Some(folder))
    }

    /// Notes when the certificate of a folder is to be looked at again: when it is to be renewed, and now and then before.
    pub(super) fn rest(&self, folder: &Path, acme: &Acme) {
        let left = self.served(folder).map(|served| renewal(&served, acme) - OffsetDateTime::now_utc());
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or(Duration::ZERO);
        let until = Some(Instant::now() + left.clamp(Duration::from_secs(1), AGAIN));
        self.later.lock().insert(folder.to_owned(), Later { until, ..Later::default() });
    }
}

fn covers(served: &CertificateInfo, names: &[String]) -> bool {
    names.iter().all(|name| served.names.iter().any(|n| n.eq_ignore_ascii_case(name)))
}

/// When a certificate is to be renewed: `renew_before` its end, but never before two thirds of its life are over, or one of a shorter life would be
/// ordered again and again.
fn renewal(served: &CertificateInfo, acme: &Acme) -> OffsetDateTime {
    let third = (served.not_after - served.not_before) / 3;
    let before = time::Duration::try_from(acme.renew_before).unwrap_or(third);
    served.not_after - before.min(third)
}

/// Those of the names whose addresses are all the host's own: for any other no authority would find us.
async fn leading_here(dns: &Dns, hostname: &str, names: Vec<String>) -> Vec<String> {
    let ours = addresses(dns, hostname).await;
    let mut found = Vec::new();
    for name in names {
        let theirs = addresses(dns, &name).await;
        if !theirs.is_empty() && theirs.is_subset(&ours) {
            found.push(name);
        }
    }
    found
}

/// What the DNS has for a name; empty where nobody answers.
pub(super) async fn addresses(dns: &Dns, name: &str) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        if let Answer::Found(lookup) = dns.lookup(name, kind).await {
            found.extend(lookup.answers().iter().filter_map(|record| match &record.data {
                RData::A(v4) => Some(IpAddr::V4(v4.0)),
                RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
                _ => None,
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(days_old: i64, days: i64) -> CertificateInfo {
        let not_before = OffsetDateTime::now_utc() - time::Duration::days(days_old);
        CertificateInfo {
            name: "a.example".into(),
            names: vec!["a.example".into(), "B.example".into()],
            not_before,
            not_after: not_before + time::Duration::days(days),
            self_signed: false,
            path: "/x/certificate.pem".into(),
        }
    }

    #[test]
    fn renewal_comes_in_time_and_not_too_early() {
        let acme = Acme { renew_before: Duration::from_secs(30 * 86400), ..Acme::default() };
        let due = |days_old, days| OffsetDateTime::now_utc() >= renewal(&served(days_old, days), &acme);
        assert!(!due(59, 90) && due(61, 90));
        // A year's certificate goes by the configuration, a week's by its own life.
        assert!(!due(300, 365) && due(336, 365));
        assert!(!due(4, 7) && due(5, 7));
    }

    #[test]
    fn a_certificate_without_one_of_the_names_does_not_do() {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert!(covers(&served(1, 90), &names(&["A.example", "b.example"])));
        assert!(!covers(&served(1, 90), &names(&["a.example", "c.example"])));
    }
}
