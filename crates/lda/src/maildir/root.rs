//! The mail folder: opening and creating Maildirs below it without ever following a symbolic link.
//!
//! Every step from the mail folder down is one `openat` with `O_NOFOLLOW | O_DIRECTORY`, so a link planted at a domain, a user, `Maildir`, a folder, `tmp`,
//! `new` or `cur` is refused, not followed; `..` cannot occur (see [`super::path`]). Whoever wants a domain on another disk mounts it there.
//! Open directories are kept for the next message, in a bounded number.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use maildir::Maildir;
use parking_lot::Mutex;
use pillarbox_smtp::Mailbox;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, fsync, mkdirat, openat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::device::{Device, Devices};
use super::error::StoreError;
use super::path::maildir_path;
use crate::quota::maildirsize::Kept;

/// Maildirs kept open; each takes three descriptors.
const KEPT_OPEN: usize = 256;

/// Flags for every directory below the mail folder.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mail folder.
#[derive(Debug)]
pub struct MailRoot {
    path: PathBuf,
    fd: OwnedFd,
    devices: Devices,
    owner: Owner,
    open: Mutex<OpenMaildirs>,
}

/// One Maildir, the inbox's or a folder's, with its directories open.
#[derive(Debug)]
pub struct MaildirHandle {
    /// Below the mail folder, for messages.
    pub(crate) path: PathBuf,
    /// The directory that holds `tmp`, `new` and `cur`.
    pub(crate) base: OwnedFd,
    pub(crate) tmp: OwnedFd,
    pub(crate) new: OwnedFd,
    /// The file system it is on.
    pub device: Arc<Device>,
    owner: Owner,
    /// Device and inode of `base`.
    identity: (u64, u64),
    /// Its own directories, up to the mail folder, survive a power cut.
    rooted: AtomicBool,
    /// What `maildirsize` said; locked while a quota is read, used and written, so that two threads do not count past each other.
    pub(crate) quota: Mutex<Kept>,
}

/// Who must own what is created: `None` when that is whoever creates it. An administrator's import runs as root, and the daemon must be able to read what it leaves.
type Owner = Option<(Uid, Gid)>;

/// What to do about a Maildir that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Create it, mode 0700.
    Create,
    /// Answer `None`.
    Report,
}

#[derive(Debug, Default)]
struct OpenMaildirs {
    handles: HashMap<PathBuf, (Arc<MaildirHandle>, u64)>,
    clock: u64,
}

