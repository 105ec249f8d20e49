//! What a flood of strangers may do: memory stays under a bound that is printed, others are served, counters tell what happened.

mod connections;
mod content;
mod control;
mod floods;
mod guessing;
mod secrets;
mod slow;

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use futures::future::join_all;
use pillarbox_testkit::{Client, Daemon, DaemonBuilder, certificates};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpSocket;

/// A daemon with metrics and one user, on hashes that cost little.
fn builder() -> DaemonBuilder {
    Daemon::builder().set("listen.metrics", vec!["127.0.0.1:0".to_owned()])
}

async fn started(builder: DaemonBuilder) -> Daemon {
    let daemon = builder.start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon
}

/// Memory that the process holds for itself and no file stands behind, in KiB: now, and resident at the most so far.
#[derive(Debug, Clone, Copy)]
struct Memory {
    anonymous: u64,
    peak: u64,
    threads: u64,
}

impl Memory {
    fn of(daemon: &Daemon) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self { anonymous: field("RssAnon:"), peak: field("VmHWM:"), threads: field("Threads:") }
    }

    /// Fails when more was taken since `before` than this many KiB; prints what it was.
    #[track_caller]
    fn grew_less_than(self, before: Self, bound: u64, what: &str) {
        let peak = self.peak.saturating_sub(before.peak);
        let kept = self.anonymous.saturating_sub(before.anonymous);
        let threads = self.threads.saturating_sub(before.threads);
        println!("{what}: peak +{peak} KiB, kept +{kept} KiB, threads +{threads}; the bound is {bound} KiB");
        assert!(peak < bound, "{what} took {peak} KiB");
    }
}

/// The sum of a counter over all its labels; with `label`, of those that have it.
async fn counted(daemon: &Daemon, name: &str, label: &str) -> u64 {
    let page = get(daemon.address("metrics"), "/metrics").await;
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name).unwrap_or("-");
        (rest.starts_with(' ') || rest.starts_with('{')) && rest.contains(label)
    };
    page.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// A client that comes from one of the addresses of the loopback network.
async fn from(source: Ipv4Addr, address: SocketAddr) -> Client {
    try_from(source, address).await.unwrap()
}

async fn try_from(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<Client> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Client::over(Box::new(stream)))
}

/// The n-th address of 127.64.0.0/10, where no test's daemon listens.
fn source(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 1)) + n)
}

/// Somebody else hands in a message and sees it taken.
async fn others_are_served(daemon: &Daemon) {
    let mut client = from(Ipv4Addr::new(127, 0, 0, 99), daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    client.command("RCPT TO:<alice@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"Subject: an honest one\r\n\r\nhello\r\n.\r\n").await;
    client.expect("250").await;
    client.command("QUIT", "221").await;
}

fn plain(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"))
}

/// A TLS session on port 465, ready for AUTH.
async fn submitting(daemon: &Daemon, source: Ipv4Addr) -> Client {
    let mut client = from(source, daemon.address("submissions")).await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client
}

/// Lets this process, and the daemons that it starts, have as many descriptors as a test needs.
fn want_descriptors(n: u64) {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX).max(n);
    let limit = Rlimit { current: Some(hard.min(1 << 20)), maximum: Some(hard.min(1 << 20)) };
    setrlimit(Resource::Nofile, limit).unwrap_or_else(|e| panic!("this test needs {n} descriptors (ulimit -n): {e}"));
}
