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
    let mut row = "";
    for line in text.lines() {
        match line {
            "without the index:" => row = "a million deferred, first start",
            "with the index:" => row = "a million deferred, later starts",
            _ => {}
        }
        if let Some(rest) = line.trim().strip_prefix("start: ") {
            let before = |unit: &str| rest.split_once(unit)?.0.rsplit([' ', ',']).next()?.parse::<f64>().ok();
            let (Some(seconds), Some(mib)) = (before(" s ("), before(" MiB at most")) else { bail!("not understood: {line}") };
            results.put(row, "pillarbox", "start s", seconds);
            results.put(row, "pillarbox", "MiB at most", mib);
        }
    }
    Ok(())
}
