//! The one door for files that must be whole or as before: temporary name, write, fsync, rename, fsync of the folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file on its way to replace another. Dropped before [`Replacement::commit`], it leaves the old one as it was.
pub(crate) struct Replacement {
    writer: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Replacement {
    /// Begins, with a temporary file beside `path` of exactly this mode, whatever the umask.
    pub(crate) fn begin(path: &Path, mode: u32) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let temporary = folder(path).join(format!(".{}.{:016x}", name.to_string_lossy(), rand::random::<u64>()));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(Self { writer: BufWriter::with_capacity(64 << 10, file), temporary, path: path.to_owned(), done: false })
    }

    /// Makes the content durable and gives it the name. A crash leaves the old file or the new one, never a part. Blocking.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.finish()
    }

    /// The same, for readers that tell a changed file by its size and the second of its last change, as Dovecot does: the new file is dated at least a whole
    /// second after the old one, though both may be of the same second.
    pub(crate) fn commit_dated(mut self) -> io::Result<()> {
        self.writer.flush()?;
        if let Ok(old) = fs::metadata(&self.path).and_then(|old| old.modified()) {
            let second = old.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let next = SystemTime::UNIX_EPOCH + Duration::from_secs(second.saturating_add(1));
            if SystemTime::now() < next {
                self.writer.get_ref().set_modified(next)?;
            }
        }
        self.finish()
    }

    fn finish(mut self) -> io::Result<()> {
        self.writer.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.done = true;
        File::open(folder(&self.path))?.sync_all()
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.done {
            // A left-over is harmless; the error that led here counts more.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let put = |text: &str| {
            let mut file = Replacement::begin(&path, 0o600).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        put("old").commit().unwrap();
        drop(put("given up"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        put("new").commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = || fs::metadata(&path).unwrap().modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut before = second();
        for text in ["one", "two", "six"] {
            put(text).commit_dated().unwrap();
            assert!(second() > before, "a reader that goes by seconds and sizes sees each change");
            before = second();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no left-overs");
        assert!(Replacement::begin(&folder.path().join("none/f"), 0o600).is_err());
    }
}
