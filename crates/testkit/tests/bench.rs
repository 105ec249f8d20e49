//! The program that measures: every part of it runs once, for a moment, and finds a figure. How high it is, is not asked.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use pillarbox_testkit::daemon::have_binaries;

#[test]
fn every_row_gets_a_figure() {
    if !have_binaries() {
        eprintln!("skipped: the daemon is not built (cargo build -p pillarboxd -p pillarbox)");
        return;
    }
    let folder = pillarbox_testkit::folder();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_pillarbox-bench"));
    let output = bench.arg("--folder").arg(folder.path()).arg("--quick").env("TMPDIR", folder.path()).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    for row in [
        "20 × 4 KiB ",
        "20 × 1 MiB ",
        "20 × 4 KiB, connections reused ",
        "1 × 4 KiB, no pipelining ",
        "20 × 4 KiB, ten recipients ",
        "20 × 4 KiB, STARTTLS ",
        "20 × 4 KiB, submission ",
        "relay, while it comes in ",
        "relay, a filled queue ",
        "TLS handshakes, full ",
        "TLS handshakes, resumed ",
        "50 idle connections ",
        "50 idle connections, TLS ",
        "1000 users ",
        "disk, a file each, 20 writers ",
        "disk, one log, 20 writers ",
    ] {
        let figure = text.lines().find(|line| line.starts_with(row)).and_then(|line| line.split_whitespace().last()?.parse::<f64>().ok());
        assert!(figure.is_some_and(|figure| figure > 0.0), "no figure for {row:?} in\n{text}");
    }
}
