//! The machine: its name, folders, disk, file modes; and the daemon's own word.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pillarbox_config::Config;
use pillarbox_control::Client;
use pillarbox_control::api::{Probe, StatusInfo};

use crate::failure::{Failure, UNAVAILABLE};
use crate::out::size;

/// What this process can see by itself.
pub(super) fn probes(config: &Config) -> Vec<Probe> {
    let mut probes = vec![hostname(&config.hostname())];
    for (name, path) in [("state folder", &config.paths.state), ("mail folder", &config.paths.mail)] {
        probes.extend(folder(name, path, config));
    }
    probes.extend(owners(config));
    probes.extend(secrets(config));
    probes
}

/// A directory that cannot be opened, and the way back.
pub(super) fn directory(config: &Config, failure: &Failure) -> Probe {
    let state = &config.paths.state;
    let export = state.join(pillarbox_directory::export::FILE_NAME);
    let fix = match (failure.code, config.directory.backend.as_str()) {
        (UNAVAILABLE, _) => "wait until the other process has ended, or see `systemctl status pillarbox`".to_owned(),
        (_, "sled") if export.exists() => format!(
            "see to the disk and the folder's owner; if the database is beyond repair, move {} away: the next start rebuilds it from {}",
            state.join("directory.sled").display(),
            export.display()
        ),
        (_, "sled") => format!(
            "move {} away, then `pillarbox apply FILE` with an export you kept, or `pillarbox restore FILE` with a backup; then start the daemon",
            state.join("directory.sled").display()
        ),
        _ => "see to the database that directory.url names".to_owned(),
    };
    Probe::fail("directory", failure.to_string(), fix)
}

/// What the daemon says.
pub(super) async fn daemon(api: &Client) -> Result<Vec<Probe>, Failure> {
    let status: StatusInfo = api.get("/v1/status").await?;
    if !status.running {
        return Ok(vec![Probe::fail(
            "daemon",
            "it does not run",
            "start it with `systemctl start pillarbox`, and see its log with `journalctl -u pillarbox`",
        )]);
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut probes = vec![if status.version == version {
        Probe::ok("daemon", format!("version {} runs", status.version))
    } else {
        Probe::warn(
            "daemon",
            format!("version {} runs, {version} is installed", status.version),
            "restart it with `systemctl restart pillarbox`",
        )
    }];
    probes.extend(status.problems.iter().map(|p| Probe::fail("daemon", p.clone(), "")));
    probes.extend(status.notes.iter().map(|n| Probe::warn("daemon", n.clone(), "")));
    Ok(probes)
}

fn hostname(name: &str) -> Probe {
    let fix = "set hostname in the configuration to this machine's name in DNS, such as mail.example.org";
    if !name.contains('.') || name.starts_with("localhost") || name.ends_with(".localdomain") {
        return Probe::fail("hostname", format!("{name} is not a fully qualified name; other servers refuse mail from it"), fix);
    }
    Probe::ok("hostname", name)
}

fn folder(name: &str, path: &Path, config: &Config) -> Vec<Probe> {
    let stat = match rustix::fs::statvfs(path) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => {
            return vec![Probe::warn(name, format!("{} is not there yet", path.display()), "the daemon makes it at its first start")];
        }
        Err(error) => return vec![Probe::fail(name, format!("{}: {error}", path.display()), "see to the folder and its file system")],
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let least = config.limits.free_space.bytes();
    let found = format!("{}: {} free", path.display(), size(free));
    let mut probes = vec![match free {
        free if free < least => Probe::fail(name, found, "make room: mail is refused with 452 until there is more than limits.free_space"),
        free if free < least.saturating_mul(10) => Probe::warn(name, found, "make room before mail is refused"),
        _ => Probe::ok(name, found),
    }];
    if stat.f_files > 0 && stat.f_favail < 10_000 {
        probes.push(Probe::fail(
            name,
            format!("{}: {} inodes left", path.display(), stat.f_favail),
            "every message is a file: make room for more",
        ));
    }
    if rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == rustix::fs::FsWord::from(TMPFS)) {
        probes.push(Probe::fail(
            name,
            format!("{} lives in memory (tmpfs)", path.display()),
            "use a folder on a disk: mail here is gone after a power cut",
        ));
    }
    probes
}

