//! `check_host()` (RFC 7208 §4): a record's terms against a client, within the limits of §4.6.4.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;

use super::macros::{Facts, MacroString, Purpose};
use super::record::{Mechanism, Prefix, Record, is_spf};
use crate::auth::AuthResult;
use crate::dns::{Answer, Dns};

/// Terms that ask DNS, in all records of one check together.
const LOOKUPS: u32 = 10;
/// Such terms that may find nothing.
const VOID: u32 = 2;
/// Addresses looked up for one `mx`, and names for one `ptr`.
const NAMES: usize = 10;
/// Characters of an explanation.
const EXPLANATION: usize = 500;

/// Why evaluation stops: a temporary or permanent error.
type Stop = AuthResult;

/// One check.
pub(super) struct Evaluation<'a> {
    dns: &'a Dns,
    facts: Facts<'a>,
    lookups: u32,
    void: u32,
    /// The client's names that point back to it, once asked for.
    validated: Option<Vec<String>>,
}

/// What a record says, and the domain whose record said so: the one that explains a failure.
struct Outcome {
    result: AuthResult,
    exp: Option<MacroString>,
    domain: String,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(dns: &'a Dns, facts: Facts<'a>) -> Self {
        Self { dns, facts, lookups: 0, void: 0, validated: None }
    }

    /// Evaluates the domain's policy; with `fail` goes what the domain says about it.
    pub(super) async fn run(&mut self, domain: &str) -> (AuthResult, Option<String>) {
        match self.check(domain).await {
            Ok(outcome) => {
                let explanation = match (&outcome.exp, outcome.result) {
                    (Some(exp), AuthResult::Fail) => self.explanation(exp, &outcome.domain).await,
                    _ => None,
                };
                (outcome.result, explanation)
            }
            Err(stop) => (stop, None),
        }
    }

    /// `check_host()`: boxed, since includes nest. The limit on look-ups bounds the depth.
    fn check<'b>(&'b mut self, domain: &'b str) -> Pin<Box<dyn Future<Output = Result<Outcome, Stop>> + Send + 'b>> {
        Box::pin(async move {
            let Some(record) = self.record(domain).await? else {
                return Ok(Outcome { result: AuthResult::None, exp: None, domain: domain.to_owned() });
            };
            for (qualifier, mechanism) in &record.directives {
                if self.matches(mechanism, domain).await? {
                    return Ok(Outcome { result: *qualifier, exp: record.exp, domain: domain.to_owned() });
                }
            }
            let Some(redirect) = &record.redirect else {
                return Ok(Outcome { result: AuthResult::Neutral, exp: None, domain: domain.to_owned() });
            };
            self.count_lookup()?;
            let target = self.name(redirect, domain).await;
            match self.check(&target).await? {
                // §6.1: a redirect to nothing is an error of its owner.
                Outcome { result: AuthResult::None, .. } => Err(AuthResult::PermError),
                outcome => Ok(outcome),
            }
        })
    }

