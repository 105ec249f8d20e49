//! A disk that writes down what is done to it, and makes from that any state that a crash may leave.
//!
//! The model is as harsh as POSIX: what no sync covers may be there or not, each write by its sectors, each name by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::disk::{Disk, DiskFile, RealDisk, parent};
use crate::id::QueueId;

/// What a disk can keep or lose only as a whole.
const SECTOR: usize = 512;

/// One thing that happened, in the order in which it happened.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create {
        inode: u64,
        path: PathBuf,
    },
    Write {
        inode: u64,
        offset: u64,
        data: Vec<u8>,
    },
    /// Durable at once, as far as the content goes.
    Preallocate {
        inode: u64,
        len: u64,
    },
    SyncData {
        inode: u64,
    },
    Rename {
        inode: u64,
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        inode: u64,
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
    },
    SyncFs,
    /// Not of the disk: the sender got its 250.
    Acked {
        id: QueueId,
    },
    /// A mailbox took it; durable with the next `SyncMail`.
    Stored {
        id: QueueId,
        to: String,
    },
    SyncMail,
    /// Another host took it.
    Took {
        id: QueueId,
        to: String,
    },
    /// An operator was told that it is held.
    Held {
        id: QueueId,
    },
}

#[derive(Debug, Default)]
struct Log {
    ops: Vec<Op>,
    names: HashMap<PathBuf, u64>,
    next: u64,
}

/// Does everything for real, below `root`, and writes it down.
#[derive(Debug, Default, Clone)]
pub(crate) struct Recorder {
    log: Arc<Mutex<Log>>,
}

impl Recorder {
    pub(crate) fn mark(&self, op: Op) {
        self.log.lock().ops.push(op);
    }

    pub(crate) fn ops(&self) -> Vec<Op> {
        self.log.lock().ops.clone()
    }
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        let mut log = self.log.lock();
        let file = RealDisk.create(path)?.file;
        log.next += 1;
        let inode = log.next;
        log.names.insert(path.into(), inode);
        log.ops.push(Op::Create { inode, path: path.into() });
        Ok(DiskFile { file, tag: inode })
    }

    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        let log = self.log.lock();
        Ok(DiskFile { file: RealDisk.open(path)?.file, tag: *log.names.get(path).unwrap() })
    }

    fn write_at(&self, file: &DiskFile, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut log = self.log.lock();
        let data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        RealDisk.write_at(file, parts, offset)?;
        log.ops.push(Op::Write { inode: file.tag, offset, data });
        Ok(())
    }

    fn preallocate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        let mut log = self.log.lock();
        file.file.set_len(len)?;
        log.ops.push(Op::Preallocate { inode: file.tag, len });
        Ok(())
    }

    fn sync_data(&self, file: &DiskFile) -> io::Result<()> {
        self.log.lock().ops.push(Op::SyncData { inode: file.tag });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        RealDisk.rename(from, to)?;
        let inode = log.names.remove(from).unwrap();
        log.names.insert(to.into(), inode);
        log.ops.push(Op::Rename { inode, from: from.into(), to: to.into() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut log = self.log.lock();
        RealDisk.remove(path)?;
        let inode = log.names.remove(path).unwrap();
        log.ops.push(Op::Remove { inode, path: path.into() });
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        // A folder is taken to be there as soon as something durable is in it.
        RealDisk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.log.lock().ops.push(Op::SyncDir { path: path.into() });
        Ok(())
    }

    fn sync_fs(&self, _path: &Path) -> io::Result<()> {
        self.log.lock().ops.push(Op::SyncFs);
        Ok(())
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_space(path)
    }
}

/// How a crash treats what no sync covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process alone was killed: the kernel keeps everything.
    Kill,
    /// The power went: nothing of it is there.
    Nothing,
    /// The power went: each piece is there or not, by chance.
    Chance(u64),
}

/// What is left after a crash.
pub(crate) struct Left {
    pub(crate) acked: HashSet<QueueId>,
    pub(crate) held: HashSet<QueueId>,
    /// What mailboxes have.
    pub(crate) mailbox: HashSet<(QueueId, String)>,
    /// What other hosts have.
    pub(crate) taken: HashSet<(QueueId, String)>,
}

