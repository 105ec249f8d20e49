//! The package under test, built from the programs that the other tests use too, and packages made around it.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use pillarbox_testkit::daemon::binary;

use super::root::{self, last_lines};
use crate::peers;

/// What the tests start from.
pub(super) struct Ready {
    /// The clean root, packed.
    pub(super) root: PathBuf,
    /// The package as it is now.
    pub(super) current: PathBuf,
    /// The same as a lower version, with another text in the configuration file that it brings.
    pub(super) older: PathBuf,
    /// Some other mail server, as far as dpkg can tell.
    pub(super) other: PathBuf,
}

/// The line that only the older version's configuration file has.
pub(super) const OLD_LINE: &str = "# A line of an older version.";

/// Makes all that is not there yet; tests that run at once wait for the first. `None`, with a word, where that cannot be done, which is an error where peers
/// are required.
pub(super) fn ready() -> Option<Ready> {
    if !["debootstrap", "lintian", "dpkg-deb", "unshare", "nsenter", "setpriv", "ip", "strip", "dpkg-shlibdeps"]
        .iter()
        .all(|program| peers::have(program))
    {
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let root = if rustix::process::geteuid().is_root() { root::archive(&folder) } else { Err("only root can make a machine".to_owned()) };
    let root = match root {
        Ok(root) => root,
        Err(why) => {
            assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
    };
    let ready = Ready { root, current: folder.join("current.deb"), older: folder.join("older.deb"), other: folder.join("other.deb") };
    let made = std::fs::metadata(&ready.other).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    if newest_source() > made {
        make(&ready, &folder);
    }
    Some(ready)
}

fn make(ready: &Ready, folder: &Path) {
    let built = binary("pillarboxd");
    let script = repository().join("scripts/package");
    let mut command = Command::new(script);
    command.env("PILLARBOX_PROFILE", "dev").env("PILLARBOX_BUILT", built.parent().unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "scripts/package: {}", last_lines(&output));
    let path = String::from_utf8(output.stdout).unwrap();
    std::fs::copy(path.trim(), &ready.current).unwrap();

    let tree = tempfile::tempdir_in(folder).unwrap();
    dpkg_deb(&["-R".as_ref(), ready.current.as_os_str(), tree.path().as_os_str()]);
    let control = tree.path().join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).unwrap();
    let lower: String = text
        .lines()
        .map(|line| if line.starts_with("Version: ") { "Version: 0.0.1-1\n".to_owned() } else { format!("{line}\n") })
        .collect();
    assert_ne!(text, lower);
    std::fs::write(&control, lower).unwrap();
    let config = tree.path().join("etc/pillarbox/pillarbox.toml");
    let shipped = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{OLD_LINE}\n{shipped}")).unwrap();
    build(tree.path(), &ready.older);

    let tree = tempfile::tempdir_in(folder).unwrap();
    std::fs::set_permissions(tree.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(tree.path().join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.path().join("usr/sbin")).unwrap();
    std::fs::write(tree.path().join("usr/sbin/sendmail"), "#!/bin/sh\n").unwrap();
    let control = "Package: other-mta\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.test>\nProvides: mail-transport-agent\n\
                   Conflicts: mail-transport-agent\nReplaces: mail-transport-agent\nDescription: some mail server\n";
    std::fs::write(tree.path().join("DEBIAN/control"), control).unwrap();
    build(tree.path(), &ready.other);
}

fn build(tree: &Path, to: &Path) {
    dpkg_deb(&["--root-owner-group".as_ref(), "-Zgzip".as_ref(), "-z1".as_ref(), "-b".as_ref(), tree.as_os_str(), to.as_os_str()]);
}

fn dpkg_deb(arguments: &[&std::ffi::OsStr]) {
    let output = Command::new("dpkg-deb").args(arguments).output().unwrap();
    assert!(output.status.success(), "dpkg-deb: {}", last_lines(&output));
}

pub(super) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// When the youngest file that goes into the package was changed.
fn newest_source() -> SystemTime {
    fn newest(path: &Path) -> SystemTime {
        if path.ends_with("packaging/out") {
            return SystemTime::UNIX_EPOCH;
        }
        let own = std::fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let below = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| newest(&entry.path()));
        if path.is_dir() { below.max().unwrap_or(SystemTime::UNIX_EPOCH) } else { own }
    }
    let names = ["packaging", "etc", "docs", "README.md", "scripts/package", "crates/pillarboxd/Cargo.toml"];
    let own = names.iter().map(|name| newest(&repository().join(name)));
    own.chain([binary("pillarboxd"), binary("pillarbox")].iter().map(|path| newest(path))).max().unwrap()
}
