//! Collects a body while it arrives: in memory while it is small and the budget allows, beyond that in a file of the queue's folder.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use crate::body::{Body, Inner};
use crate::body_file::BodyFile;
use crate::budget::{Budget, Lease};
use crate::disk::{Disk, DiskFile};

/// Gathered before they are written to the file, so that a large message costs few calls.
const BLOCK: usize = 256 * 1024;

/// Beyond so many octets a body is large, and its buffer gets [`MUCH`] next.
const LARGE: usize = 128 * 1024;
/// A power of two.
const MUCH: usize = 1024 * 1024;

/// Takes a message's octets as they come. Dropped unfinished, it leaves nothing behind.
pub struct BodyWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    buffer: BytesMut,
    lease: Lease,
    spill: Option<Spill>,
    len: u64,
}

/// The file side: at most one block is under way while the next one fills.
struct Spill {
    /// Dropped uncalled, it removes the file.
    file: Arc<Open>,
    offset: u64,
    crc: u32,
    writing: Option<JoinHandle<io::Result<()>>>,
}

/// An open file that is removed on drop unless its handle was taken out.
struct Open {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    handle: Option<DiskFile>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.handle.take().is_some()
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished message's file could not be removed");
        }
    }
}

impl BodyWriter {
    /// Writes to `path` if it must; nothing is there yet.
    pub(crate) fn new(disk: Arc<dyn Disk>, budget: &Arc<Budget>, path: PathBuf) -> Self {
        Self { disk, path, buffer: BytesMut::new(), lease: budget.lease(), spill: None, len: 0 }
    }

    /// Octets taken so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none were taken so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next octets. Fails when the file cannot be written, a full disk included: the message must then be refused.
    pub async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.len = self.len.saturating_add(octets.len() as u64);
        let total = self.buffer.len().saturating_add(octets.len());
        let fits = match &self.spill {
            None => self.lease_for(total),
            Some(_) => total < BLOCK,
        };
        if fits {
            self.buffer.extend_from_slice(octets);
            return Ok(());
        }
        self.open().await?;
        self.buffer.extend_from_slice(octets);
        self.flush().await
    }

    /// Takes the next octets without copying them where they are the first and only ones.
    pub async fn write_bytes(&mut self, octets: Bytes) -> io::Result<()> {
        if self.len == 0
            && self.lease.grow_to(octets.len() as u64)
            && let Ok(owned) = octets.clone().try_into_mut()
        {
            self.len = owned.len() as u64;
            self.buffer = owned;
            return Ok(());
        }
        self.write(&octets).await
    }

    /// The whole body. It is not durable before [`crate::Queue::accept`] says so, and gone when it is dropped before.
    pub async fn finish(mut self) -> io::Result<Body> {
        if self.spill.is_some() {
            self.flush().await?;
        }
        let Some(mut spill) = self.spill.take() else {
            // What the buffer reserved beyond its content would stay taken for as long as the message waits.
            let content = if self.buffer.capacity() > self.buffer.len().saturating_mul(2) {
                Bytes::copy_from_slice(&self.buffer)
            } else {
                self.buffer.freeze()
            };
            self.lease.shrink_to(content.len() as u64);
            return Ok(Body::new(Inner::Memory(content, Some(Arc::new(self.lease)))));
        };
        spill.wait().await?;
        let lost = || io::Error::other("the file of a message is still being written");
        let mut open = Arc::into_inner(spill.file).ok_or_else(lost)?;
        let handle = open.handle.take().ok_or_else(lost)?;
        let file = BodyFile::fresh(Arc::clone(&self.disk), std::mem::take(&mut open.path), spill.offset, spill.crc, handle);
        Ok(Body::new(Inner::File(Arc::new(file))))
    }

    /// Takes budget as the buffer grows, in powers of two; but what has become large gets room for much more at once where that is to be had, since
    /// each growth copies what is there.
    fn lease_for(&mut self, total: usize) -> bool {
        let room = total.next_power_of_two();
        if (LARGE + 1..MUCH).contains(&room) && self.lease.grow_to(MUCH as u64) {
            self.buffer.reserve(MUCH.saturating_sub(self.buffer.len()));
            return true;
        }
        self.lease.grow_to(room as u64)
    }

    async fn open(&mut self) -> io::Result<()> {
        if self.spill.is_some() {
            return Ok(());
        }
        let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
        let file = crate::body::blocking(move || {
            let handle = Some(disk.create(&path)?);
            Ok(Arc::new(Open { disk, path, handle }))
        })
        .await?;
        self.spill = Some(Spill { file, offset: 0, crc: 0, writing: None });
        Ok(())
    }

    /// Sends the buffer on its way to the file, once the block before it is there.
    async fn flush(&mut self) -> io::Result<()> {
        let Some(spill) = &mut self.spill else { return Ok(()) };
        spill.wait().await?;
        let block = self.buffer.split().freeze();
        self.lease.shrink_to(0);
        if block.is_empty() {
            return Ok(());
        }
        spill.crc = crc32c::crc32c_append(spill.crc, &block);
        let (file, offset) = (Arc::clone(&spill.file), spill.offset);
        spill.offset = spill.offset.saturating_add(block.len() as u64);
        spill.writing = Some(tokio::task::spawn_blocking(move || match &file.handle {
            Some(handle) => file.disk.write_at(handle, &mut [IoSlice::new(&block)], offset),
            None => Err(io::ErrorKind::NotFound.into()),
        }));
        Ok(())
    }
}

