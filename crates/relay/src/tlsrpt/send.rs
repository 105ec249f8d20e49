//! Sending a finished day's reports to those who ask for them (RFC 8460 §3 and §5).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use pillarbox_message::notice::{self, Letter, TlsReport};
use pillarbox_smtp::Mailbox;
use time::{Date, OffsetDateTime};

use super::report::{DateRange, Report, Section};
use crate::dns::Answer;
use crate::https::{Ask, Means, ask};

/// Places that one domain may name for its reports.
const MAX_PLACES: usize = 4;

/// Where a domain wants its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `mailto:`.
    Mail(Mailbox),
    /// `https://`.
    Https {
        /// DNS name.
        host: String,
        /// TCP port.
        port: u16,
        /// With its leading slash.
        path: String,
    },
}

/// A report as mail, for the queue. It goes with a null reverse path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingReport {
    /// Whom it is for.
    pub to: Mailbox,
    /// The whole message, CRLF line ends, not yet DKIM-signed.
    pub message: Vec<u8>,
}

/// The places in the record at `_smtp._tls.DOMAIN`; none unless there is exactly one record and it is well formed (RFC 8460 §3).
pub fn places(records: &[String]) -> Vec<Place> {
    let mut ours = records.iter().filter(|text| text.strip_prefix("v=TLSRPTv1").is_some_and(|rest| rest.trim_start().starts_with(';')));
    let (Some(record), None) = (ours.next(), ours.next()) else { return vec![] };
    let rua =
        record.split(';').skip(1).find_map(|field| field.trim().strip_prefix("rua").and_then(|rest| rest.trim_start().strip_prefix('=')));
    rua.unwrap_or("").split(',').filter_map(|uri| place(uri.trim())).take(MAX_PLACES).collect()
}

fn place(uri: &str) -> Option<Place> {
    if let Some(address) = uri.strip_prefix("mailto:") {
        // A report goes to an address and takes no further instructions.
        let address = address.split(['?', '!']).next().unwrap_or("");
        return address.replace("%40", "@").parse().ok().map(Place::Mail);
    }
    let rest = uri.strip_prefix("https://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, 443),
    };
    let host = pillarbox_smtp::Domain::new(host).ok().filter(|d| d.ip().is_none())?.to_string();
    let printable = path.bytes().all(|b| b.is_ascii_graphic());
    printable.then(|| Place::Https { host, port, path: path.to_owned() })
}

/// Builds the report for one domain and day.
pub fn build(domain: &str, day: Date, sections: Vec<Section>, organization: &str, contact: &str) -> Report {
    let name = super::day_name(day);
    Report {
        organization_name: organization.to_owned(),
        date_range: DateRange { start_datetime: format!("{name}T00:00:00Z"), end_datetime: format!("{name}T23:59:59Z") },
        contact_info: contact.to_owned(),
        report_id: format!("{name}.{domain}@{organization}"),
        policies: sections,
    }
}

/// The report as mail.
pub fn letter(report: &Report, domain: &str, day: Date, hostname: &str, to: &Mailbox, now: OffsetDateTime, random: u64) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(report).ok()?;
    let begin = u64::try_from(day.midnight().assume_utc().unix_timestamp()).ok()? * 1000;
    let letter = Letter { hostname, to, now: u64::try_from(now.unix_timestamp()).ok()? * 1000, random };
    let end = begin + 86_399_000;
    let report = TlsReport { domain, submitter: hostname, report_id: &report.report_id, begin, end, json: &json };
    Some(notice::tls_report(&letter, &report))
}

/// Asks the DNS where a domain wants its reports. The error is a look-up that may do better later.
pub(crate) async fn discover(means: &Means<'_>, domain: &str) -> Result<Vec<Place>, String> {
    match means.resolver.txt(&format!("_smtp._tls.{domain}")).await {
        Answer::Secure(records) | Answer::Insecure(records) => Ok(places(&records)),
        Answer::NxDomain | Answer::NoData | Answer::Bogus => Ok(vec![]),
        Answer::TempFail(why) => Err(why),
    }
}

/// Posts a report (RFC 8460 §5.4).
pub(crate) async fn post(means: &Means<'_>, place: (&str, u16, &str), report: &Report) -> Result<(), String> {
    let json = serde_json::to_vec(report).map_err(|e| e.to_string())?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&json).map_err(|e| e.to_string())?;
    let content = gzip.finish().map_err(|e| e.to_string())?;
    let (host, port, path) = place;
    let told = ask(means, Ask { host, port, path, post: Some(("application/tlsrpt+gzip", content.into())), limit: 64 * 1024 }).await;
    match told {
        Ok(told) if told.status.is_success() => Ok(()),
        Ok(told) => Err(format!("{host} answered {}", told.status.as_u16())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{date, datetime};

    #[test]
    fn places_are_read_from_one_record_alone() {
        let of = |records: &[&str]| places(&records.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>());
        let found = of(&["other", "v=TLSRPTv1; rua=mailto:t@a.test?subject=x,https://r.test:8443/v1/up, ftp://no , mailto:bad"]);
        let https = Place::Https { host: "r.test".into(), port: 8443, path: "/v1/up".into() };
        assert_eq!(found, [Place::Mail("t@a.test".parse().unwrap()), https]);
        assert!(of(&["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:c@d.test"]).is_empty());
        assert!(of(&["v=TLSRPTv1"]).is_empty());
        assert!(of(&["v=TLSRPTv1;rua=https://a b/"]).is_empty());
    }

    #[test]
    fn a_report_is_mail_with_json_inside() {
        let report = build("a.test", date!(2026 - 11 - 24), vec![], "mail.me.test", "postmaster@mail.me.test");
        assert_eq!(report.date_range.end_datetime, "2026-11-24T23:59:59Z");
        let to = "t@a.test".parse().unwrap();
        let mail = letter(&report, "a.test", date!(2026 - 11 - 24), "mail.me.test", &to, datetime!(2026-11-25 1:00 UTC), 1).unwrap();
        let back = super::super::received::from_message(&mail).unwrap();
        assert_eq!(back, [report]);
    }
}
