//! Logs: text, JSON or journald on the way out, and the event log that `pillarbox trace` reads.
//!
//! A session hands an event's fields over and goes on; one thread formats and writes them, many at a time.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use pillarbox_config::Log;
use pillarbox_control::eventlog::EventLogWriter;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::journald::Journal;

/// Events that wait for the writing thread; beyond this they are counted and dropped rather than stalling mail.
const WAITING: usize = 65_536;
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

/// One line on its way out.
struct Line {
    time: OffsetDateTime,
    level: tracing::Level,
    /// Of the contract's events; others are only printed.
    is_event: bool,
    /// Goes to standard error.
    printed: bool,
    fields: Vec<(&'static str, Value)>,
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
                fields: Vec::new(),
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
        let mut fields = Fields(Vec::with_capacity(12));
        event.record(&mut fields);
        if !is_event {
            fields.0.push(("target", Value::String(metadata.target().to_owned())));
        }
        let line = Line {
            time: OffsetDateTime::now_utc(),
            level: *metadata.level(),
            is_event,
            printed: !is_event || !self.quiet.load(Ordering::Relaxed),
            fields: fields.0,
        };
        if self.sender.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("pillarbox_log_lines_dropped_total").increment(1);
        }
    }
}

struct Fields(Vec<(&'static str, Value)>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        // An event that lacks something says so with an empty text; such a field is left out.
        if !value.is_empty() {
            self.0.push((field.name(), Value::String(value.to_owned())));
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value.into()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), value.into()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), value.into()));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.push((field.name(), value.into()));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn write_lines(receiver: &Receiver<Line>, format: Format, mut journal: Option<Journal>, mut log: EventLogWriter) {
    let mut printed = String::new();
    let mut message = String::new();
    let mut kept = Vec::new();
    let mut log_failed = false;
    while let Ok(first) = receiver.recv() {
        let mut ending = false;
        for line in std::iter::once(first).chain(receiver.try_iter().take(1024)) {
            if line.fields.is_empty() && line.time == OffsetDateTime::UNIX_EPOCH {
                ending = true;
                continue;
            }
            match format {
                _ if !line.printed => {}
                Format::Text => text_line(&mut printed, &line),
                Format::Json => printed.push_str(&json_line(&line)),
                Format::Journald => {
                    message.clear();
                    words(&mut message, &line);
                    let written = journal.as_mut().is_some_and(|j| j.write(line.level, &message, &line.fields).is_ok());
                    // Without a journal at hand the line is not lost, only plainer.
                    if !written {
                        text_line(&mut printed, &line);
                    }
                }
            }
            if line.is_event {
                kept.extend_from_slice(json_line(&line).as_bytes());
            }
        }
        let _ = std::io::stderr().write_all(printed.as_bytes());
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

fn timestamp(time: OffsetDateTime) -> String {
    let millis = time.replace_nanosecond(u32::from(time.millisecond()) * 1_000_000).unwrap_or(time);
    millis.format(&Rfc3339).unwrap_or_default()
}

fn json_line(line: &Line) -> String {
    let mut object = Map::new();
    object.insert("time".into(), timestamp(line.time).into());
    if !line.is_event {
        object.insert("level".into(), line.level.as_str().into());
    }
    for (name, value) in &line.fields {
        object.insert((*name).into(), value.clone());
    }
    let mut text = Value::Object(object).to_string();
    text.push('\n');
    text
}

/// `2026-11-24T06:45:26.123Z INFO accept id=… from=…`: nothing in it can break the line or reach a terminal raw.
fn text_line(out: &mut String, line: &Line) {
    let _ = write!(out, "{} {:<5} ", timestamp(line.time), line.level.as_str());
    words(out, line);
    out.push('\n');
}

/// The event or message first, then the fields.
fn words(out: &mut String, line: &Line) {
    let lead = if line.is_event { "event" } else { "message" };
    for (_, value) in line.fields.iter().filter(|(name, _)| *name == lead) {
        push_clean(out, value, false);
    }
    for (name, value) in line.fields.iter().filter(|(name, _)| *name != lead) {
        let _ = write!(out, " {name}=");
        push_clean(out, value, true);
    }
}

fn push_clean(out: &mut String, value: &Value, quote: bool) {
    let Value::String(text) = value else {
        let _ = write!(out, "{value}");
        return;
    };
    let quote = quote && (text.is_empty() || text.contains([' ', '"', '=']));
    if quote {
        out.push('"');
    }
    for c in text.chars() {
        match c {
            '"' if quote => out.push_str("\\\""),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    if quote {
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let line = Line {
            time: OffsetDateTime::UNIX_EPOCH,
            level: tracing::Level::INFO,
            is_event: true,
            printed: true,
            fields: vec![("event", "reject".into()), ("helo", "\u{1b}[2Jevil\r\nfake line".into()), ("size", 5.into())],
        };
        let mut text = String::new();
        text_line(&mut text, &line);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}') && !text.contains('\r'));
        assert!(text.starts_with("1970-01-01T00:00:00Z INFO  reject helo="), "{text}");
        let json = json_line(&line);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["helo"], "\u{1b}[2Jevil\r\nfake line");
        assert_eq!(json.matches('\n').count(), 1);
    }
}
