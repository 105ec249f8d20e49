//! Many kills: senders of all sorts go on while the daemon is killed at random moments, and at the end everything is counted. Ten
//! rounds here; `scripts/torture --rounds N` runs more (`PILLARBOX_TORTURE_ROUNDS`) and prints the figures.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use pillarbox_testkit::{Client, Daemon, DnsServer, Sink, certificates};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Mutex, watch};

const USERS: [&str; 4] = ["u0@example.test", "u1@example.test", "u2@example.test", "u3@example.test"];
const MARK: &str = "X-Torture-Mark";
const SENDERS: usize = 8;

/// What one sender was told is safe.
struct Acknowledged {
    mark: String,
    local: Vec<&'static str>,
    remote: bool,
    body: Vec<u8>,
}

/// Where the daemon listens at the moment; `None` while it is down.
#[derive(Clone)]
struct Ports {
    smtp: std::net::SocketAddr,
    submissions: std::net::SocketAddr,
}

struct Shared {
    ports: watch::Receiver<Option<Ports>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    count: AtomicUsize,
    stop: AtomicBool,
}

/// The lines behind the header: 1 KiB to 5 MiB, small ones most often, no line longer than 78, some begin with a dot.
fn body(random: &mut StdRng) -> Vec<u8> {
    let size = match random.random_range(0..100) {
        0 => 5 << 20,
        1..=3 => 1 << 20,
        4..=12 => 100 << 10,
        13..=50 => 4 << 10,
        _ => 1 << 10,
    };
    let mut text = Vec::with_capacity(size + 80);
    while text.len() < size {
        let length = random.random_range(1..78);
        if random.random_range(0..20) == 0 {
            text.push(b'.');
        }
        text.extend((0..length).map(|_| random.random_range(b' '..=b'~')));
        text.extend_from_slice(b"\r\n");
    }
    text
}

fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 1024);
    for line in text.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// Sends until told to stop; a lost connection is followed by a new one.
async fn sender(shared: Arc<Shared>, number: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
    let mut ports = shared.ports.clone();
    let mut sent = 0usize;
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok(Some(now)) = ports.wait_for(Option::is_some).await.map(|p| p.clone()) else { return };
        let submits = number.is_multiple_of(3);
        let _ = converse(&shared, &now, submits, number, &mut sent, &mut random).await;
        // The daemon is down or has just refused; the next word about its ports comes by itself.
        tokio::task::yield_now().await;
    }
}

