//! Start-up: reads the segments that an earlier process left, and says which messages are unfinished.
//!
//! The last segment may end in a torn write, which is cut off: nobody was told that it was safe. Damage anywhere else is set
//! aside and reported, and reading goes on behind it. The two are told apart by what each record says was durable before it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::notes::{FileRef, MessageRecord, Note, Position, parse_file_ref, parse_message};
use super::record::{Found, HEADER, Header, Kind, find, look, payload};
use super::segment::{Hold, Segment, parse_name};
use crate::disk::{Disk, parent};
use crate::envelope::{Envelope, Recipient, Status};
use crate::id::QueueId;

/// What a replay found.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Unfinished messages, oldest first.
    pub(crate) messages: Vec<Recovered>,
    /// Fates that the journal knows of messages under `deferred/`, to be brought up to date there.
    pub(crate) fates: HashMap<QueueId, Vec<(u16, Status)>>,
    /// Recipients that the journal knows to have been added to messages under `deferred/`.
    pub(crate) added: HashMap<QueueId, Vec<Recipient>>,
    /// Segments in use, oldest first.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Segments with nothing in them.
    pub(crate) empty: Vec<Segment>,
    /// The generation of the next segment.
    pub(crate) next_generation: u64,
    /// The highest id seen.
    pub(crate) last_id: u64,
    /// All messages met, finished ones among them.
    pub(crate) known: HashSet<QueueId>,
    /// Stretches that could not be read, for people.
    pub(crate) damaged: Vec<String>,
}

/// A message that was accepted and not finished.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) envelope: Envelope,
    pub(crate) body: RecoveredBody,
    pub(crate) hold: Hold,
}

/// Where the body of a recovered message is.
#[derive(Debug)]
pub(crate) enum RecoveredBody {
    /// In the segment of the hold.
    Inline { offset: u64, len: u64 },
    /// In `spool/`, with something before it.
    File(FileRef, Bytes),
}

/// Why a replay could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path} was written by a newer version of this program (format {version}); run that version, or newer")]
    Newer { path: String, version: u8 },
}

/// What one segment holds.
struct Scan {
    records: Vec<(usize, Header)>,
    damaged: Vec<Range<usize>>,
    /// Where a torn tail begins.
    cut: Option<usize>,
}

/// A fate and where it is written.
struct Fate {
    index: u16,
    status: Status,
    at: Position,
    /// The boot during which it was written, by its number in [`Gathered::boots`]; `None`: nothing vouches for the delivery any more.
    boot: Option<usize>,
}

/// A message record and where it is.
struct Place {
    segment: usize,
    offset: usize,
    header: Header,
}

/// Reads all segments in `folder`; `boot` tells this boot of the machine from others. Damaged stretches are copied to `aside`.
pub(crate) fn replay(disk: &Arc<dyn Disk>, folder: &Path, aside: &Path, boot: &str) -> Result<Replay, ReplayError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error| ReplayError::Io { path: path.clone(), error }
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        match entry.file_name().to_str().and_then(parse_name) {
            Some((generation, nonce)) => names.push((generation, nonce, entry.path())),
            None => tracing::debug!(file = %entry.path().display(), "not a journal segment"),
        }
    }
    names.sort();

    let mut out = Replay { next_generation: names.last().map_or(1, |(generation, ..)| generation + 1), ..Replay::default() };
    let read = |entry: &(u64, u64, PathBuf), last: bool| {
        let (_, nonce, path) = entry;
        let octets = fs::read(path).map_err(failed(path))?;
        let scan = scan(&octets, *nonce, last).map_err(|version| ReplayError::Newer { path: path.display().to_string(), version })?;
        Ok((octets, scan))
    };
    let open = |(generation, nonce, path): &(u64, u64, PathBuf), size: usize| {
        let file = disk.open(path).map_err(failed(path))?;
        Ok(Segment::new(path.clone(), *generation, *nonce, file, size as u64))
    };
    // Those at the end that hold nothing were only made ready.
    while let Some(entry) = names.last() {
        let (octets, scan) = read(entry, true)?;
        if !scan.records.is_empty() || !scan.damaged.is_empty() {
            break;
        }
        out.empty.push(open(entry, octets.len())?);
        names.pop();
    }
    out.empty.reverse();
    let mut gathered = Gathered::default();
    for (number, entry) in names.iter().enumerate() {
        let (octets, scan) = read(entry, number + 1 == names.len())?;
        let segment = open(entry, octets.len())?;
        let path = &entry.2;
        for range in &scan.damaged {
            let kept = set_aside(&**disk, aside, entry.0, range, &octets).map_err(failed(aside))?;
            tracing::error!(segment = %path.display(), from = range.start, to = range.end, kept = %kept,
                "the journal is damaged: mail in this stretch may be lost; what is left of it was set aside");
            out.damaged.push(format!("{}: octets {} to {} (kept as {kept})", path.display(), range.start, range.end));
        }
        if let Some(cut) = scan.cut {
            end_at(&**disk, &segment, cut as u64).map_err(failed(path))?;
            tracing::info!(segment = %path.display(), at = cut, "the journal ends in an unfinished write, which nobody was told was safe: cut off");
        }
        gathered.segment(&mut out, number, entry.0, &octets, &scan.records);
        out.segments.push(Arc::new(segment));
    }
    gathered.finish(out, boot)
}

