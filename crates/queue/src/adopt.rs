//! Taking over the queue of a node that is gone: everything unfinished in its folder is accepted here, once.
//!
//! A message is accepted held, then listed in the folder, then let go, each step durable before the next. So it is not under way before the
//! list has it, and wherever a crash comes between, a repeated adoption finds it here or in the list and never takes it twice.

use std::collections::HashSet;
use std::fs;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::body::{Body, Inner, blocking};
use crate::deferred::{Deferred, Index, Scanned, scan};
use crate::disk::{Disk, parent};
use crate::envelope::{Envelope, Status};
use crate::id::QueueId;
use crate::journal::{RecoveredBody, replay};
use crate::queue::{AcceptError, Queue};
use crate::recover::{is_finished, merge};
use crate::schedule::DestId;
use crate::start::{OpenError, io_error, lock};

/// The file in an adopted folder that lists, one id a line, what another queue has taken over. While it is there the folder is not opened.
pub(crate) const ADOPTED: &str = "adopted";
/// The file with the folder's id, by which a register of nodes knows it wherever its disk is mounted.
const ID: &str = "node";
/// Messages taken over at a time, so that they share disk flushes.
const BATCH: usize = 64;

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Messages accepted now.
    pub messages: u64,
    /// Messages that an earlier, interrupted adoption had accepted.
    pub known: u64,
    /// What could not be read; it was set aside under `damaged/` in the folder.
    pub damaged: Vec<String>,
    /// Where the folder is now.
    pub folder: PathBuf,
}

/// Why a folder was not taken over, or not wholly. Adopting it again goes on where this ended.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The folder cannot be read, or is in use.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// It may not be taken over, in the words of whoever was asked.
    #[error("{0}")]
    Claim(String),
    /// A message was not accepted.
    #[error("{id} was not accepted: {error}")]
    Accept {
        /// Which.
        id: QueueId,
        /// Why.
        error: AcceptError,
    },
}

/// What an abandoned folder holds.
struct Found {
    messages: Vec<(Envelope, Body)>,
    damaged: Vec<String>,
}

/// A message on its way from one queue to the other.
struct Moving {
    /// Its id in the folder.
    from: QueueId,
    /// Its id here.
    here: QueueId,
    /// Recipients that go on once it is listed; others were held by an operator, or are done.
    pending: Vec<usize>,
}

