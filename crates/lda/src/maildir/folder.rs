//! Folders of a Maildir++: from the name people see to the directory `.Name`, and the list of subscribed ones as Dovecot keeps it.
//!
//! Dovecot 2.3 stores names in modified UTF-7 (RFC 3501 §5.1.3) with a dot between levels.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::error::StoreError;
use super::path::MAX_NAME;
use super::root::MaildirHandle;

const MODIFIED_BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::IMAP_MUTF7, NO_PAD);

/// A folder of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FolderName {
    /// The mailbox itself.
    Inbox,
    /// A directory beside `new/` and `cur/`.
    Named {
        /// Its file name: `.Lists.rust`.
        file_name: String,
    },
}

impl FolderName {
    /// Takes a folder's name with `.` or `/` between levels. `None` for what cannot be a folder: empty levels, control characters, a leading `~`, too long.
    pub fn new(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("inbox") {
            return Some(Self::Inbox);
        }
        if name.starts_with('~') || name.chars().any(char::is_control) {
            return None;
        }
        let levels: Vec<&str> = name.split(['.', '/']).collect();
        if levels.iter().any(|level| level.is_empty()) {
            return None;
        }
        let mut file_name = String::from(".");
        file_name.push_str(&modified_utf7(&levels.join(".")));
        (file_name.len() <= MAX_NAME).then_some(Self::Named { file_name })
    }
}

/// RFC 3501 §5.1.3: printable ASCII stands for itself, `&` is `&-`, all else is UTF-16 in a base 64 between `&` and `-`.
pub fn modified_utf7(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut wide: Vec<u8> = Vec::new();
    let flush = |wide: &mut Vec<u8>, out: &mut String| {
        if !wide.is_empty() {
            out.push('&');
            MODIFIED_BASE64.encode_string(&*wide, out);
            out.push('-');
            wide.clear();
        }
    };
    for c in text.chars() {
        if matches!(c, ' '..='~') {
            flush(&mut wide, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            wide.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut wide, &mut out);
    out
}

const LIST: &str = "subscriptions";
const LOCK: &str = "subscriptions.lock";
/// Dovecot's own limit for a lock on this file.
const LOCK_STALE: Duration = Duration::from_secs(30);
/// A list longer than this is left alone.
const LIST_MAX: u64 = 1 << 20;
const VERSION_2: &str = "V\t2\n\n";

/// Adds a folder to the subscriptions of a mailbox, under Dovecot's lock. Does nothing when it is there already or someone else holds the lock: a subscription is a
/// convenience that no message waits for.
///
/// # Errors
/// When the list cannot be read or written.
pub fn subscribe(inbox: &MaildirHandle, folder: &FolderName) -> Result<(), StoreError> {
    let FolderName::Named { file_name } = folder else { return Ok(()) };
    let name = file_name.trim_start_matches('.');
    let failed = |errno| StoreError::errno("writing", inbox.path.join(LIST).display().to_string(), errno);
    let io_failed = |source| StoreError::Io { doing: "writing", what: inbox.path.join(LIST).display().to_string(), source };
    let Some(lock) = lock(&inbox.base).map_err(failed)? else { return Ok(()) };
    let done = (|| {
        let mut list = String::new();
        match openat(&inbox.base, LIST, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => {
                let mut octets = Vec::new();
                std::fs::File::from(fd).take(LIST_MAX).read_to_end(&mut octets).map_err(io_failed)?;
                match String::from_utf8(octets) {
                    Ok(text) if (text.len() as u64) < LIST_MAX => list = text,
                    _ => return Ok(false),
                }
            }
            Err(Errno::NOENT) => list.push_str(VERSION_2),
            Err(errno) => return Err(failed(errno)),
        }
        let line = if list.starts_with("V\t2\n") { name.replace('.', "\t") } else { name.to_owned() };
        if list.lines().any(|known| known == line) {
            return Ok(false);
        }
        if !list.is_empty() && !list.ends_with('\n') {
            list.push('\n');
        }
        list.push_str(&line);
        list.push('\n');
        inbox.own(&lock)?;
        std::fs::File::from(lock).write_all(list.as_bytes()).map_err(io_failed)?;
        renameat(&inbox.base, LOCK, &inbox.base, LIST).map_err(failed)?;
        inbox.device.mark_dirty();
        Ok(true)
    })();
    if !matches!(done, Ok(true)) {
        let _ = unlinkat(&inbox.base, LOCK, AtFlags::empty());
    }
    done.map(|_| ())
}

/// Takes Dovecot's dot-lock, which is at once the new file. `None`: someone holds it.
fn lock(base: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let create = || {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(base, LOCK, flags, Mode::RUSR | Mode::WUSR)
    };
    match create() {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::EXIST) => {
            let modified = match statat(base, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(seen) => SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seen.st_mtime).unwrap_or(0)),
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            if modified.elapsed().unwrap_or_default() < LOCK_STALE {
                return Ok(None);
            }
            unlinkat(base, LOCK, AtFlags::empty())?;
            match create() {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::EXIST) => Ok(None),
                Err(errno) => Err(errno),
            }
        }
        Err(errno) => Err(errno),
    }
}

