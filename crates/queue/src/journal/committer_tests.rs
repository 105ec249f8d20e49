//! The thread alone: order, company, rotation, failure.

use std::io::IoSlice;

use bytes::Bytes;

use super::*;
use crate::disk::RealDisk;
use crate::envelope::{Envelope, Recipient, Route, Status};
use crate::id::QueueId;
use crate::journal::{Kind, Replay, message_head, replay};

pub(crate) fn envelope(id: u64) -> Envelope {
    let recipient = Recipient::new("bob@example.org".parse().unwrap(), Route::Relay);
    Envelope::new(QueueId(id), "ada@example.net".parse().unwrap(), vec![recipient.clone(), recipient])
}

pub(crate) fn message(id: u64, body: &[u8]) -> NewMessage {
    NewMessage { kind: Kind::Message, head: message_head(&envelope(id), None).unwrap(), rest: [Bytes::new(), Bytes::copy_from_slice(body)] }
}

pub(crate) fn start(disk: Arc<dyn Disk>, dir: &std::path::Path, size: u64) -> (Journal, Arc<Pool>) {
    let found = replay(&disk, dir, &dir.join("damaged"), "boot").unwrap();
    let pool = Arc::new(Pool::new(Arc::clone(&disk), dir.into(), size, found.next_generation, found.empty));
    let start = Start { boot: "boot".into(), last_id: 0, version: "test".into() };
    (Journal::start(disk, Arc::clone(&pool), start, found.segments, Arc::new(Ids::after(0))).unwrap(), pool)
}

fn again(dir: &std::path::Path) -> Replay {
    replay(&(Arc::new(RealDisk) as Arc<dyn Disk>), dir, &dir.join("damaged"), "boot").unwrap()
}

/// A disk on which everything works until it is told otherwise.
#[derive(Debug, Default)]
struct Failing {
    sync: AtomicBool,
    write: AtomicBool,
    full: AtomicBool,
}

impl Disk for Failing {
    fn create(&self, path: &std::path::Path) -> io::Result<DiskFile> {
        RealDisk.create(path)
    }
    fn open(&self, path: &std::path::Path) -> io::Result<DiskFile> {
        RealDisk.open(path)
    }
    fn write_at(&self, file: &DiskFile, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        if self.write.load(Ordering::SeqCst) { Err(io::Error::other("write broke")) } else { RealDisk.write_at(file, parts, offset) }
    }
    fn preallocate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { RealDisk.preallocate(file, len) }
    }
    fn sync_data(&self, file: &DiskFile) -> io::Result<()> {
        if self.sync.swap(false, Ordering::SeqCst) { Err(io::Error::other("sync broke")) } else { RealDisk.sync_data(file) }
    }
    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &std::path::Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn create_dir(&self, path: &std::path::Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &std::path::Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn sync_fs(&self, path: &std::path::Path) -> io::Result<()> {
        RealDisk.sync_fs(path)
    }
    fn free_space(&self, path: &std::path::Path) -> io::Result<u64> {
        RealDisk.free_space(path)
    }
}

#[tokio::test]
async fn what_was_appended_is_replayed_and_what_was_settled_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(Arc::new(RealDisk), dir.path(), 1 << 20);
    let mut held = Vec::new();
    for id in 1..=5 {
        held.push(journal.append(message(id, format!("body {id}").as_bytes()), &[]).await.unwrap().unwrap());
    }
    journal.note(&Note::Settled(QueueId(2), vec![(0, Status::Relayed), (1, Status::Failed)]), true);
    journal.note(&Note::Settled(QueueId(3), vec![(1, Status::Delivered)]), false);
    journal.note(&Note::Parked(QueueId(4)), false);
    journal.note(&Note::Added(QueueId(5), envelope(0).recipients), false);
    drop(held);
    drop(journal);
    let found = again(dir.path());
    let ids: Vec<u64> = found.messages.iter().map(|m| m.envelope.id.0).collect();
    assert_eq!(ids, [1, 3, 5]);
    assert_eq!(found.messages[1].envelope.recipients.iter().map(|r| r.status).collect::<Vec<_>>(), [Status::Pending, Status::Delivered]);
    assert_eq!(found.messages[2].envelope.recipients.len(), 4);
    assert!(found.damaged.is_empty());
    assert_eq!(found.last_id, 5);
}

#[tokio::test]
async fn an_urgent_note_is_in_the_file_when_the_call_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(Arc::new(RealDisk), dir.path(), 1 << 20);
    let held = journal.append(message(1, b"x"), &[]).await.unwrap().unwrap();
    journal.note_now(&Note::Settled(QueueId(1), vec![(0, Status::Relayed), (1, Status::Relayed)]));
    // What the kernel has now is what a killed process leaves.
    assert!(again(dir.path()).messages.is_empty());
    assert!(journal.has_unsynced());
    drop(held);
}

