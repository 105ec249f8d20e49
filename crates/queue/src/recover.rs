//! Start-up: brings together what the journal and the parked files say, and puts it into the schedule.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::body::{Body, Inner};
use crate::body_file::BodyFile;
use crate::deferred::{Deferred, Index, IndexEntry, Scanned, scan};
use crate::disk::Disk;
use crate::envelope::{Envelope, Recipient, Status, UnixMillis};
use crate::id::QueueId;
use crate::journal::{Recovered, RecoveredBody, Replay, remove_if_there};
use crate::keep_index::index_path;
use crate::queue::Queue;
use crate::schedule::{
    DestId, Entry, Jobs, Kind, NewLive, Parked, ParkedFlags, Place, State, Times, Transports, domain_key, from_key, sender_key,
};
use crate::start::{OpenError, io_error};
use crate::transport::Destination;

/// What the scan of parked mail found besides the messages.
pub(crate) struct ParkedMail {
    pub(crate) last_id: u64,
    pub(crate) count: usize,
    pub(crate) known: usize,
    pub(crate) damaged: Vec<String>,
}

/// Fills the schedule with what is parked. A million messages are gathered first and put in together, sorted: that takes less memory and time than
/// one by one.
pub(crate) fn index_parked(
    folder: &Path,
    deferred: &Deferred,
    state: &Mutex<State>,
    times: &Times,
    found: &Replay,
    now: UnixMillis,
) -> Result<ParkedMail, OpenError> {
    let index = Index::load(&index_path(folder));
    let transports = state.lock().transports().clone();
    let note = |scanned| match scanned {
        Scanned::Known(id, entry) => Noted::Known(id, entry),
        Scanned::Read(envelope) => {
            let (parked, names) = parked_of_envelope(&envelope, &transports, times, now);
            Noted::Read(envelope.id, parked, names)
        }
    };
    let gathered = Mutex::new(Gathered {
        entries: Vec::with_capacity(index.len()),
        numbers: vec![None; index.destinations.len()],
        ..Gathered::default()
    });
    let take = |noted| gathered.lock().take(&mut state.lock(), &index, noted);
    let damaged = scan(deferred, &index, &folder.join("damaged"), &|envelope| is_finished(found, envelope), note, take)?;
    // Its memory is needed for what follows.
    drop(index);
    let Gathered { entries, known, last_id, .. } = gathered.into_inner();
    let count = entries.len();
    state.lock().insert_all_parked(entries, now);
    Ok(ParkedMail { last_id, count, known, damaged })
}

/// What the scan makes of one message.
enum Noted {
    Known(QueueId, IndexEntry),
    Read(QueueId, Parked, Names),
}

/// What the scan found so far.
#[derive(Default)]
struct Gathered {
    entries: Vec<(QueueId, Entry)>,
    /// The destinations of the index as the schedule numbers them, once they are met.
    numbers: Vec<Option<DestId>>,
    known: usize,
    last_id: u64,
}

impl Gathered {
    fn take(&mut self, state: &mut State, index: &Index, noted: Vec<Noted>) {
        for one in noted {
            let (id, mut parked, jobs) = match one {
                Noted::Known(id, entry) => {
                    self.known += 1;
                    let jobs = entry.jobs.iter().filter_map(|(number, next)| Some((self.number(state, index, *number)?, *next)));
                    let jobs = jobs.collect();
                    (id, parked_of_index(&entry), jobs)
                }
                Noted::Read(id, parked, names) => {
                    let jobs = names.iter().map(|((kind, name), next)| (state.dests.add_job(*kind, name), *next));
                    (id, parked, jobs.collect())
                }
            };
            parked.jobs = Jobs::of(jobs);
            self.last_id = self.last_id.max(id.0);
            self.entries.push((id, Entry::Parked(parked)));
        }
    }

    /// The number that the schedule gives a destination of the index; one more job is counted for it.
    fn number(&mut self, state: &mut State, index: &Index, number: u32) -> Option<DestId> {
        let slot = self.numbers.get_mut(number as usize)?;
        match *slot {
            Some(dest) => state.dests.count_job(dest),
            None => {
                let (kind, name) = index.destinations.get(number as usize)?;
                *slot = Some(state.dests.add_job(*kind, name));
            }
        }
        *slot
    }
}