impl MailRoot {
    /// Opens the mail folder, creating it (mode 0700) when it is missing. The configured path itself may lead over symbolic links: it is the administrator's.
    ///
    /// # Errors
    /// When it cannot be created or opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.exists() {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let fd: OwnedFd = std::fs::File::open(path)?.into();
        let devices = Devices::default();
        devices.of(&fd)?;
        let seen = fstat(&fd)?;
        let foreign = geteuid().is_root() && seen.st_uid != 0;
        let owner = foreign.then(|| (Uid::from_raw(seen.st_uid), Gid::from_raw(seen.st_gid)));
        Ok(Self { owner, path: path.to_owned(), fd, devices, open: Mutex::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the folder that is held open.
    pub fn is_in_place(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let held = fstat(&self.fd).map(|stat| (stat.st_dev, stat.st_ino));
        let there = std::fs::metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        matches!((held, there), (Ok(held), Ok(there)) if held == there)
    }

    /// The file systems mail was stored on.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// A user's inbox. `None` only with [`Missing::Report`].
    ///
    /// # Errors
    /// A symbolic link on the way, no permission, a full disk.
    pub fn inbox(&self, user: &Mailbox, missing: Missing) -> Result<Option<Arc<MaildirHandle>>, StoreError> {
        self.handle(maildir_path(user)?, missing)
    }

    /// A folder of a user by its file name (`.Junk`, see [`super::folder`]).
    ///
    /// # Errors
    /// As for [`MailRoot::inbox`].
    pub fn folder(&self, user: &Mailbox, file_name: &str, missing: Missing) -> Result<Option<Arc<MaildirHandle>>, StoreError> {
        let mut path = maildir_path(user)?;
        path.push(file_name);
        self.handle(path, missing)
    }

    /// Creates a user's Maildir, durable when this returns. For `user add`, so that Dovecot finds it before the first message comes.
    ///
    /// # Errors
    /// As for [`MailRoot::inbox`].
    pub fn create(&self, user: &Mailbox) -> Result<(), StoreError> {
        match self.inbox(user, Missing::Create)? {
            Some(inbox) => self.sync_way(&inbox.path),
            None => Ok(()),
        }
    }

    /// Makes the directories of an open Maildir survive a power cut, as those of one that was created a moment ago may not.
    ///
    /// # Errors
    /// When one of them cannot be synced.
    pub(crate) fn make_way_durable(&self, handle: &MaildirHandle) -> Result<(), StoreError> {
        if !handle.rooted.load(Ordering::Acquire) {
            self.sync_way(&handle.path)?;
            handle.rooted.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Syncs a directory below the mail folder and all those above it.
    fn sync_way(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |errno| StoreError::errno("syncing", path.display().to_string(), errno);
        for path in path.ancestors() {
            let directory = self.walk(path, Missing::Report)?.ok_or_else(|| failed(Errno::NOENT))?;
            fsync(&directory).map_err(failed)?;
        }
        Ok(())
    }

    fn handle(&self, path: PathBuf, missing: Missing) -> Result<Option<Arc<MaildirHandle>>, StoreError> {
        let kept = self.open.lock().get(&path);
        if let Some(kept) = kept {
            // Someone may have moved the folder away or restored another since: the path must still lead to what is open. Whether it leads there
            // over a link does not matter here, since the open directory was reached without.
            if let Ok(now) = statat(&self.fd, &path, AtFlags::SYMLINK_NOFOLLOW)
                && kept.identity == (now.st_dev, now.st_ino)
            {
                return Ok(Some(kept));
            }
        }
        self.forget(&path);
        let opened = match self.open_maildir(&path, missing) {
            Err(e) if matches!(e.raw(), Some(Errno::MFILE | Errno::NFILE)) => {
                *self.open.lock() = OpenMaildirs::default();
                self.open_maildir(&path, missing)?
            }
            other => other?,
        };
        let Some(handle) = opened.map(Arc::new) else { return Ok(None) };
        let mut open = self.open.lock();
        // Another thread may have been quicker. All must share one handle, since its locks keep them from counting past each other.
        if let Some(kept) = open.get(&path).filter(|kept| kept.identity == handle.identity) {
            return Ok(Some(kept));
        }
        open.put(path, Arc::clone(&handle));
        Ok(Some(handle))
    }

    /// Closes a Maildir that turned out to be gone, so that the next look opens it anew.
    pub(crate) fn forget(&self, path: &Path) {
        self.open.lock().handles.remove(path);
    }

    fn open_maildir(&self, path: &Path, missing: Missing) -> Result<Option<MaildirHandle>, StoreError> {
        let Some(base) = self.walk(path, missing)? else { return Ok(None) };
        let device =
            self.devices.of(&base).map_err(|source| StoreError::Io { doing: "examining", what: path.display().to_string(), source })?;
        let opened = (subdirectory(&base, path, "tmp")?, subdirectory(&base, path, "new")?, subdirectory(&base, path, "cur")?);
        let (tmp, new) = match (opened, missing) {
            ((Some(tmp), Some(new), Some(_)), _) => (tmp, new),
            (_, Missing::Report) => return Ok(None),
            (_, Missing::Create) => {
                create_maildir(&base, path, self.owner)?;
                device.mark_dirty();
                if device.is_remote() {
                    self.sync_way(path)?;
                }
                let gone = || StoreError::errno("opening", path.display().to_string(), Errno::NOENT);
                let tmp = subdirectory(&base, path, "tmp")?.ok_or_else(gone)?;
                let new = subdirectory(&base, path, "new")?.ok_or_else(gone)?;
                subdirectory(&base, path, "cur")?.ok_or_else(gone)?;
                (tmp, new)
            }
        };
        let seen = fstat(&base).map_err(|errno| StoreError::errno("examining", path.display().to_string(), errno))?;
        let identity = (seen.st_dev, seen.st_ino);
        Ok(Some(MaildirHandle {
            path: path.to_owned(),
            base,
            tmp,
            new,
            device,
            owner: self.owner,
            identity,
            rooted: AtomicBool::new(false),
            quota: Mutex::default(),
        }))
    }

    /// Walks down from the mail folder, one component at a time.
    fn walk(&self, path: &Path, missing: Missing) -> Result<Option<OwnedFd>, StoreError> {
        let describe = |errno, doing| StoreError::errno(doing, path.display().to_string(), errno);
        let mut at: Option<OwnedFd> = None;
        for component in path.components() {
            let Component::Normal(name) = component else { return Err(describe(Errno::INVAL, "opening")) };
            let parent = at.as_ref().unwrap_or(&self.fd).as_fd();
            let opened = match openat(parent, name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) if missing == Missing::Report => return Ok(None),
                Err(Errno::NOENT) => {
                    match mkdirat(parent, name, Mode::RWXU) {
                        Ok(()) => {
                            if let Some((uid, gid)) = self.owner {
                                chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                                    .map_err(|errno| describe(errno, "giving away"))?;
                            }
                        }
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(describe(errno, "creating")),
                    }
                    openat(parent, name, DIRECTORY, Mode::empty())
                }
                other => other,
            };
            at = Some(opened.map_err(|errno| describe(errno, "opening"))?);
        }
        match at {
            Some(fd) => Ok(Some(fd)),
            None => self.fd.try_clone().map(Some).map_err(|source| StoreError::Io { doing: "opening", what: String::new(), source }),
        }
    }
}

/// Opens `tmp`, `new` or `cur`.
fn subdirectory(base: &OwnedFd, path: &Path, name: &str) -> Result<Option<OwnedFd>, StoreError> {
    match openat(base, name, DIRECTORY, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(StoreError::errno("opening", path.join(name).display().to_string(), errno)),
    }
}

/// Lets the `maildir` crate create `tmp`, `new` and `cur`, and closes its gaps: modes whatever the umask, and no link followed (the caller opens each with
/// `O_NOFOLLOW` afterwards).
fn create_maildir(base: &OwnedFd, path: &Path, owner: Owner) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { doing: "creating", what: path.display().to_string(), source };
    reader(base).create_dirs().map_err(failed)?;
    for name in maildir::MAILDIR_FOLDER_LIST {
        if let Some(fd) = subdirectory(base, path, name)? {
            fchmod(&fd, Mode::RWXU).map_err(|errno| failed(errno.into()))?;
            if let Some((uid, gid)) = owner {
                fchown(&fd, Some(uid), Some(gid)).map_err(|errno| failed(errno.into()))?;
            }
        }
    }
    Ok(())
}

/// The `maildir` crate's view of an open directory. The path goes through `/proc`, so it names the directory we opened, whatever stands at its path by now.
/// `base` must stay open while the view is used.
pub(crate) fn reader(base: &OwnedFd) -> Maildir {
    Maildir::from(PathBuf::from(format!("/proc/self/fd/{}", base.as_raw_fd())))
}

impl MaildirHandle {
    /// The `maildir` crate's view of it, for reading.
    pub(crate) fn reader(&self) -> Maildir {
        reader(&self.base)
    }

    /// Gives a file just created to the owner of the mail folder.
    pub(crate) fn own(&self, file: &OwnedFd) -> Result<(), StoreError> {
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        fchown(file, Some(uid), Some(gid))
            .map_err(|errno| StoreError::errno("giving away a file in", self.path.display().to_string(), errno))
    }

    /// Opens `cur`.
    pub(crate) fn cur(&self) -> Result<OwnedFd, StoreError> {
        let gone = || StoreError::errno("opening", self.path.join("cur").display().to_string(), Errno::NOENT);
        subdirectory(&self.base, &self.path, "cur")?.ok_or_else(gone)
    }
}

impl OpenMaildirs {
    fn get(&mut self, path: &Path) -> Option<Arc<MaildirHandle>> {
        self.clock += 1;
        let (handle, used) = self.handles.get_mut(path)?;
        *used = self.clock;
        Some(Arc::clone(handle))
    }

    fn put(&mut self, path: PathBuf, handle: Arc<MaildirHandle>) {
        self.clock += 1;
        if self.handles.len() >= KEPT_OPEN {
            // A quarter goes at once, so that a store with more users than this does not search for the oldest at every message.
            let mut ages: Vec<u64> = self.handles.values().map(|(_, used)| *used).collect();
            let (_, limit, _) = ages.select_nth_unstable(KEPT_OPEN / 4);
            let limit = *limit;
            self.handles.retain(|_, (_, used)| *used > limit);
        }
        self.handles.insert(path, (handle, self.clock));
    }
}
