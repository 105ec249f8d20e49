//! Which certificate the server begins with: one it signs itself, one from Let's Encrypt, or files that are there.

use std::path::{Path, PathBuf};

use dialoguer::{Input, Select};
use pillarbox_config::Config;
use pillarbox_control::api::Probe;
use pillarbox_control::dns::spki_sha256;

use crate::args::Setup;
use crate::failure::{Failure, Trying};

/// Where the certificate comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    SelfSigned,
    Acme,
    Files { certificate: PathBuf, key: PathBuf },
}

/// As the options say, or the administrator, or the one that needs nothing.
pub(super) fn choose(setup: &Setup, ask: bool) -> Result<Choice, Failure> {
    if setup.acme {
        return Ok(Choice::Acme);
    }
    if let (Some(certificate), Some(key)) = (&setup.certificate, &setup.private_key) {
        return files(certificate.clone(), key.clone());
    }
    if !ask {
        return Ok(Choice::SelfSigned);
    }
    let ways = [
        "signed by itself (mail programs warn; change it later)",
        "from Let's Encrypt (needs port 80 from outside, and the hostname in DNS)",
        "files that are there",
    ];
    let chosen =
        Select::new().with_prompt("The server's certificate").items(ways).default(0).interact().trying("ask for the certificate")?;
    match chosen {
        0 => Ok(Choice::SelfSigned),
        1 => Ok(Choice::Acme),
        _ => files(path("File of the certificate (PEM)")?, path("File of its private key (PEM)")?),
    }
}

fn path(prompt: &str) -> Result<PathBuf, Failure> {
    let text: String = Input::new().with_prompt(prompt).interact_text().trying("ask for a file")?;
    Ok(text.trim().into())
}

/// Files that hold what they should; the daemon finds out whether they are a pair.
fn files(certificate: PathBuf, key: PathBuf) -> Result<Choice, Failure> {
    let absolute = |path: PathBuf| std::path::absolute(&path).trying(format!("find {}", path.display()));
    let (certificate, key) = (absolute(certificate)?, absolute(key)?);
    if let Err(why) = look(&certificate, &key) {
        return Err(Failure::usage(why));
    }
    Ok(Choice::Files { certificate, key })
}

fn look(certificate: &Path, key: &Path) -> Result<(), String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    if spki_sha256(&read(certificate)?).is_none() {
        return Err(format!("{} holds no certificate (PEM)", certificate.display()));
    }
    let text = read(key)?;
    if !text.windows(12).any(|window| window == b"PRIVATE KEY-") {
        return Err(format!("{} holds no private key (PEM)", key.display()));
    }
    Ok(())
}

/// What the configuration says of it.
pub(super) fn probe(config: &Config) -> Probe {
    let name = "certificate";
    if !config.tls.certificate.as_os_str().is_empty() {
        return match look(&config.tls.certificate, &config.tls.private_key) {
            Ok(()) => Probe::ok(name, config.tls.certificate.display().to_string()),
            Err(why) => Probe::fail(name, why, "correct tls.certificate and tls.private_key"),
        };
    }
    match &config.tls.acme {
        Some(acme) => Probe::ok(name, format!("ordered from {} once the server runs", acme.directory)),
        None => Probe::warn(
            name,
            "the server signs one itself, of which mail programs warn",
            "set [tls.acme], or name your own in tls.certificate and tls.private_key",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_control::api::Grade;
    use pillarbox_testkit::certificates::self_signed;

    #[test]
    fn files_that_hold_something_else_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = self_signed(&["mail.example.org"]).write(folder.path(), "mail");
        let mut config = Config::default();
        assert_eq!(probe(&config).grade, Grade::Warn);
        assert_eq!(files(certificate.clone(), key.clone()).unwrap(), Choice::Files { certificate: certificate.clone(), key: key.clone() });
        for (certificate, key, why) in [
            (&key, &key, "holds no certificate"),
            (&certificate, &certificate, "holds no private key"),
            (&certificate, &"/nowhere".into(), "/nowhere"),
        ] {
            (config.tls.certificate, config.tls.private_key) = (certificate.clone(), key.clone());
            let found = probe(&config);
            assert!(found.grade == Grade::Fail && found.found.contains(why), "{found:?}");
            assert!(files(certificate.clone(), key.clone()).unwrap_err().message.contains(why));
        }
    }
}