fn parked_of_index(entry: &IndexEntry) -> Parked {
    Parked {
        received: entry.received,
        deadline: entry.deadline,
        from: entry.from,
        sender: entry.sender,
        domain: entry.domain,
        recipients: entry.recipients,
        flags: entry.flags,
        priority: entry.priority,
        jobs: Jobs::of(Vec::new()),
    }
}

type Names = Vec<((Kind, Destination), UnixMillis)>;

fn parked_of_envelope(envelope: &Envelope, transports: &Transports, times: &Times, now: UnixMillis) -> (Parked, Names) {
    let mut names: Names = Vec::new();
    let open = |r: &&Recipient| !r.status.is_settled();
    for (recipient, name) in envelope.recipients.iter().zip(transports.names(envelope)).filter(|(r, _)| open(r)) {
        let held = recipient.status == Status::Held;
        let next = if held { UnixMillis::MAX } else { recipient.next_attempt.unwrap_or(0).max(envelope.hold_until.unwrap_or(0)) };
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, earliest)) => *earliest = next.min(*earliest),
            None => names.push((name, next)),
        }
    }
    let recipients = envelope.recipients.iter().filter(open).count();
    let mut flags = ParkedFlags::default();
    flags.set(ParkedFlags::HELD, envelope.recipients.iter().any(|r| r.status == Status::Held));
    let parked = Parked {
        received: envelope.received,
        deadline: times.next_deadline(envelope, now),
        from: from_key(envelope),
        sender: sender_key(envelope),
        domain: domain_key(envelope),
        recipients: u16::try_from(recipients).unwrap_or(u16::MAX),
        flags,
        priority: envelope.priority,
        jobs: Jobs::of(Vec::new()),
    };
    (parked, names)
}

/// Those that are parked as well: their parking was complete, and only the note of it did not make it into the journal.
pub(crate) fn part_doubles(messages: Vec<Recovered>, state: &Mutex<State>) -> (Vec<Recovered>, Vec<Recovered>) {
    let state = state.lock();
    messages.into_iter().partition(|recovered| !state.messages.contains_key(&recovered.envelope.id))
}

/// Removes the files of messages that are finished, or were never accepted.
pub(crate) fn sweep_spool(disk: &Arc<dyn Disk>, spool: &Path, messages: &[Recovered]) -> Result<(), OpenError> {
    let needed: HashSet<&str> =
        messages.iter().filter_map(|m| if let RecoveredBody::File(file, _) = &m.body { Some(file.name.as_str()) } else { None }).collect();
    for entry in fs::read_dir(spool).map_err(io_error(spool))? {
        let entry = entry.map_err(io_error(spool))?;
        if !entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
            remove_if_there(&**disk, &entry.path()).map_err(io_error(&entry.path()))?;
        }
    }
    Ok(())
}

/// Whether the journal knows that nothing is left to do for a parked message.
pub(crate) fn is_finished(found: &Replay, envelope: &Envelope) -> bool {
    let mut envelope = envelope.clone();
    let id = envelope.id;
    merge(&mut envelope, found.added.get(&id).map_or(&[], Vec::as_slice), found.fates.get(&id).map_or(&[], Vec::as_slice));
    envelope.recipients.iter().all(|r| r.status.is_settled())
}

/// Brings an envelope up to what the journal knows of its recipients.
pub(crate) fn merge(envelope: &mut Envelope, added: &[Recipient], fates: &[(u16, Status)]) {
    for recipient in added {
        let known =
            |r: &Recipient| r.address == recipient.address && r.route == recipient.route && r.reverse_path == recipient.reverse_path;
        if !envelope.recipients.iter().any(known) {
            envelope.recipients.push(recipient.clone());
        }
    }
    for (index, status) in fates {
        if let Some(recipient) = envelope.recipients.get_mut(usize::from(*index)).filter(|r| !r.status.is_settled()) {
            recipient.status = *status;
        }
    }
}

/// What the journal knew of a parked message: what is left of it, or nothing.
pub(crate) enum Change {
    Updated(Box<Envelope>),
    Finished(QueueId),
}