/// Marks a directory as a folder of a Maildir++, as Courier and Dovecot do.
///
/// # Errors
/// When the mark cannot be created.
pub fn mark(folder: &MaildirHandle) -> Result<(), StoreError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mark = openat(&folder.base, "maildirfolder", flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| StoreError::errno("creating", folder.path.join("maildirfolder").display().to_string(), errno))?;
    folder.own(&mark)
}

/// Dovecot's list of what the small letters in a folder's message names mean: lines of `<number> <keyword>`.
pub(crate) const KEYWORDS: &str = "dovecot-keywords";

/// Makes small letters mean in a folder what `source` says, if nobody has given them a meaning there yet. False: they mean something else.
///
/// # Errors
/// When the list cannot be read or written.
pub(crate) fn adopt_keywords(folder: &MaildirHandle, source: &[u8]) -> Result<bool, StoreError> {
    let failed = |errno| StoreError::errno("writing", folder.path.join(KEYWORDS).display().to_string(), errno);
    let io_failed = |source| StoreError::Io { doing: "writing", what: folder.path.join(KEYWORDS).display().to_string(), source };
    if source.len() as u64 >= LIST_MAX || std::str::from_utf8(source).is_err() {
        return Ok(false);
    }
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&folder.base, KEYWORDS, create, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => {
            folder.own(&fd)?;
            std::fs::File::from(fd).write_all(source).map_err(io_failed)?;
            folder.device.mark_dirty();
            Ok(true)
        }
        Err(Errno::EXIST) => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut there = Vec::new();
            let fd = openat(&folder.base, KEYWORDS, read, Mode::empty()).map_err(failed)?;
            std::fs::File::from(fd).take(LIST_MAX).read_to_end(&mut there).map_err(io_failed)?;
            Ok(there == source)
        }
        Err(errno) => Err(failed(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<FolderName> {
        Some(FolderName::Named { file_name: text.into() })
    }

    #[test]
    fn names_become_directories_as_dovecot_names_them() {
        assert_eq!(FolderName::new("Junk"), named(".Junk"));
        assert_eq!(FolderName::new("lists/rust"), named(".lists.rust"));
        assert_eq!(FolderName::new("lists.rust"), named(".lists.rust"));
        assert_eq!(FolderName::new("Entwürfe"), named(".Entw&APw-rfe"));
        assert_eq!(FolderName::new("R&D"), named(".R&-D"));
        assert_eq!(FolderName::new("inbox"), Some(FolderName::Inbox));
        // RFC 3501's own example.
        assert_eq!(modified_utf7("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(modified_utf7("😀"), "&2D3eAA-");
    }

    #[test]
    fn names_that_cannot_be_folders_are_none() {
        for name in ["", ".", "..", "a..b", "/etc/passwd", "../x", "a/", "~root", "a\0b", "a\nb", &"x".repeat(255)] {
            assert_eq!(FolderName::new(name), None, "{name:?}");
        }
    }
}
