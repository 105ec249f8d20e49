//! Handing a message to the daemon, or to the drop folder when it cannot be asked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use pillarbox_config::Config;
use pillarbox_control::api::{LocalEnvelope, Submitted};
use pillarbox_control::local_mail::drop_folder;
use pillarbox_control::{Client, ClientError, Kind, socket_path};

use super::spool::Spool;
use super::sysexits;
use crate::failure::Failure;

/// A large message on a busy disk.
const PATIENCE: Duration = Duration::from_secs(600);

/// Who runs this program, as the system knows it.
pub(super) fn login() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid{uid}"), |user| user.name)
}

/// Returns once the message is safe: with the daemon, or in the drop folder.
pub(super) async fn hand_in(config: &Config, envelope: &LocalEnvelope, spool: &mut Spool) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(envelope).map_err(|e| Failure::new(sysexits::DATA, e.to_string()))?;
    line.push(b'\n');
    match Client::daemon(&socket_path(&config.paths.runtime)).await {
        Ok(Some(client)) => {
            let stream = spool.stream(line.clone()).map_err(|e| unreadable(&e))?;
            let body = axum::body::Body::from_stream(stream);
            match client.json::<Submitted>(Method::POST, "/v1/submit", body, PATIENCE).await {
                Ok(done) => {
                    for refused in &done.refused {
                        anstream::eprintln!("sendmail: {}", crate::out::safe(refused));
                    }
                    Ok(())
                }
                // The daemon went away or cannot take it now.
                Err(ClientError::Unreachable { .. } | ClientError::Garbled(_)) => drop_in(config, &line, spool),
                Err(ClientError::Api(error)) if error.kind == Kind::Unavailable && !envelope.deliver => drop_in(config, &line, spool),
                Err(error) => Err(refused(&error)),
            }
        }
        Ok(None) | Err(_) => drop_in(config, &line, spool),
    }
}

fn refused(error: &ClientError) -> Failure {
    let code = match error {
        ClientError::Api(api) => match api.kind {
            Kind::Usage => sysexits::DATA,
            Kind::NotFound => sysexits::NO_USER,
            Kind::Unavailable => sysexits::TEMPORARY,
            Kind::Denied | Kind::Exists | Kind::Refused => sysexits::REFUSED,
        },
        _ => sysexits::TEMPORARY,
    };
    Failure::new(code, error.to_string())
}

pub(super) fn unreadable(error: &io::Error) -> Failure {
    Failure::new(sysexits::IO, format!("cannot read the message: {error}"))
}

/// Writes the message into the drop folder; safe once this returns.
fn drop_in(config: &Config, line: &[u8], spool: &mut Spool) -> Result<(), Failure> {
    let folder = drop_folder(&config.paths.state);
    write(&folder, line, spool).map_err(|e| {
        let what = format!("the daemon cannot be asked and the drop folder {} cannot be written: {e}", folder.display());
        let code = if e.kind() == io::ErrorKind::NotFound { sysexits::TEMPORARY } else { sysexits::CANNOT_CREATE };
        Failure::new(code, format!("{what}; start the daemon once as root, which makes the folder"))
    })
}

fn write(folder: &Path, line: &[u8], spool: &mut Spool) -> io::Result<()> {
    let now = pillarbox_control::api::now_millis();
    let name = format!("{now:015}-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let (temporary, last) = (folder.join(format!("tmp-{name}")), folder.join(format!("new-{name}")));
    // The daemon, which is another user, must be able to read it; the folder lets nobody else look.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    let written = fill(&file, line, spool).and_then(|()| std::fs::rename(&temporary, &last)).and_then(|()| sync(folder, &file));
    if written.is_err() {
        // What is left is thrown out by the daemon after a day in any case.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn fill(file: &File, line: &[u8], spool: &mut Spool) -> io::Result<()> {
    let mut out = io::BufWriter::new(file);
    spool.write_to(line, &mut out)?;
    io::Write::flush(&mut out)?;
    drop(out);
    use std::os::unix::fs::PermissionsExt;
    // Whatever the caller's umask took away.
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.sync_all()
}

/// Makes the rename durable. Who may not list the folder cannot open it to sync it, and syncs the file system instead.
fn sync(folder: &Path, file: &File) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(rustix::fs::syncfs(file)?),
        Err(e) => Err(e),
    }
}