/// Finds the records of a segment.
fn scan(octets: &[u8], nonce: u64, last: bool) -> Result<Scan, u8> {
    let mut records: Vec<(usize, Header)> = Vec::new();
    let mut holes: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    let mut durable = 0;
    let ended = loop {
        match look(octets, nonce, at) {
            Found::Record(header) => {
                durable = durable.max(header.synced as usize);
                if header.kind == Kind::End {
                    break true;
                }
                records.push((at, header));
                at = at.saturating_add(header.span() as usize);
            }
            Found::Newer(version) => return Err(version),
            Found::Nothing => match find(octets, nonce, at) {
                Some(next) => {
                    holes.push(at..next);
                    at = next;
                }
                None => break false,
            },
        }
    };
    // Whatever was durable when a later record was written cannot be torn; a segment is durable to its end before the next is begun.
    if !last {
        durable = octets.len();
    }
    let torn = holes.iter().map(|hole| hole.start).find(|&start| start >= durable);
    let cut = torn.or((!ended && !records.is_empty() && last).then_some(at));
    if let Some(cut) = cut {
        records.retain(|(offset, _)| *offset < cut);
        holes.retain(|hole| hole.start < cut);
    }
    if !ended && !last {
        holes.push(at..octets.len());
    }
    Ok(Scan { records, damaged: holes, cut })
}

/// Writes the record that ends a segment where its torn tail began, so that the next start-up need not decide again.
fn end_at(disk: &dyn Disk, segment: &Segment, at: u64) -> io::Result<()> {
    let end = Header { kind: Kind::End, len: 0, synced: u32::try_from(at).unwrap_or(u32::MAX), payload_crc: 0 };
    disk.write_at(&segment.file, &mut [IoSlice::new(&end.encode(segment.nonce, at))], at)?;
    disk.sync_data(&segment.file)
}

/// Copies a damaged stretch to where an operator finds it.
fn set_aside(disk: &dyn Disk, aside: &Path, generation: u64, range: &Range<usize>, octets: &[u8]) -> io::Result<String> {
    let path = aside.join(format!("journal-{generation:016x}-{:08x}.bin", range.start));
    let shown = path.display().to_string();
    if path.exists() {
        return Ok(shown);
    }
    disk.create_dir(aside)?;
    let file = disk.create(&path)?;
    disk.write_at(&file, &mut [IoSlice::new(octets.get(range.clone()).unwrap_or_default())], 0)?;
    disk.sync_data(&file)?;
    disk.sync_dir(&parent(&path))?;
    Ok(shown)
}

/// What the segments say, before it is put together.
#[derive(Default)]
struct Gathered {
    places: HashMap<QueueId, Place>,
    fates: HashMap<QueueId, Vec<Fate>>,
    added: HashMap<QueueId, Vec<Recipient>>,
    parked: Vec<QueueId>,
    /// The boots of the machine that wrote here.
    boots: Vec<String>,
    /// How far each of them made durable what mailboxes took. A later boot vouches for nothing that an earlier one left undone: it may
    /// have flushed before it had delivered again what was lost.
    synced: HashMap<usize, Position>,
}

impl Gathered {
    /// Takes in the records of one segment.
    fn segment(&mut self, out: &mut Replay, number: usize, generation: u64, octets: &[u8], records: &[(usize, Header)]) {
        let mut now = None;
        for (offset, header) in records {
            let Some(payload) = payload(octets, *offset, header) else { continue };
            if matches!(header.kind, Kind::Message | Kind::FileMessage) {
                if let Some(record) = parse_message(payload) {
                    out.last_id = out.last_id.max(record.id.0);
                    out.known.insert(record.id);
                    self.places.insert(record.id, Place { segment: number, offset: *offset, header: *header });
                }
                continue;
            }
            match Note::decode(header.kind, payload) {
                Some(Note::Start(start)) => {
                    now = self.boot(start.boot);
                    if now.is_none() {
                        self.distrust();
                    }
                    out.last_id = out.last_id.max(start.last_id);
                }
                Some(Note::Settled(id, list)) => {
                    // It may be all that is said of a message.
                    out.last_id = out.last_id.max(id.0);
                    let at = Position { generation, offset: *offset as u64 };
                    let list = list.into_iter().map(|(index, status)| Fate { index, status, at, boot: now });
                    self.fates.entry(id).or_default().extend(list);
                }
                Some(Note::Added(id, list)) => self.added.entry(id).or_default().extend(list),
                Some(Note::Parked(id)) => self.parked.push(id),
                Some(Note::Synced(position)) => {
                    if let Some(now) = now {
                        let known = self.synced.entry(now).or_default();
                        *known = position.max(*known);
                    }
                }
                None => tracing::error!(kind = ?header.kind, "a journal record does not hold together; it is ignored"),
            }
        }
    }

