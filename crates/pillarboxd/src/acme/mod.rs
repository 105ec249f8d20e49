//! Certificates from an ACME authority (RFC 8555): ordered when there is none, renewed before they end, put in force without a restart.
//!
//! There is one certificate for this host, and where HTTPS is listened on one more for each hosted domain, with those of its names
//! `mta-sts`, `autoconfig` and `autodiscover` that lead here. They are ordered apart, so that a domain whose DNS is not done yet
//! never stands in the way of the host's own.

mod account;
mod dns_update;
mod order;
mod proof;
mod propagation;
mod question;
mod wanted;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use pillarbox_config::{Acme, Config};
use pillarbox_directory::Directory;
use pillarbox_ingest::certificates::CertificateStore;
use pillarbox_screen::Dns;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::hook::Hook;
use crate::http::Challenges;
use proof::Means;
use wanted::Wanted;

/// How often new domains are looked for.
const LOOK: Duration = Duration::from_secs(60);
/// How often a domain with a certificate is asked again whether more of its names lead here.
const AGAIN: Duration = Duration::from_secs(6 * 3600);
/// Wait after a first failure. It doubles with each further one: authorities bound how often one may fail (five times an hour at the largest).
const FIRST_WAIT: Duration = Duration::from_secs(5 * 60);
/// Longest wait after failures.
const LONGEST_WAIT: Duration = Duration::from_secs(12 * 3600);
/// Orders begun at most when the authority does not take its own nonces.
const TRIES: usize = 4;
/// How long one order may take with everything that belongs to it.
const WHOLE: Duration = Duration::from_secs(900);

/// Orders certificates; one order at a time.
pub(crate) struct Orders {
    challenges: Challenges,
    /// Runs `tls.acme.dns_hook`; none where none is configured.
    hook: Option<Arc<Hook>>,
    certificates: Arc<CertificateStore>,
    directory: Arc<dyn Directory>,
    dns: Dns,
    one: tokio::sync::Mutex<()>,
    wake: tokio::sync::Notify,
    /// By the folder of the certificate.
    later: Mutex<HashMap<PathBuf, Later>>,
}

/// When a certificate is looked at again, and why it could not be had the last time.
#[derive(Debug, Clone, Default)]
struct Later {
    /// `None`: at once.
    until: Option<Instant>,
    /// In a row.
    failures: u32,
    why: Option<String>,
}

impl Orders {
    pub(crate) fn new(
        challenges: Challenges,
        hook: Option<Arc<Hook>>,
        certificates: Arc<CertificateStore>,
        directory: Arc<dyn Directory>,
        dns: Dns,
    ) -> Arc<Self> {
        let (one, wake, later) = Default::default();
        Arc::new(Self { challenges, hook, certificates, directory, dns, one, wake, later })
    }

    /// The configuration changed: what failed before may succeed now.
    pub(crate) fn reconsider(&self) {
        self.later.lock().clear();
        self.wake.notify_one();
    }

