//! Trying a next hop without sending mail, for `pillarbox check relay`: connect, EHLO, STARTTLS, log in, hang up.

use pillarbox_queue::Destination;
use pillarbox_smtp::{Reply, printable};
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::path::{HostPolicy, NoPath, Path};
use crate::replies;
use crate::session::{Dial, open};
use crate::shared::Shared;

/// What one address of a next hop said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostCheck {
    /// `mx.example.net[192.0.2.1]:25`.
    pub host: String,
    /// What TLS must give: `opportunistic`, `encrypted`, `verified`, `mta-sts` or `dane`.
    pub policy: &'static str,
    /// The session that came about.
    pub connected: Option<Connected>,
    /// Why none did.
    pub refusal: Option<Reply>,
}

/// A session that came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Connected {
    /// `TLSv1.3 verified`; empty for plain text.
    pub tls: String,
    /// The certificate shown.
    pub certificate: Option<CertificateView>,
    /// Why the certificate would not pass verification, or why TLS could not be had.
    pub tls_trouble: Option<String>,
    /// Logged in.
    pub authenticated: bool,
    /// Extensions that matter to us, by keyword.
    pub extensions: Vec<&'static str>,
}

/// A certificate for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateView {
    /// Who it is for.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Names it is valid for.
    pub names: Vec<String>,
    /// When it ends, seconds since the epoch.
    pub not_after: i64,
}

impl CertificateView {
    /// Reads DER; `None` when it is no certificate. Texts are safe to print.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten().map(|extension| {
            let names = extension.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(printable(name.as_bytes())),
                _ => None,
            });
            names.take(50).collect()
        });
        Some(Self {
            subject: printable(certificate.subject().to_string().as_bytes()),
            issuer: printable(certificate.issuer().to_string().as_bytes()),
            names: names.unwrap_or_default(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

pub(crate) async fn check(shared: &Shared, destination: &Destination) -> Vec<HostCheck> {
    let refused = |host: &str, policy, reply| HostCheck { host: host.to_owned(), policy, connected: None, refusal: Some(reply) };
    let Some(hop) = shared.routes.hop(destination) else {
        return vec![refused(&destination.0, "opportunistic", replies::unknown_destination())];
    };
    let path = match Path::find(shared, &hop).await {
        Ok(path) => path,
        Err(NoPath::Never(reply) | NoPath::Down(reply)) => return vec![refused(&destination.0, "opportunistic", reply)],
    };
    let mut checks = Vec::new();
    for host in &path.hosts {
        let demand = match path.policy(shared, host).await {
            HostPolicy::Use(demand) => demand,
            HostPolicy::Skip(reply, demand) => {
                checks.push(refused(&host.name, demand.policy.name(), reply));
                continue;
            }
        };
        let endpoints = path.endpoints(shared, host);
        if let (true, Some(trouble)) = (endpoints.is_empty(), &host.trouble) {
            checks.push(refused(&host.name, demand.policy.name(), trouble.clone()));
        }
        for endpoint in endpoints {
            let (label, source) = (endpoint.label(&host.name), shared.source_for(&endpoint));
            let credentials = match path.credentials().await {
                Ok(credentials) => credentials,
                Err(reply) => {
                    checks.push(refused(&label, demand.policy.name(), reply));
                    continue;
                }
            };
            let logs_in = credentials.is_some();
            let dial = Dial {
                host: &host.name,
                endpoint,
                source,
                policy: &demand.policy,
                implicit_tls: path.implicit_tls(),
                lmtp: path.is_lmtp(),
                credentials,
                helo: &shared.helo,
                tls: &shared.tls,
                timeouts: shared.timeouts,
                judge: !demand.policy.authenticates(),
            };
            match open(&dial).await {
                Ok(session) => {
                    let security = session.security.clone();
                    let extensions = extensions(&session.capabilities);
                    session.quit().await;
                    let connected = Connected {
                        certificate: security.certificate.as_deref().and_then(CertificateView::parse),
                        tls_trouble: security.would_fail.map(|trouble| printable(trouble.detail.as_bytes())),
                        tls: security.tls,
                        authenticated: logs_in,
                        extensions,
                    };
                    checks.push(HostCheck { host: label, policy: demand.policy.name(), connected: Some(connected), refusal: None });
                }
                Err(refusal) => checks.push(refused(&label, demand.policy.name(), refusal.reply)),
            }
        }
    }
    checks
}

fn extensions(offered: &pillarbox_smtp::client::Capabilities) -> Vec<&'static str> {
    let all = [
        ("8BITMIME", offered.eight_bit_mime),
        ("AUTH", !offered.auth.is_empty()),
        ("BINARYMIME", offered.binary_mime),
        ("CHUNKING", offered.chunking),
        ("DSN", offered.dsn),
        ("PIPELINING", offered.pipelining),
        ("REQUIRETLS", offered.require_tls),
        ("SIZE", offered.size),
        ("SMTPUTF8", offered.smtputf8),
    ];
    all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect()
}
