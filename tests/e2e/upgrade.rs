//! Data folders that earlier versions wrote, opened by this one; and those of newer versions, which are refused.
//!
//! `tests/fixtures/upgrade/VERSION.tar.gz` are such folders, each written by that version's own programs (`scripts/fixture`).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pillarbox_testkit::{CertificateAuthority, Daemon, DnsServer, Misbehaviour, PATIENCE, Sink, Stage};
use serde_json::{Value, json};

use crate::faults::clock::Clock;
use crate::post::{login, login_code, session, stderr, transmit, world_dns};
use crate::relaying::sts::PolicyHost;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
/// Suspended when the folder was left.
const DORA: &str = "dora@example.test";
const CAROL: &str = "carol@friend.test";
/// Her domain's policy demands TLS that the sink does not offer.
const DAVE: &str = "dave@client.test";
/// Nobody answers for the domain: mail for it is in the journal for a while.
const ERIN: &str = "erin@slow.test";

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/upgrade")
}

/// A message whose body names it.
fn letter(name: &str, size: usize) -> String {
    let line = format!("this is {name}, and this line is one of many\r\n");
    format!("From: {ALICE}\r\nTo: somebody@example.test\r\nSubject: {name}\r\n\r\n{}", line.repeat(size / line.len() + 1))
}

