//! A clean Debian 12 root, made by debootstrap from the mirror that this machine's own apt uses, and kept as an archive in the target folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The release that the package is made for.
const RELEASE: &str = "bookworm";

/// What is in the root beyond the smallest one: what starts services there, and what the package depends on.
const MORE: &str = "systemd,ca-certificates";

/// Makes the root in memory, where the many flushes of dpkg cost nothing, and packs it.
const MAKE: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
debootstrap --variant=minbase "$2" "$3" "$1" "$4"
rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
: > "$1/etc/machine-id"
tar -C "$1" --numeric-owner -cf "$5.new" .
mv "$5.new" "$5"
"#;

/// The archive. `Err` says why there is none.
pub(super) fn archive(folder: &Path) -> Result<PathBuf, String> {
    let file = folder.join(format!("{RELEASE},{MORE}.tar"));
    if file.is_file() {
        return Ok(file);
    }
    let mirror = mirror()?;
    let place = tempfile::tempdir_in(folder).map_err(|e| e.to_string())?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", MAKE, "root"]).arg(place.path());
    command.args([&format!("--include={MORE}"), RELEASE, &mirror]).arg(&file);
    if let Some(proxy) = proxy() {
        command.env("http_proxy", proxy);
    }
    let output = command.output().map_err(|e| format!("unshare: {e}"))?;
    if output.status.success() { Ok(file) } else { Err(format!("debootstrap failed:\n{}", last_lines(&output))) }
}

/// Where this machine's apt has the release from.
fn mirror() -> Result<String, String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(CODENAME) $(RELEASE) $(SITE)", "Created-By: Packages", "Component: main"])
        .output()
        .map_err(|e| format!("apt-get: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| {
        let mut words = line.split(' ');
        let names = [words.next()?, words.next()?];
        let site = words.next()?;
        (names.contains(&RELEASE) && site.starts_with("http")).then(|| site.to_owned())
    });
    found.ok_or_else(|| format!("apt on this machine has no source for {RELEASE}"))
}

/// The proxy that apt is told to use.
fn proxy() -> Option<String> {
    let output = Command::new("apt-config").args(["shell", "proxy", "Acquire::http::Proxy"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().strip_prefix("proxy='")?.trim_end_matches('\'').to_owned())
}

/// The end of what a program said, for messages of failures.
pub(super) fn last_lines(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n")
}