/// The id of a queue folder; one is made where there is none. Blocks.
///
/// # Errors
/// What the file system says.
pub fn folder_id(folder: &Path) -> io::Result<String> {
    if let Some(id) = known_folder_id(folder)? {
        return Ok(id);
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let id = format!("{:016x}", rand::random::<u64>());
    let (path, fresh) = (folder.join(ID), folder.join(format!("{ID}.tmp")));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(id)
}

/// The id of a queue folder, if it has one. Blocks.
///
/// # Errors
/// What the file system says.
pub fn known_folder_id(folder: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(folder.join(ID)) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Queue {
    /// Takes over `folder`, the `queue` folder of a node that is gone. Its messages keep their ids, so that mail which that node stored
    /// already is found and not stored again. `claim` is asked once the folder is known to be in nobody's use, and before anything in it is
    /// changed; `progress` hears how many messages of how many are done. At the end the folder is called `queue.adopted` (or `.1`, `.2`, …), so that the node, should it come back, starts empty.
    ///
    /// # Errors
    /// See [`AdoptError`]; adopting again goes on.
    pub async fn adopt(
        &self,
        folder: &Path,
        claim: impl Future<Output = Result<(), String>>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Adopted, AdoptError> {
        // Held to the end: its former owner must not open it meanwhile.
        let _lock = lock(folder)?;
        claim.await.map_err(AdoptError::Claim)?;
        let (disk, path) = (Arc::clone(&self.disk), folder.to_path_buf());
        let found = tokio::task::spawn_blocking(move || read(&disk, &path)).await;
        let Found { messages, damaged } = found.map_err(|error| io_error(folder)(io::Error::other(error)))??;
        let list = List::open(&*self.disk, folder).map_err(io_error(folder))?;
        let mut out = Adopted { damaged, ..Adopted::default() };
        let total = messages.len() as u64;
        progress(0, total);
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let batch: Vec<(Envelope, Body)> = messages.by_ref().take(BATCH).collect();
            self.adopt_some(batch, &list, folder, &mut out).await?;
            progress(out.messages + out.known, total);
        }
        let (disk, from) = (Arc::clone(&self.disk), folder.to_path_buf());
        out.folder = blocking(move || put_away(&*disk, &from)).await.map_err(io_error(folder))?;
        tracing::info!(folder = %out.folder.display(), messages = out.messages, known = out.known, "a queue was adopted");
        Ok(out)
    }

    async fn adopt_some(&self, batch: Vec<(Envelope, Body)>, list: &Arc<List>, folder: &Path, out: &mut Adopted) -> Result<(), AdoptError> {
        let mut moving = Vec::with_capacity(batch.len());
        let mut accepting = Vec::new();
        for (mut envelope, body) in batch {
            let from = envelope.id;
            self.ids.raise(from.0);
            let pending = envelope.recipients.iter().enumerate().filter(|(_, r)| r.status == Status::Pending).map(|(n, _)| n).collect();
            let (here, ours) = self.place_for(&envelope).await;
            if ours || list.has(from) {
                out.known += 1;
            } else {
                if here != from {
                    tracing::warn!(id = %from, new = %here, "an adopted message has the id of one of ours and gets another");
                }
                envelope.id = here;
                envelope.recipients.iter_mut().filter(|r| r.status == Status::Pending).for_each(|r| r.status = Status::Held);
                accepting.push(async move {
                    self.accept_with(envelope, body, &[], true).await.map_err(|error| AdoptError::Accept { id: from, error })
                });
            }
            moving.push(Moving { from, here, pending });
        }
        let accepted = accepting.len() as u64;
        futures::future::try_join_all(accepting).await?;
        out.messages += accepted;
        let ids: Vec<QueueId> = moving.iter().map(|m| m.from).filter(|id| !list.has(*id)).collect();
        let (disk, list) = (Arc::clone(&self.disk), Arc::clone(list));
        blocking(move || list.add(&*disk, &ids)).await.map_err(io_error(folder))?;
        for one in moving {
            self.release_recipients(one.here, &one.pending).await;
        }
        Ok(())
    }

    /// The id that a message of another queue has here, and whether it is here already. Its own, unless a message of ours has that; then one that
    /// follows from it, so that a repeated adoption looks at the same place.
    async fn place_for(&self, envelope: &Envelope) -> (QueueId, bool) {
        let mut id = envelope.id;
        loop {
            match self.show(id).await {
                None => return (id, false),
                Some(ours) if ours.from == envelope.from && ours.received == envelope.received && ours.size == envelope.size => {
                    return (id, true);
                }
                Some(_) => id = QueueId(id.0.wrapping_add(1)),
            }
        }
    }

    /// Lets these recipients go on at their time, where they are held.
    async fn release_recipients(&self, id: QueueId, wanted: &[usize]) {
        let now = self.clock.now();
        self.change(&[id], |state, live| {
            let mut changed = Vec::new();
            let mut dests: Vec<DestId> = Vec::new();
            let envelope = Arc::clone(&live.envelope);
            for (n, (fate, recipient)) in live.fates.iter_mut().zip(&envelope.recipients).enumerate() {
                if fate.status != Status::Held || !wanted.contains(&n) {
                    continue;
                }
                fate.status = Status::Pending;
                fate.next = recipient.next_attempt.unwrap_or(0).max(envelope.hold_until.unwrap_or(0));
                changed.push((n, Status::Pending));
                if !dests.contains(&fate.dest) {
                    dests.push(fate.dest);
                }
            }
            for (dest, next) in live.jobs().into_iter().filter(|(dest, _)| dests.contains(dest)) {
                _ = state.queue(id, dest, next, envelope.priority, live.sender, now);
            }
            changed
        })
        .await;
    }
}

/// Reads everything unfinished in a folder. Blocks.
fn read(disk: &Arc<dyn Disk>, folder: &Path) -> Result<Found, OpenError> {
    let aside = folder.join("damaged");
    disk.create_dir(&aside).map_err(io_error(&aside))?;
    // Another machine's boot: what it stored and did not sync is looked for again.
    let found = replay(disk, &folder.join("journal"), &aside, "")?;
    let deferred = Deferred::new(Arc::clone(disk), folder.join("deferred"));
    let parked: Mutex<Vec<Envelope>> = Mutex::default();
    let mut damaged = found.damaged.clone();
    let envelope = |scanned| if let Scanned::Read(envelope) = scanned { Some(*envelope) } else { None };
    let take = |envelopes: Vec<_>| parked.lock().extend(envelopes.into_iter().flatten());
    damaged.extend(scan(&deferred, &Index::default(), &aside, &|envelope| is_finished(&found, envelope), envelope, take)?);
    let mut messages = Vec::new();
    let mut known: HashSet<QueueId> = HashSet::new();
    let journalled: std::collections::HashMap<QueueId, &Envelope> = found.messages.iter().map(|m| (m.envelope.id, &m.envelope)).collect();
    for mut envelope in parked.into_inner() {
        let id = envelope.id;
        known.insert(id);
        let settled =
            journalled.get(&id).map(|e| (0..).zip(&e.recipients).filter(|(_, r)| r.status.is_settled()).map(|(n, r)| (n, r.status)));
        let fates: Vec<_> = found.fates.get(&id).into_iter().flatten().copied().chain(settled.into_iter().flatten()).collect();
        merge(&mut envelope, found.added.get(&id).map_or(&[], Vec::as_slice), &fates);
        if envelope.recipients.iter().any(|r| !r.status.is_settled()) {
            let body = deferred.body(id).map_err(io_error(deferred.root()))?;
            if body.len() != envelope.size {
                damaged.push(format!("{id}: its message has {} octets instead of {}", body.len(), envelope.size));
                continue;
            }
            messages.push((envelope, body));
        }
    }
    for recovered in found.messages {
        if known.contains(&recovered.envelope.id) {
            continue;
        }
        let body = match recovered.body {
            RecoveredBody::Inline { offset, len } => Body::new(Inner::Slice { file: Arc::clone(&recovered.hold.0.file), offset, len }),
            RecoveredBody::File(file, prefix) => {
                let path = folder.join("spool").join(&file.name);
                match Body::from_file(&path) {
                    Ok(body) if body.len() == file.len => body.prefixed(prefix),
                    _ => {
                        damaged.push(format!("{}: {} is missing or short", recovered.envelope.id, path.display()));
                        continue;
                    }
                }
            }
        };
        messages.push((recovered.envelope, body));
    }
    messages.sort_by_key(|(envelope, _)| envelope.id);
    Ok(Found { messages, damaged })
}

/// The list of what was taken over.
struct List {
    file: crate::disk::DiskFile,
    known: HashSet<QueueId>,
    end: Mutex<u64>,
}

impl List {
    fn open(disk: &dyn Disk, folder: &Path) -> io::Result<Arc<Self>> {
        let path = folder.join(ADOPTED);
        let file = if path.exists() { disk.open(&path)? } else { disk.create(&path)? };
        disk.sync_dir(folder)?;
        let text = fs::read_to_string(&path)?;
        // A line that a crash cut short was not acknowledged to anyone.
        let known = text.lines().filter_map(|line| line.parse().ok()).collect();
        let end = text.rfind('\n').map_or(0, |at| at as u64 + 1);
        Ok(Arc::new(Self { file, known, end: Mutex::new(end) }))
    }

    fn has(&self, id: QueueId) -> bool {
        self.known.contains(&id)
    }

    /// Adds ids, durably. Blocks.
    fn add(&self, disk: &dyn Disk, ids: &[QueueId]) -> io::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let mut end = self.end.lock();
        disk.write_at(&self.file, &mut [IoSlice::new(lines.as_bytes())], *end)?;
        disk.sync_data(&self.file)?;
        *end += lines.len() as u64;
        Ok(())
    }
}

/// Gives the folder another name.
fn put_away(disk: &dyn Disk, folder: &Path) -> io::Result<PathBuf> {
    let free =
        (0u32..).map(|n| folder.with_extension(if n == 0 { ADOPTED.to_owned() } else { format!("{ADOPTED}.{n}") })).find(|p| !p.exists());
    let to = free.unwrap_or_else(|| folder.with_extension(ADOPTED));
    disk.rename(folder, &to)?;
    disk.sync_dir(&parent(folder))?;
    Ok(to)
}
