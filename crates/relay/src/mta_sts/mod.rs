//! MTA-STS for outbound mail (RFC 8461): finding, fetching and remembering the policies of other domains.
//!
//! A policy once fetched counts until its `max_age` is over, whatever the DNS says later; that is what makes it hold against
//! an attacker who suppresses answers. So policies are kept on disk, and a new one is only looked for when the announced `id`
//! differs from the one at hand.

mod policy;
mod store;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pillarbox_smtp::Domain;

use crate::dns::Answer;
use crate::https::{Ask, HttpsError, Means, ask};
pub use policy::{Mode, PolicyError, StsPolicy, record_id};
pub use store::SharedPolicies;
pub(crate) use store::Shelf;
use store::{Kept, Store};
use turns::Turns;

/// RFC 8461 §3.3 suggests that much.
const MAX_POLICY: usize = 64 * 1024;
/// After a fetch that failed none is tried for so long (RFC 8461 §3.3).
const FETCH_PAUSE: Duration = Duration::from_secs(300);
/// Domains kept in memory.
const MEMORY: usize = 4096;

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The policy in force; `None`: the domain has none.
    pub policy: Option<Arc<StsPolicy>>,
    /// Why the announced policy could not be had: `result-type` of RFC 8460 §4.3, and words.
    pub trouble: Option<(&'static str, String)>,
}

/// The policies of other domains.
pub struct PolicyCache {
    store: Store,
    memory: quick_cache::sync::Cache<Domain, Kept>,
    failures: quick_cache::sync::Cache<Domain, (Instant, (&'static str, String))>,
    turns: Turns,
    port: u16,
}

impl PolicyCache {
    /// Keeps policies in `folder`, which is made when first needed, and on the shelf. `port` is 443 but in tests.
    pub(crate) fn new(folder: PathBuf, shelf: Shelf, port: u16) -> Self {
        let memory = quick_cache::sync::Cache::new(MEMORY);
        let failures = quick_cache::sync::Cache::new(MEMORY);
        Self { store: Store::new(folder, shelf), memory, failures, turns: Turns::default(), port }
    }

    /// The policy for a domain: what is at hand, or a fresh one where the domain announces another.
    pub(crate) async fn find(&self, means: &Means<'_>, domain: &Domain) -> Found {
        if domain.ip().is_some() {
            return Found { policy: None, trouble: None };
        }
        let records = means.resolver.txt(&format!("_mta-sts.{domain}")).await;
        let announced = match &records {
            Answer::Secure(records) | Answer::Insecure(records) => record_id(records),
            _ => None,
        };
        let Some(id) = announced else { return Found { policy: in_force(self.kept(domain).await), trouble: None } };
        if let Some(found) = self.known(domain, &id).await {
            return found;
        }
        let _turn = self.turns.take(domain).await;
        // Another delivery may have fetched it meanwhile, or tried to.
        if let Some(found) = self.known(domain, &id).await {
            return found;
        }
        // So may another node.
        if let Some(theirs) = self.store.of_others(domain).await
            && theirs.id == id
            && theirs.is_fresh(unix_seconds())
        {
            self.memory.insert(domain.clone(), theirs.clone());
            self.store.save(domain, &theirs).await;
            return Found { policy: in_force(Some(theirs)), trouble: None };
        }
        match self.fetch(means, domain).await {
            Ok(policy) => {
                let kept = Kept { id, fetched: unix_seconds(), policy: Arc::new(policy) };
                self.failures.remove(domain);
                self.memory.insert(domain.clone(), kept.clone());
                self.store.share(domain, &kept).await;
                Found { policy: in_force(Some(kept)), trouble: None }
            }
            Err(trouble) => {
                tracing::debug!(%domain, reason = %trouble.1, "an announced MTA-STS policy could not be had");
                self.failures.insert(domain.clone(), (Instant::now(), trouble.clone()));
                Found { policy: in_force(self.kept(domain).await), trouble: Some(trouble) }
            }
        }
    }

    /// What can be said without a fetch of the policy announced under `id`: it is at hand, or it could not be had a moment ago.
    async fn known(&self, domain: &Domain, id: &str) -> Option<Found> {
        let kept = self.kept(domain).await;
        if kept.as_ref().is_some_and(|kept| kept.id == id) {
            return Some(Found { policy: in_force(kept), trouble: None });
        }
        let (at, trouble) = self.failures.get(domain)?;
        (at.elapsed() < FETCH_PAUSE).then(|| Found { policy: in_force(kept), trouble: Some(trouble) })
    }

    /// What is at hand and has not run out.
    async fn kept(&self, domain: &Domain) -> Option<Kept> {
        let kept = match self.memory.get(domain) {
            Some(kept) => kept,
            None => {
                // A policy that only another node has met holds here as well, even where its announcement is suppressed.
                let kept = match self.store.load(domain).await.filter(|kept| kept.is_fresh(unix_seconds())) {
                    Some(kept) => kept,
                    None => self.store.of_others(domain).await?,
                };
                self.memory.insert(domain.clone(), kept.clone());
                kept
            }
        };
        kept.is_fresh(unix_seconds()).then_some(kept)
    }

    async fn fetch(&self, means: &Means<'_>, domain: &Domain) -> Result<StsPolicy, (&'static str, String)> {
        let host = format!("mta-sts.{domain}");
        let question = Ask { host: &host, port: self.port, path: "/.well-known/mta-sts.txt", post: None, limit: MAX_POLICY };
        let told = ask(means, question).await.map_err(|error| match error {
            HttpsError::Certificate { .. } => ("sts-webpki-invalid", error.to_string()),
            _ => ("sts-policy-fetch-error", error.to_string()),
        })?;
        if told.status != hyper::StatusCode::OK {
            return Err(("sts-policy-fetch-error", format!("{host} answered {}", told.status.as_u16())));
        }
        // Elsewhere on a shared host anyone may have put a file of another kind (RFC 8461 §3.2).
        let kind = told.content_type.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("text/plain") {
            return Err(("sts-policy-invalid", format!("{host} sent something other than text/plain")));
        }
        StsPolicy::parse(&told.content).map_err(|error| ("sts-policy-invalid", error.to_string()))
    }
}

/// A policy of mode `none` is as good as none.
fn in_force(kept: Option<Kept>) -> Option<Arc<StsPolicy>> {
    kept.map(|kept| kept.policy).filter(|policy| policy.mode != Mode::None)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
