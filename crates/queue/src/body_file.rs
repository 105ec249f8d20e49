//! A body that is a file of its own under `spool/`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// A body's own file. While it is not kept, it goes when its last holder goes.
pub(crate) struct BodyFile {
    path: PathBuf,
    pub(crate) len: u64,
    /// CRC-32C of the content, computed while it was written.
    pub(crate) crc: u32,
    keep: AtomicBool,
    /// Open between the last write and the sync at acceptance, so that a write-back error in between is not missed.
    handle: Mutex<Option<DiskFile>>,
    disk: Option<Arc<dyn Disk>>,
}

impl BodyFile {
    pub(crate) fn kept(path: PathBuf, len: u64) -> Self {
        Self { path, len, crc: 0, keep: AtomicBool::new(true), handle: Mutex::new(None), disk: None }
    }

    /// A file that was just written and belongs to nobody yet.
    pub(crate) fn fresh(disk: Arc<dyn Disk>, path: PathBuf, len: u64, crc: u32, handle: DiskFile) -> Self {
        Self { path, len, crc, keep: AtomicBool::new(false), handle: Mutex::new(Some(handle)), disk: Some(disk) }
    }

    /// A file that an earlier process left and the journal still names.
    pub(crate) fn found(disk: Arc<dyn Disk>, path: PathBuf, len: u64, crc: u32) -> Self {
        Self { path, len, crc, keep: AtomicBool::new(true), handle: Mutex::new(None), disk: Some(disk) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was just written and nobody keeps it yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.handle.lock().is_some()
    }

    /// Makes content and name durable and keeps the file from now on. Blocks.
    pub(crate) fn persist(&self) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        if let Some(handle) = self.handle.lock().take() {
            disk.sync_data(&handle)?;
            disk.sync_dir(&crate::disk::parent(&self.path))?;
        }
        self.keep.store(true, Ordering::Release);
        Ok(())
    }

    /// Nobody needs the file any more: it goes with its last holder.
    pub(crate) fn release(&self) {
        self.keep.store(false, Ordering::Release);
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if let (false, Some(disk)) = (self.keep.load(Ordering::Acquire), &self.disk)
            && let Err(error) = disk.remove(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a message's file that is no longer needed could not be removed");
        }
    }
}
