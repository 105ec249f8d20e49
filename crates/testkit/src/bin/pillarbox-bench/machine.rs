//! Facts about the machine, without which no figure means anything.

use std::path::Path;
use std::process::Command;

/// Name and value of each fact; `folder` is where the mail of all servers lies.
pub(crate) fn facts(folder: &Path) -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory: u64 = after(&read("/proc/meminfo"), "MemTotal").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    vec![
        ("processor", format!("{processors} × {}", after(&read("/proc/cpuinfo"), "model name"))),
        ("memory", format!("{:.0} GiB", memory as f64 / 1024.0 / 1024.0)),
        ("kernel", said("uname", &["-sr"])),
        ("system", after(&read("/etc/os-release").replace('=', ":").replace('"', ""), "PRETTY_NAME")),
        ("file system", mount_of(folder)),
        ("compiler", said("rustc", &["--version"])),
        ("version", said("git", &["describe", "--always", "--dirty"])),
        ("date", said("date", &["-u", "+%Y-%m-%d"])),
    ]
}

fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Type and options of the file system that holds `folder`, and whether it is a loop-mounted image.
fn mount_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let entries = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?, words.next()?, words.next()?))
    });
    let longest = entries.filter(|(_, point, ..)| folder.starts_with(point)).max_by_key(|(_, point, ..)| point.len());
    longest.map_or_else(String::new, |(device, _, kind, options)| {
        let image = if device.starts_with("/dev/loop") { ", an image on a loop device" } else { "" };
        format!("{kind} ({options}){image}")
    })
}
