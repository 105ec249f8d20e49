//! The file `maildirsize` of Maildir++ as Dovecot reads and writes it: a line of limits, then lines of `<octets> <messages>` to be added up.
//!
//! Deliveries append a line with `O_APPEND`, so that writers need no lock. The file is counted anew when it has grown past 5120 octets, when its limits
//! are not those in force, when it makes no sense, or when it says that the mailbox is full and might be wrong: it holds more than its first sum, or is older
//! than 15 minutes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::MutexGuard;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::maildir::name::size_in_name;
use crate::maildir::{MaildirHandle, StoreError};

const FILE: &str = "maildirsize";
/// Files of this size and above are counted anew.
const LONGEST: usize = 5120;
/// Older sums are not believed when they say that the mailbox is full.
const STALE: Duration = Duration::from_secs(15 * 60);

/// What a mailbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Octets of all messages in all folders.
    pub bytes: u64,
    /// Messages.
    pub count: u64,
}

/// What the file said when it was last read, kept with the open mailbox.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    read: Option<Sum>,
}

#[derive(Debug)]
struct Sum {
    /// For appending.
    file: File,
    inode: u64,
    len: usize,
    usage: Usage,
    /// Lines after the limits.
    lines: usize,
    modified: SystemTime,
    limit: Option<u64>,
}

/// A file's text, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// The octets of its first line, if that names any.
    pub(crate) limit: Option<u64>,
    pub(crate) usage: Usage,
    pub(crate) lines: usize,
}

/// Adds the lines up. `None` when the text makes no sense.
pub(crate) fn parse(text: &str) -> Option<Parsed> {
    let (first, rest) = text.split_once('\n')?;
    let limit = first.split(',').find_map(|part| part.trim().strip_suffix('S')).and_then(|n| n.parse().ok()).filter(|&n| n > 0);
    let (mut bytes, mut count, mut lines) = (0i64, 0i64, 0);
    for line in rest.strip_suffix('\n')?.split('\n') {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<i64>);
        let (Some(Ok(more_bytes)), Some(Ok(more_count)), None) = (numbers.next(), numbers.next(), numbers.next()) else { return None };
        bytes = bytes.checked_add(more_bytes)?;
        count = count.checked_add(more_count)?;
        lines += 1;
    }
    Some(Parsed { limit, usage: Usage { bytes: bytes.try_into().ok()?, count: count.try_into().ok()? }, lines })
}

/// The text of a fresh file.
pub(crate) fn fresh(limit: u64, usage: Usage) -> String {
    format!("{limit}S\n{} {}\n", usage.bytes, usage.count)
}

/// The account of one mailbox, locked against other threads of this process.
pub(crate) struct Account<'a> {
    inbox: &'a MaildirHandle,
    kept: MutexGuard<'a, Kept>,
    /// Octets; `None` is no bound.
    limit: Option<u64>,
    now: SystemTime,
}

impl<'a> Account<'a> {
    pub(crate) fn open(inbox: &'a MaildirHandle, limit: Option<u64>, now: SystemTime) -> Self {
        Self { kept: inbox.quota.lock(), inbox, limit, now }
    }

    /// What the mailbox holds, where that is counted: `None` when there is neither a limit nor a file. `wanted` more octets are about to be stored; whether they
    /// fit decides how much an old sum is believed.
    ///
    /// # Errors
    /// When the file or, if it must be counted anew, the folders cannot be read.
    pub(crate) fn usage(&mut self, wanted: u64) -> Result<Option<Usage>, StoreError> {
        if !self.refresh()? {
            return if self.limit.is_some() { self.recount().map(Some) } else { Ok(None) };
        }
        let Some(sum) = &self.kept.read else { return Ok(None) };
        let Some(limit) = self.limit else { return Ok(Some(sum.usage)) };
        let full = sum.usage.bytes.saturating_add(wanted) > limit;
        let doubtful = sum.lines > 1 || self.now.duration_since(sum.modified).is_ok_and(|age| age > STALE);
        if sum.limit != Some(limit) || sum.len >= LONGEST || (full && doubtful) {
            return self.recount().map(Some);
        }
        Ok(Some(sum.usage))
    }

