//! A server in a temporary folder, and the real command run against it.

#![allow(dead_code, clippy::unwrap_used)] // Each test program uses its own part; a test that cannot go on may panic.

pub(crate) mod daemon;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use pillarbox_config::Config;
use serde_json::Value;

pub(crate) struct Home {
    folder: tempfile::TempDir,
    pub(crate) file: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With more lines in the configuration.
    pub(crate) fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let text = format!(
            "hostname = \"mail.example.test\"\npaths = {{ state = \"{at}/state\", mail = \"{at}/mail\", runtime = \"{at}/run\" }}\n\
             auth.argon2 = {{ memory_kib = 64, iterations = 1, parallelism = 1 }}\n{more}\n"
        );
        let file = folder.path().join("pillarbox.toml");
        std::fs::write(&file, text).unwrap();
        Self { folder, file }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> Config {
        Config::from_text(&std::fs::read_to_string(&self.file).unwrap(), &self.file, []).unwrap()
    }

    /// The command, with nothing of this machine's environment that could change what it does.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("--config").arg(&self.file).args(arguments);
        command
    }

    /// Runs it and wants this exit code.
    pub(crate) fn run(&self, arguments: &[&str], code: i32) -> Assert {
        self.command(arguments).assert().code(code)
    }

    /// What it prints with `--json`.
    pub(crate) fn json(&self, arguments: &[&str], code: i32) -> Value {
        let run = self.command(arguments).arg("--json").assert().code(code);
        serde_json::from_slice(&run.get_output().stdout).unwrap()
    }

    /// What it prints.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments, 0).get_output().stdout.clone()).unwrap()
    }

    /// The one line on standard error of a run that fails so.
    pub(crate) fn error(&self, arguments: &[&str], code: i32) -> String {
        let text = String::from_utf8(self.run(arguments, code).get_output().stderr.clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    /// The same file under another name, as sendmail.
    pub(crate) fn called(&self, name: &str, arguments: &[&str]) -> Command {
        let link = self.path().join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pillarbox"), &link).unwrap();
        }
        let mut command = bare(&link);
        command.env("PILLARBOX_CONFIG", &self.file).args(arguments);
        command
    }
}

fn bare(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PILLARBOX_")) {
        command.env_remove(name);
    }
    command
}

/// A field of a JSON value by its path, as text.
pub(crate) fn field(value: &Value, path: &str) -> String {
    let found = value.pointer(path).unwrap_or_else(|| panic!("{path} is not in {value}"));
    found.as_str().map_or_else(|| found.to_string(), str::to_owned)
}
