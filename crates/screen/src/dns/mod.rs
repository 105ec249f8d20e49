//! One resolver and one set of caches for everything the screen looks up.

mod cache;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Resolver, TokioResolver};
use mail_auth::MessageAuthenticator;

pub use cache::Caches;

/// Longest wait for one answer, retries included: a client waits meanwhile.
const LOOKUP: Duration = Duration::from_secs(5);
/// So many look-ups without an answer in a row, and the name servers count as down...
const DOWN_AFTER: u32 = 5;
/// ...for this long; then one is tried again.
const DOWN_FOR: Duration = Duration::from_secs(15);
/// Answers that hickory keeps.
const ANSWERS: u64 = 16_384;

/// Why the name servers could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the name servers cannot be used: {0}")]
pub struct DnsSetupError(String);

/// What a look-up came to.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Records of the type asked for.
    Found(Lookup),
    /// The name exists, without such records.
    NoData,
    /// No such name.
    NxDomain,
    /// Nobody knows: servers down, time over, DNSSEC bogus. Never held against a sender.
    Unknown,
}

/// The resolver, its caches, and what is known of the servers' health. Cheap to clone.
#[derive(Clone)]
pub struct Dns {
    inner: Arc<Inner>,
}

struct Inner {
    authenticator: MessageAuthenticator,
    caches: Caches,
    start: Instant,
    failures: AtomicU32,
    /// Milliseconds after `start` until which the servers count as down.
    down_until: AtomicU64,
}

impl Dns {
    /// Asks the servers of `[dns]`, or the system's where none is named.
    pub fn new(config: &pillarbox_config::Dns) -> Result<Self, DnsSetupError> {
        Ok(Self::with_resolver(resolver(&config.servers)?))
    }

    /// Uses this resolver. It must not validate DNSSEC: proven absence comes back from it in another form.
    pub fn with_resolver(resolver: TokioResolver) -> Self {
        Self {
            inner: Arc::new(Inner {
                authenticator: MessageAuthenticator(resolver),
                caches: Caches::default(),
                start: Instant::now(),
                failures: AtomicU32::new(0),
                down_until: AtomicU64::new(0),
            }),
        }
    }

    /// mail-auth over the same resolver.
    pub fn authenticator(&self) -> &MessageAuthenticator {
        &self.inner.authenticator
    }

    /// Caches of parsed answers for mail-auth.
    pub fn caches(&self) -> &Caches {
        &self.inner.caches
    }

    /// Whether the servers failed to answer so often that asking is a waste of the client's time just now.
    pub fn is_down(&self) -> bool {
        self.now() < self.inner.down_until.load(Ordering::Relaxed)
    }

    /// Looks an absolute name up, in bounded time. A name that cannot exist (an empty or overlong label) does not.
    pub async fn lookup(&self, name: &str, record: RecordType) -> Answer {
        match absolute(name) {
            Some(name) => self.lookup_name(name, record).await,
            None => Answer::NxDomain,
        }
    }

    /// The same for a name from an answer.
    pub async fn lookup_name(&self, name: Name, record: RecordType) -> Answer {
        if self.is_down() {
            return Answer::Unknown;
        }
        let answer = match tokio::time::timeout(LOOKUP, self.inner.authenticator.resolver().lookup(name, record)).await {
            Ok(Ok(lookup)) if lookup.answers().iter().any(|r| r.record_type() == record) => Answer::Found(lookup),
            Ok(Ok(_)) => Answer::NoData,
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) if none.response_code == ResponseCode::NXDomain => Answer::NxDomain,
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) if none.response_code == ResponseCode::NoError => Answer::NoData,
            Ok(Err(NetError::Dns(_))) => Answer::Unknown,
            Ok(Err(_)) | Err(_) => {
                self.failed();
                return Answer::Unknown;
            }
        };
        self.inner.failures.store(0, Ordering::Relaxed);
        answer
    }

    /// Notes a look-up that nobody answered.
    fn failed(&self) {
        if self.inner.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= DOWN_AFTER {
            self.inner.failures.store(DOWN_AFTER - 1, Ordering::Relaxed);
            let until = self.now().saturating_add(DOWN_FOR.as_millis() as u64);
            if self.inner.down_until.swap(until, Ordering::Relaxed) < self.now() {
                tracing::warn!("name servers do not answer; mail is judged without DNS for {} s", DOWN_FOR.as_secs());
                metrics::counter!("pillarbox_screen_dns_down_total").increment(1);
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.inner.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A name from its labels as they are: names made of macros or reversed addresses hold whatever they hold, and no escapes.
fn absolute(name: &str) -> Option<Name> {
    let labels = name.strip_suffix('.').unwrap_or(name).split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A resolver for these servers; none: the system's.
fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, DnsSetupError> {
    let bad = |error: NetError| DnsSetupError(error.to_string());
    let (config, mut options) = if servers.is_empty() {
        parse_resolv_conf(pillarbox_config::resolv_conf()).map_err(bad)?
    } else {
        let servers = servers.iter().map(|server| {
            let on_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections = config.connections.into_iter().map(on_port).collect();
            config
        });
        (ResolverConfig::from_parts(None, vec![], servers.collect()), ResolverOpts::default())
    };
    options.validate = false;
    options.cache_size = ANSWERS;
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    Resolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build().map_err(bad)
}
