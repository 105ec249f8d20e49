//! Start and end: opens the folder, replays the journal, indexes what is parked, starts the tasks; and shuts all of it down again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pillarbox_config::Config;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BodyFile, Budget, Inner};
use crate::clock::{Clock, SystemClock};
use crate::deferred::{Deferred, Index, IndexEntry, ScanError, Scanned, scan, stamp_of};
use crate::disk::{Disk, RealDisk};
use crate::envelope::{Envelope, Recipient, Status, UnixMillis};
use crate::health::Space;
use crate::id::{Ids, QueueId};
use crate::journal::{Journal, Note, Pool, Recovered, RecoveredBody, Replay, ReplayError, SIZES, Start, remove_if_there, replay};
use crate::keeper::Keeper;
use crate::queue::{Hooks, Queue};
use crate::report::BounceLimit;
use crate::schedule::{
    DestId, Entry, Jobs, Kind, NewLive, Parked, ParkedFlags, Place, State, Times, Transports, domain_key, from_key, sender_key,
};
use crate::transport::Destination;

/// Why the queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the queue in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Another node has taken over its messages, or some of them.
    #[error("the queue in {} was being adopted by another node; adopt it there to the end, or restore it from a backup", .0.display())]
    Adopted(PathBuf),
    /// A newer program wrote some of it.
    #[error("{0}")]
    Newer(String),
    /// A file or folder cannot be used.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// What a test replaces.
pub struct Tools {
    /// Where durable writes go.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Numbers from 0 to 1, which spread retries.
    pub random: Box<dyn Fn() -> f64 + Send + Sync>,
    /// Tells this boot of the machine from others; empty: unknown.
    pub boot: String,
}

impl Default for Tools {
    /// The real disk, clock, randomness and boot.
    fn default() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Self { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), random: Box::new(rand::random), boot }
    }
}

/// How long a shut-down waits for deliveries under way.
const PATIENCE: Duration = Duration::from_secs(25);

impl Queue {
    /// Opens `<state>/queue`, takes up what an earlier process left, and starts delivering. Must be called inside a tokio runtime, which
    /// has to outlive the queue.
    pub async fn open(config: &Config, transports: Transports, hooks: Arc<dyn Hooks>) -> Result<Arc<Self>, OpenError> {
        Self::open_with(config, transports, hooks, Tools::default()).await
    }

    /// [`Queue::open`] with other tools.
    pub async fn open_with(config: &Config, transports: Transports, hooks: Arc<dyn Hooks>, tools: Tools) -> Result<Arc<Self>, OpenError> {
        let config = config.clone();
        let runtime = Handle::current();
        let opened = tokio::task::spawn_blocking(move || open(&config, transports, hooks, tools, runtime)).await;
        let (queue, deadlines) = opened.map_err(|error| OpenError::Io { path: "queue".into(), error: io::Error::other(error) })??;
        tokio::spawn(crate::deadlines::run(Arc::clone(&queue)));
        tokio::spawn(crate::deadlines::run_deadlines(Arc::clone(&queue), deadlines));
        let keeper = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("queue-keeper".into())
            .spawn(move || crate::keeper::run(keeper))
            .map_err(|error| OpenError::Io { path: "the queue's thread".into(), error })?;
        Ok(queue)
    }

    /// Stops new deliveries, waits (up to 25 s) for those under way, writes down what became of them, and closes the journal. Nothing is
    /// accepted afterwards.
    pub async fn shutdown(&self) {
        {
            let mut state = self.state.lock();
            state.stopping = true;
            let all: Vec<DestId> = state.dests.iter().map(|(dest, _)| dest).collect();
            for dest in all {
                if let Some(active) = state.dests.active(dest) {
                    active.came.notify_waiters();
                }
            }
        }
        self.stop.cancel();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = self.changed.notified();
            if self.state.lock().runs == 0 || tokio::time::timeout_at(deadline, changed).await.is_err() {
                break;
            }
        }
        self.keeper.stop();
        let Some(me) = self.me.upgrade() else { return };
        // The keeper's last round needs the journal; the journal goes after it.
        let closing = tokio::task::spawn_blocking(move || {
            me.keeper.wait_end();
            me.journal.close();
            me.lock.lock().take();
        });
        _ = closing.await;
    }

    /// Writes down, for the next start, what is parked.
    pub(crate) fn save_index(&self) -> io::Result<()> {
        let mut index = Index::default();
        let mut numbers: HashMap<DestId, u32> = HashMap::new();
        let parked: Vec<(QueueId, Parked)> = {
            let state = self.state.lock();
            for (dest, slot) in state.dests.iter() {
                numbers.insert(dest, u32::try_from(index.destinations.len()).unwrap_or(u32::MAX));
                index.destinations.push((slot.kind, slot.name.clone()));
            }
            state.messages.iter().filter_map(|(id, e)| if let Entry::Parked(p) = e { Some((*id, p.clone())) } else { None }).collect()
        };
        for (id, parked) in parked {
            let Some(stamp) = stamp_of(&self.deferred, id) else { continue };
            let jobs = parked.jobs.list().into_iter().filter_map(|(dest, next)| Some((*numbers.get(&dest)?, next))).collect();
            let entry = IndexEntry {
                stamp,
                received: parked.received,
                deadline: parked.deadline,
                from: parked.from,
                sender: parked.sender,
                domain: parked.domain,
                recipients: parked.recipients,
                flags: parked.flags,
                priority: parked.priority,
                jobs,
            };
            index.entries.insert(id, entry);
        }
        index.save(&*self.disk, &index_path(&self.folder))
    }
}

