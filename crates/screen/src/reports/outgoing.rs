//! The reports we owe for a day: one a domain that asks, to the addresses it may send them to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mail_auth::dmarc::Dmarc;
use mail_auth::report::{
    ActionDisposition, DKIMAuthResult, DkimResult, DmarcResult, PolicyOverride, PolicyOverrideReason, PolicyPublished, Record, Report,
    SPFAuthResult, SPFDomainScope, SpfResult,
};
use pillarbox_directory::{Directory, DirectoryError};
use pillarbox_smtp::{Domain, Mailbox};

use super::collect::{ROWS, Row};
use crate::dns::Dns;

/// State table: day and domain of reports that were made, so that each is made once over all nodes.
const SENT: &str = "dmarc_sent";
/// How long that is remembered.
const KEEP: Duration = Duration::from_secs(10 * 86_400);
/// Addresses a report goes to.
const ADDRESSES: usize = 5;
/// Rows a report tells of.
const ROWS_A_REPORT: usize = 10_000;

/// Rows and how often each was seen.
type Counted = Vec<(Row, u64)>;

/// A report to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The domain it is about.
    pub domain: Domain,
    /// Envelope sender and author.
    pub from: Mailbox,
    /// Where it goes.
    pub to: Vec<Mailbox>,
    /// The message, CRLF line ends.
    pub message: Vec<u8>,
}

/// Makes the reports for all days before `today` (days since the epoch, UTC) and forgets their rows. `from` is the address that sends
/// them and that a reader may write to; `hostname` the reporter's name. Each day and domain is claimed in the directory first, so that
/// of several nodes one makes it.
pub async fn due(
    directory: &dyn Directory,
    dns: &Dns,
    hostname: &str,
    from: &Mailbox,
    today: u64,
) -> Result<Vec<Outgoing>, DirectoryError> {
    let mut days: BTreeMap<(u64, String), Counted> = BTreeMap::new();
    for (key, count) in directory.state_list(ROWS).await? {
        let Ok(row) = serde_json::from_slice::<Row>(&key) else {
            directory.state_remove(ROWS, &key).await?;
            continue;
        };
        if row.day >= today {
            continue;
        }
        directory.state_remove(ROWS, &key).await?;
        let count = std::str::from_utf8(&count).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        days.entry((row.day, row.from.clone())).or_default().push((row, count));
    }
    // Authors of one organisation share its report: rows are grouped by the domain whose record applies.
    let mut reports: BTreeMap<(u64, Domain), (Arc<Dmarc>, Counted)> = BTreeMap::new();
    for ((day, author), rows) in days {
        if let Some((domain, record)) = record_for(dns, &author).await {
            reports.entry((day, domain)).or_insert_with(|| (record, Vec::new())).1.extend(rows);
        }
    }
    let mut outgoing = Vec::new();
    for ((day, domain), (record, mut rows)) in reports {
        let claim = format!("{day}\0{domain}");
        if !directory.state_put_new(SENT, claim.as_bytes(), &[], KEEP).await? {
            continue;
        }
        let to = addresses(dns, &domain, &record).await;
        if to.is_empty() {
            continue;
        }
        rows.truncate(ROWS_A_REPORT);
        match write(hostname, from, &to, &domain, &record, day, &rows) {
            Ok(message) => outgoing.push(Outgoing { domain, from: from.clone(), to, message }),
            Err(error) => tracing::warn!(%domain, %error, "a DMARC report could not be written"),
        }
    }
    Ok(outgoing)
}

/// The record that applies to an author's domain: its own, or the nearest one above (RFC 9989 §4.10), and where it stands.
async fn record_for(dns: &Dns, author: &str) -> Option<(Domain, Arc<Dmarc>)> {
    let mut name = author;
    for _ in 0..8 {
        let answer = dns.authenticator().txt_lookup::<Dmarc>(format!("_dmarc.{name}."), dns.caches().with(()).cache_txt).await;
        if let Ok(record) = answer {
            return Some((Domain::new(name).ok()?, record));
        }
        name = name.split_once('.')?.1;
    }
    None
}

