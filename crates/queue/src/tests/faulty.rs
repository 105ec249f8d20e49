//! Disks that fail: what is refused, what goes on, what is said.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::disk::DiskFile;

/// A disk on which kinds of operations can be made to fail.
#[derive(Debug, Default)]
struct Faulty {
    sync_data: AtomicBool,
    sync_fs: AtomicBool,
    /// Fails creations and preallocations as a full disk does.
    full: AtomicBool,
    /// Files under paths that contain this cannot be written.
    broken: Mutex<Option<&'static str>>,
    writable: Mutex<std::collections::HashMap<u64, PathBuf>>,
    next: std::sync::atomic::AtomicU64,
}

fn fail(switch: &AtomicBool, what: &str) -> io::Result<()> {
    if switch.load(Ordering::SeqCst) { Err(io::Error::other(what.to_owned())) } else { Ok(()) }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let tag = self.next.fetch_add(1, Ordering::SeqCst);
        self.writable.lock().insert(tag, path.into());
        Ok(DiskFile { file: RealDisk.create(path)?.file, tag })
    }
    fn open(&self, path: &Path) -> io::Result<DiskFile> {
        Ok(DiskFile { file: RealDisk.open(path)?.file, tag: u64::MAX })
    }
    fn write_at(&self, file: &DiskFile, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let broken = *self.broken.lock();
        let path = self.writable.lock().get(&file.tag).cloned().unwrap_or_default();
        if broken.is_some_and(|part| path.to_string_lossy().contains(part)) {
            return Err(io::Error::other("input/output error"));
        }
        RealDisk.write_at(file, parts, offset)
    }
    fn preallocate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { RealDisk.preallocate(file, len) }
    }
    fn sync_data(&self, file: &DiskFile) -> io::Result<()> {
        fail(&self.sync_data, "fdatasync failed")?;
        RealDisk.sync_data(file)
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
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn sync_fs(&self, path: &Path) -> io::Result<()> {
        fail(&self.sync_fs, "syncfs failed")?;
        RealDisk.sync_fs(path)
    }
    fn free_space(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_space(path)
    }
}

async fn house() -> (House, Arc<Faulty>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let disk = Arc::new(Faulty::default());
    let clock = Arc::new(ManualClock::at(T0));
    let config = config(dir.path());
    let house = House::open(dir, config, clock, disk.clone(), "boot", Scripted::new(delivered), Scripted::new(relayed)).await;
    (house, disk)
}

#[tokio::test]
async fn a_failed_flush_stops_acceptance_for_good_and_says_so() {
    let (house, disk) = house().await;
    let before = house.send(&["bob@local.example"], "before").await;
    house.until_empty().await;
    disk.sync_data.store(true, Ordering::SeqCst);
    let refused = house.queue.accept(house.envelope(&["bob@local.example"]), Body::from_bytes("x")).await;
    assert!(matches!(refused, Err(AcceptError::Journal(_))));
    disk.sync_data.store(false, Ordering::SeqCst);
    assert!(matches!(house.queue.admission(), Err(AcceptError::Journal(_))));
    let health = house.queue.health();
    assert!(!health.healthy && health.journal.failed.unwrap().contains("fdatasync"));
    assert!(house.local.got.lock().iter().all(|g| g.id == before), "what was refused is not delivered");
    // A restart with a disk that works takes mail again.
    let after = house.killed("boot").await;
    after.send(&["bob@local.example"], "after").await;
    after.until_empty().await;
}

#[tokio::test]
async fn with_a_failed_journal_mail_for_others_waits_until_files_stand_for_it() {
    let (house, disk) = house().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let wait = gate.clone();
    house.relay.then(move |got| Reaction::Wait(wait.clone(), Box::new(relayed(got))));
    for _ in 0..8 {
        house.send(&["a@far.example"], "x").await;
    }
    house.until("two are under way", |h| h.relay.count() == 2).await;
    disk.sync_data.store(true, Ordering::SeqCst);
    _ = house.queue.accept(house.envelope(&["bob@local.example"]), Body::from_bytes("x")).await;
    gate.add_permits(100);
    house.until("the runs ended", |h| h.queue.health().runs == 0).await;
    assert_eq!(house.relay.count(), 2, "nobody could write down that another host took it");
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 12);
    house.pass(11);
    house.until_empty().await;
    assert_eq!(house.relay.count(), 8);
}