    /// The domain's record (§4.4, §4.5). `None`: it has none.
    async fn record(&self, domain: &str) -> Result<Option<Record>, Stop> {
        let texts = match self.dns.lookup(domain, RecordType::TXT).await {
            Answer::Found(lookup) => texts(lookup.answers()),
            Answer::NoData | Answer::NxDomain => return Ok(None),
            Answer::Unknown => return Err(AuthResult::TempError),
        };
        let mut records = texts.iter().filter(|text| is_spf(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(record), None) => Record::parse(record).map(Some).map_err(|_| AuthResult::PermError),
            (Some(_), Some(_)) => Err(AuthResult::PermError),
        }
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        let client = self.facts.client;
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, length) => Ok(within(client, (*network).into(), *length)),
            Mechanism::Ip6(network, length) => Ok(within(client, (*network).into(), *length)),
            Mechanism::Include(target) => {
                self.count_lookup()?;
                let target = self.name(target, domain).await;
                match self.check(&target).await?.result {
                    AuthResult::Pass => Ok(true),
                    // §5.2: including nothing is an error.
                    AuthResult::None => Err(AuthResult::PermError),
                    _ => Ok(false),
                }
            }
            Mechanism::A(target, prefix) => {
                self.count_lookup()?;
                let target = self.target(target.as_ref(), domain).await;
                let addresses = self.addresses(&target).await?;
                self.count_void(addresses.is_empty())?;
                Ok(any_within(client, &addresses, *prefix))
            }
            Mechanism::Mx(target, prefix) => self.mx(target.as_ref(), domain, *prefix).await,
            Mechanism::Ptr(target) => {
                self.count_lookup()?;
                let target = self.target(target.as_ref(), domain).await;
                Ok(self.validated_names().await.iter().any(|name| is_within(name, &target)))
            }
            Mechanism::Exists(target) => {
                self.count_lookup()?;
                let target = self.name(target, domain).await;
                // Always A, whatever the client's family (§5.7).
                match self.dns.lookup(&target, RecordType::A).await {
                    Answer::Found(_) => Ok(true),
                    Answer::NoData | Answer::NxDomain => self.count_void(true).map(|()| false),
                    Answer::Unknown => Err(AuthResult::TempError),
                }
            }
        }
    }

    async fn mx(&mut self, target: Option<&MacroString>, domain: &str, prefix: Prefix) -> Result<bool, Stop> {
        self.count_lookup()?;
        let target = self.target(target, domain).await;
        let mut exchanges: Vec<_> = match self.dns.lookup(&target, RecordType::MX).await {
            Answer::Found(lookup) => lookup
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::MX(mx) => Some((mx.preference, mx.exchange.clone())),
                    _ => None,
                })
                .collect(),
            Answer::NoData | Answer::NxDomain => return self.count_void(true).map(|()| false),
            Answer::Unknown => return Err(AuthResult::TempError),
        };
        exchanges.sort();
        for (nth, (_, exchange)) in exchanges.iter().enumerate() {
            if nth >= NAMES {
                return Err(AuthResult::PermError);
            }
            let addresses = self.addresses_of(exchange.clone()).await?;
            if any_within(self.facts.client, &addresses, prefix) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Addresses of a name in the client's family; none when there are none.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Stop> {
        self.read_addresses(self.dns.lookup(name, self.kind()).await)
    }

    /// The same for a name from an answer.
    async fn addresses_of(&self, name: Name) -> Result<Vec<IpAddr>, Stop> {
        self.read_addresses(self.dns.lookup_name(name, self.kind()).await)
    }

    fn kind(&self) -> RecordType {
        if self.facts.client.is_ipv4() { RecordType::A } else { RecordType::AAAA }
    }

    fn read_addresses(&self, answer: Answer) -> Result<Vec<IpAddr>, Stop> {
        match answer {
            Answer::Found(lookup) => Ok(lookup
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::A(a) => Some(IpAddr::V4(a.0)),
                    RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                    _ => None,
                })
                .collect()),
            Answer::NoData | Answer::NxDomain => Ok(vec![]),
            Answer::Unknown => Err(AuthResult::TempError),
        }
    }

    /// The client's names that have its address (§5.5). Asked for once; errors are no names.
    async fn validated_names(&mut self) -> &[String] {
        if self.validated.is_none() {
            let mut validated = Vec::new();
            if let Answer::Found(lookup) = self.dns.lookup(&reverse_name(self.facts.client), RecordType::PTR).await {
                let names = lookup.answers().iter().filter_map(|record| match &record.data {
                    RData::PTR(ptr) => Some(ptr.0.clone()),
                    _ => None,
                });
                for name in names.take(NAMES) {
                    let text = name.to_ascii();
                    if self.addresses_of(name).await.is_ok_and(|addresses| addresses.contains(&self.facts.client)) {
                        validated.push(text.trim_end_matches('.').to_ascii_lowercase());
                    }
                }
            }
            self.validated = Some(validated);
        }
        self.validated.as_deref().unwrap_or_default()
    }

    /// The value of `%{p}` (§7.3): the domain itself, or a name below it, or any; "unknown" without.
    async fn validated_name(&mut self, domain: &str) -> String {
        let domain = domain.to_ascii_lowercase();
        let names = self.validated_names().await;
        let best = names.iter().find(|name| **name == domain).or_else(|| names.iter().find(|name| is_within(name, &domain)));
        best.or_else(|| names.first()).cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    async fn target(&mut self, target: Option<&MacroString>, domain: &str) -> String {
        match target {
            Some(target) => self.name(target, domain).await,
            None => domain.to_owned(),
        }
    }

    /// A name to look up.
    async fn name(&mut self, text: &MacroString, domain: &str) -> String {
        let validated = if text.needs_validated_name() { self.validated_name(domain).await } else { String::new() };
        text.expand_domain(&self.facts, domain, &validated)
    }

    /// What the domain says about a failure (§6.2): from exactly one TXT record of plain ASCII.
    async fn explanation(&mut self, exp: &MacroString, domain: &str) -> Option<String> {
        let name = self.name(exp, domain).await;
        let Answer::Found(lookup) = self.dns.lookup(&name, RecordType::TXT).await else { return None };
        let mut texts = texts(lookup.answers()).into_iter();
        let (text, None) = (texts.next()?, texts.next()) else { return None };
        let text = String::from_utf8(text).ok().filter(|text| text.is_ascii())?;
        let parsed = MacroString::parse(&text, Purpose::Explanation).ok()?;
        let validated = if parsed.needs_validated_name() { self.validated_name(domain).await } else { String::new() };
        let explained = parsed.expand(&self.facts, domain, &validated);
        Some(explained.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(EXPLANATION).collect())
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        self.lookups += 1;
        if self.lookups > LOOKUPS { Err(AuthResult::PermError) } else { Ok(()) }
    }

    fn count_void(&mut self, void: bool) -> Result<(), Stop> {
        self.void += u32::from(void);
        if self.void > VOID { Err(AuthResult::PermError) } else { Ok(()) }
    }
}

/// The strings of each TXT record, joined (§3.3).
fn texts(records: &[hickory_resolver::proto::rr::Record]) -> Vec<Vec<u8>> {
    let texts = records.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    });
    texts.collect()
}

fn within(client: IpAddr, network: IpAddr, length: u8) -> bool {
    IpNet::new(network, length).is_ok_and(|network| network.contains(&client))
}

fn any_within(client: IpAddr, networks: &[IpAddr], prefix: Prefix) -> bool {
    let length = if client.is_ipv4() { prefix.v4 } else { prefix.v6 };
    networks.iter().any(|network| within(client, *network, length))
}

/// Whether `name` is `domain` or below it.
fn is_within(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.trim_end_matches('.').to_ascii_lowercase());
    name == domain || name.strip_suffix(&domain).is_some_and(|head| head.ends_with('.'))
}

/// The name under which an address's PTR records stand.
fn reverse_name(client: IpAddr) -> String {
    let reversed = crate::dnsbl::reversed(client);
    if client.is_ipv4() { format!("{reversed}in-addr.arpa") } else { format!("{reversed}ip6.arpa") }
}
