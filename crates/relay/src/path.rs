//! The way to a destination: its hosts in order, and what each must show before it gets mail.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pillarbox_smtp::{Domain, Reply, Secret};

use crate::dane::{self, Finding};
use crate::dns::hosts::{AddressPolicy, MailHost};
use crate::replies;
use crate::route::{HostHop, LmtpHop, NextHop};
use crate::session::{Credentials, Endpoint};
use crate::shared::Shared;
use crate::tls::{Policy, Reason};

/// Addresses tried for one destination in one go.
pub(crate) const MAX_ADDRESSES: usize = 10;

/// A resolved destination.
pub(crate) struct Path {
    /// Hosts, best first.
    pub(crate) hosts: Vec<MailHost>,
    kind: Kind,
}

enum Kind {
    Mx { domain: Domain, mx_secure: bool },
    Host(Arc<HostHop>),
    LmtpTcp { port: u16 },
    LmtpUnix(std::path::PathBuf),
}

/// Why there is no way.
#[derive(Debug, Clone)]
pub(crate) enum NoPath {
    /// It will not get better: every message fails with this.
    Never(Reply),
    /// It may: the destination is down with this.
    Down(Reply),
}

impl From<Reply> for NoPath {
    fn from(reply: Reply) -> Self {
        if reply.is_transient() { Self::Down(reply) } else { Self::Never(reply) }
    }
}

/// What one host must show, and the reason to give when it may not be used at all.
pub(crate) enum HostPolicy {
    /// Connect under this policy.
    Use(Policy),
    /// Not now.
    Skip(Reply),
}

impl Path {
    /// Asks the DNS where a next hop is.
    pub(crate) async fn find(shared: &Shared, hop: &NextHop) -> Result<Self, NoPath> {
        let prefer_v6 = shared.prefers_v6();
        match hop {
            NextHop::Mx(domain) => {
                let port = shared.config.port;
                let policy = AddressPolicy { deny: &shared.config.deny_networks, prefer_v6, ourselves: &shared.ourselves, port };
                let found = shared.resolver.mail_hosts(domain, &policy).await?;
                Ok(Self { hosts: found.hosts, kind: Kind::Mx { domain: domain.clone(), mx_secure: found.mx_secure } })
            }
            NextHop::Host(hop) => {
                let hosts = vec![named(shared, &hop.host, prefer_v6).await?];
                Ok(Self { hosts, kind: Kind::Host(hop.clone()) })
            }
            NextHop::Lmtp(hop) => match hop.as_ref() {
                LmtpHop::Tcp { host, port } => {
                    let hosts = vec![named(shared, host, prefer_v6).await?];
                    Ok(Self { hosts, kind: Kind::LmtpTcp { port: *port } })
                }
                LmtpHop::Unix(path) => {
                    let host = MailHost {
                        name: "localhost".into(),
                        preference: 0,
                        addresses: Vec::new(),
                        secure: false,
                        expanded: None,
                        trouble: None,
                    };
                    Ok(Self { hosts: vec![host], kind: Kind::LmtpUnix(path.clone()) })
                }
            },
        }
    }

    /// Where to connect for a host, in order.
    pub(crate) fn endpoints(&self, shared: &Shared, host: &MailHost) -> Vec<Endpoint> {
        let port = match &self.kind {
            Kind::Mx { .. } => shared.config.port,
            Kind::Host(hop) => hop.port,
            Kind::LmtpTcp { port } => *port,
            Kind::LmtpUnix(path) => return vec![Endpoint::Unix(path.clone())],
        };
        host.addresses.iter().map(|&ip| Endpoint::Tcp(SocketAddr::new(ip, port))).collect()
    }

    /// What a host must show. DANE comes before MTA-STS, which comes before taking what is offered.
    pub(crate) async fn policy(&self, shared: &Shared, host: &MailHost) -> HostPolicy {
        match &self.kind {
            Kind::Mx { domain, mx_secure } => {
                if shared.config.dane && *mx_secure {
                    match dane::find(&shared.resolver, host, domain.as_str(), shared.config.port).await {
                        Finding::Usable(set) => return HostPolicy::Use(Policy::Dane(set)),
                        Finding::Unusable => return HostPolicy::Use(Policy::Encrypted),
                        Finding::Failed(reply) => return HostPolicy::Skip(reply),
                        Finding::None => {}
                    }
                }
                HostPolicy::Use(Policy::Opportunistic)
            }
            // A password, or TLS from the first byte, is meant for one host and no other.
            Kind::Host(hop) if hop.implicit_tls || hop.user.is_some() => HostPolicy::Use(Policy::Verified(Reason::Smarthost)),
            Kind::Host(_) | Kind::LmtpTcp { .. } | Kind::LmtpUnix(_) => HostPolicy::Use(Policy::Opportunistic),
        }
    }

    /// TLS from the first byte.
    pub(crate) fn implicit_tls(&self) -> bool {
        matches!(&self.kind, Kind::Host(hop) if hop.implicit_tls)
    }

    /// LMTP instead of SMTP.
    pub(crate) fn is_lmtp(&self) -> bool {
        matches!(self.kind, Kind::LmtpTcp { .. } | Kind::LmtpUnix(_))
    }

    /// The login, its password read from its file now.
    pub(crate) async fn credentials(&self) -> Result<Option<Credentials>, Reply> {
        let Kind::Host(hop) = &self.kind else { return Ok(None) };
        let Some(user) = hop.user.clone() else { return Ok(None) };
        let text = tokio::fs::read_to_string(&hop.password_file).await.map(zeroize::Zeroizing::new);
        let text = text.map_err(|e| replies::no_password(&hop.host, &format!("{}: {e}", hop.password_file.display())))?;
        let password = Secret::new(text.lines().next().unwrap_or("").trim_end_matches('\r'));
        if password.is_empty() {
            return Err(replies::no_password(&hop.host, &format!("{}: its first line is empty", hop.password_file.display())));
        }
        Ok(Some(Credentials { user, password }))
    }
}

/// A host that the operator named, by name or address.
async fn named(shared: &Shared, host: &str, prefer_v6: bool) -> Result<MailHost, NoPath> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        let (name, addresses) = (host.to_owned(), vec![ip]);
        return Ok(MailHost { name, preference: 0, addresses, secure: false, expanded: None, trouble: None });
    }
    // A name that does not resolve may be put right in the DNS or the configuration: mail waits for that.
    shared.resolver.single_host(host, prefer_v6).await.map_err(NoPath::Down)
}
