//! Taking over the queue of a node that is gone: everything unfinished in its folder is accepted here, once.

use std::collections::HashSet;
use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::body::{Body, Inner, blocking};
use crate::deferred::{Deferred, Index, Scanned, scan};
use crate::disk::{Disk, parent};
use crate::envelope::Envelope;
use crate::id::QueueId;
use crate::journal::{RecoveredBody, replay};
use crate::queue::{AcceptError, Queue};
use crate::recover::{is_finished, merge};
use crate::start::{OpenError, io_error, lock};

/// The file in an adopted folder that lists, one id a line, what another queue has taken over. While it is there the folder is not opened.
pub(crate) const ADOPTED: &str = "adopted";

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
    /// Keeps the folder from being opened by its former owner.
    _lock: fs::File,
}

impl Queue {
    /// Takes over `folder`, the `queue` folder of a node that is gone. Its messages keep their ids, so that mail which that node stored
    /// already is found and not stored again. At the end the folder is called `queue.adopted` (or `.1`, `.2`, …), so that the node, should it
    /// come back, starts empty.
    pub async fn adopt(&self, folder: &Path) -> Result<Adopted, AdoptError> {
        let (disk, path) = (Arc::clone(&self.disk), folder.to_path_buf());
        let found = tokio::task::spawn_blocking(move || read(&disk, &path)).await;
        let Found { messages, damaged, _lock } = found.map_err(|error| io_error(folder)(io::Error::other(error)))??;
        let list = List::open(&*self.disk, folder).map_err(io_error(folder))?;
        let mut out = Adopted { damaged, ..Adopted::default() };
        for (mut envelope, body) in messages {
            let id = envelope.id;
            if list.has(id) {
                out.known += 1;
                continue;
            }
            self.ids.raise(id.0);
            match self.show(id).await {
                // Accepted a moment before an earlier adoption was interrupted.
                Some(ours) if ours.from == envelope.from && ours.received == envelope.received && ours.size == envelope.size => {
                    out.known += 1
                }
                other => {
                    if other.is_some() {
                        envelope.id = self.new_id();
                        tracing::warn!(%id, new = %envelope.id, "an adopted message has the id of one of ours and gets another");
                    }
                    self.accept_with(envelope, body, &[], true).await.map_err(|error| AdoptError::Accept { id, error })?;
                    out.messages += 1;
                }
            }
            let (disk, list) = (Arc::clone(&self.disk), Arc::clone(&list));
            blocking(move || list.add(&*disk, id)).await.map_err(io_error(folder))?;
        }
        let (disk, from) = (Arc::clone(&self.disk), folder.to_path_buf());
        out.folder = blocking(move || put_away(&*disk, &from)).await.map_err(io_error(folder))?;
        tracing::info!(folder = %out.folder.display(), messages = out.messages, known = out.known, "a queue was adopted");
        Ok(out)
    }
}

/// Reads everything unfinished in a folder. Blocks.
fn read(disk: &Arc<dyn Disk>, folder: &Path) -> Result<Found, OpenError> {
    let lock = lock(folder)?;
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
    Ok(Found { messages, damaged, _lock: lock })
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

    /// Adds an id, durably. Blocks.
    fn add(&self, disk: &dyn Disk, id: QueueId) -> io::Result<()> {
        let line = format!("{id}\n");
        let mut end = self.end.lock();
        disk.write_at(&self.file, &mut [IoSlice::new(line.as_bytes())], *end)?;
        disk.sync_data(&self.file)?;
        *end += line.len() as u64;
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
