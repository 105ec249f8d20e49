//! The drop folder, STATE/drop: mail of programs that may not speak to the control socket, or that found no daemon.
//!
//! Every user may put a file in (mode 1733, like a post box), nobody but the daemon may look in or take one out. A file is written under a name
//! that begins with `tmp-`, synced, and renamed to begin with `new-`: so the daemon never sees half of one. Who sends is the file's owner, whatever
//! the envelope inside says. What is not a plain file of that owner alone (a symbolic or hard link, a pipe) is thrown out unread.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::unistd::{Uid, User};
use pillarbox_smtp::Severity;
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::notice::tell;
use super::{LocalError, accept};
use crate::admin::Admin;
use crate::api::LocalEnvelope;
use crate::error::{ApiError, Kind};

/// The folder's mode: everybody puts in, nobody looks.
pub const DROP_MODE: u32 = 0o1733;
/// How often the folder is looked at even when nothing is reported from it; also the wait before a temporary failure is tried again.
const INTERVAL: Duration = Duration::from_secs(60);
/// A `tmp-` file this old was left by a program that died.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);
/// Room for the envelope beside the message.
const ENVELOPE_ROOM: u64 = 1 << 20;

/// The drop folder of a state folder.
pub fn drop_folder(state: &Path) -> PathBuf {
    state.join("drop")
}

