//! What we saw of other domains' mail today, counted by row in the directory's state, so that it survives restarts and adds up over nodes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pillarbox_directory::{Directory, DirectoryError};
use pillarbox_smtp::ReversePath;
use serde::{Deserialize, Serialize};

use crate::auth::{AuthResult, Authentication, Policy};
use crate::policy::Opinion;

/// State table: row as JSON → count.
pub(super) const ROWS: &str = "dmarc_rows";
/// How long rows wait for their report.
const KEEP: Duration = Duration::from_secs(4 * 86_400);
/// Rows a process begins in a day; a flood of forged domains and clients must not fill the state.
const ROWS_A_DAY: u32 = 100_000;
/// Signatures a row tells of.
const SIGNATURES: usize = 5;

/// One line of a report: messages that were alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Row {
    /// Days since the epoch, UTC.
    pub(super) day: u64,
    /// The domain in From.
    pub(super) from: String,
    /// The client.
    pub(super) ip: IpAddr,
    /// The domain of the envelope sender; empty for `<>`.
    pub(super) envelope: String,
    /// `none`, `quarantine` or `reject`: what was done.
    pub(super) done: String,
    /// Why that is not what the policy asks.
    pub(super) reason: Option<String>,
    /// SPF, aligned.
    pub(super) spf: bool,
    /// DKIM, aligned.
    pub(super) dkim: bool,
    /// Domain, whether it is the HELO name, result.
    pub(super) spf_result: Option<(String, bool, String)>,
    /// Domain, selector, result.
    pub(super) dkim_results: Vec<(String, String, String)>,
}

/// Counts rows.
pub(crate) struct Collector {
    directory: Arc<dyn Directory>,
    begun: AtomicU32,
    day: AtomicU32,
}

impl Collector {
    pub(crate) fn new(directory: Arc<dyn Directory>) -> Self {
        Self { directory, begun: AtomicU32::new(0), day: AtomicU32::new(0) }
    }

    /// Notes a message, where its author's domain asks for reports. `now` in seconds since the epoch.
    pub(crate) async fn note(&self, client: IpAddr, from: &ReversePath, auth: &Authentication, opinion: &Opinion, now: u64) {
        let Some(row) = row(client, from, auth, opinion, now / 86_400) else { return };
        if !self.room(row.day) {
            return;
        }
        if let Err(error) = self.count(&row).await {
            tracing::debug!(%error, "a DMARC row was not counted");
        }
    }

    async fn count(&self, row: &Row) -> Result<(), DirectoryError> {
        let key = serde_json::to_vec(row).unwrap_or_default();
        if self.directory.state_add(ROWS, &key, 1, KEEP).await? == 1 {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn room(&self, day: u64) -> bool {
        let day = u32::try_from(day).unwrap_or(u32::MAX);
        if self.day.swap(day, Ordering::Relaxed) != day {
            self.begun.store(0, Ordering::Relaxed);
        }
        self.begun.load(Ordering::Relaxed) < ROWS_A_DAY
    }
}

fn row(client: IpAddr, from: &ReversePath, auth: &Authentication, opinion: &Opinion, day: u64) -> Option<Row> {
    let dmarc = auth.dmarc.as_ref()?;
    let record = dmarc.record.as_ref()?;
    if record.rua().is_empty() || dmarc.result == AuthResult::TempError {
        return None;
    }
    let failed = dmarc.result == AuthResult::Fail && opinion.dmarc_override.is_none();
    let done = if failed { dmarc.policy } else { Policy::None };
    // A domain that is testing has one step less done than it asks for (RFC 9989 §4.7).
    let softened = (failed && record.t && record.p != mail_auth::dmarc::Policy::None).then_some("policy_test_mode");
    Some(Row {
        day,
        from: dmarc.domain.clone(),
        ip: client.to_canonical(),
        envelope: from.mailbox().map(|mailbox| mailbox.domain.to_string()).unwrap_or_default(),
        done: done.as_str().to_owned(),
        reason: opinion.dmarc_override.or(softened).map(str::to_owned),
        spf: dmarc.spf_aligned,
        dkim: dmarc.dkim_aligned,
        spf_result: auth.spf.as_ref().map(|spf| (spf.domain.clone(), spf.helo, spf.result.as_str().to_owned())),
        dkim_results: auth
            .dkim
            .iter()
            .filter(|dkim| !dkim.domain.is_empty())
            .take(SIGNATURES)
            .map(|dkim| (dkim.domain.clone(), dkim.selector.clone(), dkim.result.as_str().to_owned()))
            .collect(),
    })
}
