//! Reports that others send about our domains: read within bounds, kept for `pillarbox report tls`.

use std::io::Read;
use std::path::PathBuf;

use base64::Engine;
use flate2::read::GzDecoder;
use pillarbox_smtp::printable;

use super::report::Report;

/// Most octets a report may have once unpacked; a few kilobytes are usual, and a gzip bomb stops here.
const MAX_UNPACKED: u64 = 10 << 20;
/// Reports taken from one message.
const MAX_PER_MESSAGE: usize = 4;
/// Reports kept; the oldest go first.
const MAX_KEPT: usize = 1000;

/// Why something is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Not gzip, or damaged.
    #[error("the report cannot be unpacked: {0}")]
    Gzip(std::io::Error),
    /// More than ten megabytes.
    #[error("the report is larger than 10 MB once unpacked")]
    TooLarge,
    /// Not the JSON of RFC 8460.
    #[error("the report is not the JSON of RFC 8460: {0}")]
    Json(serde_json::Error),
    /// A message without a report in it.
    #[error("the message holds no TLS report")]
    None,
}

/// Reads a report, gzipped or plain.
pub fn parse(octets: &[u8]) -> Result<Report, ReportError> {
    let mut json = Vec::new();
    if octets.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(octets).take(MAX_UNPACKED + 1).read_to_end(&mut json).map_err(ReportError::Gzip)?;
    } else {
        json.extend_from_slice(octets.get(..octets.len().min(MAX_UNPACKED as usize + 1)).unwrap_or_default());
    }
    if json.len() as u64 > MAX_UNPACKED {
        return Err(ReportError::TooLarge);
    }
    serde_json::from_slice(&json).map_err(ReportError::Json)
}

/// The reports in a message: its base64 parts that unpack to one (RFC 8460 §5.3). The error is that of the first part that looks like one.
pub fn from_message(message: &[u8]) -> Result<Vec<Report>, ReportError> {
    let (mut found, mut error) = (Vec::new(), ReportError::None);
    for octets in base64_blocks(message) {
        match parse(&octets) {
            Ok(report) => found.push(report),
            Err(why) if matches!(error, ReportError::None) && octets.starts_with(&[0x1f, 0x8b]) => error = why,
            Err(_) => {}
        }
        if found.len() >= MAX_PER_MESSAGE {
            break;
        }
    }
    if found.is_empty() { Err(error) } else { Ok(found) }
}

/// Blocks of base64 lines that stand alone between empty lines or boundaries, decoded. Looks at each line once.
fn base64_blocks(message: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut block: Vec<u8> = Vec::new();
    let is_base64 = |line: &[u8]| line.len() >= 4 && line.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b));
    let lines = message.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for line in lines.chain([&b""[..]]) {
        if is_base64(line) {
            block.extend_from_slice(line);
        } else if !block.is_empty() {
            // H4sI is how every gzip file begins, eyJ is `{"`.
            if block.starts_with(b"H4sI") || block.starts_with(b"eyJ") || block.starts_with(b"ewo") {
                blocks.extend(base64::engine::general_purpose::STANDARD.decode(&block));
            }
            block.clear();
        }
    }
    blocks.truncate(16);
    blocks
}

/// Reports on disk.
pub struct Received {
    folder: PathBuf,
}

impl Received {
    /// Kept in `folder`, made when first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a report; one that came before (same organisation and id) is replaced. Blocks.
    pub fn keep(&self, report: &Report) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let key = sha2::Digest::finalize(sha2::Digest::chain_update(
            <sha2::Sha256 as sha2::Digest>::new_with_prefix(report.organization_name.as_bytes()),
            [b"\0", report.report_id.as_bytes()].concat(),
        ));
        let day: String = report.date_range.start_datetime.chars().filter(|c| c.is_ascii_digit() || *c == '-').take(10).collect();
        let name: String = key.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let path = self.folder.join(format!("{day}_{name}.json"));
        let fresh = path.with_extension("tmp");
        std::fs::write(&fresh, serde_json::to_vec(report)?)?;
        std::fs::rename(fresh, path)?;
        let names = self.names()?;
        for old in names.iter().take(names.len().saturating_sub(MAX_KEPT)) {
            std::fs::remove_file(self.folder.join(old))?;
        }
        Ok(())
    }

    fn names(&self) -> std::io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(e) => return Err(e),
        };
        let mut names: Vec<String> =
            entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|n| n.ends_with(".json")).collect();
        names.sort();
        Ok(names)
    }

    /// All reports, oldest first; damaged files are passed over. Texts are safe to print. Blocks.
    pub fn list(&self) -> std::io::Result<Vec<Report>> {
        let mut reports = Vec::new();
        for name in self.names()? {
            let Ok(octets) = std::fs::read(self.folder.join(name)) else { continue };
            if let Ok(mut report) = parse(&octets) {
                for text in [&mut report.organization_name, &mut report.contact_info, &mut report.report_id] {
                    *text = printable(text.as_bytes());
                }
                for failure in report.policies.iter_mut().flat_map(|section| &mut section.failure_details) {
                    for text in [&mut failure.result_type, &mut failure.receiving_mx_hostname, &mut failure.failure_reason_code] {
                        *text = printable(text.as_bytes());
                    }
                }
                reports.push(report);
            }
        }
        Ok(reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    /// The example of RFC 8460, appendix B, in outline.
    const EXAMPLE: &str = r#"{"organization-name":"Company-X","date-range":{"start-datetime":"2016-04-01T00:00:00Z","end-datetime":"2016-04-01T23:59:59Z"},
        "contact-info":"sts-reporting@company-x.example","report-id":"5065427c","policies":[{"policy":{"policy-type":"sts","policy-string":["version: STSv1"],
        "policy-domain":"company-y.example","mx-host":["*.mail.company-y.example"]},"summary":{"total-successful-session-count":5326,"total-failure-session-count":303},
        "failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"2001:db8:abcd:0012::1","receiving-mx-hostname":"mx1.mail.company-y.example",
        "failed-session-count":100},{"result-type":"starttls-not-supported","sending-mta-ip":"2001:db8::2","failed-session-count":200,
        "additional-information":"https://reports.company-x.example/report_info?id=5065427c","failure-reason-code":"X\u001b[31m"}]}]}"#;

    fn gzip(octets: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(octets).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reports_are_read_kept_and_listed_safely() {
        let report = parse(&gzip(EXAMPLE.as_bytes())).unwrap();
        assert_eq!(parse(EXAMPLE.as_bytes()).unwrap(), report);
        assert_eq!(report.policies[0].summary.total_failure_session_count, 303);
        let one = EXAMPLE.replace("[\"*.mail.company-y.example\"]", "\"*.mail.company-y.example\"");
        assert_eq!(parse(one.as_bytes()).unwrap(), report);
        let folder = tempfile::tempdir().unwrap();
        let received = Received::new(folder.path().join("received"));
        assert!(received.list().unwrap().is_empty());
        received.keep(&report).unwrap();
        received.keep(&report).unwrap();
        let listed = received.list().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].policies[0].failure_details[1].failure_reason_code, "X\\u{1b}[31m");
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        assert!(matches!(parse(&gzip(&vec![b' '; 11 << 20])), Err(ReportError::TooLarge)));
        assert!(matches!(parse(b"\x1f\x8bgarbage"), Err(ReportError::Gzip(_))));
        assert!(matches!(parse(b"[]"), Err(ReportError::Json(_))));
        assert!(matches!(from_message(b"Subject: x\r\n\r\nhello\r\n"), Err(ReportError::None)));
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&octets);
            let _ = from_message(&octets);
        }
    }
}
