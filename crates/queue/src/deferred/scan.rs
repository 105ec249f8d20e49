//! Start-up: finds what is parked, by the index where it is right and by the envelopes where it is not.

use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::index::{Index, IndexEntry};
use super::{Deferred, ReadError, folder_number, read_envelope};
use crate::disk::{Disk, parent};
use crate::envelope::Envelope;
use crate::id::QueueId;
use crate::journal::remove_if_there;

/// One parked message.
pub(crate) enum Scanned {
    /// The index knew it.
    Known(QueueId, IndexEntry),
    /// Read from its envelope.
    Read(Box<Envelope>),
}

/// Why the scan cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: its format is {format}, newer than this version of the program knows; run the newer version", path.display())]
    Newer { path: PathBuf, format: u32 },
}

/// Threads at once for each core: envelopes that must be read make them wait for the disk.
const THREADS_A_CORE: usize = 4;

/// Goes through the folder with several threads, has `note` make what is wanted of each message, and `take` take it a folder at a time, in no
/// order. Files that cannot be used are moved to `aside`, and said so in the answer; what an unfinished parking or removal left is removed.
/// `finished` says of an envelope whether the journal knows that nothing is left to do.
pub(crate) fn scan<T>(
    deferred: &Deferred,
    index: &Index,
    aside: &Path,
    finished: &(dyn Fn(&Envelope) -> bool + Sync),
    note: impl Fn(Scanned) -> T + Sync,
    take: impl Fn(Vec<T>) + Sync,
) -> Result<Vec<String>, ScanError> {
    let root = deferred.root();
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error| ScanError::Io { path: path.clone(), error }
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(root).map_err(failed(root))? {
        let path = entry.map_err(failed(root))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    let threads = (std::thread::available_parallelism().map_or(2, usize::from) * THREADS_A_CORE).min(folders.len().max(1));
    let next = AtomicUsize::new(0);
    let damaged = Mutex::new(Vec::new());
    let (next, damaged_ref, note, take, folders) = (&next, &damaged, &note, &take, &folders);
    std::thread::scope(|scope| {
        let work = move || -> Result<(), ScanError> {
            while let Some(folder) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
                let job = Folder { deferred, index, aside, finished, damaged: damaged_ref };
                take(job.scan(folder, note)?);
            }
            Ok(())
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().try_for_each(|handle| {
            let panicked = |_| ScanError::Io { path: root.to_path_buf(), error: io::Error::other("a scanning thread ended unexpectedly") };
            handle.join().map_err(panicked)?
        })
    })?;
    Ok(damaged.into_inner())
}

struct Folder<'a> {
    deferred: &'a Deferred,
    index: &'a Index,
    aside: &'a Path,
    finished: &'a (dyn Fn(&Envelope) -> bool + Sync),
    damaged: &'a Mutex<Vec<String>>,
}

