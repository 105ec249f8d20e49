//! Which envelopes changed since the index was written, so that a start after a kill need not look at all of them.
//!
//! Beside the index stands a file that bears its number: ids, each noted before its envelope is written, and a mark after each round of
//! writing. Nothing of it is synced. So it counts within the boot of the machine that wrote it, where a kill loses nothing that was written; and
//! only for folders that did not change after its last mark, since what changed later was not ours, or was cut short.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::scan::changed;
use crate::id::QueueId;

const MAGIC: &[u8; 8] = b"pbchang1";

/// Files begin with this, and the index's number in hexadecimal follows.
const NAME: &str = "deferred.changed-";

/// Octets that one may have; what is longer is given up, and the next index begins another.
const MOST: u64 = 64 << 20;

/// In place of an id: a round of writing is over.
const MARK: QueueId = QueueId(0);

/// The files that are written to: one for the index that stands, and one for that which is being made.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    folder: PathBuf,
    boot: String,
    open: Mutex<Vec<Log>>,
    /// Something was written or removed since the last mark.
    unmarked: AtomicBool,
}

#[derive(Debug)]
struct Log {
    number: u64,
    path: PathBuf,
    file: File,
    len: u64,
}

/// What happened since an index was written.
#[derive(Debug)]
pub(crate) struct Since {
    ids: HashSet<QueueId>,
    /// When the last mark was set, as folders' stamps are counted.
    marked: i64,
}

impl Since {
    /// Whether an envelope is as the index knows it, in a folder that changed last at `stamp`.
    pub(super) fn spares(&self, id: QueueId, stamp: i64) -> bool {
        stamp <= self.marked && !self.ids.contains(&id)
    }
}

impl Changes {
    /// In the queue's folder, during this boot of the machine.
    pub(crate) fn new(folder: PathBuf, boot: String) -> Self {
        Self { folder, boot, ..Self::default() }
    }

    /// What happened since the index of this number was written, if that is known. Whatever happens next is noted, too. Files of other indexes
    /// are removed.
    pub(crate) fn take_up(&self, number: Option<u64>) -> Option<Since> {
        self.sweep(number.map(|number| self.path(number)).as_deref());
        let number = number?;
        let path = self.path(number);
        let (since, len) = self.read(&path)?;
        let file = OpenOptions::new().append(true).open(&path).ok()?;
        self.open.lock().push(Log { number, path, file, len });
        Some(since)
    }

    /// Notes what happens from here on for an index that is about to be made.
    pub(crate) fn begin(&self, number: u64) -> io::Result<()> {
        let path = self.path(number);
        let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path)?;
        let head = self.head();
        file.write_all(&head)?;
        self.open.lock().push(Log { number, path, file, len: head.len() as u64 });
        Ok(())
    }

    /// The index of this number stands, and no other; or it could not be made.
    pub(crate) fn end(&self, number: u64, stands: bool) {
        self.open.lock().retain(|log| {
            let keep = (log.number == number) == stands;
            if !keep {
                log.remove();
            }
            keep
        });
    }

    /// To be called before envelopes are written.
    pub(crate) fn note(&self, ids: impl Iterator<Item = QueueId>) {
        self.touch();
        self.append(ids);
    }

    /// To be called where something is removed.
    pub(crate) fn touch(&self) {
        self.unmarked.store(true, Ordering::Release);
    }

    /// To be called once all that is done.
    pub(crate) fn mark(&self) {
        if self.unmarked.swap(false, Ordering::AcqRel) {
            self.append(std::iter::once(MARK));
        }
    }

    fn append(&self, ids: impl Iterator<Item = QueueId>) {
        let mut open = self.open.lock();
        if open.is_empty() {
            return;
        }
        let octets: Vec<u8> = ids.flat_map(|id| id.0.to_le_bytes()).collect();
        open.retain_mut(|log| {
            log.len = log.len.saturating_add(octets.len() as u64);
            let noted = if log.len > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { log.file.write_all(&octets) };
            if let Err(error) = &noted {
                tracing::debug!(%error, "changes of parked mail are not noted; a start after a kill takes longer");
                log.remove();
            }
            noted.is_ok()
        });
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{NAME}{number:016x}"))
    }

    /// What all files of this boot begin with.
    fn head(&self) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&(self.boot.len() as u64).to_le_bytes());
        head.extend_from_slice(self.boot.as_bytes());
        head
    }

    fn read(&self, path: &Path) -> Option<(Since, u64)> {
        let octets = fs::read(path).ok()?;
        let marked = changed(&fs::metadata(path).ok()?);
        let (ids, []) = octets.strip_prefix(self.head().as_slice())?.as_chunks::<8>() else { return None };
        let ids = ids.iter().map(|id| QueueId(u64::from_le_bytes(*id))).collect();
        Some((Since { ids, marked }, octets.len() as u64))
    }

    /// Removes what other indexes left.
    fn sweep(&self, except: Option<&Path>) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| Some(path.as_path()) != except) {
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(NAME)) {
                _ = fs::remove_file(path);
            }
        }
    }
}

