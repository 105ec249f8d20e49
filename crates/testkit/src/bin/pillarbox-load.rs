//! `pillarbox-load`: the sender, the receiver, the crowd and the disk's limit that `scripts/bench` measures with, one at a time.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use pillarbox_testkit::speed::crowd::Crowd;
use pillarbox_testkit::speed::disk::{Way, limit};
use pillarbox_testkit::speed::handshakes;
use pillarbox_testkit::speed::{Access, BlackHole, Source, lookups};

const USAGE: &str = "\
usage: pillarbox-load send ADDRESS:PORT      messages, as fast as they are taken
         [--sessions 20] [--seconds 2] [--messages N] [--size 4096] [--recipients 1] [--users 16] [--from load@src.test]
         [--reuse] [--step-by-step] [--quit-apart] [--tls] [--login USER --password PASSWORD]
       pillarbox-load take [--port 0] [--seconds 60]        takes every message, keeps none
       pillarbox-load crowd ADDRESS:PORT [--count 1000] [--tls] [--seconds 10]   opens connections, says so, and waits
       pillarbox-load handshakes ADDRESS:PORT [--sessions 20] [--seconds 2] [--resume]
       pillarbox-load lookups ADDRESS:PORT [--users 1000] [--seconds 2]
       pillarbox-load disk FOLDER [--writers 20] [--seconds 1] [--size 4096] [--shared-log]
       pillarbox-load logs SOCKET...         takes in what is sent to syslog sockets, and throws it away
Recipients are u0@bench.test and on. Certificates are believed: the servers measured are one's own.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pillarbox-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The words behind the verb.
struct Words {
    plain: Vec<String>,
    options: BTreeMap<String, String>,
}

impl Words {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        const FLAGS: [&str; 6] = ["reuse", "step-by-step", "quit-apart", "tls", "resume", "shared-log"];
        let mut this = Self { plain: Vec::new(), options: BTreeMap::new() };
        let mut words = words;
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(flag) if FLAGS.contains(&flag) => _ = this.options.insert(flag.to_owned(), String::new()),
                Some(name) => _ = this.options.insert(name.to_owned(), words.next().ok_or(USAGE)?),
                None => this.plain.push(word),
            }
        }
        Ok(this)
    }

    fn number<T: FromStr>(&mut self, name: &str, usual: T) -> Result<T, Box<dyn Error>> {
        match self.options.remove(name) {
            Some(text) => text.parse().map_err(|_| format!("--{name} {text:?} is no number").into()),
            None => Ok(usual),
        }
    }

    fn seconds(&mut self, usual: f64) -> Result<Duration, Box<dyn Error>> {
        Ok(Duration::try_from_secs_f64(self.number("seconds", usual)?.min(600.0))?)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.options.remove(name).is_some()
    }

    fn address(&self) -> Result<SocketAddr, Box<dyn Error>> {
        Ok(self.plain.first().ok_or(USAGE)?.parse()?)
    }

    fn end(self) -> Result<(), Box<dyn Error>> {
        match self.options.keys().next() {
            Some(name) => Err(format!("there is no --{name} here\n{USAGE}").into()),
            None => Ok(()),
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let verb = words.next().ok_or(USAGE)?;
    let mut words = Words::read(words)?;
    match verb.as_str() {
        "send" => send(words).await,
        "take" => {
            let (port, time) = (words.number("port", 0)?, words.seconds(60.0)?);
            words.end()?;
            let hole = BlackHole::start(port, true)?;
            println!("{}", hole.address());
            tokio::time::sleep(time).await;
            println!("{} messages over {} connections", hole.messages(), hole.connections());
            Ok(())
        }
        "crowd" => {
            let (access, count, time) = (access(&mut words)?, words.number("count", 1000)?, words.seconds(10.0)?);
            words.end()?;
            let crowd = Crowd::gather(&access, count).await;
            println!("{} connections are open{}", crowd.len(), crowd.failure.as_ref().map(|f| format!("; {f}")).unwrap_or_default());
            tokio::time::sleep(time).await;
            Ok(())
        }
        "handshakes" => {
            let resume = words.flag("resume");
            let (sessions, time) = (words.number("sessions", 20)?, words.seconds(2.0)?);
            let access = Access::new(words.address()?);
            words.end()?;
            let made = handshakes::run(&access, resume, sessions, time).await;
            let rate = made.done as f64 / made.elapsed.as_secs_f64();
            println!("{rate:.0} handshakes a second, {} of {} resumed", made.resumed, made.done);
            made.failure.map_or(Ok(()), |failure| Err(failure.into()))
        }
        "lookups" => {
            let (access, users, time) = (Access::new(words.address()?), words.number("users", 1000)?, words.seconds(2.0)?);
            words.end()?;
            println!("{:.0} recipients a second", lookups::run(&access, users, time).await?);
            Ok(())
        }
        "disk" => {
            let way = if words.flag("shared-log") { Way::SharedLog } else { Way::FileEach };
            let (writers, size, time) = (words.number("writers", 20)?, words.number("size", 4096)?, words.seconds(1.0)?);
            let folder = words.plain.first().ok_or(USAGE)?.clone();
            words.end()?;
            println!("{:.0} messages a second", limit(Path::new(&folder), way, writers, time, size)?);
            Ok(())
        }
        "logs" => logs(&words.plain),
        _ => Err(USAGE.into()),
    }
}

fn access(words: &mut Words) -> Result<Access, Box<dyn Error>> {
    let mut access = Access::new(words.address()?);
    if words.flag("tls") {
        access = access.tls(handshakes::config(false));
    }
    if words.flag("step-by-step") {
        access = access.step_by_step();
    }
    access.quit_apart = words.flag("quit-apart");
    if let (Some(user), Some(password)) = (words.options.remove("login"), words.options.remove("password")) {
        access = access.login(&user, &password);
    }
    Ok(access)
}

async fn send(mut words: Words) -> Result<(), Box<dyn Error>> {
    let access = access(&mut words)?;
    let users: u64 = words.number("users", 16)?;
    let mut source = Source::new(access, (0..users).map(|n| format!("u{n}@bench.test")).collect());
    source.sessions = words.number("sessions", source.sessions)?;
    source.messages = words.number("messages", source.messages)?;
    source.size = words.number("size", source.size)?;
    source.recipients = words.number("recipients", source.recipients)?;
    source.time = words.seconds(2.0)?;
    source.reuse = words.flag("reuse");
    if let Some(from) = words.options.remove("from") {
        source.from = from;
    }
    words.end()?;
    let report = source.run().await;
    println!(
        "{} messages, {:.0} a second; a session takes {:.2} ms (p50), {:.2} ms (p99); {} failed",
        report.messages,
        report.rate(),
        report.times.quantile(0.5).as_secs_f64() * 1e3,
        report.times.quantile(0.99).as_secs_f64() * 1e3,
        report.failures,
    );
    report.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// One thread a socket, until it is killed.
fn logs(sockets: &[String]) -> Result<(), Box<dyn Error>> {
    let mut threads = Vec::new();
    for path in sockets {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        threads.push(std::thread::spawn(move || {
            let mut line = [0; 16 * 1024];
            while socket.recv(&mut line).is_ok() {}
        }));
    }
    threads.into_iter().for_each(|thread| _ = thread.join());
    Ok(())
}