/// Makes the folder and takes in what is and will be dropped, until `shutdown`.
pub async fn watch(admin: Arc<Admin>, shutdown: CancellationToken) -> io::Result<()> {
    let state = admin.config().paths.state.clone();
    let folder = drop_folder(&state);
    prepare(&state, &folder)?;
    let mut watcher = Watcher::new(&folder);
    loop {
        take_all(&admin, &folder).await;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = watcher.changed() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// The folder with its mode. The state folder must let everybody through to it, though nobody may list it; all else in it is closed by its own mode.
fn prepare(state: &Path, folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    if !std::fs::symlink_metadata(folder)?.is_dir() {
        return Err(io::Error::new(ErrorKind::NotADirectory, format!("{} is not a folder", folder.display())));
    }
    std::fs::set_permissions(folder, Permissions::from_mode(DROP_MODE))?;
    let mode = std::fs::metadata(state)?.mode() & 0o7777;
    if mode & 0o011 != 0o011 {
        std::fs::set_permissions(state, Permissions::from_mode(mode | 0o011))?;
    }
    Ok(())
}

/// Says when something was moved into the folder. Without inotify (a limit reached) it never does, and the interval serves.
struct Watcher(Option<Arc<OwnedFd>>);

impl Watcher {
    fn new(folder: &Path) -> Self {
        let open = || -> io::Result<Arc<OwnedFd>> {
            let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(&fd, folder, inotify::WatchFlags::MOVED_TO)?;
            Ok(Arc::new(fd))
        };
        Self(open().inspect_err(|error| tracing::warn!(%error, "the drop folder cannot be watched; it is looked at once a minute")).ok())
    }

    /// Waits on the blocking pool, a second at a time so that a shut-down is not held up.
    async fn changed(&mut self) {
        let Some(fd) = &self.0 else { return std::future::pending().await };
        loop {
            let fd = fd.clone();
            match tokio::task::spawn_blocking(move || wait(&fd)).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => return,
                Ok(Err(_)) | Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// Whether an event came within a second; takes all that did.
fn wait(fd: &OwnedFd) -> io::Result<bool> {
    let mut polled = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    match rustix::event::poll(&mut polled, Some(&second)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut events = [0u8; 4096];
    loop {
        match rustix::io::read(fd, &mut events) {
            Ok(n) if n > 0 => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn take_all(admin: &Admin, folder: &Path) {
    let names = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())),
        Err(error) => {
            tracing::error!(%error, folder = %folder.display(), "the drop folder cannot be read");
            return;
        }
    };
    let mut paths: Vec<PathBuf> = names.collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if name.starts_with("new-") {
            take_one(admin, &path).await;
        } else if !name.starts_with("refused-") {
            forget_left_behind(&path);
        }
    }
}

fn forget_left_behind(path: &Path) {
    let age = std::fs::symlink_metadata(path).ok().and_then(|m| m.modified().ok()).and_then(|t| SystemTime::now().duration_since(t).ok());
    if age.is_some_and(|age| age > LEFT_BEHIND) {
        throw_out(path, "was left behind by a program that died");
    }
}

fn throw_out(path: &Path, why: &str) {
    let name = pillarbox_smtp::printable(path.to_string_lossy().as_bytes());
    tracing::warn!(file = name, "dropped file thrown out: it {why}");
    let result = if path.is_dir() && !path.is_symlink() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(error) = result {
        tracing::warn!(file = name, %error, "dropped file cannot be removed");
    }
}

/// Opens a file that anybody may have put there, and says whose it is.
fn open(path: &Path, limit: u64) -> Result<(File, u32), String> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC).bits();
    let flags = i32::try_from(flags).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("cannot be looked at: {e}"))?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err("is not a plain file of its own".into());
    }
    if meta.len() > limit {
        return Err(format!("is larger than a message may be ({} octets)", meta.len()));
    }
    Ok((file, meta.uid()))
}

async fn take_one(admin: &Admin, path: &Path) {
    let limit = admin.config().limits.message_size.bytes().saturating_add(ENVELOPE_ROOM);
    let (file, uid) = match open(path, limit) {
        Ok(opened) => opened,
        Err(why) => return throw_out(path, &why),
    };
    let login = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
    match submit(admin, file, &login).await {
        Ok(()) => {}
        Err(LocalError::Refused(refused)) if refused.reply.severity() == Severity::Transient => return,
        Err(LocalError::Api(error)) if error.kind == Kind::Unavailable => return,
        Err(error) => return refuse(path, &error),
    }
    if let Err(error) = std::fs::remove_file(path) {
        tracing::error!(%error, file = %path.display(), "a dropped message was taken but its file cannot be removed; it may be taken again");
    }
}

/// Reads the file from its beginning and hands it over. Nobody waits for the answer, so a message of which every recipient is refused is
/// returned by mail too.
async fn submit(admin: &Admin, mut file: File, login: &str) -> Result<(), LocalError> {
    let unreadable = |e: io::Error| ApiError::unavailable(format!("the dropped file cannot be read: {e}"));
    let copy = file.try_clone().map_err(unreadable)?;
    let stream = ReaderStream::new(tokio::fs::File::from_std(copy));
    match accept(admin, stream, Some(login.to_owned())).await {
        Ok(_) => Ok(()),
        Err(LocalError::Refused(refused)) if refused.reply.severity() == Severity::Permanent => {
            let sender = envelope(&mut file).map_err(unreadable)?.from;
            tell(admin, &sender, login, &[refused]).await
        }
        Err(other) => Err(other),
    }
}

/// The envelope alone.
fn envelope(file: &mut File) -> io::Result<LocalEnvelope> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(ENVELOPE_ROOM)).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line).map_err(io::Error::other)
}

/// Neither taken nor returned: kept beside the others, where an administrator finds it.
fn refuse(path: &Path, error: &LocalError) {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let aside = path.with_file_name(format!("refused-{name}"));
    tracing::error!(file = %aside.display(), %error, "a dropped message was refused and is kept there");
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::error!(%error, "it cannot be renamed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("new-1");
        std::fs::write(&plain, "x").unwrap();
        assert!(open(&plain, 10).is_ok());
        assert!(open(&plain, 0).is_err());
        let link = folder.path().join("new-2");
        std::os::unix::fs::symlink(&plain, &link).unwrap();
        assert!(open(&link, 10).is_err());
        std::fs::hard_link(&plain, folder.path().join("new-3")).unwrap();
        assert!(open(&plain, 10).is_err());
        assert!(open(folder.path(), 10).is_err());
        let pipe = folder.path().join("new-4");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&pipe, 10).is_err());
    }

    #[test]
    fn the_folder_takes_from_everybody_and_shows_to_nobody() {
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o700)).unwrap();
        let folder = drop_folder(state.path());
        prepare(state.path(), &folder).unwrap();
        prepare(state.path(), &folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o7777, DROP_MODE);
        assert_eq!(std::fs::metadata(state.path()).unwrap().mode() & 0o7777, 0o711);
    }
}