async fn submit(daemon: &Daemon, to: &[&str], name: &str, size: usize) -> String {
    let (mut client, reply) = login(daemon, ALICE, "wonderland").await;
    assert_eq!(reply.code(), "235");
    let reply = transmit(&mut client, ALICE, to, letter(name, size).as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
    daemon
        .event("accept", |event| event.text("to").contains(to[0]) && event.text("size").parse().is_ok_and(|n: usize| n > size))
        .await
        .text("id")
}

async fn dns() -> DnsServer {
    let dns = world_dns().await;
    dns.mx("slow.test", 10, "mx.slow.test").address_of("mx.slow.test", "127.0.0.1");
    dns.misbehave("slow.test", None, Misbehaviour::Silence).misbehave("mx.slow.test", None, Misbehaviour::Silence);
    dns
}

/// Fills a data folder with something of each kind and leaves it as a kill does; `PILLARBOX_FIXTURE` says where the archive goes.
#[tokio::test]
#[ignore = "writes a fixture; scripts/fixture runs it with the programs of a version"]
async fn write() {
    let archive = std::env::var_os("PILLARBOX_FIXTURE").map(PathBuf::from).unwrap();
    let (sink, dns, authority) = (Sink::start().await, dns().await, CertificateAuthority::new());
    sink.on(Stage::Mail, "*", "451 4.3.0 Not now");
    let policy = "version: STSv1\r\nmode: enforce\r\nmax_age: 31557600\r\nmx: mx.client.test\r\n";
    let host = PolicyHost::start(&authority.issue(&["mta-sts.client.test"]), policy.into()).await;
    dns.txt("_mta-sts.client.test", "v=STSv1; id=20261124;").address_of("mta-sts.client.test", "127.0.0.1");
    let folder = pillarbox_testkit::folder();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let mut daemon = Daemon::builder()
        .dns(dns.address())
        .relay_to_loopback(sink.port())
        .set("relay.mta_sts", true)
        .set("relay.mta_sts_port", i64::from(host.port))
        .set("relay.ca_file", ca.display().to_string())
        .set("queue.segment_size", "1M")
        .set("queue.retry", vec!["1h"])
        .set("queue.park_after", "1s")
        .set("mailbox.suspended", "hold")
        .set("screen.greylist", true)
        .start()
        .await;
    for user in [ALICE, BOB, DORA] {
        daemon.add_user(user, "wonderland").await;
    }
    daemon.add_alias("info@example.test", &[BOB, CAROL]).await;
    daemon.admin(&["user", "quota", BOB, "5G"]).await;
    let app = daemon.admin(&["app-password", "add", BOB, "phone"]).await;
    let text = folder.path().join("away.txt");
    std::fs::write(&text, "I am away\n").unwrap();
    daemon.admin(&["vacation", "set", ALICE, "--subject", "Away", "--text-file", &text.display().to_string()]).await;
    daemon.admin(&["user", "suspend", DORA]).await;

    submit(&daemon, &[BOB], "delivered", 2_000).await;
    daemon.mail(BOB, 1).await;
    let parked = submit(&daemon, &[CAROL], "parked", 3_000).await;
    let held = submit(&daemon, &[CAROL], "held", 4_000).await;
    daemon.admin(&["queue", "hold", &held]).await;
    let large = submit(&daemon, &[CAROL], "large", 400_000).await;
    let policy = submit(&daemon, &[DAVE], "policy", 5_000).await;
    let suspended = submit(&daemon, &[DORA], "suspended", 6_000).await;
    // A stranger is put off, and remembered.
    let reply = transmit(&mut session(&daemon).await, "sender@client.test", &[BOB], letter("greylisted", 100).as_bytes()).await;
    assert_eq!(reply.code(), "451", "{reply}");
    let waiting = [&parked, &held, &large, &policy, &suspended];
    let deferred = daemon.home().join("state/queue/deferred");
    let folder_of = |id: &str| deferred.join(&id[9..11]).join(format!("{id}.json"));
    let until = tokio::time::Instant::now() + PATIENCE;
    while !waiting.iter().all(|id| folder_of(id).exists()) {
        assert!(tokio::time::Instant::now() < until, "not all is parked");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // These are on their way when the end comes.
    let journalled = submit(&daemon, &[ERIN], "journalled", 7_000).await;
    let spooled = submit(&daemon, &[ERIN], "spooled", 500_000).await;
    daemon.kill().await;
    assert!(!folder_of(&journalled).exists() && !folder_of(&spooled).exists(), "parked too early to be in the journal");

    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let secret = app.lines().last().unwrap().trim();
    let ids = json!({ "parked": parked, "held": held, "large": large, "policy": policy, "suspended": suspended, "journalled": journalled, "spooled": spooled });
    let about = json!({ "time": time, "app_password": secret, "ids": ids });
    std::fs::write(daemon.home().join("about.json"), serde_json::to_vec_pretty(&about).unwrap()).unwrap();
    let done = std::process::Command::new("tar")
        .args(["-czf", &archive.display().to_string(), "-C", &daemon.home().display().to_string(), "about.json", "state", "mail"])
        .status();
    assert!(done.unwrap().success());
}

#[tokio::test]
async fn what_every_version_wrote_is_opened_by_this_one() {
    let Some(clock) = Clock::new() else { return };
    let mut archives: Vec<PathBuf> = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    archives.retain(|path| path.extension().is_some_and(|ending| ending == "gz"));
    archives.sort();
    assert!(!archives.is_empty());
    for archive in archives {
        println!("{}", archive.display());
        opened(&archive, &clock).await;
    }
}

async fn opened(archive: &Path, clock: &Clock) {
    let about = std::process::Command::new("tar").arg("-xzOf").arg(archive).arg("about.json").output().unwrap();
    let about: Value = serde_json::from_slice(&about.stdout).unwrap();
    let (sink, dns) = (Sink::start().await, dns().await);
    dns.behave("slow.test").behave("mx.slow.test");
    // An hour after the folder was left.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    clock.set(about["time"].as_i64().unwrap() + 3600 - i64::try_from(now).unwrap());
    let builder = Daemon::builder()
        .dns(dns.address())
        .relay_to_loopback(sink.port())
        .set("relay.mta_sts", true)
        .set("queue.segment_size", "1M")
        .set("queue.retry", vec!["1s"])
        .set("mailbox.suspended", "hold")
        .set("screen.greylist", true)
        .unpack(archive);
    let mut daemon = clock.ruling(builder).start().await;
    let status = daemon.get("/v1/status").await.json();
    assert_eq!(status["problems"], json!([]), "{}", archive.display());

    // Who is who.
    let names: Vec<String> = daemon
        .admin_json(&["user", "list"])
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["address"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, [ALICE, BOB, DORA]);
    assert_eq!(login_code(&daemon, ALICE, "wonderland").await, "235");
    assert_eq!(login_code(&daemon, BOB, about["app_password"].as_str().unwrap()).await, "235");
    assert_eq!(login_code(&daemon, DORA, "wonderland").await, "535");
    assert_eq!(daemon.admin_json(&["user", "show", BOB]).await["quota_bytes"], 5u64 << 30);
    assert_eq!(daemon.admin_json(&["alias", "list"]).await[0]["targets"], json!([BOB, CAROL]));
    assert!(daemon.admin(&["vacation", "show", ALICE]).await.contains("Away"));

    // What waited goes on its way, whole and once; what was held stays held.
    let id = |name: &str| about["ids"][name].as_str().unwrap().to_owned();
    let held = daemon.admin_json(&["queue", "list", "--held"]).await.to_string();
    assert!(held.contains(&id("held")) && held.contains(&id("suspended")), "{held}");
    daemon.admin(&["queue", "release", &id("held")]).await;
    daemon.admin(&["queue", "retry", "--all"]).await;
    daemon.admin(&["user", "resume", DORA]).await;
    for name in ["parked", "held", "large", "journalled", "spooled"] {
        daemon.event("deliver", |event| event.text("id") == id(name)).await;
    }
    let arrived = |name: &str, size: usize| {
        let body = letter(name, size);
        let body = body.split_once("\r\n\r\n").unwrap().1.to_owned();
        sink.transactions().iter().filter(|received| received.accepted() && received.text().ends_with(&format!("\r\n\r\n{body}"))).count()
    };
    let sizes = [("parked", 3_000), ("held", 4_000), ("large", 400_000), ("journalled", 7_000), ("spooled", 500_000)];
    for (name, size) in sizes {
        assert_eq!(arrived(name, size), 1, "{name}");
    }
    assert_eq!(daemon.mail(DORA, 1).await.len(), 1);
    assert_eq!(daemon.mailbox(BOB).messages.len(), 1, "what was delivered before is not delivered again");
    // The policy that was kept forbids to send without TLS, though its host is not to be had any more.
    let put_off = daemon.event("defer", |event| event.text("id") == id("policy")).await;
    assert!(put_off.text("reply").contains("mta-sts demands"), "{}", put_off.text("reply"));
    // The stranger comes again and is known.
    let reply = transmit(&mut session(&daemon).await, "sender@client.test", &[BOB], letter("greylisted", 100).as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
    // The log of events goes back to before.
    let trace = daemon.admin(&["trace", &id("parked")]).await;
    assert!(trace.contains("accept") && trace.contains("defer") && trace.contains("deliver"), "{trace}");
    daemon.stop().await;
}

/// A daemon that was stopped with one message parked.
async fn left() -> (Daemon, PathBuf, DnsServer) {
    let (sink, dns) = (Sink::start().await, dns().await);
    sink.on(Stage::Mail, "*", "451 4.3.0 Not now");
    let mut daemon = Daemon::builder()
        .dns(dns.address())
        .relay_to_loopback(sink.port())
        .set("queue.segment_size", "1M")
        .set("queue.park_after", "1s")
        .set("queue.retry", vec!["1h"])
        .start()
        .await;
    daemon.add_user(ALICE, "wonderland").await;
    let id = submit(&daemon, &[CAROL], "parked", 3_000).await;
    let envelope = daemon.home().join("state/queue/deferred").join(&id[9..11]).join(format!("{id}.json"));
    daemon.event("defer", |event| event.text("id") == id).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    while !envelope.exists() {
        assert!(tokio::time::Instant::now() < until, "it is not parked");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    daemon.stop().await;
    (daemon, envelope, dns)
}

/// It does not start, and one line says that a newer program is wanted.
async fn refused(daemon: &mut Daemon, file: &str) {
    let (status, lines) = daemon.fails_to_start().await;
    assert!(!status.success());
    let last = lines.last().unwrap();
    assert!(last.contains("newer") && last.contains(file), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| !line.starts_with('{')).count(), 1, "one line beside the log: {lines:?}");
}

#[tokio::test]
async fn parked_mail_and_a_journal_of_a_newer_version_are_refused_and_left_as_they_are() {
    let (mut daemon, envelope, _dns) = left().await;
    let before = std::fs::read_to_string(&envelope).unwrap();
    let newer = before.replacen("\"format\": 1", "\"format\": 2", 1);
    assert_ne!(newer, before);
    std::fs::write(&envelope, &newer).unwrap();
    refused(&mut daemon, envelope.file_name().unwrap().to_str().unwrap()).await;
    assert_eq!(std::fs::read_to_string(&envelope).unwrap(), newer);
    std::fs::write(&envelope, &before).unwrap();

    let journal = daemon.home().join("state/queue/journal");
    let written = |path: &PathBuf| std::fs::read(path).unwrap().starts_with(&[0xb6, 0x9d]);
    let segment = std::fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).filter(written).max().unwrap();
    let before = std::fs::read(&segment).unwrap();
    let mut newer = before.clone();
    newer[3] += 1;
    let nonce = segment.file_stem().unwrap().to_str().unwrap().split_once('-').unwrap().1;
    let nonce = u64::from_str_radix(nonce, 16).unwrap();
    let sum = crc32c(nonce.to_le_bytes().iter().chain(&0u64.to_le_bytes()).chain(&newer[..20]));
    newer[20..24].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&segment, &newer).unwrap();
    refused(&mut daemon, segment.file_name().unwrap().to_str().unwrap()).await;
    assert_eq!(std::fs::read(&segment).unwrap(), newer);
    std::fs::write(&segment, &before).unwrap();
    daemon.restart().await;
    assert_eq!(daemon.get("/v1/status").await.json()["queue"]["messages"], 1);
}

/// Castagnoli's sum, bit by bit.
fn crc32c<'a>(octets: impl Iterator<Item = &'a u8>) -> u32 {
    let bit = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !octets.fold(!0, |sum, octet| (0..8).fold(sum ^ u32::from(*octet), |sum, _| bit(sum)))
}

#[tokio::test]
async fn an_export_and_a_backup_of_a_newer_version_are_refused() {
    let (mut daemon, _, _dns) = left().await;
    let export = daemon.home().join("export.toml");
    let text = daemon.admin(&["export"]).await;
    let newer = text.replacen("version = 1", "version = 2", 1);
    assert_ne!(newer, text);
    std::fs::write(&export, &newer).unwrap();
    let output = daemon.try_admin(&["apply", &export.display().to_string()], "").await;
    assert!(!output.status.success() && stderr(&output).contains("newer"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);
    // A database that has to be rebuilt is left alone when its export is a newer one.
    std::fs::write(daemon.home().join("state/directory-export.toml"), &newer).unwrap();
    let database = daemon.home().join("state/directory.sled/db");
    let len = std::fs::metadata(&database).unwrap().len();
    std::fs::write(&database, vec![0x5a; usize::try_from(len).unwrap()]).unwrap();
    refused(&mut daemon, "directory-export.toml").await;
    assert_eq!(std::fs::metadata(&database).unwrap().len(), len);
}