#[tokio::test]
async fn bodies_are_where_they_are_said_to_be_across_segments() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(Arc::new(RealDisk), dir.path(), 1 << 20);
    let mut placed = Vec::new();
    for id in 0..30u8 {
        let body = vec![id; 100_000 + usize::from(id)];
        let answer = journal.append(message(u64::from(id), &body), &[]).await.unwrap().unwrap();
        placed.push((answer, body));
    }
    assert!(journal.segments() >= 3);
    for (placed, body) in &placed {
        let mut read = vec![0; body.len()];
        placed.file().file.read_exact_at(&mut read, placed.rest_at).unwrap();
        assert_eq!(&read, body);
    }
    drop(journal);
    let found = again(dir.path());
    assert_eq!(found.messages.len(), 30);
    assert!(found.damaged.is_empty());
}

#[tokio::test]
async fn segments_are_used_again_once_free_and_in_order_only() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, pool) = start(Arc::new(RealDisk), dir.path(), 1 << 20);
    let body = vec![7; 200_000];
    let first = journal.append(message(1, &body), &[]).await.unwrap().unwrap();
    for id in 2..20 {
        drop(journal.append(message(id, &body), &[]).await.unwrap().unwrap());
    }
    assert!(journal.segments() > 3);
    assert_eq!(journal.releasable(), 0);
    assert!(journal.release(10).is_empty());
    drop(first);
    let free = journal.releasable();
    assert_eq!(free, journal.segments() - 1);
    for segment in journal.release(free) {
        pool.recycle(segment).unwrap();
    }
    assert_eq!(journal.segments(), 1);
    // What the recycled segments held is forgotten, though every octet of it is still there.
    for id in 20..30 {
        drop(journal.append(message(id, &body), &[]).await.unwrap().unwrap());
    }
    drop(journal);
    let found = again(dir.path());
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
    assert!(found.messages.iter().all(|m| m.envelope.id.0 > 12), "an old use of a segment was taken for live");
    assert!(found.messages.iter().any(|m| m.envelope.id.0 == 29));
}

#[tokio::test]
async fn a_failed_sync_fails_those_who_waited_and_everyone_after() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let (journal, _) = start(Arc::clone(&disk) as _, dir.path(), 1 << 20);
    drop(journal.append(message(1, b"x"), &[]).await.unwrap().unwrap());
    disk.sync.store(true, Ordering::SeqCst);
    assert!(matches!(journal.append(message(2, b"x"), &[]).await.unwrap(), Err(JournalError::Failed(_))));
    // The disk would say yes again, as Linux does after it has reported an error once; that yes would be worth nothing.
    assert!(matches!(journal.append(message(3, b"x"), &[]).await.unwrap(), Err(JournalError::Failed(_))));
    assert!(journal.flush().await.unwrap().is_err());
    assert!(journal.failure().unwrap().contains("sync broke"));
}

#[tokio::test]
async fn what_was_refused_is_not_there_after_a_start_and_what_came_with_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let (journal, _) = start(Arc::clone(&disk) as _, dir.path(), 1 << 20);
    drop(journal.append(message(1, b"acknowledged"), &[]).await.unwrap().unwrap());
    drop(journal.append(message(2, b"acknowledged"), &[]).await.unwrap().unwrap());
    disk.sync.store(true, Ordering::SeqCst);
    // Of two that share the failing flush, one is a report that came with the failure of which it tells.
    let fate = [Note::Settled(QueueId(2), vec![(0, Status::Failed), (1, Status::Failed)])];
    let writer = journal.shared.writer.lock();
    let (plain, report) = (journal.append(message(3, b"refused"), &[]), journal.append(message(4, b"report"), &fate));
    drop(writer);
    assert!(matches!(plain.await.unwrap(), Err(JournalError::Failed(_))));
    assert!(matches!(report.await.unwrap(), Err(JournalError::Failed(_))));
    drop(journal);
    let found = again(dir.path());
    let ids: Vec<u64> = found.messages.iter().map(|m| m.envelope.id.0).collect();
    assert!(!ids.contains(&3), "refused, and delivered after the restart: {ids:?}");
    assert!(ids.contains(&1) && ids.contains(&2) != ids.contains(&4), "a failure without its report: {ids:?}");
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
}

/// A message that the thread has taken out of its inbox.
fn item(id: u64, len: usize) -> (Item, oneshot::Receiver<Result<Placed, JournalError>>) {
    let (answer, receiver) = oneshot::channel();
    let message = message(id, &vec![1; len]);
    let crc = message.rest.iter().fold(crc32c::crc32c(&message.head), |crc, part| crc32c::crc32c_append(crc, part));
    (Item::Message { crc, message, alone: true, answer }, receiver)
}

