//! Where a message goes next: MX of its domain, a smarthost, or an LMTP service, by recipient domain or sender.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pillarbox_config::Relay as RelayConfig;
use pillarbox_config::endpoint::{NextHop as Via, mask_url};
use pillarbox_queue::{Destination, Envelope, Recipient};
use pillarbox_smtp::{Domain, Mailbox, ReversePath};

/// What a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// The MX hosts of a domain.
    Mx(Domain),
    /// One host that the operator named.
    Host(Arc<HostHop>),
    /// An LMTP service (RFC 2033).
    Lmtp(Arc<LmtpHop>),
}

/// A named SMTP host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHop {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS from the first byte (RFC 8314), against STARTTLS.
    pub implicit_tls: bool,
    /// Who to log in as.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: PathBuf,
}

/// An LMTP service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LmtpHop {
    /// By TCP.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// By a Unix socket.
    Unix(PathBuf),
}

/// A smarthost or route that says nothing usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("relay.smarthost or relay.routes: {0}")]
pub struct BadRoute(String);

/// The routing table: what the configuration says about next hops.
#[derive(Debug, Default)]
pub struct Routes {
    /// Exact recipient domains.
    domains: HashMap<String, Destination>,
    /// `.example.net`: everything below, longest first.
    suffixes: Vec<(String, Destination)>,
    /// Sender keys (`user@host`).
    senders: HashMap<String, Destination>,
    /// Sender domains.
    sender_domains: HashMap<String, Destination>,
    /// Where everything else goes; `None`: by MX.
    smarthost: Option<Destination>,
    /// What the named destinations are.
    hops: HashMap<Destination, NextHop>,
}

/// The name under which "by MX" stands in the tables above.
const BY_MX: &str = "mx";

impl Routes {
    /// Reads smarthost and routes.
    pub fn new(config: &RelayConfig) -> Result<Self, BadRoute> {
        let mut routes = Self::default();
        for route in &config.routes {
            let target = routes.add(&route.via, &route.password_file)?;
            match (&route.domain, &route.sender) {
                (Some(domain), None) => match domain.strip_prefix('.') {
                    Some(below) => routes.suffixes.push((format!(".{}", domain_key(below)), target)),
                    None => {
                        routes.domains.entry(domain_key(domain)).or_insert(target);
                    }
                },
                (None, Some(sender)) => match sender.strip_prefix('@') {
                    Some(domain) => {
                        routes.sender_domains.entry(domain_key(domain)).or_insert(target);
                    }
                    None => {
                        let key = sender.parse::<Mailbox>().map_or_else(|_| sender.to_lowercase(), |m| m.key());
                        routes.senders.entry(key).or_insert(target);
                    }
                },
                _ => return Err(BadRoute(format!("the route via {:?} needs exactly one of domain and sender", mask_url(&route.via)))),
            }
        }
        routes.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        if !config.smarthost.is_empty() {
            routes.smarthost = Some(routes.add(&config.smarthost, &config.smarthost_password_file)?);
        }
        Ok(routes)
    }

    fn add(&mut self, via: &str, password_file: &Path) -> Result<Destination, BadRoute> {
        let Some(hop) = parse_hop(via, password_file)? else { return Ok(Destination(BY_MX.into())) };
        let base = match &hop {
            NextHop::Host(hop) => format!("smarthost:{}:{}", hop.host, hop.port),
            NextHop::Lmtp(hop) => match hop.as_ref() {
                LmtpHop::Tcp { host, port } => format!("lmtp:{host}:{port}"),
                LmtpHop::Unix(path) => format!("lmtp:unix:{}", path.display()),
            },
            NextHop::Mx(domain) => format!("mx:{domain}"),
        };
        // Two users at one host are two destinations: their mail must not share a login.
        let mut key = Destination::from(base.clone());
        for n in 2.. {
            match self.hops.get(&key) {
                None => break,
                Some(known) if *known == hop => return Ok(key),
                Some(_) => key = Destination::from(format!("{base}#{n}")),
            }
        }
        self.hops.insert(key.clone(), hop);
        Ok(key)
    }

    /// The destination for a recipient: routes by recipient domain first, then by sender, then the smarthost, then MX.
    pub fn destination(&self, envelope: &Envelope, recipient: &Recipient) -> Destination {
        let sender = recipient.reverse_path.as_ref().unwrap_or(&envelope.from);
        self.choose(&recipient.address.domain, sender)
    }

    /// The same for a domain and a sender.
    pub fn choose(&self, domain: &Domain, sender: &ReversePath) -> Destination {
        let chosen = self
            .by_domain(domain.as_str())
            .or_else(|| self.by_sender(sender))
            .or(self.smarthost.as_ref())
            .filter(|destination| &*destination.0 != BY_MX);
        match chosen {
            Some(destination) => destination.clone(),
            None => Destination::from(format!("mx:{domain}")),
        }
    }

