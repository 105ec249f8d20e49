//! The reports we owe for a day: one a domain that asks, to the addresses it may send them to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail_auth::dmarc::{Dmarc, Psd};
use mail_auth::report::{
    ActionDisposition, DKIMAuthResult, DkimResult, DmarcResult, PolicyOverride, PolicyOverrideReason, PolicyPublished, Record, Report,
    SPFAuthResult, SPFDomainScope, SpfResult,
};
use pillarbox_directory::{Directory, DirectoryError};
use pillarbox_message::notice::{DmarcReport, Letter, dmarc_report};
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
    pub to: Mailbox,
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
        let (id, xml) = write(hostname, from, &domain, &record, day, &rows);
        let begin = day * 86_400_000;
        let report = DmarcReport {
            domain: domain.as_str(),
            submitter: hostname,
            report_id: &id,
            begin,
            end: begin + 86_399_000,
            xml: xml.as_bytes(),
        };
        for to in to {
            let letter = Letter { hostname, to: &to, now: now(), random: random() };
            outgoing.push(Outgoing { domain: domain.clone(), from: from.clone(), message: dmarc_report(&letter, &report), to });
        }
    }
    Ok(outgoing)
}

/// The record that applies to an author's domain, and where it stands: its own, or else that of its organisation, which is the topmost
/// of the walk unless one says where it ends (RFC 9989 §4.10).
async fn record_for(dns: &Dns, author: &str) -> Option<(Domain, Arc<Dmarc>)> {
    let mut found: Vec<(&str, Arc<Dmarc>)> = Vec::new();
    for name in walk(author) {
        let answer = dns.authenticator().txt_lookup::<Dmarc>(format!("_dmarc.{name}."), dns.caches().with(()).cache_txt).await;
        let Ok(record) = answer else { continue };
        // A public suffix speaks only where the organisation right below it does not.
        let parent = |name: &str| name.split_once('.').map(|(_, parent)| parent.to_owned());
        let below = record.psd == Psd::Yes && found.last().is_some_and(|(other, _)| parent(other).as_deref() == Some(name));
        let last = record.psd != Psd::Default || name == author;
        if !below {
            found.push((name, record));
        }
        if last {
            break;
        }
    }
    let (name, record) = found.pop()?;
    Some((Domain::new(name).ok()?, record))
}

/// The names that the tree walk asks: the author's, and those above it, from a long one at once the one of seven labels.
fn walk(author: &str) -> impl Iterator<Item = &str> {
    let labels = author.split('.').count();
    let above = author.match_indices('.').filter_map(|(dot, _)| author.get(dot + 1..));
    std::iter::once(author).chain(above.skip(labels.saturating_sub(8)))
}

/// Where reports go: the `rua` addresses of the domain itself, and foreign ones that agreed to it (RFC 9990 §4).
async fn addresses(dns: &Dns, domain: &Domain, record: &Dmarc) -> Vec<Mailbox> {
    let wanted = record.rua().get(..ADDRESSES.min(record.rua().len())).unwrap_or_default();
    let allowed = dns.authenticator().verify_dmarc_report_address(domain.as_str(), wanted, dns.caches().with(()).cache_txt).await;
    allowed.unwrap_or_default().into_iter().filter_map(|uri| uri.uri().trim_start_matches("mailto:").parse().ok()).collect()
}

/// Milliseconds since the epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// For Message-ID and boundaries.
fn random() -> u64 {
    let mut octets = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut octets);
    u64::from_be_bytes(octets)
}

/// The report's id and its XML.
fn write(hostname: &str, from: &Mailbox, domain: &Domain, record: &Dmarc, day: u64, rows: &[(Row, u64)]) -> (String, String) {
    let (from, begin) = (from.to_string(), day * 86_400);
    let id = format!("{begin}.{domain}.{hostname}");
    let mut report = Report::new()
        .with_version(1.0)
        .with_org_name(hostname)
        .with_email(&from)
        .with_generator(concat!("Pillarbox ", env!("CARGO_PKG_VERSION")))
        .with_report_id(&id)
        .with_date_range_begin(begin)
        .with_date_range_end(begin + 86_399)
        .with_policy_published(PolicyPublished::from_record(domain.as_str(), record));
    for (row, count) in rows {
        report.add_record(row.record(*count));
    }
    (id, report.to_xml())
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
                "policy_test_mode" => PolicyOverride::PolicyTestMode,
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

#[cfg(test)]
mod tests {
    use super::walk;

    #[test]
    fn long_names_are_asked_eight_times_at_most() {
        assert_eq!(walk("a.b.example").collect::<Vec<_>>(), ["a.b.example", "b.example", "example"]);
        let long = "1.2.3.4.5.6.7.8.9.10.example";
        let asked: Vec<_> = walk(long).collect();
        assert_eq!((asked.len(), asked[0], asked[1]), (8, long, "5.6.7.8.9.10.example"));
        assert_eq!(walk("1.2.3.4.5.6.7.8").collect::<Vec<_>>().len(), 8);
    }
}
