//! A summary of all parked envelopes in one file, so that a start need not open a million of them.
//!
//! It is a cache and never believed blindly: an entry counts only while the envelope's file has the size and the time of
//! change that the entry names. Whatever is missing or differs is read from the envelope itself.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, parent};
use crate::envelope::UnixMillis;
use crate::id::QueueId;
use crate::journal::remove_if_there;
use crate::schedule::{Kind, ParkedFlags};
use crate::transport::Destination;

/// What the schedule needs to know of a parked message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Destinations, by their number in [`Index::destinations`], with the time of the next attempt.
    pub(crate) jobs: Vec<(u32, UnixMillis)>,
}

/// The whole file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Index {
    pub(crate) destinations: Vec<(Kind, Destination)>,
    pub(crate) entries: HashMap<QueueId, IndexEntry>,
}

const MAGIC: &[u8; 8] = b"pbindex1";

impl Index {
    /// Reads it. Anything wrong with it makes it empty, which costs time and nothing else.
    pub(crate) fn load(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|octets| Self::decode(&octets)).unwrap_or_default()
    }

    /// Writes it in place of the former one. No sync: a torn one is recognised.
    pub(crate) fn save(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let unfinished = path.with_extension("new");
        remove_if_there(disk, &unfinished)?;
        let file = disk.create(&unfinished)?;
        disk.write_at(&file, &mut [IoSlice::new(&self.encode())], 0)?;
        disk.rename(&unfinished, path)?;
        disk.sync_dir(&parent(path))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[0; 4]);
        put(&mut out, self.destinations.len() as u64);
        for (kind, name) in &self.destinations {
            out.push(u8::from(*kind == Kind::Relay));
            put(&mut out, name.0.len() as u64);
            out.extend_from_slice(name.0.as_bytes());
        }
        put(&mut out, self.entries.len() as u64);
        for (id, e) in &self.entries {
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&e.stamp.0.to_le_bytes());
            for number in [u64::from(e.stamp.1), e.received, e.deadline] {
                put(&mut out, number);
            }
            for number in [e.from, e.sender, e.domain] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            put(&mut out, u64::from(e.recipients));
            out.push(e.flags.0);
            out.push(e.priority.to_le_bytes()[0]);
            put(&mut out, e.jobs.len() as u64);
            for (destination, next) in &e.jobs {
                put(&mut out, u64::from(*destination));
                put(&mut out, *next);
            }
        }
        let crc = crc32c::crc32c(out.get(12..).unwrap_or_default()).to_le_bytes();
        if let Some(slot) = out.get_mut(8..12) {
            slot.copy_from_slice(&crc);
        }
        out
    }

    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader(octets.strip_prefix(MAGIC)?);
        let crc = u32::from_le_bytes(reader.take(4)?.try_into().ok()?);
        if crc32c::crc32c(reader.0) != crc {
            return None;
        }
        let mut destinations = Vec::new();
        for _ in 0..reader.number()? {
            let kind = if reader.byte()? == 1 { Kind::Relay } else { Kind::Mailbox };
            let len = usize::try_from(reader.number()?).ok()?;
            destinations.push((kind, Destination(std::str::from_utf8(reader.take(len)?).ok()?.into())));
        }
        let count = usize::try_from(reader.number()?).ok()?;
        // No entry takes fewer octets, so a wrong count cannot ask for more memory than the file is long.
        let mut entries = HashMap::with_capacity(count.min(octets.len() / 32));
        for _ in 0..count {
            let id = QueueId(u64::from_le_bytes(reader.take(8)?.try_into().ok()?));
            let changed = i64::from_le_bytes(reader.take(8)?.try_into().ok()?);
            let stamp = (changed, u32::try_from(reader.number()?).ok()?);
            let (received, deadline) = (reader.number()?, reader.number()?);
            let (from, sender, domain) = (reader.u32()?, reader.u32()?, reader.u32()?);
            let recipients = u16::try_from(reader.number()?).ok()?;
            let flags = ParkedFlags(reader.byte()?);
            let priority = i8::from_le_bytes([reader.byte()?]);
            let mut jobs = Vec::new();
            for _ in 0..reader.number()? {
                let destination = u32::try_from(reader.number()?).ok().filter(|&d| (d as usize) < destinations.len())?;
                jobs.push((destination, reader.number()?));
            }
            entries.insert(id, IndexEntry { stamp, received, deadline, from, sender, domain, recipients, flags, priority, jobs });
        }
        Some(Self { destinations, entries })
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

    fn sample(entries: u64) -> Index {
        let destinations = vec![(Kind::Mailbox, Destination("local".into())), (Kind::Relay, Destination("mx:example.net".into()))];
        let entry = |n: u64| IndexEntry {
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
        };
        Index { destinations, entries: (0..entries).map(|n| (QueueId(n), entry(n))).collect() }
    }

    #[test]
    fn it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        assert_eq!(Index::load(&path), Index::default());
        for entries in [0, 1, 100] {
            sample(entries).save(&RealDisk, &path).unwrap();
            assert_eq!(Index::load(&path), sample(entries));
        }
    }

    #[test]
    fn a_torn_or_damaged_one_is_empty() {
        let whole = sample(10).encode();
        for len in 0..whole.len() {
            assert_eq!(Index::decode(&whole[..len]), None);
            let mut bad = whole.clone();
            bad[len] ^= 1;
            assert_eq!(Index::decode(&bad), None);
        }
    }

    proptest! {
        #[test]
        fn garbage_with_a_right_sum_does_not_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let octets = [&MAGIC[..], &crc32c::crc32c(&tail).to_le_bytes(), &tail].concat();
            _ = Index::decode(&octets);
        }

        #[test]
        fn numbers_come_back(number: u64) {
            let mut out = Vec::new();
            put(&mut out, number);
            prop_assert_eq!(Reader(&out).number(), Some(number));
        }
    }
}
