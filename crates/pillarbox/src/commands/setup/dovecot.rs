//! The configuration for Dovecot, with this server's paths.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pillarbox_config::Config;

/// As shipped in `etc/dovecot`, for the default paths and the packaged user.
const TEMPLATE: &str = include_str!("../../../../../etc/dovecot/dovecot-2.3.conf");
/// The packaged paths.state.
const STATE: &str = "/var/lib/pillarbox";
/// The packaged paths.mail.
const MAIL: &str = "/var/vmail";

/// Writes `dovecot.conf` beside our own configuration, for the administrator to put in place. `None` when it is there already or cannot be written, which
/// is no reason to stop.
pub(super) fn write(config: &Config, folder: &Path) -> Option<PathBuf> {
    let path = folder.join("dovecot.conf");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path).ok()?;
    file.write_all(text(config).as_bytes()).ok()?;
    Some(path)
}

fn text(config: &Config) -> String {
    let state = config.paths.state.to_string_lossy();
    let mail = config.paths.mail.to_string_lossy();
    TEMPLATE.replace(STATE, &state).replace(MAIL, &mail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_those_of_this_server() {
        let mut config = Config::default();
        assert_eq!(text(&config), TEMPLATE);
        config.paths.state = "/srv/state".into();
        config.paths.mail = "/srv/mail".into();
        let text = text(&config);
        assert!(text.contains("/srv/state/dovecot/users") && !text.contains(STATE) && !text.contains(MAIL));
    }
}
