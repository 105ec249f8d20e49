//! File systems that hold mail: whether one `syncfs` makes many deliveries durable, or each file must be synced by itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FsWord, Uid, fchown, fstat, fstatfs, syncfs};
use rustix::io::{Errno, IoSlice, ReadWriteFlags, pwritev2, writev};

/// File systems whose `syncfs` says nothing about the server behind them. There each file and folder is synced before it is reported.
const REMOTE: [FsWord; 13] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x6573_5546, // FUSE: sshfs, glusterfs, virtiofs and many others
    0x0102_1997, // 9p
    0x00C3_6400, // Ceph
    0x5346_414F, // OpenAFS
    0x6B41_4653, // AFS
    0x7375_7245, // Coda
    0x0BD0_0BD0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
];

/// One mounted file system.
#[derive(Debug)]
pub struct Device {
    /// Kept open from before the first write on: `syncfs` reports a failed write-back once for each descriptor that was open before it.
    fd: OwnedFd,
    remote: bool,
    dirty: AtomicBool,
    failed: AtomicBool,
    /// It cannot write without keeping what was written in memory.
    caches_all: AtomicBool,
    /// Held while a sync is under way, so that whoever asks meanwhile waits for it instead of taking its word in advance.
    syncing: Mutex<()>,
}

/// All file systems that mail was stored on.
#[derive(Debug, Default)]
pub struct Devices {
    known: Mutex<HashMap<u64, Arc<Device>>>,
}

impl Device {
    fn new(fd: OwnedFd, remote: bool) -> Self {
        let (dirty, failed, caches_all, syncing) = Default::default();
        Self { fd, remote, dirty, failed, caches_all, syncing }
    }

    /// Whether files must be synced one by one before their delivery is reported.
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    /// Has the client of a file server ask it again what a directory holds: what it remembers may be older than what another node stored. The
    /// server's answer to a change of the directory tells it so, and to give it to its owner changes nothing else.
    pub fn look_anew(&self, directory: &OwnedFd) {
        if !self.remote {
            return;
        }
        let asked = fstat(directory).and_then(|seen| fchown(directory, Some(Uid::from_raw(seen.st_uid)), None));
        if let Err(errno) = asked {
            // Where that is not allowed one looks at what is remembered; a server that is away says so to the look itself.
            tracing::debug!(error = %errno, "the file server was not asked again");
        }
    }

    /// Writes at the file's position, as `writev` does. `large`: what is written need not stay in memory, which others may use better, and is
    /// sent to the disk at once (`RWF_DONTCACHE`, where kernel and file system know it).
    ///
    /// # Errors
    /// As `writev`.
    pub fn write(&self, file: &OwnedFd, pieces: &[IoSlice<'_>], large: bool) -> Result<usize, Errno> {
        const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
        const POSITION: u64 = u64::MAX;
        if large && !self.caches_all.load(Ordering::Relaxed) {
            match pwritev2(file, pieces, POSITION, DONT_CACHE) {
                // Older kernels say so in several ways; what is wrong with the file itself is said again below.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => self.caches_all.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        writev(file, pieces)
    }

    /// To be called after a delivery and before it is reported.
    pub fn mark_dirty(&self) {
        // Cheap when many threads store on one disk: the line stays shared while the flag is up.
        if !self.dirty.load(Ordering::Acquire) {
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Makes all that was stored so far survive a power cut.
    ///
    /// After one failure it fails for ever: the kernel marks pages it could not write as clean, so a second success would prove nothing. A restart
    /// replays the journal and compares each file anew.
    fn sync(&self) -> io::Result<()> {
        let _syncing = self.syncing.lock();
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of the mail folder failed; restart to check and repeat the deliveries since"));
        }
        if !self.dirty.swap(false, Ordering::AcqRel) || self.remote {
            return Ok(());
        }
        syncfs(&self.fd).map_err(|errno| {
            self.failed.store(true, Ordering::Release);
            errno.into()
        })
    }
}

impl Devices {
    /// The file system that an open directory is on.
    ///
    /// # Errors
    /// What `fstat`, `fstatfs` or duplicating the descriptor say.
    pub fn of(&self, directory: &OwnedFd) -> io::Result<Arc<Device>> {
        let number = fstat(directory)?.st_dev;
        let mut known = self.known.lock();
        if let Some(device) = known.get(&number) {
            return Ok(Arc::clone(device));
        }
        let remote = REMOTE.contains(&fstatfs(directory)?.f_type);
        let device = Arc::new(Device::new(directory.try_clone()?, remote));
        known.insert(number, Arc::clone(&device));
        Ok(device)
    }

    /// Takes the file system of `directory` for one of another host.
    #[cfg(test)]
    pub(crate) fn pretend_remote(&self, directory: &OwnedFd) {
        let number = fstat(directory).unwrap().st_dev;
        self.known.lock().insert(number, Arc::new(Device::new(directory.try_clone().unwrap(), true)));
    }

    /// Makes everything stored so far survive a power cut. Blocking.
    ///
    /// # Errors
    /// The first failure; it stays until a restart (see the source for why).
    pub fn sync(&self) -> io::Result<()> {
        let devices: Vec<Arc<Device>> = self.known.lock().values().cloned().collect();
        devices.iter().map(|device| device.sync()).fold(Ok(()), Result::and)
    }

    /// Whether a sync has failed since the start.
    pub fn failed(&self) -> bool {
        self.known.lock().values().any(|device| device.failed.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_system_is_one_device_and_syncs() {
        let folder = tempfile::tempdir().unwrap();
        let devices = Devices::default();
        let fd: OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        let a = devices.of(&fd).unwrap();
        let b = devices.of(&fd).unwrap();
        assert!(Arc::ptr_eq(&a, &b));
        a.mark_dirty();
        devices.sync().unwrap();
        assert!(!a.dirty.load(Ordering::Acquire) && !devices.failed());
    }

    #[test]
    fn a_failed_sync_is_never_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let devices = Devices::default();
        let device = devices.of(&std::fs::File::open(folder.path()).unwrap().into()).unwrap();
        device.failed.store(true, Ordering::Release);
        assert!(devices.sync().is_err() && devices.sync().is_err() && devices.failed());
    }

    #[test]
    fn what_is_large_is_written_whether_or_not_the_file_system_can_forget_it() {
        // One on a disk, and one that has nothing but memory.
        for folder in [tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")] {
            let Ok(folder) = folder else { continue };
            let device = Devices::default().of(&std::fs::File::open(folder.path()).unwrap().into()).unwrap();
            let path = folder.path().join("message");
            let file: OwnedFd = std::fs::File::create(&path).unwrap().into();
            for _ in 0..2 {
                let pieces = [IoSlice::new(b"abc"), IoSlice::new(b"defg")];
                assert_eq!(device.write(&file, &pieces, true), Ok(7));
                assert_eq!(device.write(&file, &pieces, false), Ok(7));
            }
            assert_eq!(std::fs::read(&path).unwrap(), b"abcdefg".repeat(4));
        }
    }
}
