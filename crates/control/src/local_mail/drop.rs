//! The drop folder, STATE/drop: mail of programs that may not speak to the control socket, or that found no daemon.
//!
//! Every user may put a file in (mode 1733, like a post box), nobody but the daemon may look in or take one out. A file is written under a name
//! that begins with `tmp-`, synced, and renamed to begin with `new-`: so the daemon never sees half of one. Who sends is the file's owner, whatever
//! the envelope inside says. What is not a plain file of that owner alone (a symbolic or hard link, a pipe) is thrown out unread.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::unistd::{Uid, User};
use pillarbox_queue::QueueId;
use pillarbox_smtp::Severity;
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::claim::Claims;
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
/// Why some are thrown out.
const NOT_PLAIN: &str = "is not a plain file of its own";
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
    let mut taker = Taker::new(admin, folder.clone()).await?;
    let mut watcher = Watcher::new(&folder);
    loop {
        taker.take_all().await;
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

/// Takes in what was dropped.
struct Taker {
    admin: Arc<Admin>,
    folder: PathBuf,
    claims: Arc<Claims>,
    /// Messages that were taken and whose files could not be removed.
    taken: HashSet<QueueId>,
}

impl Taker {
    /// Settles what an earlier process left.
    async fn new(admin: Arc<Admin>, folder: PathBuf) -> io::Result<Self> {
        let claims = Claims::open(&admin.config().paths.state)?;
        claims.settle(admin.queue().map_err(io::Error::other)?).await?;
        Ok(Self { admin, folder, claims: Arc::new(claims), taken: HashSet::new() })
    }

    async fn take_all(&mut self) {
        let claimed = match self.claim().await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(%error, folder = %self.folder.display(), "dropped mail cannot be taken; it is tried again");
                return;
            }
        };
        for id in claimed {
            self.take_one(id).await;
        }
    }

    /// Claims what was dropped, throws out what is no file, and answers with all that is claimed.
    async fn claim(&self) -> io::Result<Vec<QueueId>> {
        let entries: Vec<PathBuf> = std::fs::read_dir(&self.folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        let named = |path: &Path, start: &str| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(start));
        let (mut dropped, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| named(path, "new-"));
        others.iter().filter(|path| !named(path, "refused-")).for_each(|path| forget_left_behind(path));
        dropped.retain(|path| {
            let plain = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
            if !plain {
                throw_out(path, NOT_PLAIN);
            }
            plain
        });
        dropped.sort();
        let (claims, queue) = (self.claims.clone(), self.admin.queue().map_err(io::Error::other)?.clone());
        tokio::task::spawn_blocking(move || {
            for (path, error) in claims.claim(&queue, dropped)? {
                tracing::error!(%error, file = pillarbox_smtp::printable(path.to_string_lossy().as_bytes()), "a dropped file cannot be moved");
            }
            claims.list()
        })
        .await
        .map_err(io::Error::other)?
    }

    async fn take_one(&mut self, id: QueueId) {
        let (admin, path) = (&*self.admin, self.claims.path(id));
        if !self.taken.contains(&id) {
            let limit = admin.config().limits.message_size.bytes().saturating_add(ENVELOPE_ROOM);
            let (file, uid) = match open(&path, limit) {
                Ok(opened) => opened,
                Err(why) => return throw_out(&path, &why),
            };
            let login = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
            // Until the file is gone, the queue must know of its message.
            let Ok(_remembered) = admin.queue().map(|queue| queue.remember()) else { return };
            match submit(admin, file, &login, id).await {
                Ok(()) => {}
                Err(LocalError::Refused(refused)) if refused.reply.severity() == Severity::Transient => return,
                Err(LocalError::Api(error)) if error.kind == Kind::Unavailable => return,
                Err(error) => return refuse(&path, &self.folder, id, &error),
            }
            return self.remove(id, &path);
        }
        self.remove(id, &path);
    }

    fn remove(&mut self, id: QueueId, path: &Path) {
        match std::fs::remove_file(path) {
            Ok(()) => _ = self.taken.remove(&id),
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "a dropped message was taken but its file cannot be removed; it is tried again");
                self.taken.insert(id);
            }
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
        return Err(NOT_PLAIN.into());
    }
    if meta.len() > limit {
        return Err(format!("is larger than a message may be ({} octets)", meta.len()));
    }
    Ok((file, meta.uid()))
}

/// Reads the file from its beginning and hands it over. Nobody waits for the answer, so a message of which every recipient is refused is
/// returned by mail too.
async fn submit(admin: &Admin, mut file: File, login: &str, id: QueueId) -> Result<(), LocalError> {
    let unreadable = |e: io::Error| ApiError::unavailable(format!("the dropped file cannot be read: {e}"));
    let copy = file.try_clone().map_err(unreadable)?;
    let stream = ReaderStream::new(tokio::fs::File::from_std(copy));
    match accept(admin, stream, Some((login.to_owned(), id))).await {
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

/// Neither taken nor returned: kept in the drop folder, where an administrator finds it.
fn refuse(path: &Path, folder: &Path, id: QueueId, error: &LocalError) {
    let aside = folder.join(format!("refused-{id}"));
    tracing::error!(file = %aside.display(), %error, "a dropped message was refused and is kept there");
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::error!(%error, "it cannot be renamed");
    }
}

#[cfg(test)]
#[path = "drop_tests.rs"]
mod tests;
