//! The dns-01 hook, the only program that is ever run, and the small process that runs it.
//!
//! The daemon itself cannot start a program once it serves (see `sandbox`). Where a hook is configured, it starts this process before: it knows one
//! program, takes verb, name and value as a line of JSON, runs the program without a shell and answers with a line. It ends when the daemon does.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Longest run of the hook.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest line from the process that runs it.
const LINE: u64 = 64 << 10;

/// The word by which the daemon's program knows that it is the process that runs the hook.
pub(crate) const ARGUMENT: &str = "--dns-hook-runner";

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    /// "add" or "remove".
    verb: String,
    name: String,
    value: String,
}

/// The daemon's end.
pub(crate) struct Hook {
    program: PathBuf,
    pipes: Mutex<Pipes>,
}

struct Pipes {
    /// Kept, so that its end is not mistaken for another process'.
    _child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Hook {
    /// Starts the process that runs `program`; none where no hook is configured. To be called before the sandbox is entered.
    pub(crate) fn start(program: &Path) -> anyhow::Result<Option<Arc<Self>>> {
        if program.as_os_str().is_empty() {
            return Ok(None);
        }
        let own = std::env::current_exe().context("cannot find the daemon's own program")?;
        Self::start_as(Command::new(own).arg(ARGUMENT).arg(program), program).map(Some)
    }

    fn start_as(command: &mut Command, program: &Path) -> anyhow::Result<Arc<Self>> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the process that runs tls.acme.dns_hook")?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the process that runs the hook has no pipes")
        };
        let pipes = Pipes { _child: child, to, from: BufReader::new(from) };
        Ok(Arc::new(Self { program: program.to_owned(), pipes: Mutex::new(pipes) }))
    }

    /// Runs the hook as `HOOK add|remove NAME VALUE`.
    pub(crate) async fn run(self: &Arc<Self>, verb: &str, name: &str, value: &str) -> anyhow::Result<()> {
        let task = Task { verb: verb.to_owned(), name: name.to_owned(), value: value.to_owned() };
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.ask(&task)).await?
    }

    /// Blocking.
    fn ask(&self, task: &Task) -> anyhow::Result<()> {
        let gone = "the process that runs the dns-01 hook is gone; restart the daemon";
        let mut pipes = self.pipes.lock();
        let mut line = serde_json::to_vec(task)?;
        line.push(b'\n');
        pipes.to.write_all(&line).context(gone)?;
        let mut answer = String::new();
        std::io::Read::take(&mut pipes.from, LINE).read_line(&mut answer).context(gone)?;
        match serde_json::from_str::<Result<(), String>>(&answer).context(gone)? {
            Ok(()) => Ok(()),
            Err(why) => bail!("{}: {}", self.program.display(), pillarbox_smtp::printable(why.as_bytes())),
        }
    }
}

/// The process that runs the hook: a task a line, until the daemon closes its end.
pub(crate) fn serve(program: &OsStr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut input = BufReader::new(std::io::stdin());
    loop {
        let mut line = String::new();
        if std::io::Read::take(&mut input, LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let task: Task = serde_json::from_str(&line).context("a task that is none")?;
        let done = runtime.block_on(run(program, &task)).map_err(|error| format!("{error:#}"));
        let mut answer = serde_json::to_vec(&done)?;
        answer.push(b'\n');
        let mut output = std::io::stdout().lock();
        output.write_all(&answer)?;
        output.flush()?;
    }
}

async fn run(program: &OsStr, task: &Task) -> anyhow::Result<()> {
    let Task { verb, name, value } = task;
    let run = tokio::process::Command::new(program).arg(verb).arg(name).arg(value).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, run).await.context("the hook did not end in time")?.context("it cannot be run")?;
    if !output.status.success() {
        // The last words say why; the line that carries them is bounded.
        let said = output.stderr.get(output.stderr.len().saturating_sub(1024)..).unwrap_or_default();
        bail!("the dns-01 hook failed ({}): {}", output.status, pillarbox_smtp::printable(said));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Set in the process that a test starts of its own program.
    const RUNNER: &str = "PILLARBOX_TEST_HOOK";

    /// Not a test of its own: what [`Hook::start_as`] starts here.
    #[test]
    fn the_runner() {
        if let Some(program) = std::env::var_os(RUNNER) {
            serve(&program).unwrap();
            std::process::exit(0);
        }
    }

    fn started(folder: &Path, script: &str) -> Arc<Hook> {
        let program = folder.join("hook");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["hook::tests::the_runner", "--exact", "--nocapture", "--test-threads=1", "-q"]).env(RUNNER, &program);
        let hook = Hook::start_as(&mut command, &program).unwrap();
        // The test harness speaks first: an empty line and how many tests there are.
        let mut said = String::new();
        while !said.contains("running") {
            hook.pipes.lock().from.read_line(&mut said).unwrap();
        }
        hook
    }

    #[tokio::test]
    async fn the_hook_gets_its_words_and_no_shell_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let hook = started(folder.path(), &format!("printf '%s\\n' \"$@\" >> {}/seen", folder.path().display()));
        hook.run("add", "_acme-challenge.example.org", "$(touch x); `id`").await.unwrap();
        hook.run("remove", "_acme-challenge.example.org", "\n").await.unwrap();
        let seen = std::fs::read_to_string(folder.path().join("seen")).unwrap();
        assert_eq!(seen, "add\n_acme-challenge.example.org\n$(touch x); `id`\nremove\n_acme-challenge.example.org\n\n\n");
    }

    #[tokio::test]
    async fn a_hook_that_fails_says_why_and_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let hook = started(folder.path(), "echo \"no such zone: $2\" >&2; exit 3");
        for name in ["a.example", "b.example"] {
            let error = hook.run("add", name, "x").await.unwrap_err().to_string();
            assert!(error.contains(&format!("no such zone: {name}")) && error.contains("3"), "{error}");
        }
    }

    #[test]
    fn without_a_hook_there_is_no_process() {
        assert!(Hook::start(Path::new("")).unwrap().is_none());
    }
}