    /// What could not be had, for `pillarbox status`.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.later.lock().values().filter_map(|later| later.why.clone()).collect()
    }

    /// Orders the host's certificate whatever its age, and those of domains that are due. Answers with the names.
    pub(crate) async fn order_now(&self, config: &Config) -> anyhow::Result<Vec<String>> {
        let acme = config.tls.acme.as_ref().context("no ACME authority is configured; set tls.acme")?;
        self.later.lock().clear();
        let (mut names, mut failed) = (Vec::new(), Vec::new());
        for wanted in self.candidates(config, acme).await {
            let due = if wanted.domain.is_none() { Some(wanted) } else { self.due(wanted, config, acme).await };
            let Some(due) = due else { continue };
            match self.order(&due, config, acme).await {
                Ok(()) => names.extend(due.names),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        if failed.is_empty() { Ok(names) } else { anyhow::bail!("{}", failed.join("; ")) }
    }

    fn means(&self) -> Means<'_> {
        Means { challenges: &self.challenges, dns: &self.dns, hook: self.hook.as_ref() }
    }

    /// Places one order within a bound (an authority that takes the connection and never answers must not end renewal for good), puts the certificate
    /// in force, and notes what came of it.
    async fn order(&self, wanted: &Wanted, config: &Config, acme: &Acme) -> anyhow::Result<()> {
        let _one = self.one.lock().await;
        let placing = async {
            for _ in 1..TRIES {
                match order::place(wanted, acme, config, &self.means()).await {
                    Err(error) if is_stale_nonce(&error) => {}
                    done => return done,
                }
            }
            order::place(wanted, acme, config, &self.means()).await
        };
        let placed = match tokio::time::timeout(WHOLE, placing).await {
            Ok(placed) => placed,
            Err(_) => Err(anyhow::anyhow!("the ACME authority did not answer in time")),
        };
        let done = placed.and_then(|()| Ok(self.certificates.reload(config)?));
        let names = wanted.names.join(", ");
        let mut later = self.later.lock();
        let entry = later.entry(wanted.folder.clone()).or_default();
        match &done {
            Ok(()) => {
                tracing::info!(names, "a certificate was issued and put in force");
                *entry = Later::default();
            }
            Err(error) => {
                metrics::counter!("pillarbox_acme_failures_total").increment(1);
                entry.failures = entry.failures.saturating_add(1);
                let wait = wait_after(entry.failures);
                entry.until = Some(Instant::now() + wait);
                let next = (OffsetDateTime::now_utc() + wait).replace_nanosecond(0).ok().and_then(|t| t.format(&Rfc3339).ok());
                let next = next.unwrap_or_default();
                tracing::error!(names, next, "no certificate could be had: {error:#}");
                entry.why = Some(format!("no certificate for {names} could be had: {error:#}; it is tried again at {next}"));
            }
        }
        done
    }

    /// Looks at everything once, orders what is due, and answers how long to wait.
    async fn look(&self, config: &Config) -> Duration {
        let Some(acme) = &config.tls.acme else { return LOOK };
        let candidates = self.candidates(config, acme).await;
        self.later.lock().retain(|folder, _| candidates.iter().any(|c| c.folder == *folder));
        let mut next = Instant::now() + LOOK;
        for candidate in candidates {
            let folder = candidate.folder.clone();
            let rests = |later: &HashMap<PathBuf, Later>| later.get(&folder).and_then(|l| l.until).filter(|until| *until > Instant::now());
            let resting = rests(&self.later.lock());
            if resting.is_none()
                && let Some(due) = self.due(candidate, config, acme).await
            {
                // What went wrong was logged and noted.
                let _ = self.order(&due, config, acme).await;
                if rests(&self.later.lock()).is_none() {
                    self.rest(&folder, acme);
                }
            }
            if let Some(until) = rests(&self.later.lock()) {
                next = next.min(until);
            }
        }
        next.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
    }
}

/// RFC 8555 §6.5: nobody's fault, and to be tried again. The client below does so within a request, a few times.
fn is_stale_nonce(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref()).any(is_bad_nonce)
}

fn is_bad_nonce(error: &instant_acme::Error) -> bool {
    matches!(error, instant_acme::Error::Api(problem) if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce"))
}

/// Five minutes, then twice as long each time.
fn wait_after(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_WAIT)
}

/// Orders and renews for as long as the daemon runs.
pub(crate) async fn keep(orders: Arc<Orders>, config: Arc<arc_swap::ArcSwap<Config>>) {
    loop {
        let wait = orders.look(&config.load_full()).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = orders.wake.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_followed_by_longer_and_longer_waits() {
        let minutes: Vec<u64> = [1, 2, 3, 4, 9, 1000].map(|n| wait_after(n).as_secs() / 60).to_vec();
        assert_eq!(minutes, [5, 10, 20, 40, 720, 720]);
    }
}
