//! Every durable write of the queue passes through here, so that a test can record the operations and take any of them away.
//!
//! Reads go to the file system directly: a crash takes nothing from them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

/// An open file and the number by which its [`Disk`] knows it, whatever its name is by now.
#[derive(Debug)]
pub struct DiskFile {
    /// For reading, at any offset.
    pub file: File,
    /// Given by the disk; the real one has no use for it.
    pub tag: u64,
}

/// The operations that change what survives a power cut.
///
/// Nothing is durable before the sync that covers it: `sync_data` for a file's octets, `sync_dir` for the names in a folder,
/// `sync_fs` for everything before it on that file system.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Makes a file that was not there, readable and writable by its owner alone.
    fn create(&self, path: &Path) -> io::Result<DiskFile>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<DiskFile>;
    /// Writes all of `parts`, one after the other, from `offset` on.
    fn write_at(&self, file: &DiskFile, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Takes `len` octets from the file system and fills them with zeros, so that later writes change no metadata.
    fn preallocate(&self, file: &DiskFile, len: u64) -> io::Result<()>;
    /// The octets written so far, and the length, survive once this returns.
    fn sync_data(&self, file: &DiskFile) -> io::Result<()>;
    /// Gives a file another name, atomically, in place of what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder for its owner alone, unless it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in this folder survive once this returns.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Everything done so far on the file system of `path` survives once this returns.
    fn sync_fs(&self, path: &Path) -> io::Result<()>;
    /// Octets that an ordinary user may still take on the file system of `path`.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(DiskFile { file, tag: 0 })
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        Ok(DiskFile { file: OpenOptions::new().read(true).write(true).open(path)?, tag: 0 })
    }

    fn write_at(&self, file: &DiskFile, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_all_at(&file.file, parts, offset)
    }

    fn preallocate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        // Asked for first, so that a full disk is found before any octet is written. File systems that cannot say no take the zeros.
        match rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        // Written zeros, since the first write into an unwritten extent changes metadata that fdatasync would have to carry.
        let zeros = vec![0u8; ZEROS];
        let mut at = 0;
        while at < len {
            let piece = usize::try_from(len - at).unwrap_or(ZEROS).min(ZEROS);
            write_all_at(&file.file, &mut [IoSlice::new(zeros.get(..piece).unwrap_or(&zeros))], at)?;
            at += piece as u64;
        }
        file.file.sync_all()
    }

    fn sync_data(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_fs(&self, path: &Path) -> io::Result<()> {
        rustix::fs::syncfs(File::open(path)?).map_err(Into::into)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// What the kernel takes in one call (IOV_MAX).
const MAX_PARTS: usize = 1024;

/// Writes all parts, going on after short writes and interruptions.
fn write_all_at(file: &File, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        let now = parts.get(..parts.len().min(MAX_PARTS)).unwrap_or_default();
        match rustix::io::pwritev(file, now, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                IoSlice::advance_slices(&mut parts, n);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether an error says that there is no room: a full disk, a spent quota, or a limit on the size of files.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// The folder a path stands in.
pub fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_else(|| PathBuf::from("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_parts_than_one_call_takes_are_all_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        let texts: Vec<String> = (0..3000).map(|n| format!("{n},")).collect();
        let mut parts: Vec<IoSlice> = texts.iter().map(|t| IoSlice::new(t.as_bytes())).collect();
        RealDisk.write_at(&file, &mut parts, 7).unwrap();
        let content = fs::read(dir.path().join("a")).unwrap();
        assert_eq!(content.get(7..).unwrap(), texts.concat().as_bytes());
    }

    #[test]
    fn a_preallocated_file_is_all_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        RealDisk.preallocate(&file, 3_000_001).unwrap();
        let content = fs::read(dir.path().join("a")).unwrap();
        assert_eq!(content.len(), 3_000_001);
        assert!(content.iter().all(|&b| b == 0));
    }

    #[test]
    fn what_exists_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        RealDisk.create_dir(&dir.path().join("d")).unwrap();
        RealDisk.create_dir(&dir.path().join("d")).unwrap();
        RealDisk.create(&dir.path().join("f")).unwrap();
        assert!(RealDisk.create(&dir.path().join("f")).is_err());
        assert!(RealDisk.create_dir(&dir.path().join("f")).is_err());
    }
}