/// `TMPFS_MAGIC` of Linux.
const TMPFS: u32 = 0x0102_1994;

/// State and mail must belong to one user, who is not root.
fn owners(config: &Config) -> Option<Probe> {
    let state = std::fs::metadata(&config.paths.state).ok()?;
    if state.uid() == 0 {
        let fix = "give both folders to a user of their own: chown -R pillarbox: STATE MAIL";
        return Some(Probe::warn("owner", "the state folder belongs to root, so the daemon runs as root", fix));
    }
    let mail = std::fs::metadata(&config.paths.mail).ok()?;
    if state.uid() != mail.uid() {
        let found = format!("the state folder belongs to uid {}, the mail folder to uid {}", state.uid(), mail.uid());
        return Some(Probe::fail("owner", found, "give both to the user that the daemon runs as"));
    }
    Some(Probe::ok("owner", format!("state and mail belong to uid {}", state.uid())))
}

/// Files with secrets that others could read.
fn secrets(config: &Config) -> Vec<Probe> {
    let mut files = vec![
        config.tls.private_key.clone(),
        config.relay.smarthost_password_file.clone(),
        config.paths.state.join("directory.sled/db"),
        config.paths.state.join("directory-export.toml"),
        config.paths.state.join("tls/self-signed.key.pem"),
    ];
    files.extend(config.tls.certificates.iter().map(|pair| pair.private_key.clone()));
    files.extend(config.relay.routes.iter().map(|route| route.password_file.clone()));
    let mut probes = Vec::new();
    for file in files.iter().filter(|f| !f.as_os_str().is_empty()) {
        let Ok(meta) = std::fs::metadata(file) else { continue };
        if meta.mode() & 0o007 != 0 && reachable(file) {
            let found = format!("{} can be read by everybody (mode {:o})", file.display(), meta.mode() & 0o7777);
            probes.push(Probe::fail("secrets", found, format!("chmod o= {}", file.display())));
        }
    }
    if probes.is_empty() {
        probes.push(Probe::ok("secrets", "no key or password file is open to everybody"));
    }
    probes
}

/// Whether everybody gets through all the folders above a file.
fn reachable(file: &Path) -> bool {
    file.ancestors().skip(1).all(|folder| std::fs::metadata(folder).map_or(true, |meta| meta.mode() & 0o001 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_control::api::Grade;

    #[test]
    fn names_that_other_servers_refuse() {
        assert_eq!(hostname("mail.example.org").grade, Grade::Ok);
        for name in ["box", "localhost", "localhost.localdomain", "box.localdomain"] {
            assert_eq!(hostname(name).grade, Grade::Fail, "{name}");
        }
    }

    #[test]
    fn an_open_key_is_found() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let key = folder.path().join("key.pem");
        std::fs::write(&key, "x").unwrap();
        let mut config = Config::default();
        config.paths.state = folder.path().to_owned();
        config.tls.private_key = key.clone();
        mode(folder.path(), 0o711);
        mode(&key, 0o640);
        assert_eq!(secrets(&config).first().unwrap().grade, Grade::Ok);
        mode(&key, 0o644);
        mode(folder.path(), 0o700);
        assert_eq!(secrets(&config).first().unwrap().grade, Grade::Ok, "nobody gets to it");
        mode(folder.path(), 0o711);
        let found = secrets(&config);
        assert_eq!(found.first().unwrap().grade, Grade::Fail);
        assert!(found.first().unwrap().fix.contains("key.pem"));
    }
}
