//! The measured part of `docs/performance.md`. What people wrote around it stays as it is.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::results::Results;
use crate::storing;
use crate::targets::{self, figure};

const BEGIN: &str = "<!-- measured by scripts/bench: from here -->\n";
const END: &str = "<!-- measured by scripts/bench: to here -->\n";

/// Puts the measured part into the page.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let page = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    std::fs::write(path, put_in(&page, text)?)?;
    Ok(())
}

fn put_in(page: &str, text: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for what is measured")?;
    let (_, after) = rest.split_once(END).context("the page's place for what is measured has no end")?;
    Ok(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

/// A table's rows and the kind of figure in each cell.
struct Table<'a> {
    title: &'a str,
    rows: Vec<String>,
    kind: &'static str,
}

/// The measured part.
pub(crate) fn render(results: &Results, facts: &[(&str, String)], versions: &[(String, String)], runs: usize) -> String {
    let mut out = String::new();
    out.push_str("| | |\n| --- | --- |\n");
    for (name, fact) in facts {
        let _ = writeln!(out, "| {name} | {fact} |");
    }
    let mut versions = versions.to_vec();
    versions.sort_by_key(|(name, _)| (name != "pillarbox", name != "postfix", name.clone()));
    let named: Vec<String> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(out, "| servers | {} |", named.join(", "));
    let _ = writeln!(out, "| runs | {runs}; medians, in brackets the smallest and the largest where they differ |");
    goals(&mut out, results);
    let servers: Vec<String> = versions.into_iter().map(|(name, _)| name).collect();
    let storing: Vec<String> = storing::rows().into_iter().map(|row| row.name).collect();
    for (title, kind) in [
        ("Messages stored a second (sessions × size, one connection a message unless said)", "stored/s"),
        ("Processor time of the server, seconds a thousand messages", "cpu s/1000"),
        ("A session from connecting to the answer to QUIT, p50, ms (where connections are reused, a transaction)", "p50 ms"),
        ("The same, p99, ms", "p99 ms"),
    ] {
        table(&mut out, results, &servers, &Table { title, rows: storing.clone(), kind });
    }
    let relay = vec!["relay, while it comes in".to_owned(), "relay, a filled queue".to_owned()];
    table(&mut out, results, &servers, &Table { title: "Messages relayed a second", rows: relay.clone(), kind: "messages/s" });
    table(
        &mut out,
        results,
        &servers,
        &Table { title: "Processor time of relaying, seconds a thousand messages", rows: relay, kind: "cpu s/1000" },
    );
    let tls = vec!["TLS handshakes, full".to_owned(), "TLS handshakes, resumed".to_owned()];
    table(&mut out, results, &servers, &Table { title: "TLS handshakes a second", rows: tls, kind: "handshakes/s" });
    let crowds: Vec<String> =
        [45, 90, 1000, 10_000].iter().flat_map(|n| [format!("{n} idle connections"), format!("{n} idle connections, TLS")]).collect();
    for (title, kind) in [
        ("Memory before anybody connects, MiB (PSS of all processes)", "MiB before"),
        ("Memory with idle connections, MiB", "MiB"),
        ("Memory an idle connection, KiB", "KiB each"),
    ] {
        table(&mut out, results, &servers, &Table { title, rows: crowds.clone(), kind });
    }
    let syncs = vec!["syncs a message, 20 × 4 KiB".to_owned()];
    for (title, kind) in [("fdatasync and fsync calls a message", "fdatasync+fsync"), ("The same with syncfs and its kin", "all kinds")] {
        table(&mut out, results, &servers, &Table { title, rows: syncs.clone(), kind });
    }
    let users: Vec<String> = [1000, 100_000, 1_000_000].iter().map(|n| format!("{n} users")).collect();
    for (title, kind) in [
        ("Recipients looked up a second, over one connection", "RCPT/s"),
        ("Start until ready, seconds", "start s"),
        ("Memory, MiB", "MiB"),
    ] {
        table(&mut out, results, &servers, &Table { title, rows: users.clone(), kind });
    }
    let deferred = vec!["a million deferred, first start".to_owned(), "a million deferred, later starts".to_owned()];
    for (title, kind) in [("Start with a million deferred messages, seconds", "start s"), ("Memory at most then, MiB", "MiB at most")] {
        table(&mut out, results, &servers, &Table { title, rows: deferred.clone(), kind });
    }
    let of_way = |way: &str| {
        let small = storing::SESSIONS.map(|n| format!("disk, {way}, {n} writers"));
        small.into_iter().chain([format!("disk, {way}, 20 writers, 1 MiB")])
    };
    let disk: Vec<String> = ["a file each", "one log"].into_iter().flat_map(of_way).collect();
    let disks = ["disk".to_owned()];
    table(
        &mut out,
        results,
        &disks,
        &Table { title: "The disk alone, messages (4 KiB unless said) made durable a second", rows: disk, kind: "messages/s" },
    );
    let senders = ["ours", "ours, step by step", "smtp-source", "smtp-sink"].map(str::to_owned);
    let rows: Vec<String> = ["sender", "receiver"]
        .iter()
        .flat_map(|what| [format!("{what}, connections reused"), format!("{what}, a connection each")])
        .collect();
    table(
        &mut out,
        results,
        &senders,
        &Table { title: "Our sender and receiver beside Postfix's, messages a second", rows: rows.clone(), kind: "messages/s" },
    );
    table(&mut out, results, &senders, &Table { title: "Processor time of the senders, seconds a thousand", rows, kind: "cpu s/1000" });
    let scenarios = results.servers_of("instructions");
    table(
        &mut out,
        results,
        &scenarios,
        &Table { title: "Instructions of fixed scenarios", rows: vec!["instructions".to_owned()], kind: "instructions" },
    );
    if !results.notes.is_empty() {
        out.push_str("\n### What went wrong on the way\n\n");
        for note in &results.notes {
            let _ = writeln!(out, "- {note}");
        }
    }
    out
}

fn goals(out: &mut String, results: &Results) {
    out.push_str("\n### Goals\n\n| | goal | reached | | figures |\n| --- | --- | --- | --- | --- |\n");
    for target in targets::all(results) {
        let word = match target.met() {
            Some(true) => "met",
            Some(false) => "**not met**",
            None => "not measured",
        };
        let _ = writeln!(out, "| {} | {} | {} | {word} | {} |", target.what, target.goal, figure(target.value), target.figures);
    }
}

/// A table of the rows that were measured; nothing when none was.
fn table(out: &mut String, results: &Results, servers: &[String], table: &Table<'_>) {
    let measured = |row: &String, server: &String| results.median(row, server, table.kind).is_some();
    let servers: Vec<&String> = servers.iter().filter(|server| table.rows.iter().any(|row| measured(row, server))).collect();
    if servers.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n### {}\n", table.title);
    let _ = writeln!(out, "| | {} |", servers.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" | "));
    let _ = writeln!(out, "| --- |{}", " ---: |".repeat(servers.len()));
    for row in table.rows.iter().filter(|row| servers.iter().any(|server| measured(row, server))) {
        let cells: Vec<String> = servers.iter().map(|server| cell(results, row, server, table.kind)).collect();
        let _ = writeln!(out, "| {row} | {} |", cells.join(" | "));
    }
}

