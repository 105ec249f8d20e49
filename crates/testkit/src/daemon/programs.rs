//! Finding and running the product's own programs.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A built program of the workspace: from the environment (`CARGO_BIN_EXE_name`, `NEXTEST_BIN_EXE_name`), or beside the running test in the target folder.
/// Panics with the command that builds it when it is missing.
pub fn binary(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is not built; run: cargo build -p {name}"))
}

/// Whether both programs are built, for tests that say that they were skipped.
pub fn have_binaries() -> bool {
    find("pillarboxd").is_some() && find("pillarbox").is_some()
}

fn find(name: &str) -> Option<PathBuf> {
    for prefix in ["CARGO_BIN_EXE_", "NEXTEST_BIN_EXE_"] {
        if let Some(path) = std::env::var_os(format!("{prefix}{name}")) {
            return Some(path.into());
        }
    }
    // A test's own file is TARGET/PROFILE/deps/NAME-HASH.
    let test = std::env::current_exe().ok()?;
    test.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Runs a program to its end.
pub(super) async fn run(program: &Path, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", program.display()));
    let pipe = child.stdin.take();
    let feed = async {
        if let Some(mut pipe) = pipe {
            // A program that does not read its input is no failure.
            let _ = pipe.write_all(stdin).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    output.unwrap()
}
