//! Errors of system calls, put into the running daemon by `strace`: what a failing disk tells a program.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pillarbox_testkit::{Daemon, PATIENCE};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::peers;

/// Whether errors can be put into a running program here; otherwise a word and a pass, as [`peers::have`] does.
pub(super) fn possible() -> bool {
    if !peers::have("strace") {
        return false;
    }
    let trial = std::process::Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).stderr(Stdio::null()).status();
    let may = trial.is_ok_and(|status| status.success());
    if !may {
        eprintln!("skipped: this user may trace no program");
    }
    may
}

/// A fault that lasts until it is taken away.
pub(super) struct Fault {
    strace: Child,
    record: tempfile::NamedTempFile,
}

impl Fault {
    /// These system calls (`a,b`) fail with this error, on these files and folders or, where none is named, on all.
    pub(super) async fn inject(daemon: &Daemon, calls: &str, error: &str, paths: &[PathBuf]) -> Self {
        let mut arguments = vec!["-e".into(), format!("inject={calls}:error={error}")];
        for path in paths {
            arguments.extend(["-P".into(), path.display().to_string()]);
        }
        Self::attach(daemon, calls, &arguments).await
    }

    /// None of these calls fails; they are written down, with the paths of what they are about.
    pub(super) async fn none(daemon: &Daemon, calls: &str) -> Self {
        Self::attach(daemon, calls, &["-y".into()]).await
    }

    async fn attach(daemon: &Daemon, calls: &str, arguments: &[String]) -> Self {
        let record = tempfile::NamedTempFile::with_prefix("pillarbox-test-").unwrap();
        let mut command = Command::new("strace");
        command.arg("-f").arg("-o").arg(record.path()).arg("-e").arg(format!("trace={calls}")).args(arguments);
        command.arg("-p").arg(daemon.pid().to_string());
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = async {
            let mut said = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(" attached") {
                    return;
                }
                said.push(line);
            }
            panic!("strace does not attach: {said:?}");
        };
        tokio::time::timeout(PATIENCE, attached).await.unwrap_or_else(|_| panic!("strace does not attach"));
        // It must not block on what nobody reads.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { strace, record }
    }

    /// How many calls failed by it so far.
    fn count(&self) -> usize {
        std::fs::read_to_string(self.record.path()).unwrap().matches("(INJECTED)").count()
    }

    /// Waits until it has struck.
    pub(super) async fn struck(&self) {
        for _ in 0..600 {
            if self.count() > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the fault never struck: {}", std::fs::read_to_string(self.record.path()).unwrap());
    }

    /// Takes it away. It must have struck.
    pub(super) async fn end(self) {
        self.struck().await;
        self.detach().await;
    }

    /// Lets the program go; what it called.
    pub(super) async fn detach(mut self) -> Vec<String> {
        // Told to end, it lets the program go as it was.
        let pid = self.strace.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.strace.wait().await.unwrap();
        std::fs::read_to_string(self.record.path()).unwrap().lines().map(str::to_owned).collect()
    }
}
