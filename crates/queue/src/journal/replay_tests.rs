//! Torn tails at every octet, damaged middles, stale records, other boots.

use super::*;
use crate::disk::RealDisk;
use crate::journal::committer::tests::{envelope, message, start};
use std::collections::BTreeSet;

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn read(dir: &Path, boot: &str) -> Replay {
    replay(&disk(), dir, &dir.join("damaged"), boot).unwrap()
}

fn ids(found: &Replay) -> Vec<u64> {
    found.messages.iter().map(|m| m.envelope.id.0).collect()
}

/// A journal with `count` messages, each durable before the next was sent, and where each record begins.
async fn journal(dir: &Path, count: u64) -> (PathBuf, Vec<usize>) {
    let (journal, _) = start(disk(), dir, 1 << 14);
    let mut offsets = Vec::new();
    for id in 1..=count {
        let new = message(id, format!("body of {id}").as_bytes());
        let head = new.head.len();
        let placed = journal.append(new, &[]).await.unwrap().unwrap();
        offsets.push(placed.rest_at as usize - head - HEADER);
    }
    drop(journal);
    let path = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "log")).unwrap();
    (path, offsets)
}

#[tokio::test]
async fn a_tail_torn_at_any_octet_loses_the_last_message_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, offsets) = journal(dir.path(), 3).await;
    let whole = fs::read(&path).unwrap();
    let (second, last) = (offsets[1], offsets[2]);
    let end = last + HEADER + message(3, b"body of 3").head.len() + b"body of 3".len();
    for cut in last..end {
        let mut torn = whole.clone();
        torn[cut..end].fill(0);
        if torn == whole {
            continue;
        }
        fs::write(&path, &torn).unwrap();
        let found = read(dir.path(), "boot");
        assert!(found.damaged.is_empty(), "cut at {cut}: {:?}", found.damaged);
        assert_eq!(ids(&found), [1, 2], "cut at {cut}");
        // A second start sees the same, though the segment is no longer where the journal ends.
        assert_eq!(ids(&read(dir.path(), "boot")), [1, 2]);
    }
    // The file itself ending early is the same.
    for cut in [second + 5, last, last + 3, end - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(ids(&read(dir.path(), "boot")).len(), if cut < last { 1 } else { 2 });
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_set_aside_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (path, offsets) = journal(dir.path(), 5).await;
    let whole = fs::read(&path).unwrap();
    for at in (offsets[1]..offsets[2]).step_by(7) {
        let mut bad = whole.clone();
        bad[at] ^= 0x40;
        fs::write(&path, &bad).unwrap();
        let found = read(dir.path(), "boot");
        let lost: BTreeSet<u64> = (1..=5).filter(|id| !ids(&found).contains(id)).collect();
        let padding = found.damaged.is_empty();
        assert_eq!(lost, if padding { BTreeSet::new() } else { BTreeSet::from([2]) }, "at {at}");
        if !padding {
            assert_eq!(found.damaged.len(), 1);
            let kept = fs::read(dir.path().join(format!("damaged/journal-{:016x}-{:08x}.bin", 1, offsets[1]))).unwrap();
            assert_eq!(kept.len(), offsets[2] - offsets[1]);
            fs::remove_dir_all(dir.path().join("damaged")).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_first_record_hides_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, offsets) = journal(dir.path(), 2).await;
    let mut bad = fs::read(&path).unwrap();
    bad[..offsets[0]].fill(0xff);
    fs::write(&path, &bad).unwrap();
    let found = read(dir.path(), "boot");
    assert_eq!(ids(&found), [1, 2]);
    assert_eq!(found.damaged.len(), 1);
}

#[tokio::test]
async fn a_write_torn_in_its_front_is_a_torn_tail_too() {
    // Two messages in one flush: the disk kept the second one's sectors and lost the first one's. Neither was acknowledged.
    let dir = tempfile::tempdir().unwrap();
    let (path, offsets) = journal(dir.path(), 4).await;
    let (_, nonce) = parse_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let mut octets = fs::read(&path).unwrap();
    let Found::Record(header) = look(&octets, nonce, offsets[3]) else { panic!("no record") };
    assert!(header.synced as usize >= offsets[2]);
    let together = Header { synced: offsets[2] as u32, ..header };
    octets[offsets[3]..offsets[3] + HEADER].copy_from_slice(&together.encode(nonce, offsets[3] as u64));
    octets[offsets[2]..offsets[2] + HEADER].fill(0);
    fs::write(&path, &octets).unwrap();
    let found = read(dir.path(), "boot");
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
    assert_eq!(ids(&found), [1, 2]);
}

#[tokio::test]
async fn a_segment_before_the_last_must_be_whole_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (first, offsets) = journal(dir.path(), 3).await;
    drop(read(dir.path(), "boot"));
    let (second, _) = start(disk(), dir.path(), 1 << 20);
    drop(second.append(message(9, b"later"), &[]).await.unwrap().unwrap());
    drop(second);
    assert!(read(dir.path(), "boot").damaged.is_empty());
    let mut octets = fs::read(&first).unwrap();
    octets[offsets[2]..].fill(0);
    fs::write(&first, &octets).unwrap();
    let found = read(dir.path(), "boot");
    assert_eq!(ids(&found), [1, 2, 9]);
    assert_eq!(found.damaged.len(), 1, "a lost end of an older segment is damage, not a torn tail");
}