fn index_path(folder: &Path) -> PathBuf {
    folder.join("deferred.index")
}

fn open(
    config: &Config,
    transports: Transports,
    hooks: Arc<dyn Hooks>,
    tools: Tools,
    runtime: Handle,
) -> Result<(Arc<Queue>, mpsc::UnboundedReceiver<QueueId>), OpenError> {
    let began = Instant::now();
    let Tools { disk, clock, random, boot } = tools;
    let folder = config.paths.state.join("queue");
    for path in [folder.clone(), folder.join("journal"), folder.join("spool"), folder.join("deferred"), folder.join("damaged")] {
        fs::create_dir_all(crate::disk::parent(&path)).and_then(|()| disk.create_dir(&path)).map_err(io_error(&path))?;
    }
    for path in [&folder, &config.paths.state] {
        disk.sync_dir(path).map_err(io_error(path))?;
    }
    let lock = lock(&folder)?;
    if folder.join(crate::adopt::ADOPTED).exists() {
        return Err(OpenError::Adopted(folder));
    }
    let aside = folder.join("damaged");

    let mut found = replay(&disk, &folder.join("journal"), &aside, &boot)?;
    remove_if_there(&*disk, &folder.join("journal").join("new.tmp")).map_err(io_error(&folder))?;
    let times = Times {
        retry: config.queue.retry.clone(),
        lifetime: config.queue.lifetime,
        delay_warning: config.queue.delay_warning,
        park_after: config.queue.park_after,
        random,
    };
    let deferred = Deferred::new(Arc::clone(&disk), folder.join("deferred"));
    let now = clock.now();
    let state = Mutex::new(State::new(transports.clone()));
    let mut parked = index_parked(&folder, &deferred, &state, &times, &found, now)?;
    found.last_id = found.last_id.max(parked.last_id);
    parked.damaged.append(&mut found.damaged);

    let messages = std::mem::take(&mut found.messages);
    let (messages, doubles) = part_doubles(messages, &state);
    sweep_spool(&disk, &folder.join("spool"), &messages)?;
    let changed = bring_up_to_date(&deferred, &mut found, &doubles)?;

    let ids = Arc::new(Ids::after(found.last_id));
    let size = config.queue.segment_size.bytes().clamp(*SIZES.start(), *SIZES.end());
    let ready: Vec<_> = std::mem::take(&mut found.empty);
    let (ready, odd): (Vec<_>, Vec<_>) = ready.into_iter().partition(|segment| segment.size == size);
    for segment in odd {
        remove_if_there(&*disk, &segment.path).map_err(io_error(&segment.path))?;
    }
    let pool = Arc::new(Pool::new(Arc::clone(&disk), folder.join("journal"), size, found.next_generation, ready));
    let start = Start { boot, last_id: found.last_id, version: env!("CARGO_PKG_VERSION").into() };
    let journal = Journal::start(Arc::clone(&disk), Arc::clone(&pool), start, std::mem::take(&mut found.segments), Arc::clone(&ids))
        .map_err(io_error(&folder.join("journal")))?;
    doubles.iter().for_each(|recovered| journal.note(&Note::Parked(recovered.envelope.id), false));
    drop(doubles);

    let (deadlines, deadline_receiver) = mpsc::unbounded_channel();
    let queue = Arc::new_cyclic(|me| Queue {
        me: me.clone(),
        mail: config.paths.mail.clone(),
        hostname: if config.hostname.is_empty() { "localhost".into() } else { config.hostname.clone() },
        clock,
        times,
        budget: Budget::new(config.limits.body_memory.bytes()),
        journal,
        pool,
        deferred,
        transports,
        hooks,
        state,
        ids,
        space: Space::new(vec![folder.clone(), config.paths.mail.clone()], config.limits.free_space.bytes()),
        keeper: Keeper::default(),
        bounces: Mutex::new(BounceLimit::default()),
        damaged: Mutex::new(parked.damaged),
        unsynced_mail: AtomicBool::new(true),
        unsynced_before: AtomicBool::new(true),
        sync_error: Mutex::new(None),
        sleeps_until: AtomicU64::new(0),
        tick: Notify::new(),
        changed: Notify::new(),
        deadlines,
        runtime,
        lock: Mutex::new(Some(lock)),
        stop: CancellationToken::new(),
        folder,
        disk,
    });
    let journalled = messages.len();
    messages.into_iter().for_each(|recovered| queue.take_up(recovered, now));
    changed.into_iter().for_each(|change| queue.apply_change(change));
    {
        let mut state = queue.state.lock();
        let all: Vec<DestId> = state.dests.iter().map(|(dest, _)| dest).collect();
        all.into_iter().for_each(|dest| queue.kick(&mut state, dest));
    }
    tracing::info!(
        journalled,
        parked = parked.count,
        from_index = parked.known,
        milliseconds = began.elapsed().as_millis() as u64,
        "the queue is open"
    );
    Ok((queue, deadline_receiver))
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.display().to_string();
    move |error| OpenError::Io { path, error }
}

