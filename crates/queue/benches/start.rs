//! How long a start takes with much deferred mail, and how much memory; printed as a table in Markdown.
//!
//! `PILLARBOX_BENCH_MESSAGES` says how many (10,000 unless said; the target is a million in under 10 s and 400 MB), `PILLARBOX_BENCH_DIR` where,
//! `PILLARBOX_BENCH_FORGET` a command that makes the system forget what it has read, as a boot does, before each start.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pillarbox_config::Config;
use pillarbox_queue::{Destination, Envelope, Feed, Hooks, ListFilter, Queue, QueueId, Recipient, Route, Transport, Transports};
use pillarbox_smtp::{EnhancedCode, Mailbox, Reply};

/// Never asked to deliver: nothing is due.
struct Idle;

#[async_trait::async_trait]
impl Transport for Idle {
    fn destination(&self, _: &Envelope, recipient: &Recipient) -> Destination {
        Destination(format!("mx:{}", recipient.address.domain).into())
    }
    fn concurrency(&self, _: &Destination) -> usize {
        1
    }
    async fn run(&self, _: Destination, _: Feed) {}
}

struct Nobody;

#[async_trait::async_trait]
impl Hooks for Nobody {
    async fn route(&self, _: &Mailbox) -> std::io::Result<Vec<Recipient>> {
        Ok(Vec::new())
    }
}

/// In the environment of a process that measures one start: the folder, and what to call the start.
const FOLDER: &str = "PILLARBOX_BENCH_FOLDER";
const CASE: &str = "PILLARBOX_BENCH_CASE";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return start(Path::new(&folder));
    }
    let count: u64 = std::env::var("PILLARBOX_BENCH_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let dir = match std::env::var_os("PILLARBOX_BENCH_DIR") {
        Some(path) => tempfile::tempdir_in(path)?,
        None => tempfile::tempdir()?,
    };
    let root = dir.path().join("state/queue/deferred");
    let first_id = (now_millis()? - 3_600_000) << 20;
    let began = Instant::now();
    (0..count).try_for_each(|n| park(&root, first_id, n, false))?;
    eprintln!("{count} messages written in {:.0} s", began.elapsed().as_secs_f64());
    println!(
        "| start with {count} parked messages | seconds | of processor | MiB then | MiB at most | first page, ms | a domain's first page, ms | summary, ms | stop, seconds |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for case in ["without an index", "with the index", "after a kill, a tenth changed since the index"] {
        if case.contains("tenth") {
            (0..count).step_by(10).try_for_each(|n| park(&root, first_id, n, true))?;
        }
        if let Ok(forget) = std::env::var("PILLARBOX_BENCH_FORGET") {
            assert!(std::process::Command::new("sh").args(["-c", &forget]).status()?.success());
        }
        // Each in a process of its own, since memory is what is measured.
        let status = std::process::Command::new(std::env::current_exe()?).env(FOLDER, dir.path()).env(CASE, case).status()?;
        assert!(status.success());
    }
    Ok(())
}

fn now_millis() -> Result<u64, std::time::SystemTimeError> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64)
}

/// Starts once, asks what an operator asks, and stops.
fn start(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.paths.state = folder.join("state");
    config.paths.mail = folder.join("mail");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let idle: Arc<dyn Transport> = Arc::new(Idle);
    let transports = Transports { mailbox: Arc::clone(&idle), relay: idle };
    let queue = runtime.block_on(Queue::open(&config, transports, Arc::new(Nobody)))?;
    let (started, processor, now, most) = (began.elapsed(), cpu_seconds() - cpu, status("VmRSS") >> 10, status("VmHWM") >> 10);
    let began = Instant::now();
    let page = runtime.block_on(queue.list(&ListFilter::default(), None, 100)).len();
    let first = began.elapsed();
    let began = Instant::now();
    let filter = ListFilter { to: Some("host7.example".parse()?), ..ListFilter::default() };
    let filtered = runtime.block_on(queue.list(&filter, None, 100)).len();
    let second = began.elapsed();
    let began = Instant::now();
    let lines = runtime.block_on(queue.summary()).len();
    let summary = began.elapsed();
    assert!(page > 0 && filtered > 0 && lines > 0, "there is something to list");
    let began = Instant::now();
    runtime.block_on(queue.shutdown());
    println!(
        "| {} | {:.2} | {processor:.2} | {now} | {most} | {:.1} | {:.1} | {:.1} | {:.2} |",
        std::env::var(CASE).unwrap_or_default(),
        started.as_secs_f64(),
        first.as_secs_f64() * 1e3,
        second.as_secs_f64() * 1e3,
        summary.as_secs_f64() * 1e3,
        began.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Writes what a queue would have parked, without its syncs; `again`: the envelope alone, in the place of the former.
fn park(root: &Path, first_id: u64, n: u64, again: bool) -> Result<(), Box<dyn std::error::Error>> {
    let received = first_id >> 20;
    let id = QueueId(first_id + n * 0x441);
    let to: Mailbox = format!("user{n}@host{}.example", n % 1000).parse()?;
    let mut recipient = Recipient::new(to, Route::Relay);
    recipient.attempts = 3 + u32::from(again);
    recipient.last_reply = Some(Reply::new(451, EnhancedCode(4, 7, 1), "greylisted, try again later"));
    recipient.next_attempt = Some(received + 90_000_000);
    let mut envelope = Envelope::new(id, format!("sender{}@example.net", n % 5000).parse()?, vec![recipient]);
    (envelope.received, envelope.size) = (received, 300);
    let text = id.to_string();
    let folder = root.join(text.get(9..11).unwrap_or("00"));
    let (named, unfinished) = (folder.join(format!("{text}.json")), folder.join(format!("{text}.new")));
    if !again {
        std::fs::create_dir_all(&folder)?;
        std::fs::File::create(folder.join(format!("{text}.msg")))?.write_all(&[b'x'; 300])?;
    }
    let document = serde_json::json!({ "format": 1, "envelope": envelope });
    std::fs::write(&unfinished, serde_json::to_vec_pretty(&document)?)?;
    Ok(std::fs::rename(unfinished, named)?)
}

/// A number from the process's status, KiB.
fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Processor time of the process so far.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}
