//! The way to a destination: its hosts in order, and what each must show before it gets mail.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pillarbox_smtp::{Domain, Reply, Secret};
use tokio::sync::OnceCell;

use crate::dane::{self, Finding};
use crate::dns::hosts::{AddressPolicy, MailHost};
use crate::mta_sts::{Found, Mode};
use crate::replies;
use crate::route::{HostHop, LmtpHop, NextHop};
use crate::session::{Credentials, Endpoint, TlsTrouble};
use crate::shared::Shared;
use crate::tls::{Policy, Reason};
use crate::tlsrpt::PolicyInfo;

/// Addresses tried for one destination in one go.
pub(crate) const MAX_ADDRESSES: usize = 10;

/// A resolved destination.
pub(crate) struct Path {
    /// Hosts, best first.
    pub(crate) hosts: Vec<MailHost>,
    kind: Kind,
    /// The domain's MTA-STS policy, looked for once when a host without DANE asks.
    sts: OnceCell<Found>,
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

/// What one host must show.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// Of TLS.
    pub(crate) policy: Policy,
    /// Find out what verification says without insisting on it (MTA-STS in mode `testing`).
    pub(crate) judge: bool,
    /// What already failed without keeping mail back.
    pub(crate) note: Option<TlsTrouble>,
    /// The policy as TLS reports name it; only for MX hosts.
    pub(crate) info: Option<PolicyInfo>,
}

/// Whether a host may be used, and how.
pub(crate) enum HostPolicy {
    /// Connect under this demand.
    Use(Demand),
    /// Not now, for this reason; the demand's note says it to TLS reports.
    Skip(Reply, Demand),
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
                Ok(Self { hosts: found.hosts, kind: Kind::Mx { domain: domain.clone(), mx_secure: found.mx_secure }, sts: OnceCell::new() })
            }
            NextHop::Host(hop) => {
                let hosts = vec![named(shared, &hop.host, prefer_v6).await?];
                Ok(Self { hosts, kind: Kind::Host(hop.clone()), sts: OnceCell::new() })
            }
            NextHop::Lmtp(hop) => match hop.as_ref() {
                LmtpHop::Tcp { host, port } => {
                    let hosts = vec![named(shared, host, prefer_v6).await?];
                    Ok(Self { hosts, kind: Kind::LmtpTcp { port: *port }, sts: OnceCell::new() })
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
                    Ok(Self { hosts: vec![host], kind: Kind::LmtpUnix(path.clone()), sts: OnceCell::new() })
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
        let plain = |policy| HostPolicy::Use(Demand { policy, judge: false, note: None, info: None });
        match &self.kind {
            Kind::Mx { domain, mx_secure } => self.mx_policy(shared, host, domain, *mx_secure).await,
            // A password, or TLS from the first byte, is meant for one host and no other.
            Kind::Host(hop) if hop.implicit_tls || hop.user.is_some() => plain(Policy::Verified(Reason::Smarthost)),
            Kind::Host(_) | Kind::LmtpTcp { .. } | Kind::LmtpUnix(_) => plain(Policy::Opportunistic),
        }
    }

    async fn mx_policy(&self, shared: &Shared, host: &MailHost, domain: &Domain, mx_secure: bool) -> HostPolicy {
        let info = |kind: &str, lines: Vec<String>, mx_host: Vec<String>| {
            let (policy_type, policy_domain) = (kind.to_owned(), domain.to_string());
            Some(PolicyInfo { policy_type, policy_string: lines, policy_domain, mx_host })
        };
        let mut demand = Demand { policy: Policy::Opportunistic, judge: false, note: None, info: info("no-policy-found", vec![], vec![]) };
        if shared.config.dane && mx_secure {
            match dane::find(&shared.resolver, host, domain.as_str(), shared.config.port).await {
                Finding::Usable(set) => {
                    demand.info = info("tlsa", set.records.iter().map(ToString::to_string).collect(), vec![]);
                    demand.policy = Policy::Dane(set);
                    return HostPolicy::Use(demand);
                }
                Finding::Unusable => {
                    demand.policy = Policy::Encrypted;
                    demand.note = Some(TlsTrouble { result: "tlsa-invalid", detail: "no TLSA record is usable".into() });
                    demand.info = info("tlsa", vec![], vec![]);
                }
                Finding::Failed(reply) => {
                    demand.note = Some(TlsTrouble { result: "dnssec-invalid", detail: reply.to_string() });
                    demand.info = info("tlsa", vec![], vec![]);
                    return HostPolicy::Skip(reply, demand);
                }
                Finding::None => {}
            }
        }
        let Some(cache) = &shared.sts else { return HostPolicy::Use(demand) };
        let found = self.sts.get_or_init(|| async { cache.find(&shared.means(), domain).await }).await;
        let trouble = found.trouble.clone().map(|(result, detail)| TlsTrouble { result, detail });
        demand.note = trouble.or(demand.note);
        let Some(policy) = &found.policy else { return HostPolicy::Use(demand) };
        demand.info = info("sts", policy.lines(), policy.mx.clone());
        let listed = policy.allows(&host.name);
        if !listed {
            demand.note = Some(TlsTrouble { result: "validation-failure", detail: "the policy does not name this MX host".into() });
        }
        match policy.mode {
            Mode::Enforce if !listed => return HostPolicy::Skip(replies::not_in_policy(&host.name), demand),
            Mode::Enforce => demand.policy = Policy::Verified(Reason::MtaSts),
            Mode::Testing => demand.judge = listed,
            Mode::None => {}
        }
        HostPolicy::Use(demand)
    }

    /// TLS from the first byte.
    pub(crate) fn implicit_tls(&self) -> bool {
        matches!(&self.kind, Kind::Host(hop) if hop.implicit_tls)
    }

    /// What DNS says of the domain: MX records proved by DNSSEC.
    pub(crate) fn mx_secure(&self) -> bool {
        matches!(self.kind, Kind::Mx { mx_secure: true, .. })
    }

    /// By MX.
    pub(crate) fn is_mx(&self) -> bool {
        matches!(self.kind, Kind::Mx { .. })
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
