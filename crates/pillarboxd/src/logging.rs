//! Logs: text, JSON or journald on the way out, and the event log that `pillarbox trace` reads.
//!
//! A session hands an event's fields over and goes on; one thread formats and writes them, many at a time.

pub(crate) mod line;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pillarbox_config::Log;
use pillarbox_control::eventlog::EventLogWriter;
use time::OffsetDateTime;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::journald::Journal;
use line::{Fields, Line, json_line, text_line, timestamp, words};

/// Events that wait for the writing thread; beyond this they are counted and dropped rather than stalling mail.
const WAITING: usize = 65_536;
/// How long a line may wait for company while there is much to write. Meanwhile nobody needs to wake the writing thread, which at several
/// events a message costs more than the writing itself.
const GATHER: Duration = Duration::from_millis(5);
/// Lines in `WINDOW` from which on there is much to write. Below, each line goes out at once.
const MANY: usize = 250;
/// See `MANY`.
const WINDOW: Duration = Duration::from_millis(50);
/// Lines written at once, at most.
const BATCH: usize = 8192;
/// The target that marks events of the contract.
const EVENT_TARGET: &str = "pillarbox::event";

/// How lines look on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Journald,
}

/// Puts a level in force that a reload found.
pub(crate) type LevelSetter = Box<dyn Fn(&str) -> anyhow::Result<()> + Send + Sync>;

/// Keeps the writing thread; dropping it writes what waits and ends it.
pub(crate) struct Logging {
    sender: Option<SyncSender<Line>>,
    thread: Option<JoinHandle<()>>,
    filter: reload::Handle<EnvFilter, Registry>,
    quiet: Arc<AtomicBool>,
}

/// Whether events are kept off standard error: the level is above theirs.
fn is_quiet(level: &str) -> bool {
    ["error", "warn", "off"].iter().any(|quiet| level.trim().eq_ignore_ascii_case(quiet))
}

/// The configured level. The resolver warns with whole packets as strangers sent them, of what this server says in its own words anyway; that takes
/// a directive for it by name. Events pass in any case: the event log is kept whatever is printed.
fn filter_of(level: &str) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::try_new(format!("hickory_net=error,hickory_proto=error,hickory_resolver=error,{level},{EVENT_TARGET}=info"))?)
}

impl Logging {
    /// Installs the process-wide subscriber.
    pub(crate) fn start(config: &Log, event_folder: PathBuf) -> anyhow::Result<Self> {
        let format = match config.format.as_str() {
            "text" => Format::Text,
            "json" => Format::Json,
            "journald" => Format::Journald,
            _ if std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal() => Format::Journald,
            _ => Format::Text,
        };
        let (filter, handle) = reload::Layer::new(filter_of(&config.level)?);
        let quiet = Arc::new(AtomicBool::new(is_quiet(&config.level)));
        let log = EventLogWriter::open(&event_folder, config.event_log_size.bytes())?;
        let journal = if format == Format::Journald { Some(Journal::open()?) } else { None };
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || write_lines(&receiver, format, journal, log))?;
        let layer = LineLayer { sender: sender.clone(), dropped: AtomicU64::new(0), quiet: quiet.clone() };
        tracing::subscriber::set_global_default(Registry::default().with(filter).with(layer))?;
        Ok(Self { sender: Some(sender), thread: Some(thread), filter: handle, quiet })
    }

    /// A way to put a new level in force.
    pub(crate) fn level_setter(&self) -> LevelSetter {
        let (filter, quiet) = (self.filter.clone(), self.quiet.clone());
        Box::new(move |level| {
            filter.reload(filter_of(level)?)?;
            quiet.store(is_quiet(level), Ordering::Relaxed);
            Ok(())
        })
    }

    /// Writes what waits. Events that come later are lost, so this is the process' last act.
    pub(crate) fn finish(mut self) {
        if let Some(sender) = self.sender.take() {
            // The layer holds a sender for good; an empty line tells the thread to end.
            let _ = sender.send(Line {
                time: OffsetDateTime::UNIX_EPOCH,
                level: tracing::Level::TRACE,
                is_event: false,
                printed: false,
                fields: Fields::default(),
            });
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct LineLayer {
    sender: SyncSender<Line>,
    dropped: AtomicU64,
    quiet: Arc<AtomicBool>,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let is_event = metadata.target() == EVENT_TARGET;
        let mut fields = Fields::of(event);
        if !is_event {
            fields.text("target", metadata.target());
        }
        let line = Line {
            time: OffsetDateTime::now_utc(),
            level: *metadata.level(),
            is_event,
            printed: !is_event || !self.quiet.load(Ordering::Relaxed),
            fields,
        };
        if self.sender.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("pillarbox_log_lines_dropped_total").increment(1);
        }
    }
}

fn write_lines(receiver: &Receiver<Line>, format: Format, mut journal: Option<Journal>, mut log: EventLogWriter) {
    let (mut text, mut json) = (String::new(), Vec::new());
    let mut printed = Vec::new();
    let mut kept = Vec::new();
    let mut log_failed = false;
    let mut pace = Pace { lines: 0, since: Instant::now(), busy: false };
    while let Ok(first) = receiver.recv() {
        if pace.is_busy() {
            std::thread::sleep(GATHER);
        }
        let mut ending = false;
        for line in std::iter::once(first).chain(receiver.try_iter().take(BATCH)) {
            if line.fields.is_empty() && line.time == OffsetDateTime::UNIX_EPOCH {
                ending = true;
                continue;
            }
            pace.lines += 1;
            let time = timestamp(line.time);
            if line.is_event || format == Format::Json {
                json.clear();
                json_line(&mut json, &line, &time);
            }
            match format {
                _ if !line.printed => {}
                Format::Text => {
                    text.clear();
                    text_line(&mut text, &line, &time);
                    printed.extend_from_slice(text.as_bytes());
                }
                Format::Json => printed.extend_from_slice(&json),
                Format::Journald => {
                    text.clear();
                    words(&mut text, &line);
                    let written = journal.as_mut().is_some_and(|j| j.write(line.level, &text, &line.fields).is_ok());
                    // Without a journal at hand the line is not lost, only plainer.
                    if !written {
                        text.clear();
                        text_line(&mut text, &line, &time);
                        printed.extend_from_slice(text.as_bytes());
                    }
                }
            }
            if line.is_event {
                kept.extend_from_slice(&json);
            }
        }
        let _ = std::io::stderr().write_all(&printed);
        printed.clear();
        // A full disk must not stop mail: the event log goes without, and says so once.
        match log.append(&kept) {
            Ok(()) => log_failed = false,
            Err(e) if !log_failed => {
                log_failed = true;
                let _ = writeln!(std::io::stderr(), "the event log cannot be written: {e}");
            }
            Err(_) => {}
        }
        kept.clear();
        if ending {
            return;
        }
    }
}

/// How many lines there are to write.
struct Pace {
    lines: usize,
    since: Instant,
    busy: bool,
}

impl Pace {
    /// Whether there was much to write in the last whole window.
    fn is_busy(&mut self) -> bool {
        let elapsed = self.since.elapsed();
        if elapsed >= WINDOW {
            // After a pause the count says little about now.
            self.busy = self.lines >= MANY && elapsed < 2 * WINDOW;
            (self.lines, self.since) = (0, Instant::now());
        }
        self.busy
    }
}