#[tokio::test]
async fn what_waits_for_company_is_flushed_before_the_segment_changes() {
    for broken in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Failing::default());
        let (journal, _) = start(Arc::clone(&disk) as _, dir.path(), 1 << 20);
        let ((first, one), (second, two)) = (item(1, 600_000), item(2, 600_000));
        let mut chunks = Vec::new();
        journal.shared.write(&mut [first].into(), &mut chunks);
        assert_eq!(chunks.len(), 1);
        disk.sync.store(broken, Ordering::SeqCst);
        journal.shared.write(&mut [second].into(), &mut chunks);
        // The disk works again; that it failed once counts.
        journal.shared.commit(chunks);
        assert_eq!((one.await.unwrap().is_err(), two.await.unwrap().is_err()), (broken, broken));
        assert_eq!(journal.failure().is_some(), broken);
        drop(journal);
        assert_eq!(again(dir.path()).messages.len(), if broken { 0 } else { 2 });
    }
}

#[tokio::test]
async fn a_failed_write_is_no_different() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let (journal, _) = start(Arc::clone(&disk) as _, dir.path(), 1 << 20);
    disk.write.store(true, Ordering::SeqCst);
    assert!(matches!(journal.append(message(2, b"x"), &[]).await.unwrap(), Err(JournalError::Failed(_))));
    assert!(journal.failure().is_some());
}

#[tokio::test]
async fn a_full_disk_refuses_messages_but_takes_notes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Failing::default());
    let (journal, _) = start(Arc::clone(&disk) as _, dir.path(), 1 << 20);
    disk.full.store(true, Ordering::SeqCst);
    let body = vec![1; 250_000];
    let mut taken = 0;
    let refused = loop {
        match journal.append(message(taken + 1, &body), &[]).await.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full(_)), "{refused}");
    assert!(taken >= 2);
    journal.note(&Note::Parked(QueueId(1)), true);
    assert!(journal.flush().await.unwrap().is_ok());
    disk.full.store(false, Ordering::SeqCst);
    assert!(journal.append(message(99, &body), &[]).await.unwrap().is_ok());
    drop(journal);
    let ids: Vec<u64> = again(dir.path()).messages.iter().map(|m| m.envelope.id.0).collect();
    assert_eq!(ids, (2..=taken).chain([99]).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_does_not_fit_a_segment_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(Arc::new(RealDisk), dir.path(), 1 << 20);
    let answer = journal.append(message(1, &vec![0; 2 << 20]), &[]).await.unwrap();
    assert!(matches!(answer, Err(JournalError::TooLarge)));
}

#[tokio::test]
async fn after_closing_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(Arc::new(RealDisk), dir.path(), 1 << 20);
    journal.close();
    assert!(matches!(journal.append(message(1, b"x"), &[]).await.unwrap(), Err(JournalError::Closed)));
    assert!(matches!(journal.flush().await.unwrap(), Err(JournalError::Closed)));
}

/// Many senders at once: every answer is true, each record stands once and whole, and company shares flushes.
#[test]
fn many_threads_at_once() {
    const THREADS: u64 = 16;
    const EACH: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(Arc::new(RealDisk), dir.path(), 1 << 20);
    let before = journal.commits();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                for n in 0..EACH {
                    let id = thread * 1000 + n + 1;
                    let body = vec![(id % 251) as u8; (id % 7000) as usize];
                    let placed = journal.append(message(id, &body), &[]).blocking_recv().unwrap().unwrap();
                    if id % 9 == 0 {
                        journal.note_now(&Note::Settled(QueueId(id), vec![(0, Status::Relayed), (1, Status::Relayed)]));
                    } else if id % 3 == 0 {
                        journal.note(&Note::Settled(QueueId(id), vec![(0, Status::Relayed), (1, Status::Relayed)]), id % 2 == 0);
                    }
                    drop(placed);
                }
            });
        }
    });
    assert!(journal.commits() - before <= THREADS * EACH);
    drop(journal);
    let found = again(dir.path());
    assert!(found.damaged.is_empty());
    let ids: std::collections::BTreeSet<u64> = found.messages.iter().map(|m| m.envelope.id.0).collect();
    let expected: std::collections::BTreeSet<u64> =
        (0..THREADS).flat_map(|t| (1..=EACH).map(move |n| t * 1000 + n)).filter(|id| id % 3 != 0).collect();
    assert_eq!(ids.len(), found.messages.len());
    assert_eq!(ids, expected);
}
