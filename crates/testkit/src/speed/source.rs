//! A sender that keeps sessions busy for a while and counts: one connection a message or one for all, one recipient or many.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::connection::{Access, Connection};
use super::histogram::Histogram;

/// How long a server may take for the last messages once time is up; then the run ends without them.
const GRACE: Duration = Duration::from_secs(10);
/// Longest wait for a greeting and what belongs to it. A connection that the server's short backlog dropped looks established from here, and is
/// silent for minutes.
const OPENING: Duration = Duration::from_secs(3);
/// The same once time is up.
const LATE_OPENING: Duration = Duration::from_millis(500);
/// The same while no message was taken at all: a server that is slow to let anybody in is to have a figure, too.
const FIRST_OPENING: Duration = Duration::from_secs(20);
/// Failures after which a run ends.
const FAILURES: u64 = 100;
/// Wait of a session whose connection failed, so that a server that refuses is not hammered.
const PAUSE: Duration = Duration::from_millis(20);

/// What to send, and for how long.
#[derive(Clone)]
pub struct Source {
    /// To whom.
    pub access: Access,
    /// Sessions at once.
    pub sessions: usize,
    /// No message is begun after this.
    pub time: Duration,
    /// Messages in all, at most.
    pub messages: u64,
    /// One connection for all messages of a session, in place of one each.
    pub reuse: bool,
    /// Reverse path, without brackets.
    pub from: String,
    /// Recipients, taken in turn.
    pub to: Vec<String>,
    /// Recipients of each message.
    pub recipients: usize,
    /// Octets of each message, about.
    pub size: usize,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Messages that the server took responsibility for.
    pub messages: u64,
    /// From the first connection to the last message that was taken.
    pub elapsed: Duration,
    /// Each session, from connecting to the answer to QUIT; where connections are reused, each transaction.
    pub times: Histogram,
    /// Sessions that failed.
    pub failures: u64,
    /// What the first of them heard.
    pub failure: Option<String>,
}

impl Report {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// What all sessions of a run share.
struct Run {
    source: Source,
    content: Vec<u8>,
    began: Instant,
    ends: Instant,
    begun: AtomicU64,
    taken: AtomicU64,
    /// When the last message was taken, microseconds from the beginning.
    last: AtomicU64,
    failures: AtomicU64,
    stop: AtomicBool,
}

impl Source {
    /// 4 KiB messages to one recipient each, one connection a message.
    pub fn new(access: Access, to: Vec<String>) -> Self {
        let from = "load@src.test".to_owned();
        let time = Duration::from_secs(2);
        Self { access, sessions: 20, time, messages: 1_000_000, reuse: false, from, to, recipients: 1, size: 4096 }
    }

    /// Sends on the runtime that it is called in.
    pub async fn run(&self) -> Report {
        let began = Instant::now();
        let run = Arc::new(Run {
            content: content(self.size, &self.from),
            began,
            ends: began + self.time,
            begun: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            last: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            source: self.clone(),
        });
        let mut sessions = JoinSet::new();
        for _ in 0..self.sessions.clamp(1, 4096) {
            sessions.spawn(session(Arc::clone(&run)));
        }
        let mut report = Report::default();
        let gather = async {
            while let Some(ended) = sessions.join_next().await {
                let Ok((times, failure)) = ended else { continue };
                report.times.merge(&times);
                report.failure = report.failure.take().or(failure);
            }
        };
        if tokio::time::timeout(self.time + FIRST_OPENING + GRACE, gather).await.is_err() {
            report.failure = Some(format!("some sessions did not end within {} s", (FIRST_OPENING + GRACE).as_secs()));
        }
        report.elapsed = Duration::from_micros(run.last.load(Ordering::Relaxed));
        report.messages = run.taken.load(Ordering::Relaxed);
        report.failures = run.failures.load(Ordering::Relaxed);
        report
    }
}

/// A message with a short header, the final dot included.
fn content(size: usize, from: &str) -> Vec<u8> {
    const LINE: &[u8] = b"The quick brown fox jumps over the lazy dog, and the dog sleeps on as it did.\r\n";
    let mut content = format!("From: <{from}>\r\nTo: <bench@bench.test>\r\nSubject: load\r\n\r\n").into_bytes();
    while content.len() + LINE.len() <= size {
        content.extend_from_slice(LINE);
    }
    content.extend_from_slice(b".\r\n");
    content
}

impl Run {
    /// The number of the next message, while there is one.
    fn next(&self) -> Option<u64> {
        if self.stop.load(Ordering::Relaxed) || Instant::now() >= self.ends {
            return None;
        }
        Some(self.begun.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < self.source.messages)
    }

    async fn open(&self) -> io::Result<Connection> {
        let now = Instant::now();
        let deadline = match self.taken.load(Ordering::Relaxed) {
            0 => now + FIRST_OPENING,
            _ => (now + OPENING).min(self.ends.max(now) + LATE_OPENING),
        };
        match tokio::time::timeout_at(deadline.into(), Connection::open(&self.source.access)).await {
            Ok(opened) => opened,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no greeting came")),
        }
    }