#[tokio::test]
async fn a_disk_without_room_for_a_large_message_refuses_it_and_it_alone() {
    let (house, disk) = house().await;
    disk.full.store(true, Ordering::SeqCst);
    let mut writer = house.queue.body_writer();
    let error = writer.write(&vec![b'x'; 300_000]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let large = house.queue.accept(house.envelope(&["bob@local.example"]), Body::from_bytes(vec![b'x'; 300_000])).await;
    assert!(matches!(large, Err(AcceptError::DiskFull { .. })));
    // The room that was taken beforehand still serves small ones, and what was accepted is finished.
    house.send(&["bob@local.example"], "small").await;
    house.until_empty().await;
}

#[tokio::test]
async fn mail_that_cannot_be_parked_stays_in_the_journal() {
    let (house, disk) = house().await;
    house.relay.then(busy);
    *disk.broken.lock() = Some("deferred");
    house.send(&["a@far.example"], "x").await;
    house.until("it was tried", |h| h.relay.count() == 1 && h.queue.health().runs == 0).await;
    house.keep().await;
    assert_eq!(house.parked_files(), 0);
    assert!(house.queue.health().sync_error.is_some());
    let after = house.killed("another boot").await;
    assert_eq!(after.queue.health().messages, 1);
    *disk.broken.lock() = None;
    house.pass(31);
    let queue = house.queue.clone();
    house.until("it was handed to the keeper again", |_| queue.state.lock().fresh.is_empty()).await;
    house.keep().await;
    house.keep().await;
    assert_eq!(house.parked_files(), 2);
    assert!(house.queue.health().healthy);
}

#[tokio::test]
async fn nothing_is_forgotten_while_it_cannot_be_made_durable() {
    let (house, disk) = house().await;
    disk.sync_fs.store(true, Ordering::SeqCst);
    for _ in 0..12 {
        house.send(&["bob@local.example"], &"y".repeat(200_000)).await;
    }
    house.until_empty().await;
    house.keep().await;
    house.keep().await;
    let segments = house.queue.health().journal.segments;
    assert!(segments > 2, "segments were used again though nothing was synced");
    assert!(house.queue.health().sync_error.unwrap().contains("syncfs"));
    // A later success would prove nothing: the kernel has forgotten what it could not write.
    disk.sync_fs.store(false, Ordering::SeqCst);
    house.keep().await;
    house.keep().await;
    assert_eq!(house.queue.health().journal.segments, segments);
    assert!(!house.queue.health().healthy);
    // Nor may a start in the same boot of the machine take for stored what that flush was to cover.
    let after = house.killed("boot").await;
    after.until_empty().await;
    assert_eq!(after.local.got.lock().iter().filter(|got| got.replayed).count(), 12);
    after.keep().await;
    after.keep().await;
    assert_eq!(after.queue.health().journal.segments, 1);
    assert!(after.queue.health().healthy);
}

#[tokio::test]
async fn a_later_boot_vouches_for_nothing_that_it_has_not_delivered_again() {
    let (house, _) = house().await;
    let id = house.send(&["bob@local.example"], "first").await;
    house.until_empty().await;
    // The power goes before the mail folder was flushed. The mailbox has no room now, and another message's flush is noted.
    let full = Scripted::new(|got| if got.body.starts_with(b"first") { busy(got) } else { delivered(got) });
    let second = house.killed_with("second boot", full).await;
    second.send(&["eve@local.example"], "another").await;
    second.until("one is left", |h| h.queue.health().messages == 1 && h.queue.health().runs == 0).await;
    second.keep().await;
    second.keep().await;
    let third = second.killed("third boot").await;
    third.pass(3600);
    third.until_empty().await;
    assert!(third.local.got.lock().iter().any(|got| got.id == id), "lost by two crashes one after the other");
}