    /// Appends what was stored. Nothing to do where nobody counts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn add(&mut self, bytes: u64, count: u64) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { doing: "appending to", what: self.inbox.path.join(FILE).display().to_string(), source };
        let Some(sum) = &mut self.kept.read else { return Ok(()) };
        let line = format!("{bytes} {count}\n");
        if let Err(error) = sum.file.write_all(line.as_bytes()) {
            self.kept.read = None;
            return Err(failed(error));
        }
        sum.len += line.len();
        sum.lines += 1;
        sum.usage.bytes = sum.usage.bytes.saturating_add(bytes);
        sum.usage.count = sum.usage.count.saturating_add(count);
        sum.modified = self.now;
        Ok(())
    }

    /// Reads the file unless it is as it was left. False: there is none that makes sense.
    fn refresh(&mut self) -> Result<bool, StoreError> {
        let failed = |errno| StoreError::errno("reading", self.inbox.path.join(FILE).display().to_string(), errno);
        match statat(&self.inbox.base, FILE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) => {
                if self.kept.read.as_ref().is_some_and(|sum| sum.inode == seen.st_ino && u64::try_from(seen.st_size) == Ok(sum.len as u64))
                {
                    return Ok(true);
                }
            }
            Err(Errno::NOENT) => {
                self.kept.read = None;
                return Ok(false);
            }
            Err(errno) => return Err(failed(errno)),
        }
        self.kept.read = None;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match openat(&self.inbox.base, FILE, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        };
        let io_failed = |source| StoreError::Io { doing: "reading", what: self.inbox.path.join(FILE).display().to_string(), source };
        let mut text = Vec::with_capacity(LONGEST);
        (&mut file).take(LONGEST as u64).read_to_end(&mut text).map_err(io_failed)?;
        let seen = fstat(&file).map_err(failed)?;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seen.st_mtime).unwrap_or(0));
        let (inode, len) = (seen.st_ino, text.len());
        if len >= LONGEST {
            return Ok(false);
        }
        let Some(parsed) = std::str::from_utf8(&text).ok().and_then(parse) else { return Ok(false) };
        let Parsed { limit, usage, lines } = parsed;
        self.kept.read = Some(Sum { file, inode, len, usage, lines, modified, limit });
        Ok(true)
    }

    /// Counts the folders and writes a fresh file.
    fn recount(&mut self) -> Result<Usage, StoreError> {
        self.kept.read = None;
        let before = count(self.inbox)?;
        let Some(limit) = self.limit else { return Ok(before.usage) };
        let failed = |errno| StoreError::errno("writing", self.inbox.path.join(FILE).display().to_string(), errno);
        let io_failed = |source| StoreError::Io { doing: "writing", what: self.inbox.path.join(FILE).display().to_string(), source };
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let temporary = format!("maildirsize.{}.{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.inbox.tmp, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        self.inbox.own(&file)?;
        let mut file = File::from(file);
        let text = fresh(limit, before.usage);
        let written = file.write_all(text.as_bytes()).map_err(io_failed).and_then(|()| {
            if self.inbox.device.is_remote() {
                fsync(&file).map_err(failed)?;
            }
            renameat(&self.inbox.tmp, &temporary, &self.inbox.base, FILE).map_err(failed)
        });
        if let Err(error) = written {
            let _ = unlinkat(&self.inbox.tmp, &temporary, AtFlags::empty());
            return Err(error);
        }
        // Whoever changed a folder meanwhile may or may not have been counted: such a sum must not last.
        if stamp(self.inbox)? != before.stamp {
            match unlinkat(&self.inbox.base, FILE, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(before.usage),
                Err(errno) => return Err(failed(errno)),
            }
        }
        let inode = fstat(&file).map_err(failed)?.st_ino;
        self.kept.read = Some(Sum { file, inode, len: text.len(), usage: before.usage, lines: 1, modified: self.now, limit: Some(limit) });
        Ok(before.usage)
    }
}

/// What the folders hold, and when they last changed.
#[derive(Debug)]
struct Counted {
    usage: Usage,
    stamp: Stamp,
}

/// The latest change of any `new/` or `cur/`, in nanoseconds, and how many there are.
type Stamp = (i128, usize);

