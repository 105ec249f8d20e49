//! The envelopes of aggregate reports: TLS reports (RFC 8460 §5.3), DMARC reports (RFC 7489 §7.2.1.1). The reports themselves are passed in.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Letter;
use crate::date::UnixMillis;
use crate::encode;

/// A TLS report about one domain's servers.
#[derive(Debug, Clone, Copy)]
pub struct TlsReport<'a> {
    /// The domain that asked for reports.
    pub domain: &'a str,
    /// Our organisation's domain.
    pub submitter: &'a str,
    /// The report-id inside the JSON.
    pub report_id: &'a str,
    /// First moment of the period.
    pub begin: UnixMillis,
    /// Last moment of the period.
    pub end: UnixMillis,
    /// The report.
    pub json: &'a [u8],
}

/// A DMARC aggregate report about one domain.
#[derive(Debug, Clone, Copy)]
pub struct DmarcReport<'a> {
    /// The domain that asked for reports.
    pub domain: &'a str,
    /// Our organisation's domain.
    pub submitter: &'a str,
    /// The report_id inside the XML.
    pub report_id: &'a str,
    /// First moment of the period.
    pub begin: UnixMillis,
    /// Last moment of the period.
    pub end: UnixMillis,
    /// The report.
    pub xml: &'a [u8],
}

/// Builds the mail that carries a TLS report: `multipart/report; report-type=tlsrpt` with the gzipped JSON.
///
/// It must be DKIM-signed and is itself to be sent without demanding TLS (RFC 8460 §3).
pub fn tls_report(letter: &Letter<'_>, report: &TlsReport<'_>) -> Vec<u8> {
    let (domain, submitter, id) = (token(report.domain), token(report.submitter), token(report.report_id));
    let boundary = encode::boundary(letter.random);
    let mut out = Vec::with_capacity(2048 + report.json.len() / 4);
    letter.push_head(&mut out, "TLS Reports", "postmaster", &format!("Report Domain: {domain} Submitter: {submitter} Report-ID: <{id}>"));
    encode::push_structured(&mut out, "TLS-Report-Domain", &domain);
    encode::push_structured(&mut out, "TLS-Report-Submitter", &submitter);
    encode::push_structured(&mut out, "Content-Type", &format!("multipart/report; report-type=\"tlsrpt\"; boundary=\"{boundary}\""));
    let text = format!("This is an aggregate TLS report from {submitter} about the mail servers of {domain}.\r\n");
    push_parts(
        &mut out,
        &boundary,
        &text,
        "application/tlsrpt+gzip",
        &format!("{submitter}!{domain}!{}!{}!{id}.json.gz", report.begin / 1000, report.end / 1000),
        report.json,
    );
    out
}

/// Builds the mail that carries a DMARC aggregate report with the gzipped XML.
pub fn dmarc_report(letter: &Letter<'_>, report: &DmarcReport<'_>) -> Vec<u8> {
    let (domain, submitter, id) = (token(report.domain), token(report.submitter), token(report.report_id));
    let boundary = encode::boundary(letter.random);
    let mut out = Vec::with_capacity(2048 + report.xml.len() / 4);
    letter.push_head(&mut out, "DMARC Reports", "postmaster", &format!("Report Domain: {domain} Submitter: {submitter} Report-ID: <{id}>"));
    encode::push_structured(&mut out, "Content-Type", &format!("multipart/mixed; boundary=\"{boundary}\""));
    let text = format!("This is a DMARC aggregate report from {submitter} about mail that claims to come from {domain}.\r\n");
    push_parts(
        &mut out,
        &boundary,
        &text,
        "application/gzip",
        &format!("{submitter}!{domain}!{}!{}!{id}.xml.gz", report.begin / 1000, report.end / 1000),
        report.xml,
    );
    out
}

/// The two parts: a sentence for people, the gzipped report as an attachment.
fn push_parts(out: &mut Vec<u8>, boundary: &str, text: &str, kind: &str, file_name: &str, report: &[u8]) {
    out.extend_from_slice(b"\r\n--");
    out.extend_from_slice(boundary.as_bytes());
    out.extend_from_slice(b"\r\n");
    encode::push_text(out, text.as_bytes());
    out.extend_from_slice(format!("\r\n--{boundary}\r\nContent-Type: {kind};\r\n name=\"{file_name}\"\r\n").as_bytes());
    out.extend_from_slice(
        format!("Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n filename=\"{file_name}\"\r\n\r\n").as_bytes(),
    );
    encode::base64_lines(&gzip(report), out);
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
}

/// Names and ids come from DNS and from ourselves; what could end a quoted string or a line does not pass. At most 255 characters.
fn token(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '+')).take(255).collect()
}

fn gzip(input: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(input.len() / 4), Compression::default());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(input);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use mail_parser::{MessageParser, MimeHeaders};

    use super::*;

    #[test]
    fn reports_come_out_as_they_went_in() {
        let to = "tlsrpt@example.net".parse().unwrap();
        let letter = Letter { hostname: "mail.example.org", to: &to, now: 1_795_502_539_000, random: 9 };
        let json = br#"{"organization-name":"Example"}"#.repeat(100);
        let tls = TlsReport {
            domain: "example.net",
            submitter: "example.org",
            report_id: "1@example.org\r\n\"",
            begin: 1000,
            end: 2000,
            json: &json,
        };
        let dmarc = DmarcReport { domain: "example.net", submitter: "example.org", report_id: "1", begin: 1000, end: 2000, xml: &json };
        for (mail, name) in [
            (tls_report(&letter, &tls), "example.org!example.net!1!2!1@example.org.json.gz"),
            (dmarc_report(&letter, &dmarc), "example.org!example.net!1!2!1.xml.gz"),
        ] {
            let parsed = MessageParser::default().parse(&mail).unwrap();
            let attachment = parsed.attachment(0).unwrap();
            assert_eq!(attachment.attachment_name(), Some(name));
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(attachment.contents()).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, json);
        }
        let text = String::from_utf8(tls_report(&letter, &tls)).unwrap();
        assert!(text.contains("TLS-Report-Domain: example.net\r\nTLS-Report-Submitter: example.org\r\n"));
        assert!(text.contains("report-type=\"tlsrpt\""));
    }
}
