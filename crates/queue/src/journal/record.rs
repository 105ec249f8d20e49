//! How a record is framed: a header of 24 octets, then the payload, filled up to a multiple of 8.
//!
//! | offset | octets | meaning |
//! | --- | --- | --- |
//! | 0 | 2 | magic |
//! | 2 | 1 | kind |
//! | 3 | 1 | version of the format |
//! | 4 | 4 | length of the payload |
//! | 8 | 4 | everything before this offset of the segment was durable when the record was written |
//! | 12 | 4 | CRC-32C of the payload |
//! | 16 | 4 | zero |
//! | 20 | 4 | CRC-32C of the segment's nonce, the record's own offset and the header so far |
//!
//! All numbers are little-endian. The nonce is random for each use of a segment and stands in its file name only: what an
//! earlier use left behind is never taken for live, nor is a record that somebody writes into a message.

/// Octets before the payload.
pub(crate) const HEADER: usize = 24;

/// Room that is always left for the record that ends a segment.
pub(crate) const END_SPAN: u64 = HEADER as u64;

const MAGIC: [u8; 2] = [0xb6, 0x9d];
const VERSION: u8 = 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Opens a segment: who writes it.
    Start = 1,
    /// A message with its body.
    Message = 2,
    /// A message whose body is a file in `spool/`.
    FileMessage = 3,
    /// Fates of recipients.
    Settled = 4,
    /// Recipients that take the place of another.
    Added = 5,
    /// A message that files under `deferred/` stand for from here on.
    Parked = 6,
    /// Everything delivered before a position is on disk.
    Synced = 7,
    /// Nothing follows in this segment.
    End = 8,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Start, Self::Message, Self::FileMessage, Self::Settled, Self::Added, Self::Parked, Self::Synced, Self::End]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) len: u32,
    pub(crate) synced: u32,
    pub(crate) payload_crc: u32,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole record of this use of the segment.
    Record(Header),
    /// A record that a newer program wrote.
    Newer(u8),
    /// Anything else.
    Nothing,
}

impl Header {
    /// Octets from the start of this record to the start of the next.
    pub(crate) fn span(&self) -> u64 {
        span(self.len as usize)
    }

    /// The header as written at `offset`.
    pub(crate) fn encode(&self, nonce: u64, offset: u64) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let [a, b] = MAGIC;
        let head: [&[u8]; 4] =
            [&[a, b, self.kind as u8, VERSION], &self.len.to_le_bytes(), &self.synced.to_le_bytes(), &self.payload_crc.to_le_bytes()];
        for (slot, byte) in out.iter_mut().zip(head.into_iter().flatten()) {
            *slot = *byte;
        }
        let crc = header_crc(nonce, offset, &out);
        for (slot, byte) in out.iter_mut().skip(20).zip(crc.to_le_bytes()) {
            *slot = byte;
        }
        out
    }
}

/// Octets that a payload of `len` takes with its header.
pub(crate) fn span(len: usize) -> u64 {
    (HEADER as u64).saturating_add(len as u64).next_multiple_of(8)
}

fn header_crc(nonce: u64, offset: u64, header: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&nonce.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    crc32c::crc32c_append(crc, header.get(..20).unwrap_or(header))
}

/// Looks at the record at `offset` of a whole segment.
pub(crate) fn look(segment: &[u8], nonce: u64, offset: usize) -> Found {
    let Some(header) = offset.checked_add(HEADER).and_then(|end| segment.get(offset..end)) else { return Found::Nothing };
    if !header.starts_with(&MAGIC) || u32_at(header, 20) != Some(header_crc(nonce, offset as u64, header)) {
        return Found::Nothing;
    }
    let (Some(&kind), Some(&version)) = (header.get(2), header.get(3)) else { return Found::Nothing };
    let (Some(len), Some(synced), Some(payload_crc)) = (u32_at(header, 4), u32_at(header, 8), u32_at(header, 12)) else {
        return Found::Nothing;
    };
    let Some(kind) = Kind::of(kind).filter(|_| version == VERSION) else { return Found::Newer(version) };
    let found = Header { kind, len, synced, payload_crc };
    match payload(segment, offset, &found) {
        Some(payload) if crc32c::crc32c(payload) == payload_crc => Found::Record(found),
        _ => Found::Nothing,
    }
}

/// The payload of the record at `offset`.
pub(crate) fn payload<'a>(segment: &'a [u8], offset: usize, header: &Header) -> Option<&'a [u8]> {
    let start = offset.checked_add(HEADER)?;
    segment.get(start..start.checked_add(header.len as usize)?)
}

/// The first offset at or after `from` where a record stands. Offsets are multiples of 8.
pub(crate) fn find(segment: &[u8], nonce: u64, from: usize) -> Option<usize> {
    let finder = memchr::memmem::Finder::new(&MAGIC);
    let tail = segment.get(from..)?;
    finder.find_iter(tail).map(|at| at + from).filter(|at| at % 8 == 0).find(|&at| look(segment, nonce, at) != Found::Nothing)
}

/// A little-endian number inside a record.
pub(crate) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    let bytes = octets.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// A little-endian number inside a record.
pub(crate) fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    let bytes = octets.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(segment: &mut [u8], nonce: u64, offset: usize, payload: &[u8]) -> Header {
        let header = Header { kind: Kind::Message, len: payload.len() as u32, synced: 0, payload_crc: crc32c::crc32c(payload) };
        segment[offset..offset + HEADER].copy_from_slice(&header.encode(nonce, offset as u64));
        segment[offset + HEADER..offset + HEADER + payload.len()].copy_from_slice(payload);
        header
    }

    proptest! {
        #[test]
        fn what_was_framed_is_found_and_nothing_else(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            slot in 0usize..20,
            nonce: u64,
            filler: u8,
        ) {
            let mut segment = vec![filler; 512];
            let offset = slot * 8;
            let header = put(&mut segment, nonce, offset, &payload);
            prop_assert_eq!(look(&segment, nonce, offset), Found::Record(header));
            prop_assert_eq!(find(&segment, nonce, 0), Some(offset));
            prop_assert_eq!(find(&segment, nonce.wrapping_add(1), 0), None);
            prop_assert_eq!(find(&segment, nonce, offset + 8), None);
        }

        #[test]
        fn one_wrong_bit_anywhere_is_seen(payload in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..100, bit in 0u8..8) {
            let mut segment = vec![0; 256];
            let header = put(&mut segment, 7, 8, &payload);
            let at = 8 + at % (HEADER + payload.len());
            segment[at] ^= 1 << bit;
            prop_assert_ne!(look(&segment, 7, 8), Found::Record(header));
        }

        #[test]
        fn garbage_is_no_record(segment in proptest::collection::vec(any::<u8>(), 0..300), nonce: u64, from in 0usize..300) {
            prop_assert_eq!(find(&segment, nonce, from), None);
        }
    }

    #[test]
    fn a_record_at_another_place_is_not_believed() {
        let mut segment = vec![0; 256];
        put(&mut segment, 7, 0, b"abc");
        segment.copy_within(0..32, 64);
        assert_eq!(look(&segment, 7, 64), Found::Nothing);
    }

    #[test]
    fn a_newer_format_is_told_from_garbage() {
        let mut segment = vec![0; 64];
        put(&mut segment, 7, 0, b"");
        segment[3] = 2;
        let crc = header_crc(7, 0, &segment);
        segment[20..24].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(look(&segment, 7, 0), Found::Newer(2));
    }
}
