//! Asking the DNS: one shared cache, bounded waits, and answers that say whether DNSSEC proves them.
//!
//! Two resolvers stand behind [`Resolver`]. The plain one serves when DANE is off or the name servers pass no DNSSEC on.
//! The validating one (RFC 4035) serves otherwise. Which of them applies is found out by asking for the trust anchor's own
//! keys: a name server that strips signatures would turn every answer bogus and stop all mail, so it is recognised and
//! reported instead. Once signatures were seen, their absence counts as an attack until the next start.

pub mod hosts;
mod order;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{MX, TLSA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::system_conf::parse_resolv_conf;
use pillarbox_smtp::Domain;

pub use order::interleave;

/// Longest wait for one answer, retries included.
const LOOKUP_TIME: Duration = Duration::from_secs(20);
/// How long a finding that the name servers pass no DNSSEC on is believed.
const DNSSEC_RECHECK: Duration = Duration::from_secs(600);
/// The same after no answer at all: name servers that were not up yet must not switch DANE off for long.
const DNSSEC_RETRY: Duration = Duration::from_secs(20);
/// Records of one answer looked at; a DNS message of 64 KiB cannot hold many more.
const MAX_RECORDS: usize = 5000;

/// What the DNS says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// Records, proved by DNSSEC.
    Secure(T),
    /// Records from a zone without DNSSEC, or not validated.
    Insecure(T),
    /// Validation failed: someone may be lying. Never used.
    Bogus,
    /// The name does not exist.
    NxDomain,
    /// The name exists, without records of this type.
    NoData,
    /// No usable answer in time; the text says why.
    TempFail(String),
}

impl<T> Answer<T> {
    /// The records, if there are any.
    pub fn records(&self) -> Option<&T> {
        match self {
            Self::Secure(records) | Self::Insecure(records) => Some(records),
            _ => None,
        }
    }

    /// Whether DNSSEC proves the records.
    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Secure(_))
    }

    /// The same answer with its records turned into something else.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Secure(records) => Answer::Secure(f(records)),
            Self::Insecure(records) => Answer::Insecure(f(records)),
            Self::Bogus => Answer::Bogus,
            Self::NxDomain => Answer::NxDomain,
            Self::NoData => Answer::NoData,
            Self::TempFail(why) => Answer::TempFail(why),
        }
    }
}

/// Records with the name that owns them once CNAMEs were followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned<T> {
    /// The records' owner; differs from the question where CNAMEs led on.
    pub owner: Name,
    /// The records.
    pub records: Vec<T>,
}

/// Why a resolver cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// `/etc/resolv.conf` cannot be understood.
    #[error("the system's name servers cannot be read: {0}; name some in dns.servers")]
    System(String),
    /// The trust anchor file cannot be read or holds something else.
    #[error("dns.trust_anchor {path}: {why}; it must hold DNSKEY records in zone format")]
    TrustAnchor {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The resolver library refuses the settings.
    #[error("the resolver cannot be built: {0}")]
    Build(String),
}

/// Whether the name servers pass DNSSEC on, as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnssec {
    /// Not asked yet, or DANE is off.
    Unknown,
    /// Signatures arrive and validate.
    Available,
    /// The name servers strip signatures or do not answer for them.
    Unavailable,
}

/// The shared resolver.
pub struct Resolver {
    plain: TokioResolver,
    validating: Option<TokioResolver>,
    /// Where the trust anchors stand: the root, unless a file names others.
    anchor: Name,
    /// What was found, and when to ask again.
    dnssec: tokio::sync::Mutex<(Dnssec, Option<Instant>)>,
    seen: parking_lot::Mutex<Dnssec>,
}

impl Resolver {
    /// Sets up a resolver for `servers` (empty: the system's). With `validate` answers are checked against the root's
    /// keys, or those in the file `trust_anchor` when it is not empty.
    pub fn new(servers: &[SocketAddr], validate: bool, trust_anchor: &Path) -> Result<Self, ResolverError> {
        let mut anchor = Name::root();
        let mut anchors = None;
        if validate && !trust_anchor.as_os_str().is_empty() {
            let bad = |why: String| ResolverError::TrustAnchor { path: trust_anchor.display().to_string(), why };
            let text = std::fs::read_to_string(trust_anchor).map_err(|e| bad(e.to_string()))?;
            anchors = Some(Arc::new(TrustAnchors::from_str(&text).map_err(|e| bad(e.to_string()))?));
            anchor = first_owner(&text).ok_or_else(|| bad("no record in it".into()))?;
        }
        let plain = build(servers, false, None)?;
        let validating = if validate { Some(build(servers, true, anchors)?) } else { None };
        let unknown = Dnssec::Unknown;
        Ok(Self { plain, validating, anchor, dnssec: tokio::sync::Mutex::new((unknown, None)), seen: parking_lot::Mutex::new(unknown) })
    }

