//! A file server whose clients see late what other clients made (`late_entries.py`), by FUSE.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pillarbox_testkit::wait::until_it_says;
use tempfile::TempDir;

use crate::peers;

/// Debian's interpreter, whose packages hold the bindings.
const PYTHON: &str = "/usr/bin/python3";

/// What all clients share.
pub(super) struct Server {
    folder: TempDir,
}

/// One client with its mount.
pub(super) struct Client {
    mount: TempDir,
    _process: tokio::process::Child,
}

impl Server {
    /// One, or a word on standard error why there is none; where peers are required that fails the test.
    pub(super) fn new() -> Option<Self> {
        let binding = Command::new(PYTHON).args(["-c", "import fusepy"]).stderr(Stdio::null()).status();
        let lacking = if !Path::new("/dev/fuse").exists() {
            "this kernel has no FUSE (/dev/fuse)"
        } else if !binding.is_ok_and(|status| status.success()) {
            "python3-fusepy is not installed"
        } else if !rustix::process::geteuid().is_root() && peers::path("fusermount3").is_none() {
            "only root may mount without fusermount3"
        } else {
            return Some(Self { folder: pillarbox_testkit::folder() });
        };
        assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{lacking}");
        eprintln!("skipped: {lacking}");
        None
    }

    /// What is truly there.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Mounts it for one more client.
    pub(super) async fn client(&self) -> Client {
        let mount = pillarbox_testkit::folder();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/nodes/late_entries.py");
        let mut command = tokio::process::Command::new(PYTHON);
        command.arg(script).arg(self.folder()).arg(mount.path()).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        until_it_says("late_entries.py", process.stderr.take().unwrap(), |line| line == "mounted").await;
        Client { mount, _process: process }
    }
}

impl Client {
    /// Where the client sees the server's files.
    pub(super) fn mount(&self) -> &Path {
        self.mount.path()
    }

    fn control(&self) -> PathBuf {
        self.mount.path().join(".control")
    }

    /// Gives an order; see the script.
    pub(super) fn order(&self, line: &str) {
        std::fs::write(self.control(), line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }

    /// What was done by way of this client: an operation and its paths.
    pub(super) fn operations(&self) -> Vec<String> {
        std::fs::read_to_string(self.control()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let by_root = Command::new("umount").arg("-l").arg(self.mount.path()).stderr(Stdio::null()).status();
        if !by_root.is_ok_and(|status| status.success()) {
            let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(self.mount.path()).status();
        }
    }
}
