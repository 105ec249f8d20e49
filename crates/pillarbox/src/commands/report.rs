//! `pillarbox report`: what other servers say about our mail, and what we say about theirs.

use hyper::Method;
use pillarbox_control::api::ReportsSent;
use pillarbox_relay::tlsrpt::Report;
use pillarbox_screen::reports::ReceivedReport;

use crate::args::{ReportVerb, TlsReportVerb};
use crate::failure::Failure;
use crate::session::Session;

pub(crate) async fn run(session: &Session, verb: ReportVerb) -> Result<(), Failure> {
    let api = session.api().await?;
    match verb {
        ReportVerb::Dmarc => {
            let found: Vec<ReceivedReport> = api.get("/v1/reports/dmarc").await?;
            if found.is_empty() && !session.out.json {
                return session
                    .out
                    .line("No DMARC report has come yet; others send them to the address in the _dmarc record, usually once a day.");
            }
            session.out.list(&found, &["FROM", "DOMAIN", "DAY", "MESSAGES", "PASSED", "STOPPED"], |r| {
                let day = pillarbox_control::api::rfc3339(r.begin.saturating_mul(1000));
                vec![
                    r.organisation.clone(),
                    r.domain.clone(),
                    super::domain::day(&day),
                    r.messages.to_string(),
                    r.passed.to_string(),
                    r.stopped.to_string(),
                ]
            })
        }
        ReportVerb::Tls { verb: Some(TlsReportVerb::Send) } => {
            // A place that takes reports by HTTPS may take its time.
            let patience = std::time::Duration::from_secs(600);
            let told: ReportsSent = api.json(Method::POST, "/v1/reports/tls/send", Vec::new().into(), patience).await?;
            match (session.out.json, told.sent) {
                (true, _) => session.out.value(&told),
                (false, 0) => session.out.line("No report was due: nothing is left of the days before today, or nobody asked."),
                (false, sent) => session.out.line(format!("Reports sent: {sent}.")),
            }
        }
        ReportVerb::Tls { verb: None } => {
            let found: Vec<Report> = api.get("/v1/reports/tls").await?;
            if found.is_empty() && !session.out.json {
                return session
                    .out
                    .line("No TLS report has come yet; others send them to the address in the _smtp._tls record, once a day.");
            }
            session.out.list(&found, &["FROM", "DAY", "POLICY", "GOOD", "FAILED"], |r| {
                let policies: Vec<String> =
                    r.policies.iter().map(|p| format!("{} {}", p.policy.policy_type, p.policy.policy_domain)).collect();
                let good: u64 = r.policies.iter().map(|p| p.summary.total_successful_session_count).sum();
                let failed: u64 = r.policies.iter().map(|p| p.summary.total_failure_session_count).sum();
                vec![
                    r.organization_name.clone(),
                    super::domain::day(&r.date_range.start_datetime),
                    policies.join(", "),
                    good.to_string(),
                    failed.to_string(),
                ]
            })
        }
    }
}
