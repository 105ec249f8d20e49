//! `restore`: the way back, onto a new machine or over a broken one, while no daemon runs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use pillarbox_config::{Config, DEFAULT_PATH};
use pillarbox_control::api::{ApplyInfo, now_millis};
use pillarbox_control::local::make_folder;
use pillarbox_control::{Client, socket_path};

use super::DIRECTORY;
use super::read::{check, each, text_of};
use crate::failure::{Failure, Trying};
use crate::out::{safe, size};
use crate::prompt::consent;
use crate::session::Session;

/// A million users take their time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Puts everything back. The directory becomes that of the backup; a queue that is there is set aside; mail that is there stays.
pub(crate) async fn restore(session: &Session, path: &Path, yes: bool) -> Result<(), Failure> {
    // Opened once: the archive may be readable by root alone, and root is given up below.
    let archive = File::open(path).trying(format!("read {}", path.display()))?;
    let seen = check(path, &archive)?;
    let config_file = session.file.clone().unwrap_or_else(|| DEFAULT_PATH.into());
    let config = configuration(session, path, &archive, &config_file)?;
    if let Ok(Some(_)) = Client::daemon(&socket_path(&config.paths.runtime)).await {
        return Err(Failure::failed(
            "the daemon runs; stop it first (`systemctl stop pillarbox`), since what it holds would be written over",
        ));
    }
    let question = format!(
        "Make this server what {} was on {} ({} files, {})? Its domains, users, keys and queue are replaced; mail that is there stays.",
        safe(&seen.manifest.hostname),
        safe(&seen.manifest.created),
        seen.entries,
        size(seen.octets)
    );
    consent(yes, &question)?;
    let directory = text_of(path, &archive, DIRECTORY)?.ok_or_else(|| Failure::failed("the backup holds no directory"))?;
    for folder in [&config.paths.state, &config.paths.mail] {
        make_folder(folder).trying(format!("make {}", folder.display()))?;
    }
    let api = session.api_of(&config).await?;
    let plan: ApplyInfo = api.json(Method::POST, "/v1/apply?prune=true", directory.into(), PATIENCE).await?;
    let aside = set_queue_aside(&config.paths.state)?;
    let restored = files(path, &archive, &config)?;

    if session.out.json {
        let value = serde_json::json!({ "changes": plan.changes.len(), "files": restored, "old_queue": aside });
        return session.out.value(&value);
    }
    session.out.line(format!("{} changes to the directory, {restored} files put back.", plan.changes.len()))?;
    if let Some(aside) = aside {
        session.out.line(format!("The queue that was here is now {}.", aside.display()))?;
    }
    session.out.line("Start the server: systemctl start pillarbox")
}

/// The configuration that is there, or else the backup's. One that differs from the backup's stays, and the backup's is put beside it.
fn configuration(session: &Session, path: &Path, archive: &File, file: &Path) -> Result<Config, Failure> {
    let kept = text_of(path, archive, "config/pillarbox.toml")?.unwrap_or_default();
    let here = match std::fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Failure::failed(format!("cannot read {}: {e}", file.display()))),
    };
    match here {
        None => {
            put(file, kept.as_bytes()).trying(format!("write {}", file.display()))?;
        }
        Some(here) if here != kept => {
            let beside = file.with_extension("toml.from-backup");
            match put(&beside, kept.as_bytes()) {
                Ok(()) if !session.out.json => {
                    session.out.line(format!("{} stays; that of the backup is {}.", file.display(), beside.display()))?
                }
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::failed(format!("cannot write {}: {e}", beside.display()))),
            }
        }
        Some(_) => {}
    }
    Ok(Config::load(Some(file))?)
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()
}

/// Renames a queue that is there, so that nothing in it is lost or mixed up.
fn set_queue_aside(state: &Path) -> Result<Option<PathBuf>, Failure> {
    let queue = state.join("queue");
    let empty = std::fs::read_dir(&queue).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        return Ok(None);
    }
    let aside = state.join(format!("queue.before-restore-{}", now_millis() / 1000));
    std::fs::rename(&queue, &aside).trying(format!("set {} aside", queue.display()))?;
    Ok(Some(aside))
}

/// Keys, certificates, queue and mail into their folders. Returns how many files.
fn files(path: &Path, archive: &File, config: &Config) -> Result<u64, Failure> {
    let (mut count, mut mailbox) = (0, None);
    each(path, archive, |name, content| {
        let target = match name.split_once('/') {
            Some(("state", rest)) => config.paths.state.join(rest),
            Some(("queue", rest)) => config.paths.state.join("queue").join(rest),
            Some(("mail", rest)) => config.paths.mail.join(rest),
            _ => return Ok(()),
        };
        let keep = name.starts_with("mail/") && target.exists();
        // The archive holds files; a Maildir has three folders, full or empty, and programs that read it want them all. Files come folder by folder.
        if let Some(folder) = name.strip_prefix("mail/").and_then(maildir)
            && mailbox.as_deref() != Some(folder)
        {
            for part in ["tmp", "new", "cur"] {
                DirBuilder::new().recursive(true).mode(0o700).create(config.paths.mail.join(folder).join(part))?;
            }
            mailbox = Some(folder.to_owned());
        }
        if !keep {
            extract(&target, content)?;
            count += 1;
        }
        Ok(())
    })?;
    for folder in [&config.paths.state, &config.paths.mail] {
        // One flush of the file system for all of them.
        File::open(folder).and_then(|f| Ok(rustix::fs::syncfs(&f)?)).trying(format!("make {} durable", folder.display()))?;
    }
    Ok(count)
}

/// The mailbox that a file of the mail folder lies in: `DOMAIN/LOCAL/Maildir`, or a folder `.Name` in it.
fn maildir(name: &str) -> Option<&str> {
    let inside = name.find("/Maildir/")? + "/Maildir/".len();
    let rest = name.get(inside..)?;
    let folder = if rest.starts_with('.') { rest.find('/').unwrap_or(0) } else { 0 };
    name.get(..inside + folder).map(|found| found.trim_end_matches('/'))
}

/// Written under another name first, so that an interrupted restore leaves whole files only.
fn extract(target: &Path, content: &mut dyn Read) -> io::Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::Builder::new().prefix(".restore").tempfile_in(folder)?;
    io::copy(content, file.as_file_mut())?;
    file.persist(target).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lies_in_the_inbox_or_in_a_folder() {
        for (file, mailbox) in [
            ("example.org/bob/Maildir/cur/1.x:2,S", Some("example.org/bob/Maildir")),
            ("example.org/bob/Maildir/subscriptions", Some("example.org/bob/Maildir")),
            ("example.org/bob/Maildir/.uidvalidity", Some("example.org/bob/Maildir")),
            ("example.org/bob/Maildir/.Sent.2026/new/1.x", Some("example.org/bob/Maildir/.Sent.2026")),
            ("example.org/bob/sieve/a.sieve", None),
        ] {
            assert_eq!(maildir(file), mailbox, "{file}");
        }
    }
}
