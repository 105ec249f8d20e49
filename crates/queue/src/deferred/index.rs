//! A summary of all parked envelopes in one file, so that a start need not open a million of them.
//!
//! It is a cache and never believed blindly: an entry counts only while the envelope's file has the size and the time of change that the entry
//! names, or stands in a folder in which nothing got a name or lost one since the index was written (envelopes are replaced, never
//! rewritten). Whatever is missing or differs is read from the envelope itself.

use std::io::{self, IoSlice};
use std::path::Path;

use super::{FOLDERS, FolderStamps, UNSURE, folder_number};
use crate::disk::{Disk, parent};
use crate::envelope::UnixMillis;
use crate::id::QueueId;
use crate::journal::remove_if_there;
use crate::schedule::{Kind, ParkedFlags};
use crate::transport::Destination;

/// What the schedule needs to know of a parked message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IndexEntry {
    /// Nanoseconds of the last change of `ID.json`, and its size.
    pub(crate) stamp: (i64, u32),
    pub(crate) received: UnixMillis,
    pub(crate) deadline: UnixMillis,
    pub(crate) from: u32,
    pub(crate) sender: u32,
    pub(crate) domain: u32,
    pub(crate) recipients: u16,
    pub(crate) flags: ParkedFlags,
    pub(crate) priority: i8,
    /// Destinations, by their number in the file, with the time of the next attempt.
    pub(crate) jobs: Vec<(u32, UnixMillis)>,
}

/// The file as it was read: entries are decoded when they are asked for, since a million of them decoded would take much memory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) destinations: Vec<(Kind, Destination)>,
    /// When each folder changed last, by its number; empty without an index.
    folders: Vec<i64>,
    octets: Vec<u8>,
    /// Ids in ascending order, with the offset of what follows the id.
    places: Vec<(QueueId, u32)>,
}

/// Puts the file together.
pub(crate) struct IndexWriter {
    out: Vec<u8>,
    destinations: usize,
}

const MAGIC: &[u8; 8] = b"pbindex3";

/// Before the folders: magic, CRC-32C of all that follows, number of destinations.
const FRONT: usize = 16;

impl IndexWriter {
    /// An index without entries; the destinations are numbered in this order. `folders` has the stamps of all folders, taken before anything that
    /// is added was looked at.
    pub(crate) fn new<'a>(folders: &FolderStamps, destinations: impl IntoIterator<Item = (Kind, &'a Destination)>) -> Self {
        let mut out = MAGIC.to_vec();
        out.resize(FRONT, 0);
        folders.iter().for_each(|stamp| out.extend_from_slice(&stamp.to_le_bytes()));
        let mut count = 0;
        for (kind, name) in destinations {
            count += 1;
            out.push(u8::from(kind == Kind::Relay));
            put(&mut out, name.0.len() as u64);
            out.extend_from_slice(name.0.as_bytes());
        }
        Self { out, destinations: count }
    }

    /// Adds an entry.
    pub(crate) fn add(&mut self, id: QueueId, e: &IndexEntry) {
        let out = &mut self.out;
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&e.stamp.0.to_le_bytes());
        for number in [u64::from(e.stamp.1), e.received, e.deadline] {
            put(out, number);
        }
        for number in [e.from, e.sender, e.domain] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put(out, u64::from(e.recipients));
        out.push(e.flags.0);
        out.extend_from_slice(&e.priority.to_le_bytes());
        put(out, e.jobs.len() as u64);
        for (destination, next) in &e.jobs {
            put(out, u64::from(*destination));
            put(out, *next);
        }
    }

    /// The file's content.
    fn finish(mut self) -> Vec<u8> {
        let count = u32::try_from(self.destinations).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(slot) = self.out.get_mut(12..FRONT) {
            slot.copy_from_slice(&count);
        }
        let crc = crc32c::crc32c(self.out.get(12..).unwrap_or_default()).to_le_bytes();
        if let Some(slot) = self.out.get_mut(8..12) {
            slot.copy_from_slice(&crc);
        }
        self.out
    }

    /// Writes the file in place of the former one. No sync: a torn one is recognised.
    pub(crate) fn save(self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let unfinished = path.with_extension("new");
        remove_if_there(disk, &unfinished)?;
        let file = disk.create(&unfinished)?;
        disk.write_at(&file, &mut [IoSlice::new(&self.finish())], 0)?;
        disk.rename(&unfinished, path)?;
        disk.sync_dir(&parent(path))
    }
}

impl Index {
    /// Reads it. Anything wrong with it makes it empty, which costs time and nothing else.
    pub(crate) fn load(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(Self::decode).unwrap_or_default()
    }

    /// Whether a folder with this stamp is as it was when the index was written.
    pub(crate) fn is_current(&self, folder: usize, stamp: i64) -> bool {
        stamp != UNSURE && self.folders.get(folder) == Some(&stamp)
    }

    /// The stamp of a message's envelope, where the folder is as it was when the index was written.
    pub(crate) fn stamp_in(&self, folders: &FolderStamps, id: QueueId) -> Option<(i64, u32)> {
        let folder = folder_number(id);
        folders.get(folder).filter(|stamp| self.is_current(folder, **stamp))?;
        Some(self.get(id)?.stamp)
    }