/// Makes below `to` what a crash after the first operations `ops` leaves of what was below `root`.
pub(crate) fn crash(ops: &[Op], crash: Crash, root: &Path, to: &Path) -> Left {
    let mut chance = StdRng::seed_from_u64(if let Crash::Chance(seed) = crash { seed } else { 0 });
    let mut keep = |_: &Op| match crash {
        Crash::Kill => true,
        Crash::Nothing => false,
        Crash::Chance(_) => chance.random_bool(0.5),
    };
    // The last sync that covers each operation.
    let last_fs = ops.iter().rposition(|op| matches!(op, Op::SyncFs));
    let mut synced_data: HashMap<u64, usize> = HashMap::new();
    let mut synced_dir: HashMap<&Path, usize> = HashMap::new();
    let mut synced_mail = 0;
    for (n, op) in ops.iter().enumerate() {
        match op {
            Op::SyncData { inode } => _ = synced_data.insert(*inode, n),
            Op::SyncDir { path } => _ = synced_dir.insert(path, n),
            Op::SyncMail => synced_mail = n,
            _ => {}
        }
    }
    let by_fs = |n: usize| last_fs.is_some_and(|last| n < last);
    let mut files: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut sizes: HashMap<u64, u64> = HashMap::new();
    let mut names: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let (mut acked, mut held) = (HashSet::new(), HashSet::new());
    let (mut mailbox, mut taken) = (HashSet::new(), HashSet::new());
    let mut sectors = StdRng::seed_from_u64(1 + if let Crash::Chance(seed) = crash { seed } else { 0 });
    for (n, op) in ops.iter().enumerate() {
        let in_dir = |path: &Path| by_fs(n) || synced_dir.get(&*parent(path)).is_some_and(|last| n < *last);
        match op {
            Op::Preallocate { inode, len } => _ = sizes.insert(*inode, *len),
            Op::Write { inode, offset, data } => {
                let durable = by_fs(n) || synced_data.get(inode).is_some_and(|last| n < *last);
                let whole = durable || keep(op);
                let torn = !whole && matches!(crash, Crash::Chance(_)) && sectors.random_bool(0.5);
                if whole || torn {
                    write(files.entry(*inode).or_default(), *offset as usize, data, |_| whole || sectors.random_bool(0.5));
                }
            }
            Op::Create { inode, path } if in_dir(path) || keep(op) => _ = names.insert(path.clone(), *inode),
            Op::Rename { inode, from, to } if in_dir(from) || in_dir(to) || keep(op) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Op::Remove { inode, path } if (in_dir(path) || keep(op)) && names.get(path) == Some(inode) => _ = names.remove(path),
            Op::Acked { id } => _ = acked.insert(*id),
            Op::Held { id } => _ = held.insert(*id),
            Op::Took { id, to } => _ = taken.insert((*id, to.clone())),
            Op::Stored { id, to } if n < synced_mail || keep(op) => _ = mailbox.insert((*id, to.clone())),
            _ => {}
        }
    }
    for folder in ["journal", "spool", "deferred", "damaged"] {
        std::fs::create_dir_all(to.join("queue").join(folder)).unwrap();
    }
    for (path, inode) in names {
        let target = to.join(path.strip_prefix(root).unwrap());
        std::fs::create_dir_all(parent(&target)).unwrap();
        let content = files.get(&inode).map(Vec::as_slice).unwrap_or_default();
        let mut file = std::fs::File::create(&target).unwrap();
        file.write_all(content).unwrap();
        // Zeros that nobody wrote over are left to the file system, which is quick.
        if let Some(size) = sizes.get(&inode) {
            file.set_len(*size).unwrap();
        }
    }
    Left { acked, held, mailbox, taken }
}

/// Writes those sectors of `data` that are kept.
fn write(file: &mut Vec<u8>, offset: usize, data: &[u8], mut kept: impl FnMut(usize) -> bool) {
    let mut at = 0;
    while at < data.len() {
        let end = (at + SECTOR - (offset + at) % SECTOR).min(data.len());
        if kept(at) {
            if file.len() < offset + end {
                file.resize(offset + end, 0);
            }
            file[offset + at..offset + end].copy_from_slice(&data[at..end]);
        }
        at = end;
    }
}

/// The real disk without its syncs, for states that are looked at once and thrown away.
#[derive(Debug)]
pub(crate) struct Careless;

impl Disk for Careless {
    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        RealDisk.open(path)
    }
    fn write_at(&self, file: &DiskFile, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        RealDisk.write_at(file, parts, offset)
    }
    fn preallocate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        file.file.set_len(len)
    }
    fn sync_data(&self, _file: &DiskFile) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_fs(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn free_space(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_space(path)
    }
}
