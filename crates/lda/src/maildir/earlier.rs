//! Finding what an earlier attempt stored, after a crash: by name in `new/` and `cur/` whatever its flags, compared byte for byte.
//!
//! A power cut can leave the name over a torn file, so a name alone proves nothing. What is whole is left alone, even if its reader has flagged
//! it since; what is torn is replaced under the same flags.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{Advice, AtFlags, Mode, OFlags, fadvise, fsync, openat, unlinkat};
use rustix::io::Errno;

use super::content::Content;
use super::error::StoreError;
use super::name::UniqueName;
use super::root::MaildirHandle;
use super::store::{Manner, Stored, Temporary};

/// The file names of one Maildir, read once for a batch of replayed messages.
#[derive(Debug)]
pub struct EarlierWork {
    /// By the part of the name that [`UniqueName`] makes.
    by_stem: HashMap<String, Vec<Found>>,
}

#[derive(Debug, Clone)]
struct Found {
    file_name: String,
    in_cur: bool,
}

/// `<seconds>.<unique>.` of a file name.
fn stem(file_name: &str) -> Option<&str> {
    let first = file_name.find('.')?;
    let second = file_name.get(first + 1..)?.find('.')?;
    file_name.get(..first + second + 2)
}

impl EarlierWork {
    /// Lists `new/` and `cur/`.
    ///
    /// # Errors
    /// When either cannot be read: nothing may be stored then, since it might be stored twice.
    pub fn list(handle: &MaildirHandle) -> Result<Self, StoreError> {
        Self::list_if(handle, |_| true)
    }

    /// As [`EarlierWork::list`], of those names only whose begin (`<seconds>.<unique>.`) is `wanted`.
    ///
    /// # Errors
    /// As for [`EarlierWork::list`].
    pub fn list_if(handle: &MaildirHandle, wanted: impl Fn(&str) -> bool) -> Result<Self, StoreError> {
        // The crate takes an unreadable directory for an empty one, so make sure that it can be read.
        let cur = handle.cur()?;
        for directory in [&handle.new, &cur] {
            handle.device.look_anew(directory);
        }
        let reader = handle.reader();
        let mut by_stem: HashMap<String, Vec<Found>> = HashMap::new();
        let entries = reader.list_new().map(|entry| (entry, false)).chain(reader.list_cur().map(|entry| (entry, true)));
        for (entry, in_cur) in entries {
            let entry = match entry {
                Ok(entry) => entry,
                // Not named as Maildir files are: not ours.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => continue,
                Err(source) => return Err(StoreError::Io { doing: "listing", what: handle.path.display().to_string(), source }),
            };
            let Some(file_name) = entry.path().file_name().and_then(|name| name.to_str()) else { continue };
            if let Some(stem) = stem(file_name).filter(|stem| wanted(stem)) {
                by_stem.entry(stem.to_owned()).or_default().push(Found { file_name: file_name.to_owned(), in_cur });
            }
        }
        Ok(Self { by_stem })
    }

    /// Leaves a whole earlier copy, replaces a torn one; `None` when there is none and the message must be stored.
    ///
    /// # Errors
    /// When the earlier copy can be neither read nor replaced.
    pub fn settle(
        &self,
        handle: &MaildirHandle,
        name: &UniqueName,
        head: &[u8],
        content: &Content<'_>,
    ) -> Result<Option<Stored>, StoreError> {
        let temporary = name.temporary();
        let Some(candidates) = stem(&temporary).and_then(|stem| self.by_stem.get(stem)) else { return Ok(None) };
        let cur = handle.cur()?;
        let directory = |found: &Found| if found.in_cur { &cur } else { &handle.new };
        let failed = |errno| StoreError::errno("replacing a torn message in", handle.path.display().to_string(), errno);
        let mut torn = None;
        for found in candidates.iter().filter(|found| name.matches(found.file_name.as_bytes())) {
            match self::compare(handle, directory(found), found, head, content)? {
                Comparison::Same(sizes) => {
                    if handle.device.is_remote() {
                        fsync(directory(found)).map_err(failed)?;
                    }
                    handle.device.mark_dirty();
                    return Ok(Some(Stored { file_name: found.file_name.clone(), sizes, found: true }));
                }
                Comparison::Gone => {}
                Comparison::Torn => torn = torn.or(Some(found)),
            }
        }
        let Some(found) = torn else { return Ok(None) };
        let new_file = Temporary::write(handle, name, head, content, &Manner::default())?;
        let sizes = new_file.sizes;
        let info = found.file_name.find(':').and_then(|at| found.file_name.get(at..)).unwrap_or("");
        let file_name = format!("{}{info}", name.stored(sizes));
        new_file.rename(directory(found), &file_name)?;
        if file_name != found.file_name {
            match unlinkat(directory(found), &found.file_name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(Some(Stored { file_name, sizes, found: false }))
    }
}

enum Comparison {
    Same(super::name::Sizes),
    Torn,
    /// Moved or deleted by its reader since it was listed.
    Gone,
}

fn compare(
    handle: &MaildirHandle,
    directory: &OwnedFd,
    found: &Found,
    head: &[u8],
    content: &Content<'_>,
) -> Result<Comparison, StoreError> {
    let failed = |source: io::Error| StoreError::Io { doing: "comparing a message in", what: handle.path.display().to_string(), source };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match openat(directory, &found.file_name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(Comparison::Gone),
        // A link under a name of ours is nothing we stored.
        Err(Errno::LOOP) => return Ok(Comparison::Torn),
        Err(errno) => return Err(failed(errno.into())),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(Comparison::Torn);
    }
    // What the page cache holds may never have reached the disk (a write-back that failed): look at the disk.
    if handle.device.is_remote() {
        fsync(&file).map_err(|errno| failed(errno.into()))?;
    }
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let mut buffer = Vec::new();
    let mut differs = false;
    let mut read_error = None;
    let sizes = content
        .copy(head, |pieces| {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                if differs {
                    break;
                }
                buffer.resize(piece.len(), 0);
                match file.read_exact(&mut buffer) {
                    Ok(()) => differs = buffer != *piece,
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => differs = true,
                    Err(e) => {
                        read_error = Some(e);
                        differs = true;
                    }
                }
            }
            Ok(())
        })
        .map_err(StoreError::Body)?;
    if let Some(error) = read_error {
        return Err(failed(error));
    }
    let ended = differs || file.read(&mut [0; 1]).map_err(failed)? == 0;
    Ok(if differs || !ended { Comparison::Torn } else { Comparison::Same(sizes) })
}