/// Brings parked envelopes up to what the journal knows of their recipients.
pub(crate) fn bring_up_to_date(deferred: &Deferred, found: &mut Replay, doubles: &[Recovered]) -> Result<Vec<Change>, OpenError> {
    let mut fates = std::mem::take(&mut found.fates);
    for recovered in doubles {
        let known = (0..).zip(&recovered.envelope.recipients).filter(|(_, r)| r.status.is_settled()).map(|(n, r)| (n, r.status));
        fates.entry(recovered.envelope.id).or_default().extend(known);
    }
    let added = std::mem::take(&mut found.added);
    let ids: HashSet<QueueId> = fates.keys().chain(added.keys()).copied().filter(|id| deferred.has(*id)).collect();
    let mut changes = Vec::new();
    for id in ids {
        // One that cannot be read was set aside by the scan.
        let Ok(mut envelope) = deferred.read(id) else { continue };
        let before = envelope.clone();
        merge(&mut envelope, added.get(&id).map_or(&[], Vec::as_slice), fates.get(&id).map_or(&[], Vec::as_slice));
        if envelope.recipients.iter().all(|r| r.status.is_settled()) {
            changes.push(Change::Finished(id));
        } else if envelope != before {
            changes.push(Change::Updated(Box::new(envelope)));
        }
    }
    let updated: Vec<Envelope> =
        changes.iter().filter_map(|c| if let Change::Updated(e) = c { Some((**e).clone()) } else { None }).collect();
    deferred.update(&updated).map_err(io_error(deferred.root()))?;
    Ok(changes)
}

impl Queue {
    /// Puts a message that the journal held into the schedule.
    pub(crate) fn take_up(&self, recovered: Recovered, now: UnixMillis) {
        let Recovered { mut envelope, body, hold } = recovered;
        let id = envelope.id;
        let stored = match body {
            RecoveredBody::Inline { offset, len } => Body::new(Inner::Slice { file: Arc::clone(&hold.0.file), offset, len }),
            RecoveredBody::File(file, prefix) => {
                let path = self.folder.join("spool").join(&file.name);
                let len = fs::metadata(&path).map(|meta| meta.len()).ok();
                if len != Some(file.len) {
                    self.body_missing(&envelope, &path, len, file.len);
                    return;
                }
                let file = BodyFile::found(Arc::clone(&self.disk), path, file.len, file.crc);
                Body::new(Inner::File(Arc::new(file))).prefixed(prefix)
            }
        };
        envelope.size = stored.len();
        let names = self.transports.names(&envelope);
        let deliver_by = self.times.deliver_by(&envelope);
        let new = NewLive { envelope, body: stored.clone(), place: Place::Journal { hold, stored }, replayed: true };
        let mut state = self.state.lock();
        state.insert(new, &names, now);
        state.fresh.push_back((now, id));
        if let Some(time) = deliver_by {
            state.wait_for_deadline(id, time);
        }
    }

    /// A journalled message whose file is gone or short: what is known of it is kept for people to see.
    fn body_missing(&self, envelope: &Envelope, path: &Path, len: Option<u64>, wanted: u64) {
        let id = envelope.id;
        tracing::error!(%id, file = %path.display(), octets = len, wanted, "the file of an accepted message is missing or short; its envelope was set aside");
        self.damaged.lock().push(format!("{id}: {} has {} octets instead of {wanted}", path.display(), len.unwrap_or(0)));
        let aside = self.folder.join("damaged");
        let keep = || -> io::Result<()> {
            let json = serde_json::to_vec_pretty(envelope).map_err(io::Error::other)?;
            let kept = aside.join(format!("{id}.json"));
            if !kept.exists() {
                let file = self.disk.create(&kept)?;
                self.disk.write_at(&file, &mut [io::IoSlice::new(&json)], 0)?;
            }
            if len.is_some() {
                self.disk.rename(path, &aside.join(format!("{id}.msg")))?;
            }
            self.disk.sync_fs(&aside)
        };
        if let Err(error) = keep() {
            tracing::error!(%id, %error, "what is left of a damaged message could not be set aside");
        }
    }

    pub(crate) fn apply_change(&self, change: Change) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        match change {
            Change::Finished(id) => {
                state.remove(id);
                self.keeper.remove(id);
            }
            Change::Updated(envelope) => {
                state.remove(envelope.id);
                let (parked, names) = parked_of_envelope(&envelope, &self.transports, &self.times, now);
                state.insert_parked(envelope.id, parked, &names, now);
            }
        }
    }
}
