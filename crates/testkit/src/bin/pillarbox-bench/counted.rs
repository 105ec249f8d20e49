//! What is counted rather than timed: instructions of fixed scenarios; and a start with very much deferred mail.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::results::Results;

/// Runs each scenario of `program` under callgrind.
pub(crate) fn instructions(program: &Path, results: &mut Results) -> Result<()> {
    let list = Command::new(program).output().with_context(|| format!("cannot run {}", program.display()))?;
    for scenario in String::from_utf8_lossy(&list.stdout).lines() {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).arg(scenario);
        let output = match valgrind.stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => {
                results.note(format!("no instructions were counted: valgrind: {error}"));
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&output.stderr);
        // "==123== Collected : 456"
        let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
        match count {
            Some(count) => results.put("instructions", scenario, "instructions", count),
            None => results.note(format!("instructions of {scenario}: valgrind ended with {}", output.status)),
        }
    }
    Ok(())
}

/// Starts a queue with so many deferred messages; `program` is the queue's own benchmark.
pub(crate) fn deferred(program: &Path, folder: &Path, messages: u64, results: &mut Results) -> Result<()> {
    let mut command = Command::new(program);
    command.env("PILLARBOX_BENCH_MESSAGES", messages.to_string()).env("PILLARBOX_BENCH_DIR", folder);
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Its table: what kind of start, seconds, seconds of the processor, MiB then, MiB at most, and more.
    for line in text.lines().filter(|line| line.starts_with("| with") || line.starts_with("| after")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let row = match cells.get(1).copied().unwrap_or_default() {
            "without an index" => "a million deferred, first start",
            "with the index" => "a million deferred, later starts",
            _ => "a million deferred, start after a kill",
        };
        let number = |at: usize| cells.get(at).and_then(|cell| cell.parse::<f64>().ok());
        let (Some(seconds), Some(mib)) = (number(2), number(5)) else { bail!("not understood: {line}") };
        results.put(row, "pillarbox", "start s", seconds);
        results.put(row, "pillarbox", "MiB at most", mib);
    }
    Ok(())
}