/// Makes sure that no other process has the folder, for as long as the file is held.
pub(crate) fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io_error(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(folder.to_path_buf())),
        Err(error) => Err(io_error(&path)(error.into())),
    }
}

/// What the scan of parked mail found besides the messages.
struct ParkedMail {
    last_id: u64,
    count: usize,
    known: usize,
    damaged: Vec<String>,
}

/// Fills the schedule with what is parked.
fn index_parked(
    folder: &Path,
    deferred: &Deferred,
    state: &Mutex<State>,
    times: &Times,
    found: &Replay,
    now: UnixMillis,
) -> Result<ParkedMail, OpenError> {
    let index = Index::load(&index_path(folder));
    let transports = state.lock().transports().clone();
    let totals = Mutex::new((0u64, 0usize, 0usize));
    let take = |index: &Index, scanned: Scanned| {
        let (id, parked, names, known) = match scanned {
            Scanned::Known(id, entry) => {
                let name = |(number, next): (u32, UnixMillis)| Some((index.destinations.get(number as usize)?.clone(), next));
                let names: Vec<_> = entry.jobs.iter().copied().filter_map(name).collect();
                (id, parked_of_index(&entry), names, true)
            }
            Scanned::Read(envelope) => {
                let (parked, names) = parked_of_envelope(&envelope, &transports, times, now);
                (envelope.id, parked, names, false)
            }
        };
        {
            let mut totals = totals.lock();
            totals.0 = totals.0.max(id.0);
            totals.1 += 1;
            totals.2 += usize::from(known);
        }
        state.lock().insert_parked(id, parked, &names, now);
    };
    let damaged = scan(deferred, &index, &folder.join("damaged"), &|envelope| is_finished(found, envelope), take)?;
    let (last_id, count, known) = totals.into_inner();
    Ok(ParkedMail { last_id, count, known, damaged })
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
fn part_doubles(messages: Vec<Recovered>, state: &Mutex<State>) -> (Vec<Recovered>, Vec<Recovered>) {
    let state = state.lock();
    messages.into_iter().partition(|recovered| !state.messages.contains_key(&recovered.envelope.id))
}

/// Removes the files of messages that are finished, or were never accepted.
fn sweep_spool(disk: &Arc<dyn Disk>, spool: &Path, messages: &[Recovered]) -> Result<(), OpenError> {
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
enum Change {
    Updated(Box<Envelope>),
    Finished(QueueId),
}

/// Brings parked envelopes up to what the journal knows of their recipients.
fn bring_up_to_date(deferred: &Deferred, found: &mut Replay, doubles: &[Recovered]) -> Result<Vec<Change>, OpenError> {
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
    fn take_up(&self, recovered: Recovered, now: UnixMillis) {
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

    fn apply_change(&self, change: Change) {
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

impl From<ReplayError> for OpenError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Io { path, error } => Self::Io { path, error },
            newer @ ReplayError::Newer { .. } => Self::Newer(newer.to_string()),
        }
    }
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Io { path, error } => Self::Io { path: path.display().to_string(), error },
            newer @ ScanError::Newer { .. } => Self::Newer(newer.to_string()),
        }
    }
}
