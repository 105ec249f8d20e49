//! The configuration file that setup writes: every key with its explanation, those decided here set.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use dialoguer::Input;
use pillarbox_config::{Acme, Config};
use pillarbox_smtp::Domain;

use crate::args::Setup;
use crate::failure::{Failure, Trying};
use crate::out::Out;

use super::certificate::{self, Choice};

/// Whether there is no file, or one that sets nothing, as the package installs it: then there is nothing to keep.
pub(super) fn says_nothing(path: &Path) -> Result<bool, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.is_empty())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) => Err(Failure::failed(format!("cannot read {}: {e}", path.display()))),
    }
}

/// Decides what must be decided (asking where it may), and writes the file. What it says is read back, so that the daemon will read the same.
pub(super) fn write(out: Out, path: &Path, setup: &Setup, domain: &Domain, ask: bool) -> Result<Config, Failure> {
    let mut config = Config { hostname: hostname(out, setup, domain, ask)?, ..Config::default() };
    match certificate::choose(setup, ask)? {
        Choice::SelfSigned => {}
        Choice::Acme => {
            config.tls.acme = Some(Acme { contact: format!("mailto:postmaster@{domain}"), ..Acme::default() });
            config.listen.http = vec!["[::]:80".into()];
            // The MTA-STS policy and the settings of mail programs, with certificates of their own.
            config.listen.https = vec!["[::]:443".into()];
        }
        Choice::Files { certificate, key } => {
            config.tls.certificate = certificate;
            config.tls.private_key = key;
        }
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(folder).trying(format!("make {}", folder.display()))?;
    let text = config.to_commented_toml(true);
    // Variables of the environment are not written, but count from now on as they will for the daemon.
    let read = Config::from_text(&text, path, std::env::vars())?;
    put(folder, path, &text).trying(format!("write {}", path.display()))?;
    Ok(read)
}

/// Whole or not at all.
fn put(folder: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".pillarbox").permissions(Permissions::from_mode(0o640)).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    share(file.path());
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

/// As root, the daemon's group may read it: it may come to hold a database password, so nobody else.
fn share(path: &Path) {
    if let Ok(Some(group)) = nix::unistd::Group::from_name("pillarbox") {
        let _ = std::os::unix::fs::chown(path, None, Some(group.gid.as_raw()));
    }
}

/// As named, or the machine's own when it is a real name, or `mail.` before the domain.
fn hostname(out: Out, setup: &Setup, domain: &Domain, ask: bool) -> Result<String, Failure> {
    let valid = |name: &str| match Domain::new(name) {
        Ok(found) if found.ip().is_none() && name.contains('.') => Ok(found.as_str().to_owned()),
        _ => Err(Failure::usage(format!("{name:?} is not a fully qualified host name such as mail.{domain}"))),
    };
    if let Some(name) = &setup.hostname {
        return valid(name);
    }
    let machine = pillarbox_config::hostname::machine_name();
    let usable =
        machine.contains('.') && !machine.starts_with("localhost") && !machine.ends_with(".localdomain") && !machine.ends_with(".local");
    let guess = if usable { machine } else { format!("mail.{domain}") };
    if !ask {
        return valid(&guess);
    }
    if !usable && !out.json {
        out.line("This machine has no fully qualified name of its own.")?;
    }
    let name: String = Input::new()
        .with_prompt("Name of this server in DNS")
        .default(guess)
        .validate_with(|text: &String| valid(text).map(drop).map_err(|f| f.message))
        .interact_text()
        .trying("ask for the host name")?;
    valid(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_what_was_decided_and_one_that_decides_something_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/pillarbox.toml");
        let setup = Setup {
            domain: "example.org".into(),
            admin: None,
            hostname: Some("MX.example.org".into()),
            acme: true,
            certificate: None,
            private_key: None,
            password_stdin: false,
            yes: true,
        };
        let domain = "example.org".parse().unwrap();
        let config = write(Out { json: true }, &path, &setup, &domain, false).unwrap();
        assert_eq!(config.hostname, "mx.example.org");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\nhttps = [\"[::]:443\"]\n") && text.contains("\n[tls.acme]\n"), "{text}");
        assert!(text.contains("\nhostname = \"mx.example.org\"\n") && text.contains("\n# message_size = \"50M\"\n"), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!says_nothing(&path).unwrap());
        // As the package installs it.
        std::fs::write(&path, "# An empty file is valid.\n").unwrap();
        assert!(says_nothing(&path).unwrap());
        std::fs::write(&path, "broken = ").unwrap();
        assert!(!says_nothing(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(says_nothing(&path).unwrap());
    }
}
