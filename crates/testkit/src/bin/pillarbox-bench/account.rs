//! What a server costs: processor time and memory of all its processes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Longest wait for a server to come to rest.
const REST: Duration = Duration::from_secs(8);
/// A server that used less than this between two looks is at rest.
const STILL: Duration = Duration::from_micros(500);
const LOOK: Duration = Duration::from_millis(100);

/// Where the processes of a server are counted.
#[derive(Debug, Clone)]
pub(crate) enum Account {
    /// A control group that holds them all, children that ended included.
    Group(PathBuf),
    /// One process with its threads, where no group can be made.
    Process(u32),
}

impl Account {
    /// Moves a process, and all it will start, into a group of this name; without the right to do so the process is counted alone.
    pub(crate) fn of(pid: u32, name: &str) -> Self {
        let root = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"].iter().map(Path::new).find(|root| root.is_dir());
        let group = root.map(|root| root.join(name));
        let moved = group.filter(|group| {
            (group.is_dir() || std::fs::create_dir(group).is_ok()) && std::fs::write(group.join("cgroup.procs"), pid.to_string()).is_ok()
        });
        moved.map_or(Self::Process(pid), Self::Group)
    }

    /// Processor time used so far. With a group: in nanoseconds; alone: in hundredths of a second.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        match self {
            Self::Group(group) => {
                if let Ok(nanos) = std::fs::read_to_string(group.join("cpuacct.usage")) {
                    return Ok(Duration::from_nanos(nanos.trim().parse()?));
                }
                let stat = std::fs::read_to_string(group.join("cpu.stat")).context("no processor time is counted")?;
                let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec in cpu.stat")?;
                Ok(Duration::from_micros(micros.trim().parse()?))
            }
            Self::Process(pid) => ticks(&format!("/proc/{pid}/stat"), 11),
        }
    }

    /// The same once the server has come to rest: what it puts off is part of what a message costs.
    pub(crate) async fn cpu_at_rest(&self) -> Result<Duration> {
        let began = Instant::now();
        let mut before = self.cpu()?;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.cpu()?;
            if now.saturating_sub(before) < STILL || began.elapsed() > REST {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Group(group) => {
                let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                text.lines().filter_map(|line| line.parse().ok()).collect()
            }
            Self::Process(pid) => vec![*pid],
        }
    }

    /// Memory of all processes, KiB; what several share is counted once (PSS).
    pub(crate) fn memory(&self) -> u64 {
        let of = |pid: u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default().to_owned();
            line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        };
        self.pids().into_iter().map(of).sum()
    }

    /// Removes the group once its processes are gone.
    pub(crate) fn close(&self) {
        if let Self::Group(group) = self {
            // Some kernels need a moment; a group that stays is used again.
            let _ = std::fs::remove_dir(group);
        }
    }
}

/// Processor time of the children that this process has waited for.
pub(crate) fn children() -> Result<Duration> {
    ticks("/proc/self/stat", 13)
}

/// Two fields of a process's `stat`, counted behind its name, in hundredths of a second.
fn ticks(path: &str, first: usize) -> Result<Duration> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().skip(first).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
