//! The goals of the project, held against what was measured.

use crate::results::{Results, shown};
use crate::storing::{Kind, name};

/// One goal.
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) goal: String,
    /// What the goal is about, where all of it was measured.
    pub(crate) value: Option<f64>,
    limit: f64,
    at_least: bool,
    /// The figures behind it.
    pub(crate) figures: String,
}

impl Target {
    /// Whether it is reached; `None` where something was not measured.
    pub(crate) fn met(&self) -> Option<bool> {
        self.value.map(|value| if self.at_least { value >= self.limit } else { value <= self.limit })
    }
}

/// All of them, in the order of the page.
pub(crate) fn all(results: &Results) -> Vec<Target> {
    let plain = |sessions, size| name(Kind::Plain, sessions, size);
    let mut targets = Vec::new();
    let beside = |row: &str, kind: &'static str, goal: &str, limit: f64, at_least: bool| {
        let (ours, theirs) = (results.median(row, "pillarbox", kind), results.median(row, "postfix", kind));
        Target {
            what: format!("{row}: {kind}"),
            goal: goal.into(),
            value: ours.zip(theirs).map(|(ours, theirs)| ours / theirs),
            limit,
            at_least,
            figures: format!("{} : {}", figure(ours), figure(theirs)),
        }
    };
    for sessions in [20, 100] {
        targets.push(beside(&plain(sessions, "4 KiB"), "stored/s", "≥ 10 × Postfix", 10.0, true));
    }
    for sessions in [20, 100] {
        let row = name(Kind::Reused, sessions, "4 KiB");
        let ours = results.median(&row, "pillarbox", "stored/s");
        let disk = results.median(&format!("disk, a file each, {sessions} writers"), "disk", "messages/s");
        targets.push(Target {
            what: format!("{row}: stored/s"),
            goal: "≥ 1.0 × the disk, a file each".into(),
            value: ours.zip(disk).map(|(ours, disk)| ours / disk),
            limit: 1.0,
            at_least: true,
            figures: format!("{} : {}", figure(ours), figure(disk)),
        });
    }
    targets.push(beside(&plain(1, "4 KiB"), "stored/s", "≥ 2 × Postfix", 2.0, true));
    targets.push(beside(&plain(20, "1 MiB"), "stored/s", "≥ 6 × Postfix", 6.0, true));
    targets.push(beside(&plain(20, "4 KiB"), "cpu s/1000", "≤ 0.1 × Postfix", 0.1, false));
    targets.push(beside(&plain(1, "4 KiB"), "p50 ms", "≤ 0.6 × Postfix", 0.6, false));
    let absolute = |row: &str, kind: &'static str, goal: &str, limit: f64| {
        let value = results.median(row, "pillarbox", kind);
        Target { what: format!("{row}: {kind}"), goal: goal.into(), value, limit, at_least: false, figures: figure(value) }
    };
    targets.push(absolute("10000 idle connections", "KiB each", "≤ 4 KiB", 4.0));
    targets.push(absolute("10000 idle connections, TLS", "KiB each", "≤ 16 KiB", 16.0));
    targets.push(beside("relay, a filled queue", "messages/s", "≥ 5 × Postfix", 5.0, true));
    targets.push(beside("relay, a filled queue", "cpu s/1000", "≤ 0.2 × Postfix", 0.2, false));
    targets.push(absolute("syncs a message, 20 × 4 KiB", "fdatasync+fsync", "≤ 0.2", 0.2));
    let (few, many) = (results.median("1000 users", "pillarbox", "RCPT/s"), results.median("1000000 users", "pillarbox", "RCPT/s"));
    targets.push(Target {
        what: "a look-up at RCPT with a million users, to one with a thousand".into(),
        goal: "≤ 1.5 ×".into(),
        value: few.zip(many).map(|(few, many)| few / many),
        limit: 1.5,
        at_least: false,
        figures: format!("{} : {} a second", figure(few), figure(many)),
    });
    for row in ["a million deferred, first start", "a million deferred, later starts"] {
        targets.push(absolute(row, "start s", "≤ 10 s", 10.0));
        targets.push(absolute(row, "MiB at most", "≤ 400 MiB", 400.0));
    }
    targets
}

pub(crate) fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_missed_or_unknown() {
        let mut results = Results::default();
        results.put("20 × 4 KiB", "pillarbox", "stored/s", 4000.0);
        results.put("20 × 4 KiB", "postfix", "stored/s", 500.0);
        results.put("10000 idle connections", "pillarbox", "KiB each", 3.5);
        let targets = all(&results);
        let of = |start: &str| targets.iter().find(|t| t.what.starts_with(start)).map(|t| (t.value, t.met()));
        assert_eq!(of("20 × 4 KiB: stored/s"), Some((Some(8.0), Some(false))));
        assert_eq!(of("10000 idle connections: "), Some((Some(3.5), Some(true))));
        assert_eq!(of("100 × 4 KiB: stored/s"), Some((None, None)));
    }
}
