//! TLS reports (RFC 8460): what our sessions with other hosts met, counted by day and sent to the domains that ask for it;
//! and the reports that others send us.

mod count;
mod received;
mod report;
mod send;

use std::sync::Arc;

use futures::future::BoxFuture;
use rand::Rng;
use time::{Date, OffsetDateTime};

pub use count::{Counter, Day, SessionResult, day_name};
pub use received::{Received, ReportError, from_message, parse};
pub use report::{DateRange, Failure, PolicyInfo, Report, Section, Summary};
pub use send::{OutgoingReport, Place, build, letter, places};

use crate::https::Means;

/// Takes a report to the queue. The error keeps the report for another try.
pub type Submit = Arc<dyn Fn(OutgoingReport) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Reports that could not be sent are given up after so many days (RFC 8460 §5.5: a day of trying).
const GIVE_UP_DAYS: i64 = 2;

fn parse_day(name: &str) -> Option<Date> {
    let mut parts = name.split('-');
    let (year, month, day) = (parts.next()?.parse().ok()?, parts.next()?.parse::<u8>().ok()?, parts.next()?.parse().ok()?);
    Date::from_calendar_date(year, time::Month::try_from(month).ok()?, day).ok()
}

/// Runs file work on the blocking pool.
pub(crate) async fn off_reactor<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.into()))
}

/// Sends what finished days left: one try for each domain; what fails waits for the next call. Returns how many went out.
pub(crate) async fn send_finished(
    counter: &Arc<Counter>,
    means: &Means<'_>,
    hostname: &str,
    now: OffsetDateTime,
    submit: &Submit,
) -> std::io::Result<usize> {
    let mut sent = 0;
    let of = counter.clone();
    for name in off_reactor(move || of.finished_days(now.date())).await? {
        let (of, which) = (counter.clone(), name.clone());
        let domains = off_reactor(move || Ok(of.day(&which))).await?;
        let mut rest = Day::new();
        if let (Some(day), Some(domains)) = (parse_day(&name), domains) {
            let given_up = (now.date() - day).whole_days() > GIVE_UP_DAYS;
            for (domain, sections) in domains.into_iter().filter(|_| !given_up) {
                match report_to(means, &domain, day, sections.clone(), hostname, now, submit).await {
                    Ok(places) => sent += places,
                    Err(why) => {
                        tracing::debug!(%domain, %why, "a TLS report could not be sent yet");
                        rest.insert(domain, sections);
                    }
                }
            }
        } else {
            tracing::warn!(day = %name, "counts for TLS reports are damaged and given up");
        }
        let of = counter.clone();
        off_reactor(move || of.keep(&name, rest)).await?;
    }
    Ok(sent)
}

async fn report_to(
    means: &Means<'_>,
    domain: &str,
    day: Date,
    sections: Vec<Section>,
    hostname: &str,
    now: OffsetDateTime,
    submit: &Submit,
) -> Result<usize, String> {
    let places = send::discover(means, domain).await?;
    let report = build(domain, day, sections, hostname, &format!("postmaster@{hostname}"));
    let mut last_error = None;
    let mut sent = 0;
    for place in places {
        let result = match place {
            Place::Mail(to) => {
                let random = rand::rng().random();
                match letter(&report, domain, day, hostname, &to, now, random) {
                    Some(message) => submit(OutgoingReport { to, message }).await,
                    None => Err("the report cannot be written".to_owned()),
                }
            }
            Place::Https { host, port, path } => send::post(means, (&host, port, &path), &report).await,
        };
        match result {
            Ok(()) => sent += 1,
            Err(why) => last_error = Some(why),
        }
    }
    match last_error {
        // One place that works is enough: a second try would send there twice.
        Some(why) if sent == 0 => Err(why),
        _ => Ok(sent),
    }
}
