//! Segments: files of one fixed size, written once from front to back, then given a new name and used again.
//!
//! A segment is called `GENERATION-NONCE.log`, both in 16 hexadecimal digits. Giving it a new name is what empties it: the
//! records in it no longer match its nonce.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// Bounds on `queue.segment_size`: room for the largest envelope, and offsets that fit 32 bits with ease.
pub(crate) const SIZES: std::ops::RangeInclusive<u64> = (1 << 20)..=(256 << 20);

/// How many segments are kept ready beyond those in use.
const READY: usize = 2;

/// One use of a segment.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Which use this is; later ones have higher numbers.
    pub(crate) generation: u64,
    pub(crate) nonce: u64,
    pub(crate) path: PathBuf,
    /// Bodies that were not read yet hold the file, too.
    pub(crate) file: Arc<DiskFile>,
    /// Octets.
    pub(crate) size: u64,
    /// Messages in here that nothing else stands for yet.
    live: AtomicUsize,
}

/// A message's claim on the segment it is in: the segment is not used again before it is dropped.
#[derive(Debug)]
pub(crate) struct Hold(pub(crate) Arc<Segment>);

impl Hold {
    pub(crate) fn new(segment: &Arc<Segment>) -> Self {
        segment.live.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(segment))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Segment {
    pub(crate) fn new(path: PathBuf, generation: u64, nonce: u64, file: DiskFile, size: u64) -> Self {
        Self { generation, nonce, path, file: Arc::new(file), size, live: AtomicUsize::new(0) }
    }

    /// Messages that need it still.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Whether no message needs it and nobody reads it.
    pub(crate) fn is_free(&self) -> bool {
        self.live() == 0 && Arc::strong_count(&self.file) == 1
    }
}

/// The name of a use of a segment.
fn name(generation: u64, nonce: u64) -> String {
    format!("{generation:016x}-{nonce:016x}.log")
}

/// Generation and nonce from a segment's name.
pub(crate) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (generation, nonce) = name.strip_suffix(".log")?.split_once('-')?;
    let hex = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    Some((hex(generation)?, hex(nonce)?))
}

/// The segments that wait to be used.
#[derive(Debug)]
pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    size: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    ready: VecDeque<Segment>,
}

impl Pool {
    /// A pool for `folder` whose next segment has a generation of at least `next`; `ready` are empty ones found there, oldest first.
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: PathBuf, size: u64, next: u64, ready: Vec<Segment>) -> Self {
        Self { disk, folder, size, state: Mutex::new(State { next, ready: ready.into() }) }
    }

    /// Octets of the largest body that is written into a segment; larger ones are files of their own. A few must fit a segment and a flush,
    /// lest each costs a segment half used, and those who share the flush wait long.
    pub(crate) fn largest_body(&self) -> u64 {
        (self.size / 4).min(4 << 20)
    }

    /// Octets a segment has.
    pub(crate) fn segment_size(&self) -> u64 {
        self.size
    }

    /// The next segment to write. Makes one when none is ready, which takes a while. Fails when the disk is full.
    pub(crate) fn take(&self) -> io::Result<Segment> {
        let mut state = self.state.lock();
        match state.ready.pop_front() {
            Some(segment) => Ok(segment),
            None => self.make(&mut state),
        }
    }

    /// Sees to it that segments wait before they are asked for.
    pub(crate) fn refill(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.ready.is_empty() {
            let segment = self.make(&mut state)?;
            state.ready.push_back(segment);
        }
        Ok(())
    }

    /// Takes back a segment that nobody needs.
    pub(crate) fn recycle(&self, segment: Segment) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(file) = Arc::into_inner(segment.file) else {
            return Err(io::Error::other("a journal segment is still being read"));
        };
        if state.ready.len() >= READY || segment.size != self.size {
            drop(file);
            self.disk.remove(&segment.path)?;
            return self.disk.sync_dir(&self.folder);
        }
        let (generation, nonce, path) = self.fresh_name(&mut state);
        self.disk.rename(&segment.path, &path)?;
        self.disk.sync_dir(&self.folder)?;
        state.ready.push_back(Segment::new(path, generation, nonce, file, self.size));
        Ok(())
    }

    fn make(&self, state: &mut State) -> io::Result<Segment> {
        // Under another name until it is whole, so that start-up never meets a short one.
        let unfinished = self.folder.join("new.tmp");
        remove_if_there(&*self.disk, &unfinished)?;
        let file = self.disk.create(&unfinished)?;
        if let Err(error) = self.disk.preallocate(&file, self.size) {
            drop(file);
            remove_if_there(&*self.disk, &unfinished)?;
            return Err(error);
        }
        let (generation, nonce, path) = self.fresh_name(state);
        self.disk.rename(&unfinished, &path)?;
        self.disk.sync_dir(&self.folder)?;
        Ok(Segment::new(path, generation, nonce, file, self.size))
    }

    fn fresh_name(&self, state: &mut State) -> (u64, u64, PathBuf) {
        let (generation, nonce) = (state.next, rand::random());
        state.next += 1;
        (generation, nonce, self.folder.join(name(generation, nonce)))
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn segments_come_in_order_and_are_used_again_under_new_names() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::new(Arc::new(RealDisk), dir.path().into(), 4096, 7, vec![]);
        pool.refill().unwrap();
        pool.refill().unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_eq!((first.generation, second.generation), (7, 8));
        assert_ne!(first.nonce, second.nonce);
        let (old, nonce) = (first.path.clone(), first.nonce);
        pool.recycle(first).unwrap();
        assert!(!old.exists());
        let third = pool.take().unwrap();
        assert_eq!(third.generation, 9);
        assert_ne!(third.nonce, nonce);
        assert_eq!(names(dir.path()).len(), 2);
        assert_eq!(parse_name(names(dir.path()).last().unwrap()), Some((9, third.nonce)));
    }

    #[test]
    fn more_than_needed_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::new(Arc::new(RealDisk), dir.path().into(), 4096, 0, vec![]);
        let taken: Vec<Segment> = (0..5).map(|_| pool.take().unwrap()).collect();
        for segment in taken {
            pool.recycle(segment).unwrap();
        }
        assert_eq!(names(dir.path()).len(), READY);
    }

    #[test]
    fn a_segment_in_use_is_not_free() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::new(Arc::new(RealDisk), dir.path().into(), 4096, 0, vec![]);
        let segment = Arc::new(pool.take().unwrap());
        assert!(segment.is_free());
        let hold = Hold::new(&segment);
        assert!(!segment.is_free());
        let reader = Arc::clone(&segment.file);
        drop(hold);
        assert!(!segment.is_free());
        drop(reader);
        assert!(segment.is_free());
    }
}
