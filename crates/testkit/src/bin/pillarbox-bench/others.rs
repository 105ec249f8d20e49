//! Rows about anything but storing: relaying, idle connections, handshakes, look-ups, start-up, calls that sync, the disk, the load itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pillarbox_testkit::speed::crowd::Crowd;
use pillarbox_testkit::speed::disk::{Way, limit};
use pillarbox_testkit::speed::{BlackHole, Source, handshakes, lookups};

use crate::account;
use crate::results::Results;
use crate::servers::{Server, USERS};
use crate::storing::{self, Kind, MAILBOXES, Row};

/// Longest wait for relayed mail.
const RELAYED: Duration = Duration::from_secs(60);

/// Relays so many messages to a receiver that keeps none: from a queue that was filled before, and handed in and sent on at once.
pub(crate) async fn relay(server: &Server, port: u16, messages: u64, results: &mut Results) -> Result<()> {
    let mut source = Source::new(server.submission(), vec!["x@relay.test".into(), "y@relay.test".into()]);
    (source.from, source.reuse, source.messages, source.time) = ("u0@bench.test".into(), true, messages, RELAYED);
    for (row, waits) in [("relay, a filled queue", true), ("relay, while it comes in", false)] {
        // A new receiver each time: connections that are kept open past the last message would pass the closed door.
        let hole = BlackHole::start(port, !waits).context("the relay row needs its port")?;
        let mut cpu = server.account.cpu_at_rest().await?;
        let mut began = Instant::now();
        let report = source.run().await;
        if let Some(failure) = &report.failure {
            results.note(format!("{}, {row}: {failure}", server.name));
        }
        if waits {
            cpu = server.account.cpu_at_rest().await?;
            began = Instant::now();
            hole.set_open(true);
        }
        let deadline = Instant::now() + RELAYED;
        while hole.messages() < report.messages && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (arrived, elapsed) = (hole.messages(), began.elapsed());
        if arrived < report.messages || arrived == 0 {
            results.note(format!("{}, {row}: {arrived} of {} messages arrived", server.name, report.messages));
            continue;
        }
        let cpu = server.account.cpu_at_rest().await?.saturating_sub(cpu);
        results.put(row, &server.name, "messages/s", arrived as f64 / elapsed.as_secs_f64());
        results.put(row, &server.name, "cpu s/1000", cpu.as_secs_f64() / arrived as f64 * 1e3);
    }
    Ok(())
}

/// Memory with nobody connected, and what each of many idle connections adds. `server` should be fresh, since freed memory is used again.
pub(crate) async fn idle(server: &Server, count: usize, tls: bool, results: &mut Results) -> Result<()> {
    let access = if tls { server.access().tls(handshakes::config(false)) } else { server.access() };
    server.account.cpu_at_rest().await?;
    let before = server.account.memory();
    let crowd = Crowd::gather(&access, count).await;
    server.account.cpu_at_rest().await?;
    let with = server.account.memory();
    let row = format!("{count} idle connections{}", if tls { ", TLS" } else { "" });
    if let Some(failure) = &crowd.failure {
        results.note(format!("{}, {row}: {} are open; {failure}", server.name, crowd.len()));
    }
    if crowd.is_empty() {
        return Ok(());
    }
    results.put(&row, &server.name, "MiB before", before as f64 / 1024.0);
    results.put(&row, &server.name, "MiB", with as f64 / 1024.0);
    results.put(&row, &server.name, "KiB each", with.saturating_sub(before) as f64 / crowd.len() as f64);
    Ok(())
}

/// Handshakes by STARTTLS.
pub(crate) async fn tls(server: &Server, time: Duration, results: &mut Results) {
    for (row, resume) in [("TLS handshakes, full", false), ("TLS handshakes, resumed", true)] {
        let made = handshakes::run(&server.access(), resume, 20, time).await;
        if let Some(failure) = made.failure {
            results.note(format!("{}, {row}: {failure}", server.name));
        }
        if resume && made.resumed * 2 < made.done {
            results.note(format!("{}, {row}: {} of {} were resumed", server.name, made.resumed, made.done));
        } else if made.done > 0 {
            results.put(row, &server.name, "handshakes/s", made.done as f64 / made.elapsed.as_secs_f64());
        }
    }
}

/// A start with so many users, its memory, and the speed of look-ups among them.
pub(crate) async fn users(server: &mut Server, users: u64, time: Duration, results: &mut Results) -> Result<()> {
    let row = format!("{users} users");
    let took = server.restart().await?;
    results.put(&row, &server.name, "start s", took.as_secs_f64());
    results.put(&row, &server.name, "MiB", server.account.memory() as f64 / 1024.0);
    // Once for nothing: a server that has just been started has read nothing yet.
    lookups::run(&server.access(), users, time / 2).await?;
    results.put(&row, &server.name, "RCPT/s", lookups::run(&server.access(), users, time).await?);
    Ok(())
}

/// Calls that make something durable.
const SYNCS: [&str; 5] = ["fdatasync", "fsync", "syncfs", "sync", "msync"];