fn cell(results: &Results, row: &str, server: &str, kind: &'static str) -> String {
    let median = figure(results.median(row, server, kind));
    match results.span(row, server, kind) {
        Some((least, most)) if least < most => format!("{median} ({}–{})", figure(Some(least)), figure(Some(most))),
        _ => median,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_measured_part_changes() -> Result<()> {
        let page = format!("above\n{BEGIN}old\n{END}below\n");
        let once = put_in(&page, "new")?;
        assert_eq!(once, format!("above\n{BEGIN}\nnew\n{END}below\n"));
        assert_eq!(put_in(&once, "new")?, once);
        assert!(put_in("no place", "new").is_err());
        Ok(())
    }

    #[test]
    fn tables_show_what_was_measured_and_no_more() {
        let mut results = Results::default();
        results.put("20 × 4 KiB", "pillarbox", "stored/s", 5000.0);
        results.put("20 × 4 KiB", "pillarbox", "stored/s", 7000.0);
        let versions = [("postfix".to_owned(), "3".to_owned()), ("pillarbox".to_owned(), "0".to_owned())];
        let text = render(&results, &[("kernel", "Linux".to_owned())], &versions, 2);
        assert!(text.contains("| kernel | Linux |") && text.contains("| servers | pillarbox 0, postfix 3 |"), "{text}");
        assert!(text.contains("| | pillarbox |\n| --- | ---: |\n| 20 × 4 KiB | 6000 (5000–7000) |\n"), "{text}");
        assert!(!text.contains("TLS handshakes"), "{text}");
    }
}
