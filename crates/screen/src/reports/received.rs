//! Aggregate reports that others send about our domains: unpacked within bounds, summed up, kept a quarter of a year.

use std::io::{Cursor, Read};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use mail_auth::report::{ActionDisposition, DmarcResult, Report};
use mail_parser::parsers::MessageStream;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use pillarbox_directory::{Directory, DirectoryError};
use pillarbox_message::header::first;
use pillarbox_smtp::Domain;
use serde::{Deserialize, Serialize};

/// State table: organisation and report id → [`ReceivedReport`] as JSON.
const RECEIVED: &str = "dmarc_received";
/// How long a report is kept.
const KEEP: Duration = Duration::from_secs(92 * 86_400);
/// Messages above this many octets are no reports.
const MESSAGE: usize = 10 << 20;
/// Octets a report may unpack to, all its parts together.
const UNPACKED: usize = 16 << 20;
/// Files looked at in an archive.
const FILES: usize = 4;
/// Parts looked at in a message.
const PARTS: usize = 16;
/// Rows kept: those with most messages. The value stays small enough for the directory's store.
const ROWS: usize = 60;
/// Characters kept of a name that the reporter chose.
const NAME: usize = 120;

/// Why a message gives no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No part of it is a report.
    #[error("the message holds no DMARC report")]
    None,
    /// It unpacks to more than we take.
    #[error("the report unpacks to more than {} MiB", UNPACKED >> 20)]
    TooLarge,
    /// The archive or the XML is damaged.
    #[error("the report cannot be read: {0}")]
    Damaged(String),
    /// It is about a domain that is not ours.
    #[error("the report is about {0}, which is no domain of this server")]
    Foreign(String),
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// A report in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedReport {
    /// Who reports.
    pub organisation: String,
    /// Its name for the report.
    pub id: String,
    /// Our domain.
    pub domain: String,
    /// Seconds since the epoch.
    pub begin: u64,
    /// Seconds since the epoch.
    pub end: u64,
    /// Messages in all.
    pub messages: u64,
    /// Messages that passed DMARC.
    pub passed: u64,
    /// Messages quarantined or refused.
    pub stopped: u64,
    /// The rows with most messages.
    pub rows: Vec<ReceivedRow>,
}

/// Messages that came to the reporter from one address with one outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedRow {
    /// Where they came from.
    pub source: Option<IpAddr>,
    /// How many.
    pub count: u64,
    /// The domain in From.
    pub from: String,
    /// SPF passed for an aligned domain.
    pub spf: bool,
    /// DKIM passed for an aligned domain.
    pub dkim: bool,
    /// `none`, `quarantine` or `reject`.
    pub disposition: String,
}

/// Whether a message calls itself an aggregate report (RFC 9990 §3.3: the subject's form, perhaps in encoded words).
pub fn looks_like_report(message: &[u8]) -> bool {
    if message.len() > MESSAGE {
        return false;
    }
    let Some(field) = first(message, "Subject") else { return false };
    let line = [field.value, b"\r\n"].concat();
    let subject = MessageStream::new(&line).parse_unstructured();
    let subject = subject.as_text().unwrap_or_default().to_ascii_lowercase();
    subject.contains("report domain:") && subject.contains("submitter:")
}

/// Reads a report and keeps it, if it is about a domain of ours and new. `None`: it was known already.
pub async fn receive(directory: &dyn Directory, message: Bytes) -> Result<Option<ReceivedReport>, ReportError> {
    let parsed = tokio::task::spawn_blocking(move || parse(&message));
    let report = parsed.await.map_err(|_| ReportError::Damaged("it made its reader fail".to_owned()))??;
    let ours = match Domain::new(&report.domain) {
        Ok(domain) => covers(directory, &domain).await?,
        Err(_) => false,
    };
    if !ours {
        return Err(ReportError::Foreign(report.domain));
    }
    let key = format!("{}\0{}\0{}", report.organisation, report.domain, report.id);
    let value = serde_json::to_vec(&report).unwrap_or_default();
    let new = directory.state_put_new(RECEIVED, key.as_bytes(), &value, KEEP).await?;
    Ok(new.then_some(report))
}

/// Whether a policy domain is one of ours, or above one.
async fn covers(directory: &dyn Directory, domain: &Domain) -> Result<bool, DirectoryError> {
    if directory.domain(domain).await?.is_some() {
        return Ok(true);
    }
    let below = |name: &str| name.strip_suffix(domain.as_str()).is_some_and(|head| head.ends_with('.'));
    Ok(directory.domains().await?.iter().any(|record| below(record.name.as_str())))
}