#[tokio::test]
async fn a_record_inside_a_message_is_not_a_record() {
    // A sender who knows the format cannot know the nonce.
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(disk(), dir.path(), 1 << 20);
    let inner = message(666, b"forged");
    let mut forged = Vec::new();
    for offset in (0..4096).step_by(8) {
        let len = (inner.head.len() + 6) as u32;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&inner.head), b"forged");
        forged.extend_from_slice(&Header { kind: Kind::Message, len, synced: 0, payload_crc: crc }.encode(0, offset));
        forged.extend_from_slice(&inner.head);
        forged.extend_from_slice(b"forged");
        forged.resize(forged.len().next_multiple_of(8), 0);
    }
    let placed = journal.append(message(1, &forged), &[]).await.unwrap().unwrap();
    let path = placed.hold.0.path.clone();
    let at = placed.rest_at as usize - 10;
    drop(placed);
    drop(journal.append(message(2, b"honest"), &[]).await.unwrap().unwrap());
    drop(journal);
    let mut octets = fs::read(&path).unwrap();
    octets[at] ^= 1;
    fs::write(&path, &octets).unwrap();
    let found = read(dir.path(), "boot");
    assert_eq!(ids(&found), [2]);
    assert_eq!(found.damaged.len(), 1);
}

#[tokio::test]
async fn local_deliveries_count_only_when_the_disk_must_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(disk(), dir.path(), 1 << 20);
    for id in 1..=3 {
        drop(journal.append(message(id, b"x"), &[]).await.unwrap().unwrap());
    }
    let both = |status| vec![(0, status), (1, status)];
    journal.note(&Note::Settled(QueueId(1), both(Status::Delivered)), true);
    let before = journal.flush().await.unwrap().unwrap();
    journal.note(&Note::Settled(QueueId(2), both(Status::Delivered)), true);
    journal.note(&Note::Synced(before), true);
    journal.note(&Note::Settled(QueueId(3), both(Status::Relayed)), true);
    drop(journal);
    // The same boot: the kernel has them all. Another: only what was synced, and what another host took.
    assert_eq!(ids(&read(dir.path(), "boot")), [] as [u64; 0]);
    assert_eq!(ids(&read(dir.path(), "another")), [2]);
}

#[tokio::test]
async fn fates_of_parked_messages_are_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = start(disk(), dir.path(), 1 << 20);
    drop(journal.append(message(1, b"x"), &[]).await.unwrap().unwrap());
    journal.note(&Note::Parked(QueueId(1)), false);
    journal.note(&Note::Settled(QueueId(1), vec![(1, Status::Relayed)]), true);
    journal.note(&Note::Added(QueueId(77), envelope(0).recipients), true);
    drop(journal);
    let found = read(dir.path(), "boot");
    assert!(found.messages.is_empty());
    assert_eq!(found.fates.get(&QueueId(1)), Some(&vec![(1, Status::Relayed)]));
    assert_eq!(found.added.get(&QueueId(77)).unwrap().len(), 2);
}

#[tokio::test]
async fn a_newer_format_is_refused_and_not_taken_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (path, offsets) = journal(dir.path(), 1).await;
    let (_, nonce) = parse_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let mut octets = fs::read(&path).unwrap();
    let at = offsets[0];
    octets[at + 3] = 9;
    let crc = crc32c::crc32c_append(
        crc32c::crc32c_append(crc32c::crc32c(&nonce.to_le_bytes()), &(at as u64).to_le_bytes()),
        &octets[at..at + 20],
    );
    octets[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &octets).unwrap();
    let error = replay(&disk(), dir.path(), &dir.path().join("damaged"), "boot").unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[test]
fn an_empty_folder_is_an_empty_journal() {
    let dir = tempfile::tempdir().unwrap();
    let found = read(dir.path(), "boot");
    assert!(found.messages.is_empty() && found.segments.is_empty() && found.empty.is_empty());
    assert_eq!(found.next_generation, 1);
}
