//! Where imported messages come from: a Maildir with its folders, or an mbox file. Each source yields one message after the other, in constant memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maildir::Maildir;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::flags::Flags;
use super::mbox::{Found, Message, Quoting, Scanner};
use crate::maildir::path::MAX_NAME;

/// Octets read at a time.
const PIECE: usize = 128 * 1024;

/// A message to import.
pub(crate) struct Item {
    /// File name of the folder below the source, such as `.Sent`; empty for the source itself.
    pub(crate) folder: String,
    /// The same each time the same message is met in the same source.
    pub(crate) key: u64,
    pub(crate) date: Option<SystemTime>,
    pub(crate) flags: Flags,
    /// Octets in the source.
    pub(crate) size: u64,
    /// For a report of failure.
    pub(crate) what: String,
    content: ItemContent,
}

enum ItemContent {
    File(Arc<File>),
    Piece { file: Arc<File>, found: Found, quoting: Quoting },
}

impl Item {
    /// Reads it from its beginning.
    pub(crate) fn open(&self) -> io::Result<Box<dyn BufRead + '_>> {
        Ok(match &self.content {
            ItemContent::File(file) => Box::new(BufReader::with_capacity(PIECE, FromStart { file: Arc::clone(file), at: 0 })),
            ItemContent::Piece { file, found, quoting } => {
                Box::new(BufReader::with_capacity(PIECE, Message::new(Arc::clone(file), found, *quoting)))
            }
        })
    }
}

struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.at)?;
        self.at = self.at.saturating_add(n as u64);
        Ok(n)
    }
}

/// Takes an item, or why one could not be read. False ends the walk.
pub(crate) type Visit<'a> = dyn FnMut(Result<Item, (String, io::Error)>) -> bool + 'a;

/// Opens a file that must be one: no symbolic link (it might lead anywhere, and the import may run with more rights than the mailbox's owner), no device.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")) }
}

fn key(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).fold(0, |n, &octet| (n << 8) | u64::from(octet))
}

/// Walks an mbox file.
pub(crate) fn mbox(path: &Path, quoting: Quoting, visit: &mut Visit<'_>) -> io::Result<()> {
    let file = Arc::new(open_regular(path)?);
    let mut scanner = Scanner::new(open_regular(path)?)?;
    while let Some(found) = scanner.next()? {
        let date = found.date.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |at| at.as_secs());
        let item = Item {
            folder: String::new(),
            key: key(&[b"mbox", &found.start.to_le_bytes(), &found.end.to_le_bytes(), &date.to_le_bytes()]),
            date: found.date,
            flags: found.flags.clone(),
            size: found.end.saturating_sub(found.start),
            what: format!("the message at octet {}", found.start),
            content: ItemContent::Piece { file: Arc::clone(&file), found, quoting },
        };
        if !visit(Ok(item)) {
            break;
        }
    }
    Ok(())
}

/// A Maildir of the source: where it is, and the file name of its folder.
pub(crate) struct SourceFolder {
    pub(crate) path: PathBuf,
    pub(crate) file_name: String,
}

/// The Maildir itself and its folders. Folders that are symbolic links, or whose names cannot be kept, are left out.
pub(crate) fn maildir_folders(path: &Path) -> io::Result<Vec<SourceFolder>> {
    if !path.join("cur").is_dir() && !path.join("new").is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no Maildir: it has neither cur/ nor new/"));
    }
    let mut folders = vec![SourceFolder { path: path.to_owned(), file_name: String::new() }];
    for folder in Maildir::from(path.to_owned()).list_subdirs() {
        let folder = folder?;
        let name = folder.path().file_name().and_then(|name| name.to_str());
        let real = folder.path().symlink_metadata()?.is_dir();
        let kept = name.filter(|name| name.len() <= MAX_NAME && !name.chars().any(char::is_control));
        if let (Some(name), true) = (kept, real) {
            folders.push(SourceFolder { file_name: name.to_owned(), path: folder.path().to_owned() });
        }
    }
    folders.sort_by(|a, b| a.file_name.cmp(&b.file_name));
    Ok(folders)
}

/// Walks one Maildir of the source. `keywords`: small letters mean the same at the destination.
pub(crate) fn maildir(folder: &SourceFolder, keywords: bool, visit: &mut Visit<'_>) -> io::Result<()> {
    let reader = Maildir::from(folder.path.clone());
    let new = reader.list_new().map(|entry| (entry, false));
    for (entry, in_cur) in new.chain(reader.list_cur().map(|entry| (entry, true))) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                // One that is not named as Maildir files are, or a folder that cannot be read further.
                let go_on = error.kind() == io::ErrorKind::InvalidData;
                if !visit(Err((folder.path.display().to_string(), error))) || !go_on {
                    break;
                }
                continue;
            }
        };
        let item = open_regular(entry.path()).and_then(|file| {
            let seen = file.metadata()?;
            let flags = if in_cur || !entry.flags().is_empty() { Flags::of_info(entry.flags(), keywords) } else { Flags::default() };
            Ok(Item {
                folder: folder.file_name.clone(),
                key: key(&[b"maildir", folder.file_name.as_bytes(), entry.id().as_bytes()]),
                date: Some(seen.modified().unwrap_or(SystemTime::UNIX_EPOCH + Duration::ZERO)),
                flags,
                size: seen.len(),
                what: entry.path().display().to_string(),
                content: ItemContent::File(Arc::new(file)),
            })
        });
        if !visit(item.map_err(|error| (entry.path().display().to_string(), error))) {
            break;
        }
    }
    Ok(())
}