    /// MAIL, RCPT and DATA of a message; where each command ends.
    fn envelope(&self, number: u64, commands: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let source = &self.source;
        commands.clear();
        ends.clear();
        let mut put = |parts: [&[u8]; 3]| {
            parts.iter().for_each(|part| commands.extend_from_slice(part));
            ends.push(commands.len());
        };
        put([b"MAIL FROM:<", source.from.as_bytes(), b">\r\n"]);
        let first = usize::try_from(number).unwrap_or(0).wrapping_mul(source.recipients.max(1));
        for at in 0..source.recipients.max(1) {
            let to = source.to.get((first + at) % source.to.len().max(1)).map_or("", String::as_str);
            put([b"RCPT TO:<", to.as_bytes(), b">\r\n"]);
        }
        put([b"DATA\r\n", b"", b""]);
    }

    /// Up to the answer to the dot.
    async fn message(&self, connection: &mut Connection, commands: &[u8], ends: &[usize], content: &[u8]) -> io::Result<()> {
        if connection.pipelining {
            connection.send(commands).await?;
        }
        let mut start = 0;
        for (at, end) in ends.iter().enumerate() {
            if !connection.pipelining {
                connection.send(commands.get(start..*end).unwrap_or_default()).await?;
                start = *end;
            }
            connection.expect(if at + 1 == ends.len() { 354 } else { 250 }).await?;
        }
        connection.send(content).await?;
        connection.expect(250).await?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.last.fetch_max(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }
}

/// One session after the other until there is no message left: their times, and the first failure.
async fn session(run: Arc<Run>) -> (Histogram, Option<String>) {
    let (mut times, mut failure) = (Histogram::default(), None);
    let (mut commands, mut ends) = (Vec::new(), Vec::new());
    let last = [run.content.as_slice(), b"QUIT\r\n"].concat();
    let mut kept = None;
    while let Some(number) = run.next() {
        let began = Instant::now();
        run.envelope(number, &mut commands, &mut ends);
        let sent = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => run.open().await?,
            };
            let ends_with_quit = !run.source.reuse && connection.pipelining && !run.source.access.quit_apart;
            let content = if ends_with_quit { &last } else { &run.content };
            run.message(&mut connection, &commands, &ends, content).await?;
            if run.source.reuse {
                return Ok(Some(connection));
            }
            if !ends_with_quit {
                connection.send(b"QUIT\r\n").await?;
            }
            connection.expect(221).await?;
            io::Result::Ok(None)
        };
        match sent.await {
            Ok(connection) => {
                kept = connection;
                times.note(began.elapsed());
            }
            Err(error) => {
                failure.get_or_insert_with(|| error.to_string());
                if run.failures.fetch_add(1, Ordering::Relaxed) >= FAILURES {
                    run.stop.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if let Some(mut connection) = kept
        && connection.send(b"QUIT\r\n").await.is_ok()
    {
        // What is measured has been answered; how the farewell goes is the server's affair.
        let _ = connection.expect(221).await;
    }
    (times, failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Sink, Stage};

    fn source(sink: &Sink) -> Source {
        let mut source = Source::new(Access::new(sink.address()), (0..5).map(|n| format!("u{n}@bench.test")).collect());
        (source.sessions, source.time) = (4, crate::PATIENCE);
        source
    }

    #[tokio::test]
    async fn each_message_arrives_once_and_whole() {
        for (reuse, pipelining, quit_apart) in
            [(false, true, false), (false, true, true), (true, true, false), (false, false, false), (true, false, false)]
        {
            let sink = Sink::start().await;
            let mut source = source(&sink);
            (source.messages, source.reuse, source.recipients, source.access.pipelining) = (40, reuse, 3, pipelining);
            source.access.quit_apart = quit_apart;
            let report = source.run().await;
            assert_eq!((report.messages, report.failures, report.times.len()), (40, 0, 40), "{:?}", report.failure);
            let messages = sink.messages(40).await;
            assert_eq!(messages.len(), 40);
            for message in &messages {
                assert_eq!(message.recipients.len(), 3);
                assert!((4000..=4096).contains(&message.text().len()), "{}", message.text().len());
            }
            assert_eq!(sink.connections(), if reuse { 4 } else { 40 });
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_not_counted_and_ends_the_run() {
        let sink = Sink::start().await;
        sink.on(Stage::Rcpt, "*", "550 5.1.1 No");
        let report = source(&sink).run().await;
        assert_eq!(report.messages, 0);
        assert!(report.failures > FAILURES, "{}", report.failures);
        assert!(report.failure.unwrap().contains("said 550 where 250 was due"));
    }

    #[tokio::test]
    async fn time_ends_a_run() {
        let sink = Sink::start().await;
        let mut source = source(&sink);
        source.time = Duration::ZERO;
        assert_eq!(source.run().await.messages, 0);
    }
}
