//! What the process shuts itself in with, once its ports are bound and its configuration is read: landlock for files, seccomp for system calls.
//!
//! Whoever takes over the daemon through a defect can then neither start a program, nor read the machine's other files, nor reach other
//! processes. Where the kernel has only a part of it, that part holds; `security.sandbox = "required"` refuses to run without the whole.

mod paths;
mod syscalls;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::bail;
use landlock::RulesetStatus;
use pillarbox_config::Config;
use pillarbox_control::api::SandboxInfo;

use paths::Paths;

/// What holds, for the log, for `status` and for reloads.
pub(crate) struct Sandbox {
    /// Open folders, where landlock holds.
    paths: Option<Paths>,
    /// The dns-01 hook that was given to the process that runs it.
    hook: PathBuf,
    info: SandboxInfo,
}

impl Sandbox {
    /// Shuts the calling thread in, and with it all that it starts: to be called while there is no other. `config_file` is where the
    /// configuration came from.
    pub(crate) fn enter(config: &Config, config_file: &Path) -> anyhow::Result<Self> {
        let hook = config.tls.acme.as_ref().map(|acme| acme.dns_hook.clone()).unwrap_or_default();
        let mut sandbox = Self { paths: None, hook, info: SandboxInfo { files: "none".to_owned(), calls: false, why: String::new() } };
        if config.security.sandbox == "off" {
            sandbox.info.why = "security.sandbox is off".to_owned();
            return Ok(sandbox);
        }
        let mut missing = Vec::new();
        let paths = Paths::new(config, config_file);
        // Landlock first: its calls are not among those that seccomp leaves.
        match paths.enter().map(|status| status.ruleset) {
            Ok(RulesetStatus::FullyEnforced) => sandbox.holds("full", paths),
            Ok(RulesetStatus::PartiallyEnforced) => {
                sandbox.holds("partial", paths);
                missing.push("this kernel's landlock knows only a part of what is asked (all of it from Linux 6.12)".to_owned());
            }
            Ok(RulesetStatus::NotEnforced) => missing.push("this kernel has no landlock, or one before Linux 5.19".to_owned()),
            Err(error) => missing.push(format!("landlock cannot be used (it needs Linux 5.19): {error}")),
        }
        if let Err(error) = syscalls::enter() {
            missing.push(format!("seccomp cannot be used: {error}"));
        } else {
            sandbox.info.calls = true;
        }
        if config.security.sandbox == "required" && !sandbox.is_shut() {
            bail!("security.sandbox is \"required\", and {}; use another kernel or set it to \"auto\"", missing.join(", and "));
        }
        sandbox.info.why = missing.join("; ");
        Ok(sandbox)
    }

    fn holds(&mut self, how: &str, paths: Paths) {
        self.info.files = how.to_owned();
        self.paths = Some(paths);
    }

    /// What holds.
    pub(crate) fn info(&self) -> SandboxInfo {
        self.info.clone()
    }

    /// Both kinds hold, if only in part.
    fn is_shut(&self) -> bool {
        self.paths.is_some() && self.info.calls
    }

    /// A note for `status` where one kind is missing. That an older kernel knows a part of landlock is nothing that anybody could mend.
    pub(crate) fn note(&self) -> Option<String> {
        (!self.is_shut()).then(|| format!("the sandbox does not hold: {}", self.info.why))
    }

    /// One line when the daemon starts.
    pub(crate) fn log(&self) {
        let SandboxInfo { files, calls, why } = &self.info;
        let calls = if *calls { "full" } else { "none" };
        match self.is_shut() {
            true => tracing::info!(landlock = files, seccomp = calls, why, "shut in: only configured folders, no other program"),
            false => tracing::warn!(landlock = files, seccomp = calls, why, "not or only partly shut in"),
        }
    }

    /// Refuses a new configuration that names what was shut out at the start.
    pub(crate) fn admits(&self, new: &Config) -> anyhow::Result<()> {
        let hook = new.tls.acme.as_ref().map(|acme| acme.dns_hook.as_path()).unwrap_or(Path::new(""));
        if hook != self.hook {
            bail!("tls.acme.dns_hook takes effect only at a restart: what may be run is settled at the start");
        }
        if let Some(path) = self.paths.as_ref().and_then(|paths| paths.out_of_reach(new)) {
            bail!(
                "{} is out of the sandbox, which was closed at the start: restart the daemon, or keep the file where the others are",
                path.display()
            );
        }
        Ok(())
    }
}