    /// What is known of DNSSEC, without asking.
    pub fn dnssec(&self) -> Dnssec {
        *self.seen.lock()
    }

    /// Finds out whether the name servers pass DNSSEC on; asks again after ten minutes at the earliest (twenty seconds when nothing answered), and never after a yes.
    pub async fn probe_dnssec(&self) -> Dnssec {
        let Some(validating) = &self.validating else { return Dnssec::Unknown };
        if self.dnssec() == Dnssec::Available {
            return Dnssec::Available;
        }
        let mut state = self.dnssec.lock().await;
        if state.0 == Dnssec::Available || state.1.is_some_and(|due| Instant::now() < due) {
            return state.0;
        }
        let lookup = validating.lookup(self.anchor.clone(), RecordType::DNSKEY);
        let (found, pause) = match tokio::time::timeout(LOOKUP_TIME, lookup).await {
            Ok(Ok(lookup)) if lookup.answers().iter().any(|r| r.record_type() == RecordType::DNSKEY && r.proof.is_secure()) => {
                (Dnssec::Available, DNSSEC_RECHECK)
            }
            Ok(Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_) | DnsError::Nsec { .. } | DnsError::DnssecBogus))) => {
                (Dnssec::Unavailable, DNSSEC_RECHECK)
            }
            Ok(Err(_)) | Err(_) => (Dnssec::Unavailable, DNSSEC_RETRY),
        };
        *state = (found, Some(Instant::now() + pause));
        *self.seen.lock() = found;
        found
    }

    /// The resolver that serves mail routing now.
    async fn active(&self) -> &TokioResolver {
        match &self.validating {
            Some(validating) if self.probe_dnssec().await == Dnssec::Available => validating,
            _ => &self.plain,
        }
    }

    async fn ask<T>(&self, name: &Name, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Answer<Owned<T>> {
        let resolver = self.active().await;
        match tokio::time::timeout(LOOKUP_TIME, resolver.lookup(name.clone(), kind)).await {
            Ok(Ok(lookup)) => sift(lookup.answers(), kind, pick),
            Ok(Err(error)) => refusal(error),
            Err(_) => Answer::TempFail("no answer in time".into()),
        }
    }

    /// MX records (RFC 5321 §5.1), unsorted.
    pub async fn mx(&self, domain: &Domain) -> Answer<Owned<MX>> {
        let Some(name) = fqdn(domain.as_str()) else { return Answer::NxDomain };
        self.ask(&name, RecordType::MX, |data| match data {
            RData::MX(mx) => Some(mx.clone()),
            _ => None,
        })
        .await
    }

    /// IPv4 addresses.
    pub async fn ipv4(&self, host: &str) -> Answer<Owned<Ipv4Addr>> {
        let Some(name) = fqdn(host) else { return Answer::NxDomain };
        self.ask(&name, RecordType::A, |data| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        })
        .await
    }

    /// IPv6 addresses.
    pub async fn ipv6(&self, host: &str) -> Answer<Owned<Ipv6Addr>> {
        let Some(name) = fqdn(host) else { return Answer::NxDomain };
        self.ask(&name, RecordType::AAAA, |data| match data {
            RData::AAAA(aaaa) => Some(aaaa.0),
            _ => None,
        })
        .await
    }

    /// TXT records, the strings of each joined, as text; those that are not UTF-8 are left out.
    pub async fn txt(&self, name: &str) -> Answer<Vec<String>> {
        let Some(name) = fqdn(name) else { return Answer::NxDomain };
        self.ask(&name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => String::from_utf8(txt.txt_data.concat()).ok(),
            _ => None,
        })
        .await
        .map(|owned| owned.records)
    }

    /// TLSA records (RFC 6698).
    pub async fn tlsa(&self, name: &Name) -> Answer<Vec<TLSA>> {
        self.ask(name, RecordType::TLSA, |data| match data {
            RData::TLSA(tlsa) => Some(tlsa.clone()),
            _ => None,
        })
        .await
        .map(|owned| owned.records)
    }

    /// The names that an address's PTR records give.
    pub async fn ptr(&self, address: IpAddr) -> Answer<Vec<String>> {
        self.ask(&Name::from(address), RecordType::PTR, |data| match data {
            RData::PTR(ptr) => Some(ptr.0.to_ascii().trim_end_matches('.').to_owned()),
            _ => None,
        })
        .await
        .map(|owned| owned.records)
    }
}

/// A fully qualified name, so that no search list is tried; `None` when it cannot be one.
pub(crate) fn fqdn(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The owner of the first record in a zone file of trust anchors.
fn first_owner(text: &str) -> Option<Name> {
    let line = text.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with(';') && !line.starts_with('$'))?;
    fqdn(line.split_whitespace().next()?)
}

