//! Rows in which messages are taken and stored in Maildirs.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use pillarbox_testkit::speed::{Source, handshakes};

use crate::results::Results;
use crate::servers::Server;

/// Mailboxes that the messages of a row go to; each row has its own.
pub(crate) const MAILBOXES: u64 = 16;
/// Octets that a row sends to a server, at most: what large messages fill is the machine's disk.
const OCTETS: u64 = 768 << 20;
/// Sessions at once.
pub(crate) const SESSIONS: [usize; 4] = [1, 5, 20, 100];
/// Octets a message, with their names.
pub(crate) const SIZES: [(usize, &str); 4] = [(1024, "1 KiB"), (4096, "4 KiB"), (102_400, "100 KiB"), (1_048_576, "1 MiB")];

/// How a row differs from plain mail for one recipient over one connection a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Reused,
    StepByStep,
    TenRecipients,
    StartTls,
    Submission,
}

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) sessions: usize,
    pub(crate) size: usize,
}

/// A row's name.
pub(crate) fn name(kind: Kind, sessions: usize, size: &str) -> String {
    let what = match kind {
        Kind::Plain => "",
        Kind::Reused => ", connections reused",
        Kind::StepByStep => ", no pipelining",
        Kind::TenRecipients => ", ten recipients",
        Kind::StartTls => ", STARTTLS",
        Kind::Submission => ", submission",
    };
    format!("{sessions} × {size}{what}")
}

/// All rows, in the order of the page.
pub(crate) fn rows() -> Vec<Row> {
    let row = |kind, sessions, (size, shown): (usize, &str)| Row { name: name(kind, sessions, shown), kind, sessions, size };
    let mut rows = Vec::new();
    for size in SIZES {
        for sessions in SESSIONS {
            rows.push(row(Kind::Plain, sessions, size));
        }
    }
    let usual = (4096, "4 KiB");
    rows.push(row(Kind::Reused, 20, usual));
    rows.push(row(Kind::Reused, 100, usual));
    rows.push(row(Kind::StepByStep, 1, usual));
    for kind in [Kind::TenRecipients, Kind::StartTls, Kind::Submission] {
        rows.push(row(kind, 20, usual));
    }
    rows
}

/// Measures a row of one server; `users` are its mailboxes.
pub(crate) async fn measure(server: &Server, row: &Row, users: std::ops::Range<u64>, time: Duration, results: &mut Results) -> Result<()> {
    let mut source = source(server, row, users.clone());
    source.time = time;
    let before = server.count(users.clone());
    let cpu = server.account.cpu_at_rest().await?;
    let began = SystemTime::now();
    let report = source.run().await;
    let files = report.messages * source.recipients as u64;
    let stored = server.stored(users.clone(), before + files).await;
    let cpu = server.account.cpu_at_rest().await?.saturating_sub(cpu);
    if let Some(failure) = &report.failure {
        results.note(format!("{}, {}: {} sessions failed, the first because {failure}", server.name, row.name, report.failures));
    }
    if report.messages == 0 {
        return Ok(());
    }
    let messages = report.messages as f64;
    results.put(&row.name, &server.name, "accepted/s", report.rate());
    match stored.and_then(|last| last.duration_since(began).ok()) {
        Some(time) => results.put(&row.name, &server.name, "stored/s", messages / time.max(report.elapsed).as_secs_f64()),
        None => {
            let missing = (before + files).saturating_sub(server.count(users.clone()));
            results.note(format!("{}, {}: {missing} messages were never stored", server.name, row.name));
        }
    }
    results.put(&row.name, &server.name, "cpu s/1000", cpu.as_secs_f64() / messages * 1e3);
    results.put(&row.name, &server.name, "p50 ms", report.times.quantile(0.5).as_secs_f64() * 1e3);
    results.put(&row.name, &server.name, "p99 ms", report.times.quantile(0.99).as_secs_f64() * 1e3);
    if row.size > 50_000 {
        // Not for the next row's sake, whose mailboxes are its own, but for the disk's.
        server.empty(users);
    }
    Ok(())
}

/// The load of a row.
pub(crate) fn source(server: &Server, row: &Row, users: std::ops::Range<u64>) -> Source {
    let access = match row.kind {
        Kind::Plain | Kind::Reused | Kind::TenRecipients => server.access(),
        Kind::StepByStep => server.access().step_by_step(),
        Kind::StartTls => server.access().tls(handshakes::config(false)),
        Kind::Submission => server.submission(),
    };
    let mut source = Source::new(access, users.map(|n| format!("u{n}@bench.test")).collect());
    source.sessions = row.sessions;
    source.size = row.size;
    source.messages = OCTETS / row.size.max(1) as u64;
    source.reuse = row.kind == Kind::Reused;
    if row.kind == Kind::TenRecipients {
        source.recipients = 10;
    }
    if row.kind == Kind::Submission {
        source.from = "u0@bench.test".into();
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::USERS;

    #[test]
    fn each_row_has_a_name_and_mailboxes_of_its_own() {
        let rows = rows();
        let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        assert!((rows.len() as u64 + 1) * MAILBOXES <= USERS, "the last group is for counting system calls");
    }
}
