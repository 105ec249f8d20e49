//! Start and end: opens the folder, replays the journal, indexes what is parked, starts the tasks; and shuts all of it down again.

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

use crate::budget::Budget;
use crate::clock::{Clock, SystemClock};
use crate::deferred::{Deferred, ScanError};
use crate::disk::{Disk, RealDisk};
use crate::health::Space;
use crate::id::{Ids, QueueId};
use crate::journal::{Journal, Note, Pool, ReplayError, SIZES, Start, remove_if_there, replay};
use crate::keeper::Keeper;
use crate::lease::Lease;
use crate::queue::{Hooks, Queue};
use crate::recover::{bring_up_to_date, index_parked, part_doubles, sweep_spool};
use crate::report::BounceLimit;
use crate::schedule::{DestId, State, Times, Transports};

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

/// A file of the queue's folder that is there while no process has the queue and nothing in it is undelivered, so that whoever removes the program
/// need not read the journal to know.
const EMPTY: &str = "empty";

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
        let (queue, deadlines, unindexed) =
            opened.map_err(|error| OpenError::Io { path: "queue".into(), error: io::Error::other(error) })??;
        tokio::spawn(crate::deadlines::run(Arc::clone(&queue)));
        tokio::spawn(crate::deadlines::run_deadlines(Arc::clone(&queue), deadlines));
        let keeper = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("queue-keeper".into())
            .spawn(move || crate::keeper::run(keeper, unindexed))
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
            if me.state.lock().messages.is_empty() && me.damaged.lock().is_empty() {
                // Only a hint; without it the queue counts as not empty.
                _ = fs::write(me.folder.join(EMPTY), "");
            }
            me.lock.lock().take();
        });
        _ = closing.await;
    }
}

fn open(
    config: &Config,
    transports: Transports,
    hooks: Arc<dyn Hooks>,
    tools: Tools,
    runtime: Handle,
) -> Result<(Arc<Queue>, mpsc::UnboundedReceiver<QueueId>, usize), OpenError> {
    let began = Instant::now();
    let Tools { disk, clock, random, mut boot } = tools;
    if boot.is_empty() {
        // Unknown is no name that two boots may share.
        boot = format!("unknown-{:016x}", rand::random::<u64>());
    }
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
    remove_if_there(&*disk, &folder.join(EMPTY)).map_err(io_error(&folder))?;
    disk.sync_dir(&folder).map_err(io_error(&folder))?;
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
        budget: Budget::new(config.limits.body_memory.bytes(), pool.largest_body()),
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
        remembered: Arc::default(),
        earlier: Mutex::new(std::mem::take(&mut found.known)),
        damaged: Mutex::new(parked.damaged),
        unsynced_mail: AtomicBool::new(true),
        unsynced_before: AtomicBool::new(true),
        sync_error: Mutex::new(None),
        sleeps_until: AtomicU64::new(0),
        tick: Notify::new(),
        changed: Notify::new(),
        deadlines,
        runtime,
        lease: Lease::default(),
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
    Ok((queue, deadline_receiver, parked.count - parked.known))
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
