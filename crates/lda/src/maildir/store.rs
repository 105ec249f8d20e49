//! Storing one message: written in `tmp/`, renamed into `new/` or `cur/`, removed when anything fails.
//!
//! On a local file system nothing is synced here: the queue keeps the message until [`super::device::Devices::sync`] has made many of them durable at
//! once. A replay after a crash may find the name over a torn file; [`super::earlier`] looks for that.

use std::io;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, fsync, futimens, openat, renameat, unlinkat};
use rustix::io::{Errno, IoSlice};

use super::content::Content;
use super::device::Device;
use super::error::StoreError;
use super::name::{Sizes, UniqueName};
use super::root::MaildirHandle;

/// Where a message is put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// `new/`: not yet seen by any reader.
    #[default]
    New,
    /// `cur/`, with these flags (`S`, `R`, `F`, …, and Dovecot's keywords `a`–`z`).
    Cur {
        /// Letters only, in any order.
        flags: String,
    },
}

/// When a stored message survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the next [`super::device::Devices::sync`], with many others; on a file server as [`Durability::ByItself`].
    #[default]
    WithOthers,
    /// When it is said to be stored.
    ByItself,
}

/// How a message is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manner {
    /// Where.
    pub place: Place,
    /// The file's modification time, which IMAP shows as INTERNALDATE; `None`: now.
    pub date: Option<SystemTime>,
    /// When it is safe.
    pub durability: Durability,
}

/// A message that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name in `new/` or `cur/`.
    pub file_name: String,
    /// Its sizes.
    pub sizes: Sizes,
    /// It was there already, whole, from an earlier attempt: nothing was written, nothing is to be counted.
    pub found: bool,
}

impl Place {
    /// The info part of the file name.
    fn info(&self) -> String {
        match self {
            Self::New => String::new(),
            Self::Cur { flags } => {
                let mut letters: Vec<char> = flags.chars().filter(char::is_ascii_alphabetic).collect();
                letters.sort_unstable();
                letters.dedup();
                format!(":2,{}", letters.into_iter().collect::<String>())
            }
        }
    }
}

impl MaildirHandle {
    /// Stores a message.
    ///
    /// # Errors
    /// Nothing stays behind in `tmp/` then. Where it was to be durable by itself, it may be in its place all the same, if only the folder could
    /// not be synced, and is to be stored again under the same name.
    pub fn store(&self, name: &UniqueName, head: &[u8], content: &Content<'_>, manner: &Manner) -> Result<Stored, StoreError> {
        let temporary = Temporary::write(self, name, head, content, manner)?;
        let sizes = temporary.sizes;
        let file_name = format!("{}{}", name.stored(sizes), manner.place.info());
        match manner.place {
            Place::New => temporary.rename(&self.new, &file_name)?,
            Place::Cur { .. } => temporary.rename(&self.cur()?, &file_name)?,
        }
        Ok(Stored { file_name, sizes, found: false })
    }

    fn at(&self, subdirectory: &str) -> String {
        self.path.join(subdirectory).display().to_string()
    }
}

/// A written file in `tmp/`, removed unless it is renamed.
pub(crate) struct Temporary<'a> {
    handle: &'a MaildirHandle,
    name: Option<String>,
    /// File and folder are synced by themselves.
    alone: bool,
    pub(crate) sizes: Sizes,
}

impl<'a> Temporary<'a> {
    /// Writes a message into `tmp/`.
    pub(crate) fn write(
        handle: &'a MaildirHandle,
        name: &UniqueName,
        head: &[u8],
        content: &Content<'_>,
        manner: &Manner,
    ) -> Result<Self, StoreError> {
        let alone = manner.durability == Durability::ByItself || handle.device.is_remote();
        let file_name = name.temporary();
        let failed = |doing, errno| StoreError::errno(doing, handle.at("tmp"), errno);
        let create = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&handle.tmp, &file_name, flags, Mode::RUSR | Mode::WUSR)
        };
        let file = match create() {
            // Left by a crash, since nobody else makes this name.
            Err(Errno::EXIST) => unlinkat(&handle.tmp, &file_name, AtFlags::empty()).and_then(|()| create()),
            other => other,
        }
        .map_err(|errno| failed("creating a file in", errno))?;
        let mut this = Self { handle, name: Some(file_name), alone, sizes: Sizes::default() };
        handle.own(&file)?;
        // What is large is mostly read once, and not soon.
        let large = matches!(content, Content::Stream(_));
        // The error of a write and that of reading a queued body must not be taken for each other.
        let mut write_error = None;
        let copied = content.copy(head, |pieces| {
            write_all(&handle.device, &file, pieces, large).map_err(|errno| {
                write_error = Some(errno);
                io::Error::from(errno)
            })
        });
        this.sizes = match (copied, write_error) {
            (Ok(sizes), _) => sizes,
            (Err(_), Some(errno)) => return Err(failed("writing in", errno)),
            (Err(body), None) => return Err(StoreError::Body(body)),
        };
        if let Some(date) = manner.date {
            set_date(&file, date).map_err(|errno| failed("dating a file in", errno))?;
        }
        if alone {
            fsync(&file).map_err(|errno| failed("syncing a file in", errno))?;
        }
        Ok(this)
    }

    /// Moves it to its place, over whatever bears that name.
    pub(crate) fn rename(mut self, directory: &OwnedFd, to: &str) -> Result<(), StoreError> {
        let failed = |errno| StoreError::errno("moving a message into", self.handle.path.display().to_string(), errno);
        let Some(name) = self.name.as_deref() else { return Ok(()) };
        renameat(&self.handle.tmp, name, directory, to).map_err(failed)?;
        if self.alone {
            fsync(directory).map_err(failed)?;
        }
        self.name = None;
        self.handle.device.mark_dirty();
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Whatever went wrong before is what gets reported; a file left here is removed by the next attempt or by Dovecot's own cleaning.
            let _ = unlinkat(&self.handle.tmp, name, AtFlags::empty());
        }
    }
}

