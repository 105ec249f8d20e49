//! Real programs beside the daemon: whether they are here, and running them.

use std::path::PathBuf;
use std::process::{Output, Stdio};

/// Where a program is, `/usr/sbin` and `/sbin` included.
pub(crate) fn path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/dovecot"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Whether a peer is installed. Without it a test is passed over with a word on standard error; where peers are required
/// (`PILLARBOX_REQUIRE_PEERS=1`, as in CI) its absence fails the test.
pub(crate) fn have(program: &str) -> bool {
    let here = path(program).is_some();
    if !here {
        assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
    }
    here
}

/// The folder with other people's test data, or a word and `None`; required in CI as [`have`] says.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("PILLARBOX_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "the test data is missing: {}", folder.display());
    eprintln!("skipped: no test data at {}", folder.display());
    None
}

/// Runs a program to its end, without input.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Output {
    let file = path(program).unwrap_or_else(|| panic!("{program} is not installed"));
    let mut command = tokio::process::Command::new(file);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(pillarbox_testkit::PATIENCE, command.output()).await {
        Ok(output) => output.unwrap(),
        Err(_) => panic!("{program} did not end"),
    }
}