/// Whether perf counts system calls here. It costs the server next to nothing, where strace stops it at each call: a slow server gathers less
/// for each flush.
async fn can_count() -> bool {
    let mut trial = tokio::process::Command::new("perf");
    trial.args(["stat", "-e", "syscalls:sys_enter_fdatasync", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    trial.status().await.is_ok_and(|status| status.success())
}

/// Calls that make something durable, a message, at 20 sessions: counted by strace, which slows the server down and so is run apart.
pub(crate) async fn syncs(server: &Server, time: Duration, results: &mut Results) -> Result<()> {
    let counts = tempfile::NamedTempFile::new()?;
    let pids: Vec<String> = server.account.pids().iter().map(ToString::to_string).collect();
    let perf = can_count().await;
    let mut counter = Command::new(if perf { "perf" } else { "strace" });
    if perf {
        let events: Vec<String> = SYNCS.iter().map(|call| format!("syscalls:sys_enter_{call}")).collect();
        counter.args(["stat", "-x", ",", "-e", &events.join(","), "-p", &pids.join(","), "-o"]).arg(counts.path());
    } else {
        counter.args(["-f", "-c", "-e", &format!("trace={}", SYNCS.join(",")), "-o"]).arg(counts.path());
        pids.iter().for_each(|pid| _ = counter.args(["-p", pid]));
    }
    let mut counter = match counter.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            results.note(format!("no calls were counted: neither perf nor strace: {error}"));
            return Ok(());
        }
    };
    // Neither has a better sign of being attached than that it says no more.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let users = USERS - MAILBOXES..USERS;
    let row = Row { name: String::new(), kind: Kind::Plain, sessions: 20, size: 4096 };
    let mut source = storing::source(server, &row, users.clone());
    source.time = time;
    let before = server.count(users.clone());
    let report = source.run().await;
    server.stored(users, before + report.messages).await;
    server.account.cpu_at_rest().await?;
    if let Some(pid) = i32::try_from(counter.id()).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    }
    counter.wait()?;
    let text = std::fs::read_to_string(counts.path())?;
    let calls = |names: &[&str]| -> f64 {
        let of_line = |line: &str| {
            // perf: count,,event,… and strace: …, count in the fourth column, name in the last.
            let (count, name) = match line.split_once(",,syscalls:sys_enter_") {
                Some((count, rest)) => (count, rest.split(',').next()?),
                None => {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    (*words.get(3)?, *words.last()?)
                }
            };
            if names.contains(&name) { count.parse::<f64>().ok() } else { None }
        };
        text.lines().filter_map(of_line).sum()
    };
    if report.messages > 0 {
        let messages = report.messages as f64;
        results.put("syncs a message, 20 × 4 KiB", &server.name, "fdatasync+fsync", calls(&["fdatasync", "fsync"]) / messages);
        results.put("syncs a message, 20 × 4 KiB", &server.name, "all kinds", calls(&SYNCS) / messages);
    }
    Ok(())
}

/// What the disk does with no mail server in the way.
pub(crate) fn disk(folder: &Path, time: Duration, results: &mut Results) -> Result<()> {
    for (row, way) in [("disk, a file each", Way::FileEach), ("disk, one log", Way::SharedLog)] {
        for writers in storing::SESSIONS {
            let rate = limit(folder, way, writers, time, 4096)?;
            results.put(&format!("{row}, {writers} writers"), "disk", "messages/s", rate);
        }
        let rate = limit(folder, way, 20, time, 1 << 20)?;
        results.put(&format!("{row}, 20 writers, 1 MiB"), "disk", "messages/s", rate);
    }
    Ok(())
}

/// Our sender and our receiver beside Postfix's, whose tree is `tree`: neither may be what limits a server.
pub(crate) async fn load(load: &Path, tree: &Path, messages: u64, results: &mut Results) -> Result<()> {
    let chrooted = |program: &str| {
        let mut command = Command::new("chroot");
        command.arg(tree).arg(program);
        command
    };
    let hole = BlackHole::start(0, true)?;
    let address = hole.address().to_string();
    let count = messages.to_string();
    for reuse in [true, false] {
        let how = if reuse { "connections reused" } else { "a connection each" };
        let mut theirs = chrooted("smtp-source");
        theirs.args(["-s", "20", "-m", &count, "-l", "4096", "-f", "a@src.test", "-t", "u1@bench.test", "-M", "client.test"]);
        if reuse {
            theirs.arg("-d");
        }
        theirs.arg(&address);
        for (name, command) in [
            ("smtp-source", theirs),
            ("ours, step by step", ours(load, &address, &count, reuse, true)),
            ("ours", ours(load, &address, &count, reuse, false)),
        ] {
            let (rate, cpu) = timed(command, messages).await?;
            results.put(&format!("sender, {how}"), name, "messages/s", rate);
            results.put(&format!("sender, {how}"), name, "cpu s/1000", cpu);
        }
    }
    let mut sink = chrooted("smtp-sink").args(["-u", "postfix", "127.0.0.1:2691", "1000"]).stderr(Stdio::null()).spawn()?;
    let result = async {
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", 2691)).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for reuse in [true, false] {
            let row = if reuse { "receiver, connections reused" } else { "receiver, a connection each" };
            for (name, address) in [("smtp-sink", "127.0.0.1:2691"), ("ours", address.as_str())] {
                let (rate, _) = timed(ours(load, address, &count, reuse, false), messages).await?;
                results.put(row, name, "messages/s", rate);
            }
        }
        Ok(())
    };
    let result = result.await;
    sink.kill()?;
    sink.wait()?;
    result
}

fn ours(load: &Path, address: &str, count: &str, reuse: bool, step_by_step: bool) -> Command {
    let mut command = Command::new(load);
    command.args(["send", address, "--sessions", "20", "--messages", count, "--seconds", "60", "--size", "4096"]);
    if reuse {
        command.arg("--reuse");
    }
    if step_by_step {
        command.arg("--step-by-step");
    }
    command
}

/// Runs a sender to its end: messages a second, and seconds of its processor time a thousand.
async fn timed(mut command: Command, messages: u64) -> Result<(f64, f64)> {
    let cpu = account::children()?;
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let elapsed = began.elapsed();
    if !output.status.success() {
        bail!("a sender failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let cpu = account::children()?.saturating_sub(cpu);
    Ok((messages as f64 / elapsed.as_secs_f64(), cpu.as_secs_f64() / messages as f64 * 1e3))
}