/// Writes all pieces with as few system calls as the kernel allows.
fn write_all(device: &Device, file: &OwnedFd, pieces: &[&[u8]], large: bool) -> Result<(), Errno> {
    let mut rest: Vec<&[u8]> = pieces.iter().copied().filter(|piece| !piece.is_empty()).collect();
    while !rest.is_empty() {
        let slices: Vec<IoSlice<'_>> = rest.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut written = match device.write(file, &slices, large) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        rest.retain_mut(|piece| {
            let taken = written.min(piece.len());
            written -= taken;
            *piece = piece.get(taken..).unwrap_or_default();
            !piece.is_empty()
        });
    }
    Ok(())
}

fn set_date(file: &OwnedFd, date: SystemTime) -> Result<(), Errno> {
    let at = match date.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timespec { tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 },
        Err(before) => Timespec { tv_sec: i64::try_from(before.duration().as_secs()).map(|s| -s).unwrap_or(0), tv_nsec: 0 },
    };
    futimens(file, &Timestamps { last_access: at, last_modification: at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildir::{EarlierWork, HostLabel, MailRoot, Missing};
    use pillarbox_queue::QueueId;

    #[test]
    fn on_a_file_server_every_step_syncs_by_itself_and_the_result_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let root = MailRoot::open(folder.path()).unwrap();
        root.devices().pretend_remote(&std::fs::File::open(folder.path()).unwrap().into());
        let user = "bob@example.org".parse().unwrap();
        let inbox = root.inbox(&user, Missing::Create).unwrap().unwrap();
        assert!(inbox.device.is_remote());
        let name = UniqueName::new(QueueId(1), 1_700_000_000_000, &user, "", &HostLabel::new("h"));
        let content = Content::Memory { body: b"x\n", sizes: Sizes { stored: 2, virtual_size: 3 } };
        let stored = inbox.store(&name, b"H: y\n", &content, &Manner::default()).unwrap();
        assert_eq!(stored.sizes, Sizes { stored: 7, virtual_size: 9 });
        let path = folder.path().join("example.org/bob/Maildir/new").join(&stored.file_name);
        assert_eq!(std::fs::read(&path).unwrap(), b"H: y\nx\n");
        let settle = || EarlierWork::list(&inbox).unwrap().settle(&inbox, &name, b"H: y\n", &content).unwrap().unwrap();
        assert!(settle().found);
        std::fs::write(&path, "").unwrap();
        assert!(!settle().found && settle().found);
        root.devices().sync().unwrap();
    }

    #[test]
    fn a_failed_body_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let root = MailRoot::open(folder.path()).unwrap();
        let user = "bob@example.org".parse().unwrap();
        let inbox = root.inbox(&user, Missing::Create).unwrap().unwrap();
        let name = UniqueName::new(QueueId(1), 1_700_000_000_000, &user, "", &HostLabel::new("h"));
        let broken = || Err(io::Error::other("gone"));
        let result = inbox.store(&name, b"", &Content::Stream(&broken), &Manner::default());
        assert!(matches!(result, Err(StoreError::Body(_))));
        let left = |sub: &str| std::fs::read_dir(folder.path().join("example.org/bob/Maildir").join(sub)).unwrap().count();
        assert_eq!((left("tmp"), left("new")), (0, 0));
    }

    #[test]
    fn flags_are_sorted_letters() {
        assert_eq!(Place::Cur { flags: "SF:2,/../S".into() }.info(), ":2,FS");
        assert_eq!(Place::New.info(), "");
    }
}
