//! The configuration for Dovecot, with this server's paths.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pillarbox_config::Config;
use pillarbox_control::api::Probe;

/// As shipped in `etc/dovecot`, for the default paths and the packaged user.
const FOR_2_3: &str = include_str!("../../../../../etc/dovecot/dovecot-2.3.conf");
/// The same in the syntax that Dovecot 2.4 changed to.
const FOR_2_4: &str = include_str!("../../../../../etc/dovecot/dovecot-2.4.conf");
/// The packaged paths.state.
const STATE: &str = "/var/lib/pillarbox";
/// The packaged paths.mail.
const MAIL: &str = "/var/vmail";

/// Writes `dovecot.conf` beside our own configuration, for the administrator to put in place. `None` when it is there already or cannot be written, which
/// is no reason to stop.
pub(super) fn write(config: &Config, folder: &Path) -> Option<PathBuf> {
    let path = folder.join("dovecot.conf");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path).ok()?;
    file.write_all(text(config, template(&installed())).as_bytes()).ok()?;
    Some(path)
}

/// What `dovecot --version` says; empty where there is none.
fn installed() -> String {
    let asked = std::process::Command::new("dovecot").arg("--version").output();
    asked.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default()
}

/// Without a Dovecot to go by, what Debian 12 has.
fn template(version: &str) -> &'static str {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (2, 4) => FOR_2_4,
        _ => FOR_2_3,
    }
}

/// Whether it is there.
pub(super) fn probe() -> Probe {
    match installed().trim() {
        "" => Probe::warn("dovecot", "it is not installed: mail is stored, but no mail program can read it", "apt install dovecot-imapd"),
        version => Probe::ok("dovecot", format!("version {}", version.split(' ').next().unwrap_or(version))),
    }
}

/// The certificate that the configuration decides on, and its key.
fn pair(config: &Config) -> (PathBuf, PathBuf) {
    let folder = config.paths.state.join("tls");
    if !config.tls.certificate.as_os_str().is_empty() {
        (config.tls.certificate.clone(), config.tls.private_key.clone())
    } else if config.tls.acme.is_some() {
        (folder.join("acme/certificate.pem"), folder.join("acme/private_key.pem"))
    } else {
        (folder.join("self-signed.pem"), folder.join("self-signed.key.pem"))
    }
}

fn text(config: &Config, template: &str) -> String {
    let state = config.paths.state.to_string_lossy();
    let mail = config.paths.mail.to_string_lossy();
    let (certificate, key) = pair(config);
    template
        .replace(STATE, &state)
        .replace(MAIL, &mail)
        .replace(&format!("{state}/tls/self-signed.pem"), &certificate.to_string_lossy())
        .replace(&format!("{state}/tls/self-signed.key.pem"), &key.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_those_of_this_server() {
        let mut config = Config::default();
        assert_eq!(text(&config, FOR_2_3), FOR_2_3);
        config.paths.state = "/srv/state".into();
        config.paths.mail = "/srv/mail".into();
        for template in [FOR_2_3, FOR_2_4] {
            let text = text(&config, template);
            assert!(text.contains("/srv/state/dovecot/users") && !text.contains(STATE) && !text.contains(MAIL));
            assert!(text.contains("/srv/state/tls/self-signed.pem") && text.contains("/srv/state/tls/self-signed.key.pem"));
        }
        config.tls.acme = Some(pillarbox_config::Acme::default());
        assert!(text(&config, FOR_2_3).contains("ssl_key = </srv/state/tls/acme/private_key.pem"));
        config.tls.certificate = "/etc/ssl/mail.pem".into();
        config.tls.private_key = "/etc/ssl/mail.key".into();
        for template in [FOR_2_3, FOR_2_4] {
            let text = text(&config, template);
            assert!(
                text.contains("/etc/ssl/mail.pem\n") && text.contains("/etc/ssl/mail.key\n") && !text.contains("self-signed"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_syntax_is_that_of_the_installed_version() {
        assert_eq!(template("2.3.19.1 (9b53102964)\n"), FOR_2_3);
        assert_eq!(template("2.4.1-4 (7d8c0e5759)\n"), FOR_2_4);
        assert_eq!(template(""), FOR_2_3);
    }
}