/// Where reports go: the `rua` addresses of the domain itself, and foreign ones that agreed to it (RFC 9990 §4).
async fn addresses(dns: &Dns, domain: &Domain, record: &Dmarc) -> Vec<Mailbox> {
    let wanted = record.rua().get(..ADDRESSES.min(record.rua().len())).unwrap_or_default();
    let allowed = dns.authenticator().verify_dmarc_report_address(domain.as_str(), wanted, dns.caches().with(()).cache_txt).await;
    allowed.unwrap_or_default().into_iter().filter_map(|uri| uri.uri().trim_start_matches("mailto:").parse().ok()).collect()
}

fn write(
    hostname: &str,
    from: &Mailbox,
    to: &[Mailbox],
    domain: &Domain,
    record: &Dmarc,
    day: u64,
    rows: &[(Row, u64)],
) -> std::io::Result<Vec<u8>> {
    let (from, begin) = (from.to_string(), day * 86_400);
    let mut report = Report::new()
        .with_version(1.0)
        .with_org_name(hostname)
        .with_email(&from)
        .with_report_id(format!("{begin}.{domain}.{hostname}"))
        .with_date_range_begin(begin)
        .with_date_range_end(begin + 86_399)
        .with_policy_published(PolicyPublished::from_record(domain.as_str(), record));
    for (row, count) in rows {
        report.add_record(row.record(*count));
    }
    let to: Vec<String> = to.iter().map(ToString::to_string).collect();
    let mut message = Vec::new();
    report.write_rfc5322(hostname, from.as_str(), to.iter().map(String::as_str), &mut message)?;
    Ok(message)
}

impl Row {
    fn record(&self, count: u64) -> Record {
        let aligned = |pass: bool| if pass { DmarcResult::Pass } else { DmarcResult::Fail };
        let mut record = Record::new()
            .with_source_ip(self.ip)
            .with_count(u32::try_from(count).unwrap_or(u32::MAX))
            .with_header_from(&self.from)
            .with_envelope_from(&self.envelope)
            .with_dmarc_spf_result(aligned(self.spf))
            .with_dmarc_dkim_result(aligned(self.dkim))
            .with_action_disposition(match self.done.as_str() {
                "reject" => ActionDisposition::Reject,
                "quarantine" => ActionDisposition::Quarantine,
                _ if self.spf || self.dkim => ActionDisposition::Pass,
                _ => ActionDisposition::None,
            });
        if let Some(reason) = self.reason.as_deref() {
            record = record.with_policy_override_reason(PolicyOverrideReason::new(match reason {
                "mailing_list" => PolicyOverride::MailingList,
                "trusted_forwarder" => PolicyOverride::TrustedForwarder,
                _ => PolicyOverride::LocalPolicy,
            }));
        }
        if let Some((domain, helo, result)) = &self.spf_result {
            let scope = if *helo { SPFDomainScope::Helo } else { SPFDomainScope::MailFrom };
            record = record.with_spf_auth_result(SPFAuthResult::new().with_domain(domain).with_scope(scope).with_result(
                match result.as_str() {
                    "pass" => SpfResult::Pass,
                    "fail" => SpfResult::Fail,
                    "softfail" => SpfResult::SoftFail,
                    "neutral" => SpfResult::Neutral,
                    "temperror" => SpfResult::TempError,
                    "permerror" => SpfResult::PermError,
                    _ => SpfResult::None,
                },
            ));
        }
        for (domain, selector, result) in &self.dkim_results {
            let result = match result.as_str() {
                "pass" => DkimResult::Pass,
                "fail" => DkimResult::Fail,
                "policy" => DkimResult::Policy,
                "neutral" => DkimResult::Neutral,
                "temperror" => DkimResult::TempError,
                "permerror" => DkimResult::PermError,
                _ => DkimResult::None,
            };
            record = record.with_dkim_auth_result(DKIMAuthResult::new().with_domain(domain).with_selector(selector).with_result(result));
        }
        record
    }
}