/// The reports that were kept, the latest first.
pub async fn list(directory: &dyn Directory) -> Result<Vec<ReceivedReport>, DirectoryError> {
    let rows = directory.state_list(RECEIVED).await?;
    let mut reports: Vec<ReceivedReport> = rows.iter().filter_map(|(_, value)| serde_json::from_slice(value).ok()).collect();
    reports.sort_by(|a, b| b.end.cmp(&a.end).then_with(|| a.organisation.cmp(&b.organisation)));
    Ok(reports)
}

/// Finds the report in a message: XML, gzip or zip, in an attachment or as the body itself. Blocks for as long as unpacking takes.
pub fn parse(message: &[u8]) -> Result<ReceivedReport, ReportError> {
    if message.len() > MESSAGE {
        return Err(ReportError::TooLarge);
    }
    let parsed = MessageParser::new().parse(message).ok_or(ReportError::None)?;
    let mut budget = UNPACKED;
    let mut last = ReportError::None;
    for part in parsed.parts.iter().filter(|part| !part.is_multipart()).take(PARTS) {
        let octets = match &part.body {
            PartType::Text(text) => text.as_bytes(),
            PartType::Binary(octets) | PartType::InlineBinary(octets) => octets.as_ref(),
            _ => continue,
        };
        let is_xml = part.content_type().and_then(|kind| kind.subtype()).is_some_and(|kind| kind.eq_ignore_ascii_case("xml"));
        match unpack(octets, is_xml, &mut budget) {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => {}
            Err(error @ ReportError::TooLarge) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Told by its first octets: names and types of attachments are often wrong.
fn unpack(octets: &[u8], is_xml: bool, budget: &mut usize) -> Result<Option<ReceivedReport>, ReportError> {
    let damaged = |error: &dyn std::fmt::Display| ReportError::Damaged(error.to_string());
    if octets.starts_with(&[0x1f, 0x8b]) {
        let xml = read(mail_auth::flate2::read::GzDecoder::new(octets), budget)?;
        return summary(&xml).map(Some);
    }
    if octets.starts_with(b"PK\x03\x04") {
        let mut archive = mail_auth::zip::ZipArchive::new(Cursor::new(octets)).map_err(|error| damaged(&error))?;
        let mut last = ReportError::None;
        for nth in 0..archive.len().min(FILES) {
            let file = archive.by_index(nth).map_err(|error| damaged(&error))?;
            match summary(&read(file, budget)?) {
                Ok(report) => return Ok(Some(report)),
                Err(error) => last = error,
            }
        }
        return Err(last);
    }
    if is_xml || octets.trim_ascii_start().starts_with(b"<?xml") {
        return summary(octets).map(Some);
    }
    Ok(None)
}

fn read(source: impl Read, budget: &mut usize) -> Result<Vec<u8>, ReportError> {
    let mut out = Vec::new();
    source.take(*budget as u64 + 1).read_to_end(&mut out).map_err(|error| ReportError::Damaged(error.to_string()))?;
    *budget = budget.checked_sub(out.len()).ok_or(ReportError::TooLarge)?;
    Ok(out)
}

fn summary(xml: &[u8]) -> Result<ReceivedReport, ReportError> {
    let report = Report::parse_xml(xml).map_err(|error| ReportError::Damaged(error.chars().take(NAME).collect()))?;
    let mut rows: Vec<ReceivedRow> = report
        .records()
        .iter()
        .map(|record| ReceivedRow {
            source: record.source_ip(),
            count: u64::from(record.count()),
            from: short(record.header_from()),
            spf: record.dmarc_spf_result() == DmarcResult::Pass,
            dkim: record.dmarc_dkim_result() == DmarcResult::Pass,
            disposition: match record.action_disposition() {
                ActionDisposition::Quarantine => "quarantine",
                ActionDisposition::Reject => "reject",
                _ => "none",
            }
            .to_owned(),
        })
        .collect();
    let sum = |counts: &dyn Fn(&ReceivedRow) -> bool| rows.iter().filter(|row| counts(row)).map(|row| row.count).sum::<u64>();
    let (messages, passed, stopped) = (sum(&|_| true), sum(&|row| row.spf || row.dkim), sum(&|row| row.disposition != "none"));
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    rows.truncate(ROWS);
    Ok(ReceivedReport {
        organisation: short(report.org_name()),
        id: short(report.report_id()),
        domain: short(report.domain()).trim_end_matches('.').to_ascii_lowercase(),
        begin: report.date_range_begin(),
        end: report.date_range_end(),
        messages,
        passed,
        stopped,
        rows,
    })
}

/// A name as the reporter wrote it, printable and short.
fn short(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(NAME).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::Engine as _;
    use mail_auth::flate2::{Compression, write::GzEncoder};

    use super::*;

    const XML: &str = "<?xml version=\"1.0\"?><feedback><report_metadata><org_name>Big Mail</org_name><email>d@big.example</email>\
        <report_id>r1</report_id><date_range><begin>1767225600</begin><end>1767311999</end></date_range></report_metadata>\
        <policy_published><domain>Example.org</domain><p>reject</p></policy_published>\
        <record><row><source_ip>192.0.2.1</source_ip><count>7</count><policy_evaluated><disposition>none</disposition><dkim>pass</dkim>\
        <spf>fail</spf></policy_evaluated></row><identifiers><header_from>example.org</header_from></identifiers></record>\
        <record><row><source_ip>198.51.100.9</source_ip><count>40</count><policy_evaluated><disposition>reject</disposition>\
        <dkim>fail</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>example.org</header_from></identifiers></record>\
        </feedback>";

    fn message(kind: &str, attachment: &[u8]) -> Vec<u8> {
        let body = base64::engine::general_purpose::STANDARD.encode(attachment);
        let body = body.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\r\n");
        format!(
            "Subject: Report Domain: example.org Submitter: big.example Report-ID: r1\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{body}\r\n"
        )
        .into_bytes()
    }

    fn gzip(octets: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(octets).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reports_are_summed_up_in_each_packing() {
        let mut zip = mail_auth::zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("r.xml", mail_auth::zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(XML.as_bytes()).unwrap();
        let zip = zip.finish().unwrap().into_inner();
        for (kind, octets) in [("application/gzip", gzip(XML.as_bytes())), ("application/octet-stream", zip), ("text/xml", XML.into())] {
            let message = message(kind, &octets);
            assert!(looks_like_report(&message));
            let report = parse(&message).unwrap();
            assert_eq!((report.organisation.as_str(), report.domain.as_str()), ("Big Mail", "example.org"), "{kind}");
            assert_eq!((report.messages, report.passed, report.stopped), (47, 7, 40));
            assert_eq!(report.rows[0].source, Some("198.51.100.9".parse().unwrap()));
        }
    }

    #[test]
    fn bombs_are_put_out() {
        let bomb = gzip(&vec![b'<'; UNPACKED + 1]);
        assert!(matches!(parse(&message("application/gzip", &bomb)), Err(ReportError::TooLarge)));
        let laughs = "<?xml version=\"1.0\"?><!DOCTYPE f [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]>\
            <feedback><report_metadata><org_name>&b;</org_name></report_metadata></feedback>";
        if let Ok(report) = parse(&message("text/xml", laughs.as_bytes())) {
            assert!(report.organisation.len() <= NAME);
        }
    }

    #[test]
    fn what_is_no_report_is_said_to_be_none() {
        assert!(matches!(parse(b"Subject: hello\r\n\r\ntext\r\n"), Err(ReportError::None)));
        assert!(matches!(parse(&message("application/gzip", &gzip(b"no xml"))), Err(ReportError::Damaged(_))));
        assert!(parse(&message("application/zip", b"PK\x03\x04garbage")).is_err());
        assert!(!looks_like_report(b"Subject: hello\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_report_is_kept_once_and_only_for_domains_of_ours() {
        let directory = pillarbox_directory::MemoryDirectory::new();
        let message = Bytes::from(message("text/xml", XML.as_bytes()));
        assert!(matches!(receive(&directory, message.clone()).await, Err(ReportError::Foreign(_))));
        let record = pillarbox_directory::DomainRecord {
            name: "example.org".parse().unwrap(),
            created: "2026-01-01T00:00:00Z".into(),
            deliver_to: None,
            dkim: vec![],
        };
        directory.apply(vec![pillarbox_directory::Change::PutDomain(record)]).await.unwrap();
        assert!(receive(&directory, message.clone()).await.unwrap().is_some());
        assert!(receive(&directory, message).await.unwrap().is_none());
        assert_eq!(list(&directory).await.unwrap().len(), 1);
    }
}
