//! File systems that hold mail: whether one `syncfs` makes many deliveries durable, or each file must be synced by itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FsWord, Uid, fchown, fstat, fstatfs, syncfs};

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
    /// Held while a sync is under way, so that whoever asks meanwhile waits for it instead of taking its word in advance.
    syncing: Mutex<()>,
}

/// All file systems that mail was stored on.
#[derive(Debug, Default)]
pub struct Devices {
    known: Mutex<HashMap<u64, Arc<Device>>>,
}

impl Device {
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
        let (fd, dirty, failed) = (directory.try_clone()?, AtomicBool::new(false), AtomicBool::new(false));
        let device = Arc::new(Device { fd, remote, dirty, failed, syncing: Mutex::new(()) });
        known.insert(number, Arc::clone(&device));
        Ok(device)
    }

    /// Takes the file system of `directory` for one of another host.
    #[cfg(test)]
    pub(crate) fn pretend_remote(&self, directory: &OwnedFd) {
        let number = fstat(directory).unwrap().st_dev;
        let (fd, dirty, failed) = (directory.try_clone().unwrap(), AtomicBool::new(false), AtomicBool::new(false));
        self.known.lock().insert(number, Arc::new(Device { fd, remote: true, dirty, failed, syncing: Mutex::new(()) }));
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
}
