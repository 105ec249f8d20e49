//! The disk's own limit: how many 4 KiB messages a second it makes durable with no mail server in the way.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Writers at once, at most.
const WRITERS: usize = 256;
/// The log that batches go round in.
const LOG: u64 = 64 << 20;

/// How a message is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A file each: written, fsync, renamed into `new/`, fsync of the folder.
    FileEach,
    /// One log whose blocks exist: whoever comes first writes for all who wait, with one fdatasync.
    SharedLog,
}

/// Messages a second by so many writers, in a fresh folder below `folder`, which is removed again.
pub fn limit(folder: &Path, way: Way, writers: usize, time: Duration, size: usize) -> io::Result<f64> {
    let place = tempfile::Builder::new().prefix("disk-limit-").tempdir_in(folder)?;
    let writers = writers.clamp(1, WRITERS);
    let log = match way {
        Way::FileEach => None,
        Way::SharedLog => Some(Log::make(&place.path().join("log"), size, writers)?),
    };
    let boxes: Vec<_> = (0..writers).map(|n| place.path().join(n.to_string())).collect();
    if log.is_none() {
        for path in &boxes {
            std::fs::create_dir_all(path.join("tmp"))?;
            std::fs::create_dir(path.join("new"))?;
        }
    }
    File::open(place.path())?.sync_all()?;
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let results: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let work = |path: &std::path::PathBuf| {
            let path = path.clone();
            let (log, done, stop) = (log.as_ref(), &done, &stop);
            scope.spawn(move || {
                let result = match log {
                    Some(log) => repeat(stop, began, time, done, |_| log.append()),
                    None => files(&path, stop, began, time, done, size),
                };
                if result.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                result
            })
        };
        let threads: Vec<_> = boxes.iter().map(work).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a writer ended unexpectedly")))).collect()
    });
    let elapsed = began.elapsed();
    results.into_iter().collect::<io::Result<()>>()?;
    Ok(done.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64())
}

fn repeat(
    stop: &AtomicBool,
    began: Instant,
    time: Duration,
    done: &AtomicU64,
    mut once: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) && began.elapsed() < time {
        once(number)?;
        number += 1;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn files(path: &Path, stop: &AtomicBool, began: Instant, time: Duration, done: &AtomicU64, size: usize) -> io::Result<()> {
    let folder = File::open(path.join("new"))?;
    let message = vec![b'x'; size];
    repeat(stop, began, time, done, |number| {
        let temporary = path.join(format!("tmp/{number}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&message)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path.join(format!("new/{number}")))?;
        folder.sync_all()
    })
}

/// A log that writers share.
struct Log {
    file: File,
    batch: Vec<u8>,
    size: usize,
    turn: Mutex<Turn>,
    wake: Condvar,
}

#[derive(Default)]
struct Turn {
    asked: u64,
    safe: u64,
    at: u64,
    somebody_writes: bool,
}

impl Log {
    fn make(path: &Path, size: usize, writers: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let chunk = vec![b'x'; 1 << 20];
        for at in (0..LOG).step_by(chunk.len()) {
            file.write_all_at(&chunk, at)?;
        }
        file.sync_all()?;
        Ok(Self { file, batch: vec![b'y'; size * writers], size, turn: Mutex::default(), wake: Condvar::new() })
    }

    /// Returns once one more message is durable.
    fn append(&self) -> io::Result<()> {
        let mut turn = self.turn.lock();
        turn.asked += 1;
        let mine = turn.asked;
        while turn.safe < mine {
            if turn.somebody_writes {
                self.wake.wait(&mut turn);
                continue;
            }
            turn.somebody_writes = true;
            let upto = turn.asked;
            let length = usize::try_from(upto - turn.safe).unwrap_or(0) * self.size;
            if turn.at + length as u64 > LOG {
                turn.at = 0;
            }
            let at = turn.at;
            turn.at += length as u64;
            drop(turn);
            let batch = self.batch.get(..length).unwrap_or(&self.batch);
            let written = self.file.write_all_at(batch, at).and_then(|()| self.file.sync_data());
            turn = self.turn.lock();
            turn.somebody_writes = false;
            turn.safe = upto;
            self.wake.notify_all();
            written?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_write_and_leave_nothing() {
        let folder = crate::folder();
        for way in [Way::FileEach, Way::SharedLog] {
            assert!(limit(folder.path(), way, 3, Duration::from_millis(50), 4096).unwrap() > 0.0);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