impl Log {
    /// Where it cannot be removed, it is emptied, which takes no room either: what is not whole is not believed.
    fn remove(&self) {
        if fs::remove_file(&self.path).is_err() {
            _ = self.file.set_len(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(dir: &tempfile::TempDir, boot: &str) -> Changes {
        Changes::new(dir.path().into(), boot.into())
    }

    fn files(dir: &tempfile::TempDir) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_noted_is_known_in_the_same_boot_and_noted_on() {
        let dir = tempfile::tempdir().unwrap();
        let first = changes(&dir, "a");
        assert!(first.take_up(Some(7)).is_none());
        first.note([QueueId(1)].into_iter());
        first.begin(7).unwrap();
        first.note([QueueId(2), QueueId(3)].into_iter());
        first.mark();
        drop(first);
        assert!(changes(&dir, "aa").take_up(Some(7)).is_none(), "another boot");
        let second = changes(&dir, "a");
        let since = second.take_up(Some(7)).unwrap();
        assert!(since.spares(QueueId(1), since.marked) && !since.spares(QueueId(2), 0));
        assert!(!since.spares(QueueId(1), since.marked + 1), "its folder changed later");
        second.note([QueueId(1)].into_iter());
        drop(second);
        assert!(!changes(&dir, "a").take_up(Some(7)).unwrap().spares(QueueId(1), 0));
        for gone in [Some(8), None] {
            changes(&dir, "a").begin(7).ok();
            assert!(changes(&dir, "a").take_up(gone).is_none());
            assert!(files(&dir).is_empty(), "of an index that is gone");
        }
    }

    #[test]
    fn an_index_in_the_making_has_its_own_until_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let all = changes(&dir, "a");
        all.begin(1).unwrap();
        all.note([QueueId(5)].into_iter());
        for (number, stands) in [(2, false), (3, true)] {
            all.begin(number).unwrap();
            all.note([QueueId(number)].into_iter());
            all.end(number, stands);
            let left = if stands { number } else { 1 };
            assert_eq!(files(&dir), [format!("{NAME}{left:016x}")]);
        }
        let since = changes(&dir, "a").take_up(Some(3)).unwrap();
        assert!(since.spares(QueueId(5), 0) && since.spares(QueueId(2), 0) && !since.spares(QueueId(3), 0));
    }

    #[test]
    fn a_torn_one_is_not_believed_and_one_that_cannot_grow_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let all = changes(&dir, "a");
        all.begin(1).unwrap();
        all.note([QueueId(5)].into_iter());
        let path = all.path(1);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(all.read(&path).is_some(), len == whole.len() - 8, "{len}");
        }
        all.open.lock()[0].len = MOST;
        all.note([QueueId(6)].into_iter());
        assert!(files(&dir).is_empty() && all.open.lock().is_empty());
    }
}