impl Spill {
    async fn wait(&mut self) -> io::Result<()> {
        match self.writing.take() {
            Some(writing) => writing.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    const LARGEST: usize = 256 * 1024;

    fn writer(dir: &tempfile::TempDir, budget: &Arc<Budget>) -> BodyWriter {
        BodyWriter::new(Arc::new(RealDisk), budget, dir.path().join("m"))
    }

    fn files(dir: &tempfile::TempDir) -> usize {
        std::fs::read_dir(dir.path()).unwrap().count()
    }

    #[tokio::test]
    async fn small_stays_in_memory_and_large_becomes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(1 << 20, LARGEST as u64);
        for len in [0, 1, 1000, LARGEST, LARGEST + 1, 3 * BLOCK + 17] {
            let content: Vec<u8> = (0..len).map(|n| (n % 253) as u8).collect();
            let mut writer = writer(&dir, &budget);
            for piece in content.chunks(4001) {
                writer.write(piece).await.unwrap();
            }
            assert_eq!(writer.len(), len as u64);
            let body = writer.finish().await.unwrap();
            assert_eq!(files(&dir), usize::from(len > LARGEST), "{len}");
            assert_eq!(body.bytes().await.unwrap(), content);
            if let Inner::File(file) = body.parts().1 {
                assert_eq!(file.crc, crc32c::crc32c(&content));
            }
            drop(body);
            assert_eq!((files(&dir), budget.used()), (0, 0));
        }
    }

    #[tokio::test]
    async fn what_becomes_large_gets_room_at_once_and_keeps_what_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(4 * MUCH as u64, 4 * MUCH as u64);
        let mut writer = writer(&dir, &budget);
        writer.write(&vec![b'x'; LARGE]).await.unwrap();
        assert_eq!(budget.used(), LARGE as u64);
        for _ in 0..3 {
            writer.write(&[b'x'; 1000]).await.unwrap();
            assert_eq!(budget.used(), MUCH as u64);
        }
        let body = writer.finish().await.unwrap();
        assert_eq!((body.len(), budget.used()), (LARGE as u64 + 3000, LARGE as u64 + 3000));
    }

    #[tokio::test]
    async fn without_budget_even_a_small_body_goes_to_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(100, 100);
        let mut writer = writer(&dir, &budget);
        writer.write(&[b'a'; 90]).await.unwrap();
        writer.write(&[b'b'; 90]).await.unwrap();
        let body = writer.finish().await.unwrap();
        assert_eq!(files(&dir), 1);
        assert_eq!(body.len(), 180);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn dropped_unfinished_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(1 << 20, LARGEST as u64);
        let mut writer = writer(&dir, &budget);
        for _ in 0..3 {
            writer.write(&vec![b'x'; BLOCK]).await.unwrap();
        }
        writer.spill.as_mut().unwrap().wait().await.unwrap();
        assert_eq!(files(&dir), 1);
        drop(writer);
        assert_eq!((files(&dir), budget.used()), (0, 0));
    }

    #[tokio::test]
    async fn a_kept_file_outlives_its_body_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir, &Budget::new(0, 0));
        writer.write(b"abc").await.unwrap();
        let body = writer.finish().await.unwrap();
        let Inner::File(file) = body.parts().1.clone() else { panic!("no file") };
        file.persist().unwrap();
        drop(body);
        assert_eq!(files(&dir), 1);
        file.release();
        drop(file);
        assert_eq!(files(&dir), 0);
    }
}