    /// How many messages it knows.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The entry of a message.
    pub(crate) fn get(&self, id: QueueId) -> Option<IndexEntry> {
        let at = self.places.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, offset) = self.places.get(at)?;
        self.entry(&mut Reader(self.octets.get(*offset as usize..)?))
    }

    fn decode(octets: Vec<u8>) -> Option<Self> {
        let mut reader = Reader(octets.strip_prefix(MAGIC)?);
        let crc = reader.u32()?;
        if crc32c::crc32c(reader.0) != crc || u32::try_from(octets.len()).is_err() {
            return None;
        }
        let mut index = Self::default();
        let count = reader.u32()?;
        for _ in 0..FOLDERS {
            index.folders.push(i64::from_le_bytes(reader.take(8)?.try_into().ok()?));
        }
        for _ in 0..count {
            let kind = if reader.byte()? == 1 { Kind::Relay } else { Kind::Mailbox };
            let len = usize::try_from(reader.number()?).ok()?;
            index.destinations.push((kind, Destination(std::str::from_utf8(reader.take(len)?).ok()?.into())));
        }
        while !reader.0.is_empty() {
            let id = QueueId(reader.u64()?);
            let offset = octets.len() - reader.0.len();
            index.entry(&mut reader)?;
            index.places.push((id, u32::try_from(offset).ok()?));
        }
        index.places.sort_unstable();
        index.octets = octets;
        Some(index)
    }

    fn entry(&self, reader: &mut Reader<'_>) -> Option<IndexEntry> {
        let changed = i64::from_le_bytes(reader.take(8)?.try_into().ok()?);
        let stamp = (changed, u32::try_from(reader.number()?).ok()?);
        let (received, deadline) = (reader.number()?, reader.number()?);
        let (from, sender, domain) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let recipients = u16::try_from(reader.number()?).ok()?;
        let flags = ParkedFlags(reader.byte()?);
        let priority = i8::from_le_bytes([reader.byte()?]);
        let mut jobs = Vec::new();
        for _ in 0..reader.number()? {
            let destination = u32::try_from(reader.number()?).ok().filter(|&d| (d as usize) < self.destinations.len())?;
            jobs.push((destination, reader.number()?));
        }
        Some(IndexEntry { stamp, received, deadline, from, sender, domain, recipients, flags, priority, jobs })
    }
}

/// A number in groups of seven bits, the lowest first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use proptest::prelude::*;

    fn entry(n: u64) -> IndexEntry {
        IndexEntry {
            stamp: (-5 + n as i64, 800),
            received: n << 40,
            deadline: u64::MAX - n,
            from: 1,
            sender: u32::MAX,
            domain: 7,
            recipients: 3,
            flags: ParkedFlags(2),
            priority: -9,
            jobs: (0..n % 3).map(|k| (k as u32 % 2, k << 50)).collect(),
        }
    }

    fn sample(entries: u64) -> IndexWriter {
        let destinations = [(Kind::Mailbox, Destination("local".into())), (Kind::Relay, Destination("mx:example.net".into()))];
        let mut folders = [UNSURE; FOLDERS];
        folders[7] = 77;
        let mut writer = IndexWriter::new(&folders, destinations.iter().map(|(kind, name)| (*kind, name)));
        // In no order.
        (0..entries).rev().for_each(|n| writer.add(QueueId(n * 7), &entry(n)));
        writer
    }

    #[test]
    fn it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        assert!(Index::load(&path).destinations.is_empty());
        for entries in [0, 1, 100] {
            sample(entries).save(&RealDisk, &path).unwrap();
            let index = Index::load(&path);
            assert_eq!(index.destinations.len(), 2);
            assert_eq!(index.destinations[1], (Kind::Relay, Destination("mx:example.net".into())));
            for n in 0..entries {
                assert_eq!(index.get(QueueId(n * 7)), Some(entry(n)));
            }
            assert_eq!(index.get(QueueId(1)), None);
            assert_eq!(index.len() as u64, entries);
            assert_eq!(index.stamp_in(&[77; FOLDERS], QueueId(7)), None, "another folder's");
            assert!(index.is_current(7, 77) && !index.is_current(7, 78) && !index.is_current(8, UNSURE));
        }
    }

    #[test]
    fn a_torn_or_damaged_one_is_empty() {
        let whole = sample(10).finish();
        assert!(Index::decode(whole.clone()).is_some());
        for len in (0..FRONT).chain((FRONT..whole.len()).step_by(37)).chain(whole.len() - 300..whole.len()) {
            assert!(Index::decode(whole[..len].to_vec()).is_none());
            let mut bad = whole.clone();
            bad[len] ^= 1;
            assert!(Index::decode(bad).is_none());
        }
    }

    proptest! {
        #[test]
        fn garbage_with_a_right_sum_does_not_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let octets = [&MAGIC[..], &crc32c::crc32c(&tail).to_le_bytes(), &tail].concat();
            _ = Index::decode(octets);
        }

        #[test]
        fn numbers_come_back(number: u64) {
            let mut out = Vec::new();
            put(&mut out, number);
            prop_assert_eq!(Reader(&out).number(), Some(number));
        }
    }
}