    fn by_domain(&self, domain: &str) -> Option<&Destination> {
        if self.domains.is_empty() && self.suffixes.is_empty() {
            return None;
        }
        let below = || self.suffixes.iter().find(|(suffix, _)| domain.ends_with(suffix.as_str())).map(|(_, destination)| destination);
        self.domains.get(domain).or_else(below)
    }

    fn by_sender(&self, sender: &ReversePath) -> Option<&Destination> {
        if self.senders.is_empty() && self.sender_domains.is_empty() {
            return None;
        }
        let mailbox = sender.mailbox()?;
        self.senders.get(&mailbox.key()).or_else(|| self.sender_domains.get(mailbox.domain.as_str()))
    }

    /// What a destination is; `None` when the configuration no longer names it.
    pub fn hop(&self, destination: &Destination) -> Option<NextHop> {
        if let Some(hop) = self.hops.get(destination) {
            return Some(hop.clone());
        }
        let domain = destination.0.strip_prefix("mx:")?;
        Domain::new(domain).ok().map(NextHop::Mx)
    }

    /// Every named next hop, for `check relay`.
    pub fn named(&self) -> impl Iterator<Item = (&Destination, &NextHop)> {
        self.hops.iter()
    }
}

fn domain_key(text: &str) -> String {
    Domain::new(text).map_or_else(|_| text.to_lowercase(), |domain| domain.as_str().to_owned())
}

/// Reads a `via` text; `None` is "mx".
fn parse_hop(text: &str, password_file: &Path) -> Result<Option<NextHop>, BadRoute> {
    Ok(Some(match text.parse().map_err(BadRoute)? {
        Via::Mx => return Ok(None),
        Via::Smtp { implicit_tls, user, host, port } => {
            let (host, password_file) = (host.to_ascii_lowercase(), password_file.to_owned());
            NextHop::Host(Arc::new(HostHop { host, port, implicit_tls, user, password_file }))
        }
        Via::LmtpTcp { host, port } => NextHop::Lmtp(Arc::new(LmtpHop::Tcp { host: host.to_ascii_lowercase(), port })),
        Via::LmtpUnix(path) => NextHop::Lmtp(Arc::new(LmtpHop::Unix(path))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_config::RelayRoute;

    fn route(domain: Option<&str>, sender: Option<&str>, via: &str) -> RelayRoute {
        RelayRoute { domain: domain.map(Into::into), sender: sender.map(Into::into), via: via.into(), password_file: PathBuf::new() }
    }

    fn choose(routes: &Routes, to: &str, from: &str) -> String {
        routes.choose(&Domain::new(to).unwrap(), &from.parse().unwrap()).to_string()
    }

    #[test]
    fn recipients_before_senders_before_smarthost() {
        let config = RelayConfig {
            smarthost: "smtps://me@smart.test:465".into(),
            routes: vec![
                route(Some("a.test"), None, "smtp://one.test:25"),
                route(Some(".a.test"), None, "lmtp:unix:/run/x"),
                route(Some(".deep.a.test"), None, "lmtp:127.0.0.1:24"),
                route(Some("direct.test"), None, "mx"),
                route(None, Some("bob@me.test"), "smtp://two.test"),
                route(None, Some("@me.test"), "smtp://x@two.test:25"),
            ],
            ..RelayConfig::default()
        };
        let routes = Routes::new(&config).unwrap();
        assert_eq!(choose(&routes, "A.test", "bob@me.test"), "smarthost:one.test:25");
        assert_eq!(choose(&routes, "x.a.test", ""), "lmtp:unix:/run/x");
        assert_eq!(choose(&routes, "x.deep.a.test", ""), "lmtp:127.0.0.1:24");
        assert_eq!(choose(&routes, "direct.test", "bob@me.test"), "mx:direct.test");
        assert_eq!(choose(&routes, "other.test", "Bob@me.test"), "smarthost:two.test:25");
        assert_eq!(choose(&routes, "other.test", "eve@me.test"), "smarthost:two.test:25#2");
        assert_eq!(choose(&routes, "other.test", ""), "smarthost:smart.test:465");
        assert_eq!(choose(&Routes::default(), "other.test", ""), "mx:other.test");
        assert!(matches!(routes.hop(&Destination::from("mx:other.test".to_owned())), Some(NextHop::Mx(_))));
        assert_eq!(routes.hop(&Destination::from("smarthost:gone.test:25".to_owned())), None);
    }

    #[test]
    fn bad_routes_are_refused_and_never_repeat_a_password() {
        let with = |routes| Routes::new(&RelayConfig { routes, ..RelayConfig::default() }).map(|_| ()).map_err(|e| e.to_string());
        let secret = with(vec![route(Some("a.test"), None, "smtp://me:hunter2@h.test")]).unwrap_err();
        assert!(!secret.contains("hunter2"), "{secret}");
        assert!(with(vec![route(Some("a.test"), Some("b@c.test"), "mx")]).is_err());
        assert!(with(vec![route(None, None, "mx")]).is_err());
        assert!(with(vec![route(Some("a.test"), None, "http://h.test")]).is_err());
    }
}
