//! What a RCPT costs with the directory in PostgreSQL: routes of known and unknown addresses, met for the first time and again.
//!
//! `PILLARBOX_BENCH_USERS` says how many users there are (1,000 unless said). The server is one of this machine on a Unix socket, with its
//! own settings but for `fsync=off`, so a look-up over a network costs a network's round trip more. Figures on standard output.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::SinkExt;
use pillarbox_config::{Config, DirectoryConfig};
use pillarbox_directory::{
    Change, Directory, DomainRecord, PostgresDirectory, PostgresOptions, ResolvePolicy, Resolved, UserRecord, resolve,
};
use pillarbox_smtp::Mailbox;
use pillarbox_testkit::Postgres;

/// Look-ups in one measurement.
const LOOKUPS: usize = 20_000;
/// Sessions that ask at once.
const SESSIONS: usize = 16;
/// Users of one domain.
const PER_DOMAIN: usize = 1000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let users: usize = std::env::var("PILLARBOX_BENCH_USERS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let Some(server) = Postgres::start().await else { return };
    let options = || PostgresOptions::from_config(&DirectoryConfig { url: server.url("postgres"), ..DirectoryConfig::default() });
    drop(PostgresDirectory::connect(options()).await.unwrap());
    let began = Instant::now();
    load(&server.url("postgres"), users).await;
    server.sql("ANALYZE pillarbox.rows").await;
    let size = server.sql("SELECT pg_size_pretty(pg_total_relation_size('pillarbox.rows'))").await;
    println!("{users} users loaded by COPY in {:.1} s, {size} with the index", began.elapsed().as_secs_f64());

    let directory = Arc::new(PostgresDirectory::connect(options()).await.unwrap());
    let known = LOOKUPS.min(users);
    measure("known users, first met", &directory, known, move |n| address(n.wrapping_mul(7919) % users)).await;
    measure("known users, met again", &directory, known, move |n| address(n.wrapping_mul(7919) % users)).await;
    measure("unknown users, first met", &directory, LOOKUPS, |n| format!("nobody{n}@d0.example").parse().unwrap()).await;
    measure("unknown users, met again", &directory, LOOKUPS, |n| format!("nobody{n}@d0.example").parse().unwrap()).await;
    let began = Instant::now();
    for n in 0..200 {
        directory.apply(vec![Change::PutUser(user(&address(n % users)))]).await.unwrap();
    }
    println!("a change: {:.2} ms", began.elapsed().as_secs_f64() * 1000.0 / 200.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
}

fn address(n: usize) -> Mailbox {
    format!("user{n}@d{}.example", n / PER_DOMAIN).parse().unwrap()
}

fn user(address: &Mailbox) -> UserRecord {
    UserRecord::new(address.clone(), "2026-01-01T00:00:00Z".into())
}

/// Rows as the store writes them, brought in by COPY. Their form is the store's own business; the check in `measure` fails when it changes.
async fn load(url: &str, users: usize) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let sink = client.copy_in("COPY pillarbox.rows (tbl, key, record) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let row = |table: u8, key: &[u8], record: &[u8]| format!("{table}\t\\\\x{}\t\\\\x{}\n", hex(key), hex(record));
    let versioned = |record: serde_json::Value| serde_json::json!({ "v": 1, "is": record }).to_string();
    let mut text = String::new();
    for n in 0..users {
        let address = address(n);
        if n % PER_DOMAIN == 0 {
            let domain = address.domain.clone();
            let counts = [(PER_DOMAIN.min(users - n) as u64).to_be_bytes(), 0u64.to_be_bytes()].concat();
            let record = DomainRecord { name: domain.clone(), created: "2026-01-01T00:00:00Z".into(), deliver_to: None, dkim: vec![] };
            text.push_str(&row(0, domain.as_str().as_bytes(), versioned(serde_json::to_value(record).unwrap()).as_bytes()));
            text.push_str(&row(6, domain.as_str().as_bytes(), &counts));
        }
        let key = format!("{}\0{}", address.domain.as_str(), address.local.key());
        text.push_str(&row(1, key.as_bytes(), versioned(serde_json::to_value(user(&address)).unwrap()).as_bytes()));
        let password = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$3Zlmc2ZzZnNkZnNkZnNkZnNkZnNkZnNkZnNkZnM";
        let credential = serde_json::json!({ "password": password, "scram": null, "app": [] });
        text.push_str(&row(3, key.as_bytes(), versioned(credential).as_bytes()));
        if text.len() > 1 << 20 {
            sink.send(Bytes::from(std::mem::take(&mut text))).await.unwrap();
        }
    }
    sink.send(Bytes::from(text)).await.unwrap();
    sink.finish().await.unwrap();
}

/// Resolves `count` addresses from several sessions at once.
async fn measure(what: &str, directory: &Arc<PostgresDirectory>, count: usize, address: impl Fn(usize) -> Mailbox + Send + Sync + 'static) {
    let (next, address) = (Arc::new(AtomicUsize::new(0)), Arc::new(address));
    let policy = Arc::new(ResolvePolicy::from_config(&Config::default()));
    let began = Instant::now();
    let mut sessions = tokio::task::JoinSet::new();
    for _ in 0..SESSIONS {
        let (next, address, directory, policy) = (next.clone(), address.clone(), directory.clone(), policy.clone());
        sessions.spawn(async move {
            let (mut times, mut found) = (Vec::new(), 0usize);
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return (times, found);
                }
                let to = address(n);
                let began = Instant::now();
                let resolution = resolve(directory.as_ref(), &policy, &to).await.unwrap();
                times.push(began.elapsed());
                found += usize::from(matches!(resolution.outcome, Resolved::Deliver(_)));
            }
        });
    }
    let (mut times, mut found): (Vec<Duration>, usize) = (Vec::new(), 0);
    while let Some(session) = sessions.join_next().await {
        let (some, of_it) = session.unwrap();
        times.extend(some);
        found += of_it;
    }
    let took = began.elapsed();
    assert!(found == 0 || found == count, "{what}: {found} of {count}");
    assert_eq!(found == count, what.starts_with("known"), "{what}");
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e6;
    println!("{what}: {:.0} a second, half within {:.0} µs, 99 of 100 within {:.0} µs", count as f64 / took.as_secs_f64(), at(50), at(99));
}
