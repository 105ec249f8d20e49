//! Writing the archive: entries with their checksums.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::out::size;
use crate::progress::Progress;

/// Compresses well without being the bottleneck before the disk.
const LEVEL: i32 = 3;

/// An archive being written.
pub(super) struct Archive<W: Write> {
    tar: Builder<zstd::Encoder<'static, W>>,
    sums: String,
    shown: Progress,
    pub(super) entries: u64,
    pub(super) octets: u64,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(out, LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Self { tar: Builder::new(encoder), sums: String::new(), shown: Progress::wheel("reading"), entries: 0, octets: 0 })
    }

    /// Octets in hand, under `name`.
    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8], modified: u64) -> io::Result<()> {
        self.entry(name, bytes, bytes.len() as u64, modified)
    }

    /// A file as it is now; one that has gone meanwhile is left out. Grows or shrinks while it is read: what it had at first counts, filled up with NULs.
    pub(super) fn file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        let (file, meta) = match File::open(path).and_then(|f| f.metadata().map(|m| (f, m))) {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        };
        let filled = file.chain(io::repeat(0)).take(meta.len());
        self.entry(name, filled, meta.len(), seconds(&meta))
    }

    /// All plain files below `folder`; symbolic links, sockets and pipes are no part of a backup.
    pub(super) fn tree(&mut self, name: &str, folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", folder.display()))),
        };
        let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let Some(last) = path.file_name().and_then(|n| n.to_str()) else { continue };
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            let inside = format!("{name}/{last}");
            if meta.is_dir() {
                self.tree(&inside, &path, wanted)?;
            } else if meta.is_file() && wanted(&path) {
                self.file(&inside, &path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, content: impl Read, octets: u64, modified: u64) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(octets);
        header.set_mode(0o600);
        header.set_mtime(modified);
        let mut summed = Summed { inner: content, sum: Sha256::new() };
        self.tar.append_data(&mut header, name, &mut summed)?;
        let sum: String = summed.sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
        self.sums.push_str(&format!("{sum}  {name}\n"));
        self.entries += 1;
        self.octets = self.octets.saturating_add(octets);
        self.shown.say(format!("{} files, {}", self.entries, size(self.octets)));
        Ok(())
    }

    /// Writes the checksums and returns what was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let sums = std::mem::take(&mut self.sums);
        self.bytes(super::SUMS, sums.as_bytes(), 0)?;
        self.tar.into_inner()?.finish()
    }
}

fn seconds(meta: &Metadata) -> u64 {
    u64::try_from(meta.mtime()).unwrap_or(0)
}

/// Sums what is read through it.
struct Summed<R> {
    inner: R,
    sum: Sha256,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sum.update(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}
