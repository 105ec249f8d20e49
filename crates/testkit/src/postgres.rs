//! A real PostgreSQL server in a folder of its own, on a Unix socket.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

use crate::wait::until_it_says;

/// The server. It is stopped and its folder removed when dropped.
pub struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    process: Option<Child>,
}

/// The folder of `initdb` and `postgres`: where Debian keeps them, or in PATH.
fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    debian.chain(std::env::split_paths(&path)).find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
}

impl Postgres {
    /// Starts one, or says loudly why not; with `PILLARBOX_REQUIRE_PEERS=1` its absence fails the test.
    pub async fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "PostgreSQL is not installed");
            eprintln!("skipped: PostgreSQL is not installed");
            return None;
        };
        let folder = crate::folder();
        // Both the server, which does not run as root, and the daemon come here.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut server = Self { folder, bin, process: None };
        let made = server
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=pillarbox", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(server.data())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        server.run().await;
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its folder, where its socket is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// PostgreSQL refuses to run as root, so root lends it another user.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/").env("LC_ALL", "C");
        command
    }

    /// Starts it (again) and waits until it takes connections.
    pub async fn run(&mut self) {
        let mut command = tokio::process::Command::from(self.command("postgres"));
        command
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60", "-k"])
            .arg(self.folder.path())
            .arg("-D")
            .arg(self.data())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        until_it_says("PostgreSQL", child.stderr.take().unwrap(), |line| line.contains("database system is ready to accept connections"))
            .await;
        self.process = Some(child);
    }

    /// Fast shut-down: connections are cut.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().unwrap_or_else(|| panic!("PostgreSQL is not running"));
        signal(&process, rustix::process::Signal::INT);
        process.wait().await.unwrap();
    }

    /// The URL of a database; `postgres` is there from the beginning.
    pub fn url(&self, database: &str) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://pillarbox@{host}/{database}")
    }

    /// Runs SQL in the database `postgres`, and returns what it selects as bare lines.
    pub async fn sql(&self, sql: &str) -> String {
        let mut command = tokio::process::Command::new(self.bin.join("psql"));
        let mut child = command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "pillarbox", "-d", "postgres", "-h"])
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{sql}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

fn signal(process: &Child, signal: rustix::process::Signal) {
    let pid = process.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?));
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            // At once, without a shut-down's work: the folder goes too.
            signal(process, rustix::process::Signal::QUIT);
        }
    }
}