fn build(servers: &[SocketAddr], validate: bool, anchors: Option<Arc<TrustAnchors>>) -> Result<TokioResolver, ResolverError> {
    let mut builder = if servers.is_empty() {
        let (config, options) = parse_resolv_conf(pillarbox_config::resolv_conf()).map_err(|e| ResolverError::System(e.to_string()))?;
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options)
    } else {
        let servers = servers.iter().map(|server| {
            let mut udp = ConnectionConfig::udp();
            udp.port = server.port();
            let mut tcp = ConnectionConfig::tcp();
            tcp.port = server.port();
            NameServerConfig::new(server.ip(), true, vec![udp, tcp])
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.validate = validate;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = Duration::from_secs(4);
    options.attempts = 2;
    options.cache_size = 8192;
    options.max_active_requests = 256;
    options.positive_max_ttl = Some(Duration::from_secs(3600));
    options.negative_max_ttl = Some(Duration::from_secs(300));
    // Answers from the cache of a name server that lies about sizes come again by TCP.
    options.try_tcp_on_error = true;
    if let Some(anchors) = anchors {
        builder = builder.with_trust_anchor(anchors);
    }
    builder.build().map_err(|e| ResolverError::Build(e.to_string()))
}

/// Takes the records of the type asked for; secure only when each record on the way is.
fn sift<T>(answers: &[Record], kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Answer<Owned<T>> {
    let chain = || answers.iter().filter(|r| r.record_type() == kind || r.record_type() == RecordType::CNAME);
    let Some(first) = answers.iter().find(|r| r.record_type() == kind) else { return Answer::NoData };
    let owner = first.name.clone();
    let records: Vec<T> = chain().filter(|r| r.name == owner).filter_map(|r| pick(&r.data)).take(MAX_RECORDS).collect();
    if records.is_empty() {
        return Answer::NoData;
    }
    if chain().any(|r| r.proof == Proof::Bogus) {
        return Answer::Bogus;
    }
    let secure = chain().all(|r| r.proof == Proof::Secure);
    let owned = Owned { owner, records };
    if secure { Answer::Secure(owned) } else { Answer::Insecure(owned) }
}

fn refusal<T>(error: NetError) -> Answer<T> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. })) => match response_code {
            ResponseCode::NXDomain => Answer::NxDomain,
            _ => Answer::NoData,
        },
        NetError::Dns(DnsError::DnssecBogus) => Answer::Bogus,
        // A denial that is proved to come from an unsigned zone is an ordinary denial.
        NetError::Dns(DnsError::Nsec { response, proof, .. }) if proof.is_insecure() => match response.response_code {
            ResponseCode::NXDomain => Answer::NxDomain,
            _ => Answer::NoData,
        },
        NetError::Dns(DnsError::Nsec { .. }) => Answer::Bogus,
        NetError::Dns(DnsError::ResponseCode(code)) => Answer::TempFail(format!("the name server answered {code}")),
        NetError::Timeout => Answer::TempFail("the name server did not answer".into()),
        other => Answer::TempFail(pillarbox_smtp::printable(other.to_string().as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_probed_where_they_stand() {
        assert_eq!(first_owner("; comment\n$TTL 5\n. 3600 IN DNSKEY 257 3 8 AwEA\n"), Some(Name::root()));
        assert_eq!(first_owner("example.test. IN DNSKEY 257 3 8 AwEA"), fqdn("example.test"));
        assert_eq!(first_owner("\n;\n"), None);
    }

    #[test]
    fn one_unproved_link_makes_the_chain_insecure() {
        let record = |name: &str, data: RData, proof: Proof| {
            let mut record = Record::from_rdata(fqdn(name).unwrap(), 60, data);
            record.proof = proof;
            record
        };
        let a = RData::A("192.0.2.1".parse::<Ipv4Addr>().unwrap().into());
        let cname = RData::CNAME(hickory_proto::rr::rdata::CNAME(fqdn("b.test").unwrap()));
        let pick = |data: &RData| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        };
        let chain = [record("a.test", cname.clone(), Proof::Insecure), record("b.test", a.clone(), Proof::Secure)];
        let answer = sift(&chain, RecordType::A, pick);
        assert!(!answer.is_secure());
        assert_eq!(answer.records().map(|o| o.owner.clone()), fqdn("b.test"));
        let chain = [record("a.test", cname.clone(), Proof::Secure), record("b.test", a.clone(), Proof::Secure)];
        assert!(sift(&chain, RecordType::A, pick).is_secure());
        let chain = [record("a.test", cname, Proof::Secure), record("b.test", a, Proof::Bogus)];
        assert_eq!(sift(&chain, RecordType::A, pick), Answer::Bogus);
        assert_eq!(sift(&[], RecordType::A, pick), Answer::NoData);
    }
}