impl Folder<'_> {
    fn scan<T>(&self, folder: &Path, note: &impl Fn(Scanned) -> T) -> Result<Vec<T>, ScanError> {
        let failed = |error| ScanError::Io { path: folder.to_path_buf(), error };
        let stamp = changed(&fs::metadata(folder).map_err(failed)?);
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = format!("000000000{name}00").parse().ok().map(folder_number);
        let mut envelopes: Vec<(u64, QueueId)> = Vec::new();
        let mut messages: Vec<QueueId> = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some((id, ending)) =
                name.to_str().and_then(|n| n.split_once('.')).and_then(|(id, e)| Some((id.parse::<QueueId>().ok()?, e)))
            else {
                tracing::warn!(file = %folder.join(&name).display(), "not a file of the queue; it is left alone");
                continue;
            };
            if Some(folder_number(id)) != number {
                tracing::warn!(file = %folder.join(&name).display(), "a file of the queue in a folder where it does not belong; it is left alone");
                continue;
            }
            match ending {
                "json" => envelopes.push((entry.ino(), id)),
                "msg" => messages.push(id),
                // Its content was not complete, or the former envelope is still in its place.
                "new" => remove_if_there(&*self.deferred.disk, &folder.join(&name)).map_err(failed)?,
                _ => tracing::warn!(file = %folder.join(&name).display(), "not a file of the queue; it is left alone"),
            }
        }
        // In the order in which they lie on the disk, which a cold start feels.
        envelopes.sort_unstable();
        messages.sort_unstable();
        let mut alone: Vec<bool> = vec![true; messages.len()];
        let mut found = Vec::with_capacity(envelopes.len());
        for (_, id) in envelopes {
            let message = messages.binary_search(&id).ok().and_then(|at| alone.get_mut(at));
            if let Some(alone) = message {
                *alone = false;
            } else {
                // A file system check may bring back the envelope of a finished message, and not the message.
                let path = self.deferred.path(id, "json");
                match read_envelope(&path) {
                    Ok(envelope) if (self.finished)(&envelope) => remove_if_there(&*self.deferred.disk, &path).map_err(failed)?,
                    _ => self.set_aside(id, "its message is missing")?,
                }
                continue;
            }
            found.extend(self.envelope(id, stamp)?.map(note));
        }
        // Without an envelope, a message is one whose parking did not finish (the journal has it) or whose removal did (it is done).
        for (id, _) in messages.into_iter().zip(alone).filter(|(_, alone)| *alone) {
            tracing::debug!(%id, "what an unfinished parking or removal left is removed");
            remove_if_there(&*self.deferred.disk, &self.deferred.path(id, "msg")).map_err(failed)?;
        }
        Ok(found)
    }

    /// What is to be known of an envelope; `folder` is its folder's stamp.
    fn envelope(&self, id: QueueId, folder: i64) -> Result<Option<Scanned>, ScanError> {
        let known = self.index.get(id);
        if known.is_some() && self.index.is_current(folder_number(id), folder) {
            return Ok(known.map(|entry| Scanned::Known(id, entry)));
        }
        let path = self.deferred.path(id, "json");
        if let Some(entry) = known {
            match stamp(&path) {
                Ok(stamp) if stamp == entry.stamp => return Ok(Some(Scanned::Known(id, entry))),
                Ok(_) => {}
                Err(error) => return Err(ScanError::Io { path, error }),
            }
        }
        match read_envelope(&path) {
            Ok(envelope) if envelope.id == id => return Ok(Some(Scanned::Read(Box::new(envelope)))),
            Ok(envelope) => self.set_aside(id, &format!("its envelope is that of {}", envelope.id)),
            Err(ReadError::Newer(format)) => return Err(ScanError::Newer { path, format }),
            Err(ReadError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => return Err(ScanError::Io { path, error }),
            Err(error) => self.set_aside(id, &error.to_string()),
        }
        .map(|()| None)
    }

    /// Moves what is left of a message to where an operator finds it.
    fn set_aside(&self, id: QueueId, why: &str) -> Result<(), ScanError> {
        let failed = |error| ScanError::Io { path: self.aside.to_path_buf(), error };
        let disk: &dyn Disk = &*self.deferred.disk;
        disk.create_dir(self.aside).map_err(failed)?;
        for ending in ["json", "msg"] {
            let from = self.deferred.path(id, ending);
            if from.exists() {
                disk.rename(&from, &self.aside.join(format!("{id}.{ending}"))).map_err(failed)?;
                disk.sync_dir(&parent(&from)).map_err(failed)?;
            }
        }
        disk.sync_dir(self.aside).map_err(failed)?;
        tracing::error!(%id, %why, aside = %self.aside.display(), "a parked message is damaged and was set aside: it will not be delivered until someone mends it");
        self.damaged.lock().push(format!("{id}: {why} (kept in {})", self.aside.display()));
        Ok(())
    }
}

/// What tells one version of an envelope's file from another.
pub(crate) fn stamp(path: &Path) -> io::Result<(i64, u32)> {
    let meta = fs::metadata(path)?;
    Ok((changed(&meta), u32::try_from(meta.len()).unwrap_or(u32::MAX)))
}

/// When a file or folder changed last, in nanoseconds.
pub(super) fn changed(meta: &fs::Metadata) -> i64 {
    meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec())
}