    /// A boot's number; `None` for the one without a name, of which [`super::Journal::distrust`] writes.
    fn boot(&mut self, name: String) -> Option<usize> {
        if name.is_empty() {
            return None;
        }
        let known = self.boots.iter().position(|boot| *boot == name);
        Some(known.unwrap_or_else(|| {
            self.boots.push(name);
            self.boots.len() - 1
        }))
    }

    /// A flush of the mail folder has failed: the kernel may have dropped what it covered, and later flushes vouch for none of it.
    fn distrust(&mut self) {
        for fate in self.fates.values_mut().flatten().filter(|fate| fate.status == Status::Delivered) {
            if !is_synced(&self.synced, fate) {
                fate.boot = None;
            }
        }
    }

    /// Tells the unfinished messages from the others.
    fn finish(mut self, mut out: Replay, boot: &str) -> Result<Replay, ReplayError> {
        for id in self.parked {
            self.places.remove(&id);
        }
        // What a mailbox took counts when the disk has it for certain, or the kernel has had it in hand ever since.
        let this_boot = self.boots.iter().position(|known| known == boot);
        let counts = |fate: &Fate| {
            fate.status != Status::Delivered || (fate.boot.is_some() && fate.boot == this_boot) || is_synced(&self.synced, fate)
        };
        out.fates =
            self.fates.into_iter().map(|(id, list)| (id, list.into_iter().filter(counts).map(|f| (f.index, f.status)).collect())).collect();
        let mut places: Vec<(QueueId, Place)> = self.places.into_iter().collect();
        places.sort_by_key(|(_, place)| (place.segment, place.offset));
        for (id, place) in places {
            let Some(segment) = out.segments.get(place.segment) else { continue };
            let path = segment.path.display().to_string();
            let payload = place.read(segment).map_err(|error| ReplayError::Io { path: path.clone(), error })?;
            let Some(record) = parse_message(&payload) else { continue };
            let parsed = serde_json::from_slice::<Envelope>(record.envelope).map_err(|error| error.to_string());
            let body = place.body(&record).ok_or_else(|| "the reference to its body is malformed".to_owned());
            let (mut envelope, body) = match parsed.and_then(|envelope| Ok((envelope, body?))) {
                Ok(both) => both,
                Err(error) => {
                    tracing::error!(%id, %error, "a journalled message cannot be read; it stays in the journal's file until that is used again");
                    out.damaged.push(format!("{path}: message {id} cannot be read ({error})"));
                    continue;
                }
            };
            envelope.recipients.extend(self.added.get(&id).into_iter().flatten().cloned());
            for (index, status) in out.fates.get(&id).into_iter().flatten() {
                if let Some(recipient) = envelope.recipients.get_mut(usize::from(*index)) {
                    recipient.status = *status;
                }
            }
            // What is known of a finished one stays known: it may have been parked, and its files not be gone yet.
            if !envelope.recipients.iter().all(|r| r.status.is_settled()) {
                out.fates.remove(&id);
                self.added.remove(&id);
                out.messages.push(Recovered { envelope, body, hold: Hold::new(segment) });
            }
        }
        out.fates.retain(|_, list| !list.is_empty());
        out.added = self.added;
        Ok(out)
    }
}

/// Whether a flush of the boot that delivered it covers a delivery.
fn is_synced(synced: &HashMap<usize, Position>, fate: &Fate) -> bool {
    fate.boot.and_then(|boot| synced.get(&boot)).is_some_and(|position| fate.at < *position)
}

impl Place {
    /// Reads the payload again, now that it is known to be needed.
    fn read(&self, segment: &Segment) -> io::Result<Vec<u8>> {
        let mut payload = vec![0; self.header.len as usize];
        segment.file.file.read_exact_at(&mut payload, (self.offset + HEADER) as u64)?;
        Ok(payload)
    }

    fn body(&self, record: &MessageRecord<'_>) -> Option<RecoveredBody> {
        if self.header.kind == Kind::FileMessage {
            let (file, before) = parse_file_ref(record.rest)?;
            return Some(RecoveredBody::File(file, Bytes::copy_from_slice(before)));
        }
        let offset = (self.offset + HEADER + record.rest_at) as u64;
        Some(RecoveredBody::Inline { offset, len: record.rest.len() as u64 })
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