async fn converse(
    shared: &Shared,
    ports: &Ports,
    submits: bool,
    number: usize,
    sent: &mut usize,
    random: &mut StdRng,
) -> std::io::Result<()> {
    let mut client = Client::try_connect(if submits { ports.submissions } else { ports.smtp }).await?;
    if submits {
        client.start_tls(certificates::trusting_client_config(), "mail.example.test").await?;
    }
    want(&mut client, None, "220").await?;
    want(&mut client, Some("EHLO client.test"), "250").await?;
    if submits {
        let token = base64::engine::general_purpose::STANDARD.encode("\0u0@example.test\0wonderland");
        want(&mut client, Some(&format!("AUTH PLAIN {token}")), "235").await?;
    }
    while !shared.stop.load(Ordering::SeqCst) {
        *sent += 1;
        let mark = format!("{number}-{sent}");
        let remote = submits && random.random_range(0..3) > 0;
        let first = random.random_range(0..USERS.len());
        let locals = if remote { random.random_range(0..2) } else { random.random_range(1..=USERS.len()) };
        let local: Vec<&'static str> = (0..locals).map(|n| USERS[(first + n) % USERS.len()]).collect();
        let text = body(random);
        let header = format!("From: u0@example.test\r\nTo: someone@example.test\r\nSubject: torture\r\n{MARK}: {mark}\r\n\r\n");
        client.transcript.clear();
        want(&mut client, Some("MAIL FROM:<u0@example.test>"), "250").await?;
        for to in &local {
            want(&mut client, Some(&format!("RCPT TO:<{to}>")), "250").await?;
        }
        if remote {
            want(&mut client, Some("RCPT TO:<carol@friend.test>"), "250").await?;
        }
        want(&mut client, Some("DATA"), "354").await?;
        client.try_send(&[header.as_bytes(), &stuffed(&text)].concat()).await?;
        want(&mut client, None, "250").await?;
        shared.acknowledged.lock().await.push(Acknowledged { mark, local, remote, body: text });
        shared.count.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

async fn want(client: &mut Client, line: Option<&str>, code: &str) -> std::io::Result<()> {
    if let Some(line) = line {
        client.try_send(format!("{line}\r\n").as_bytes()).await?;
    }
    let reply = client.try_reply().await?;
    if reply.code() == code { Ok(()) } else { Err(std::io::Error::other(format!("{reply:?}"))) }
}

/// How often each mark is in a Maildir, with a check that every copy is whole.
fn stored(daemon: &Daemon, user: &str, sent: &HashMap<&str, &Acknowledged>) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for message in daemon.mailbox(user).messages {
        let mark = message.header(MARK);
        if let Some(original) = sent.get(mark.as_str()) {
            let expected: Vec<u8> = original.body.iter().copied().filter(|b| *b != b'\r').collect();
            assert!(message.body() == expected, "{mark} for {user} is not what was sent");
        }
        *found.entry(mark).or_default() += 1;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_nothing_is_lost_and_local_mail_is_never_doubled() {
    let rounds: usize = std::env::var("PILLARBOX_TORTURE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let seed: u64 = std::env::var("PILLARBOX_TORTURE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}: PILLARBOX_TORTURE_SEED={seed} makes the same messages");
    let sink = Sink::start().await;
    let dns = DnsServer::start().await;
    dns.mx("friend.test", 10, "mx.friend.test").address_of("mx.friend.test", "127.0.0.1");
    dns.mx("client.test", 10, "mx.client.test").address_of("mx.client.test", "192.0.2.25");
    let mut daemon = Daemon::builder()
        .dns(dns.address())
        .relay_to_loopback(sink.port())
        .set("submission.rate_per_user", "")
        .set("queue.park_after", "2s")
        .set("queue.retry", vec!["1s"])
        .start()
        .await;
    for user in USERS {
        daemon.add_user(user, "wonderland").await;
    }
    let ports = |daemon: &Daemon| Ports { smtp: daemon.address("smtp"), submissions: daemon.address("submissions") };
    let (tell, listen) = watch::channel(Some(ports(&daemon)));
    let shared =
        Arc::new(Shared { ports: listen, acknowledged: Mutex::new(Vec::new()), count: AtomicUsize::new(0), stop: AtomicBool::new(false) });
    let senders: Vec<_> = (0..SENDERS).map(|n| tokio::spawn(sender(shared.clone(), n, seed))).collect();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..rounds {
        // The moment of the kill is what is random here, so this waits for nothing else than time.
        tokio::time::sleep(Duration::from_millis(random.random_range(100..700))).await;
        tell.send_replace(None);
        daemon.kill().await;
        daemon.restart().await;
        tell.send_replace(Some(ports(&daemon)));
    }
    shared.stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.await.unwrap();
    }
    drop(tell);
    daemon.admin(&["queue", "retry", "--all"]).await;
    let acknowledged = shared.acknowledged.lock().await;
    assert!(acknowledged.len() >= rounds, "only {} messages were acknowledged in {rounds} rounds", acknowledged.len());
    let sent: HashMap<&str, &Acknowledged> = acknowledged.iter().map(|a| (a.mark.as_str(), a)).collect();

    let settled = |status: &serde_json::Value| status["queue"]["messages"] == 0;
    let mut looks = 0;
    while !settled(&daemon.admin_json(&["status"]).await) {
        looks += 1;
        assert!(looks < 600, "the queue does not drain: {}", daemon.admin(&["queue", "list"]).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut lost = Vec::new();
    let mut doubled = Vec::new();
    for user in USERS {
        let found = stored(&daemon, user, &sent);
        let expected = acknowledged.iter().filter(|a| a.local.contains(&user));
        lost.extend(expected.filter(|a| !found.contains_key(&a.mark)).map(|a| format!("{} for {user}", a.mark)));
        doubled.extend(found.iter().filter(|(_, n)| **n > 1).map(|(mark, n)| format!("{mark} for {user}: {n}")));
    }
    let mut relayed: HashMap<String, usize> = HashMap::new();
    for received in sink.transactions().iter().filter(|r| r.accepted()) {
        let prefix = format!("{MARK}: ");
        let at = received.body.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
        let header = String::from_utf8_lossy(received.body.get(..at).unwrap_or_default()).into_owned();
        let mark = header.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned();
        if let Some(original) = sent.get(mark.as_str()) {
            assert!(received.body.get(at + 4..).unwrap_or_default() == original.body, "{mark} was relayed otherwise than it was sent");
        }
        *relayed.entry(mark).or_default() += 1;
    }
    lost.extend(acknowledged.iter().filter(|a| a.remote && !relayed.contains_key(&a.mark)).map(|a| format!("{} for the world", a.mark)));
    let again: usize = relayed.values().map(|n| n - 1).sum();
    println!(
        "{rounds} kills, {} messages acknowledged ({} local copies, {} relayed), lost {}, local duplicates {}, remote duplicates {again}",
        acknowledged.len(),
        acknowledged.iter().map(|a| a.local.len()).sum::<usize>(),
        acknowledged.iter().filter(|a| a.remote).count(),
        lost.len(),
        doubled.len(),
    );
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(doubled.is_empty(), "stored more than once: {doubled:?}");
    assert!(again <= rounds, "{again} messages were relayed twice in {rounds} kills");
}