/// The stamp of a parked message's envelope, where it can be had.
pub(crate) fn stamp_of(deferred: &Deferred, id: QueueId) -> Option<(i64, u32)> {
    stamp(&deferred.path(id, "json")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::disk::RealDisk;
    use crate::envelope::{Recipient, Route};
    use std::sync::Arc;

    fn set_up() -> (tempfile::TempDir, Deferred) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deferred");
        fs::create_dir(&root).unwrap();
        (dir, Deferred::new(Arc::new(RealDisk), root))
    }

    fn park(deferred: &Deferred, ids: std::ops::Range<u64>) {
        let batch: Vec<_> = ids
            .map(|id| {
                let recipient = Recipient::new("bob@example.org".parse().unwrap(), Route::Relay);
                let id = QueueId(id << 10);
                (Envelope::new(id, "ada@example.net".parse().unwrap(), vec![recipient]), Body::from_bytes("x"))
            })
            .collect();
        deferred.park(&batch).unwrap();
    }

    fn run(deferred: &Deferred, dir: &tempfile::TempDir) -> (Vec<u64>, Vec<String>) {
        let found = Mutex::new(Vec::new());
        let id = |scanned| match scanned {
            Scanned::Read(envelope) => envelope.id.0 >> 10,
            Scanned::Known(..) => panic!("there is no index"),
        };
        let aside = dir.path().join("damaged");
        let damaged = scan(deferred, &Index::default(), &aside, &|_| false, id, |ids| found.lock().extend(ids)).unwrap();
        let mut found = found.into_inner();
        found.sort_unstable();
        (found, damaged)
    }

    #[test]
    fn everything_parked_is_found_in_its_many_folders() {
        let (dir, deferred) = set_up();
        park(&deferred, 1..200);
        assert!(fs::read_dir(deferred.root()).unwrap().count() > 100);
        assert_eq!(run(&deferred, &dir), ((1..200).collect(), vec![]));
    }

    #[test]
    fn leftovers_go_and_damage_is_set_aside() {
        let (dir, deferred) = set_up();
        park(&deferred, 1..8);
        let path = |n: u64, ending| deferred.path(QueueId(n << 10), ending);
        fs::remove_file(path(1, "json")).unwrap();
        fs::remove_file(path(2, "msg")).unwrap();
        fs::write(path(3, "json"), "{\"format\": 1, \"env").unwrap();
        fs::write(path(4, "new"), "half an upd").unwrap();
        fs::copy(path(5, "json"), path(6, "json")).unwrap();
        let (found, damaged) = run(&deferred, &dir);
        assert_eq!(found, [4, 5, 7]);
        assert_eq!(damaged.len(), 3, "{damaged:?}");
        assert!(!path(1, "msg").exists() && !path(4, "new").exists());
        let kept = |n: u64, ending: &str| dir.path().join(format!("damaged/{}.{ending}", QueueId(n << 10))).exists();
        assert!(kept(2, "json") && kept(3, "json") && kept(3, "msg") && kept(6, "msg"));
        assert_eq!(run(&deferred, &dir), (vec![4, 5, 7], vec![]));
    }

    #[test]
    fn a_newer_format_stops_the_start() {
        let (dir, deferred) = set_up();
        park(&deferred, 1..2);
        fs::write(deferred.path(QueueId(1 << 10), "json"), r#"{"format": 99, "envelope": {}}"#).unwrap();
        let result = scan(&deferred, &Index::default(), dir.path(), &|_| false, |_| (), |_| {});
        assert!(matches!(result, Err(ScanError::Newer { format: 99, .. })));
    }

    #[test]
    fn strangers_files_are_left_alone() {
        let (dir, deferred) = set_up();
        park(&deferred, 1..2);
        let folder = parent(&deferred.path(QueueId(1 << 10), "json"));
        fs::write(folder.join("README"), "x").unwrap();
        fs::write(folder.join("0123456789abc.bak"), "x").unwrap();
        fs::copy(deferred.path(QueueId(1 << 10), "json"), folder.join(format!("{}.json", QueueId(2 << 10)))).unwrap();
        assert_eq!(run(&deferred, &dir).0, [1]);
        assert!(folder.join("README").exists() && folder.join("0123456789abc.bak").exists());
    }
}
