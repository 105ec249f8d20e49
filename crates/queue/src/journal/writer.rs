//! Where records are put together and written: the segment at hand, and the change to the next.
//!
//! Whoever writes holds the writer's lock. Nobody holds it during a flush of the disk, so that a note that must not be
//! lost with the process is written at once by whoever has it, and never waits for the flush that serves others.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use super::notes::{Note, Start};
use super::record::{END_SPAN, HEADER, Header, Kind};
use super::segment::{Pool, Segment};
use crate::disk::Disk;
use crate::id::Ids;

/// One record to be written.
pub(super) struct Record<'a> {
    pub(super) header: Header,
    pub(super) parts: [&'a [u8]; 3],
}

/// The end of the journal.
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: Arc<Pool>,
    pub(super) start: Start,
    pub(super) ids: Arc<Ids>,
    pub(super) segment: Arc<Segment>,
    /// Where the next record goes.
    pub(super) at: u64,
    /// Everything in the segment before this offset is durable.
    pub(super) synced: u64,
}

impl<'a> Record<'a> {
    /// A note's record; `payload` is what [`Note::encode`] gave.
    pub(super) fn note(kind: Kind, payload: &'a [u8]) -> Self {
        let header = Header { kind, len: payload.len() as u32, synced: 0, payload_crc: crc32c::crc32c(payload) };
        Self { header, parts: [payload, &[], &[]] }
    }

    /// A message's record; `crc` is the sum over its parts.
    pub(super) fn message(kind: Kind, crc: u32, head: &'a Bytes, rest: &'a [Bytes; 2]) -> Self {
        let [prefix, body] = rest;
        let len = head.len() + prefix.len() + body.len();
        Self { header: Header { kind, len: len as u32, synced: 0, payload_crc: crc }, parts: [head, prefix, body] }
    }
}

impl Writer {
    /// Whether so many octets of records fit the segment.
    pub(super) fn has_room(&self, octets: u64) -> bool {
        self.at.saturating_add(octets).saturating_add(END_SPAN) <= self.segment.size
    }

    /// Writes records that fit, in one call. Nothing of it is durable yet.
    pub(super) fn put(&mut self, records: &[Record<'_>]) -> io::Result<()> {
        const PADDING: [u8; 8] = [0; 8];
        let (mut at, synced) = (self.at, self.synced as u32);
        let mut headers: Vec<[u8; HEADER]> = Vec::with_capacity(records.len());
        for record in records {
            headers.push(Header { synced, ..record.header }.encode(self.segment.nonce, at));
            at += record.header.span();
        }
        let mut parts = Vec::with_capacity(records.len() * 5);
        for (record, header) in records.iter().zip(&headers) {
            parts.push(IoSlice::new(header));
            parts.extend(record.parts.iter().map(|part| IoSlice::new(part)));
            let padding = (8 - (HEADER + record.header.len as usize) % 8) % 8;
            parts.push(IoSlice::new(PADDING.get(..padding).unwrap_or_default()));
        }
        if !parts.is_empty() {
            self.disk.write_at(&self.segment.file, &mut parts, self.at)?;
        }
        self.at = at;
        Ok(())
    }

    /// Ends the segment and opens the next. When there is no next, the segment stays open and may still take what fits.
    pub(super) fn rotate(&mut self) -> io::Result<Arc<Segment>> {
        let next = self.pool.take()?;
        let end = Header { kind: Kind::End, len: 0, synced: self.synced as u32, payload_crc: 0 };
        let encoded = end.encode(self.segment.nonce, self.at);
        // A full disk cannot be what fails from here on, for the room was taken when the segments were made.
        let other = |error: io::Error| io::Error::other(error.to_string());
        self.disk.write_at(&self.segment.file, &mut [IoSlice::new(&encoded)], self.at).map_err(other)?;
        self.disk.sync_data(&self.segment.file).map_err(other)?;
        self.segment = Arc::new(next);
        (self.at, self.synced) = (0, 0);
        self.open_segment().map_err(other)?;
        Ok(Arc::clone(&self.segment))
    }

    /// Writes who writes, durably.
    pub(super) fn open_segment(&mut self) -> io::Result<()> {
        let last_id = self.start.last_id.max(self.ids.last());
        let payload = Note::Start(Start { last_id, ..self.start.clone() }).encode();
        self.put(&[Record::note(Kind::Start, &payload)])?;
        self.disk.sync_data(&self.segment.file)?;
        self.synced = self.at;
        Ok(())
    }
}