/// Counts all messages of all folders by the sizes in their names; files without one are looked at.
fn count(inbox: &MaildirHandle) -> Result<Counted, StoreError> {
    let stamp = stamp(inbox)?;
    let mut usage = Usage::default();
    each_directory(inbox, |directory, path| {
        let failed = |errno| StoreError::errno("counting", path.display().to_string(), errno);
        inbox.device.look_anew(directory);
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let octets = entry.file_name().to_bytes();
            if octets.first() == Some(&b'.') {
                continue;
            }
            let named = std::str::from_utf8(octets).ok().and_then(size_in_name);
            let bytes = match named {
                Some(bytes) => bytes,
                None => match statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(seen) => u64::try_from(seen.st_size).unwrap_or(0),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(failed(errno)),
                },
            };
            usage.bytes = usage.bytes.saturating_add(bytes);
            usage.count = usage.count.saturating_add(1);
        }
        Ok(())
    })?;
    Ok(Counted { usage, stamp })
}

fn stamp(inbox: &MaildirHandle) -> Result<Stamp, StoreError> {
    let mut latest: Stamp = (i128::MIN, 0);
    each_directory(inbox, |directory, path| {
        let seen = fstat(directory).map_err(|errno| StoreError::errno("counting", path.display().to_string(), errno))?;
        let modified = i128::from(seen.st_mtime) * 1_000_000_000 + i128::from(seen.st_mtime_nsec);
        latest = (latest.0.max(modified), latest.1 + 1);
        Ok(())
    })?;
    Ok(latest)
}

/// Visits `new/` and `cur/` of the mailbox and each of its folders. A folder that is a symbolic link is none of ours and passed over.
fn each_directory(inbox: &MaildirHandle, mut visit: impl FnMut(&OwnedFd, &Path) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |errno| StoreError::errno("counting", inbox.path.display().to_string(), errno);
    let mut both = |base: &OwnedFd, path: &Path| {
        for sub in ["new", "cur"] {
            match openat(base, sub, flags, Mode::empty()) {
                Ok(directory) => visit(&directory, path)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    };
    both(&inbox.base, &inbox.path)?;
    for entry in Dir::read_from(&inbox.base).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.to_bytes().first() != Some(&b'.') || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match openat(&inbox.base, name, flags, Mode::empty()) {
            Ok(folder) => both(&folder, &inbox.path.join(name.to_string_lossy().as_ref()))?,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

/// What a mailbox holds, counted when no sum can be believed. Writes nothing.
///
/// # Errors
/// When its folders cannot be read.
pub(crate) fn used(inbox: &MaildirHandle, now: SystemTime) -> Result<Usage, StoreError> {
    let mut account = Account::open(inbox, None, now);
    match account.usage(0)? {
        Some(usage) => Ok(usage),
        None => Ok(count(inbox)?.usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_as_dovecot_writes_them_are_read() {
        let usage = |bytes, count| Usage { bytes, count };
        assert_eq!(parse("1000S\n0 0\n"), Some(Parsed { limit: Some(1000), usage: usage(0, 0), lines: 1 }));
        assert_eq!(parse("1000S,10C\n500 3\n-200 -1\n  7 1\n"), Some(Parsed { limit: Some(1000), usage: usage(307, 3), lines: 3 }));
        assert_eq!(parse("10C,1000S\n5 1\n").unwrap().limit, Some(1000));
        assert_eq!(parse("\n5 1\n").unwrap().limit, None);
    }

    #[test]
    fn files_that_make_no_sense_are_not() {
        for text in [
            "",
            "1000S",
            "1000S\n",
            "1000S\n5 1",
            "1000S\n5\n",
            "1000S\n5 1 1\n",
            "1000S\nx 1\n",
            "1000S\n-5 1\n",
            "1000S\n5 -1\n",
            "1000S\n\n",
            "1S\n9223372036854775807 1\n1 1\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(text in "[0-9SC, \\-\n]{0,60}") {
            if let Some(parsed) = parse(&text) {
                prop_assert!(parsed.lines > 0);
            }
        }

        #[test]
        fn sums_come_back(limit in 1u64..1 << 50, first in (0u64..1 << 40, 0u64..1 << 30), more in proptest::collection::vec((0u64..1 << 30, 0u64..9), 0..20)) {
            let mut usage = Usage { bytes: first.0, count: first.1 };
            let mut text = fresh(limit, usage);
            for (bytes, count) in &more {
                text.push_str(&format!("{bytes} {count}\n"));
                usage = Usage { bytes: usage.bytes + bytes, count: usage.count + count };
            }
            prop_assert_eq!(parse(&text), Some(Parsed { limit: Some(limit), usage, lines: more.len() + 1 }));
        }
    }
}
