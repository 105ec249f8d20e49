//! Ten thousand at once, more than one client may have, and no descriptors left.

use futures::future::join_all;
use pillarbox_testkit::Client;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{Memory, builder, counted, from, others_are_served, source, started, try_from, want_descriptors};

/// KiB that a connection which said EHLO and waits may cost, in a debug build.
const IDLE: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_cost_little_and_others_are_served() {
    const MANY: u32 = 10_000;
    want_descriptors(u64::from(MANY) + 2000);
    let daemon = started(builder().set("limits.connections", i64::from(MANY) + 20).set("log.level", "warn")).await;
    let address = daemon.address("smtp");
    others_are_served(&daemon).await;
    let before = Memory::of(&daemon);
    let mut idle: Vec<Client> = Vec::new();
    for hundred in 0..MANY / 100 {
        let opened = (0..100).map(|n| async move {
            // Forty from an address: under limits.connections_per_client.
            let mut client = from(source((hundred * 100 + n) / 40), address).await;
            client.expect("220").await;
            client.command("EHLO client.test", "250").await;
            client
        });
        idle.extend(join_all(opened).await);
    }
    Memory::of(&daemon).grew_less_than(before, IDLE * u64::from(MANY), "10,000 idle connections");
    others_are_served(&daemon).await;
    // Beyond the bound: 421, and counted.
    let mut more = Vec::new();
    let refused = loop {
        let mut client = from(source(5000 + more.len() as u32), address).await;
        let reply = client.reply().await;
        if reply.code() != "220" {
            break reply;
        }
        more.push(client);
        assert!(more.len() < 100, "there was no end");
    };
    assert_eq!(refused.code(), "421");
    assert!(counted(&daemon, "pillarbox_ingest_connections_refused_total", "").await >= 1);
    // All are still there.
    for client in idle.iter_mut().step_by(997) {
        client.command("NOOP", "250").await;
    }
    drop((idle, more));
    daemon.mail("alice@example.test", 2).await;
    others_are_served(&daemon).await;
}

#[tokio::test]
async fn one_client_has_its_share_and_no_more() {
    let daemon = started(builder().set("limits.connections_per_client", 5)).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut client = from(source(0), daemon.address("smtp")).await;
        client.expect("220").await;
        open.push(client);
    }
    from(source(0), daemon.address("smtp")).await.expect("421").await;
    from(source(1), daemon.address("smtp")).await.expect("220").await;
    open.pop().unwrap().command("QUIT", "221").await;
    // The place comes back once the daemon has seen the end.
    loop {
        let mut again = from(source(0), daemon.address("smtp")).await;
        if again.reply().await.code() == "220" {
            break;
        }
    }
}

#[tokio::test]
async fn without_descriptors_open_sessions_go_on_and_new_ones_wait() {
    let daemon = started(builder().set("limits.connections_per_client", 1000)).await;
    let address = daemon.address("smtp");
    let mut working = from(source(0), address).await;
    working.expect("220").await;
    working.command("EHLO client.test", "250").await;
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() as u64;
    let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(open + 10), maximum: getrlimit(Resource::Nofile).maximum }).unwrap();
    let mut crowd = Vec::new();
    let mut greeted = 0;
    for n in 0..40 {
        // The kernel takes them all; the daemon takes those for which it has a descriptor.
        let mut client = try_from(source(1 + n), address).await.unwrap();
        if client.silent_for(std::time::Duration::from_millis(200)).await {
            crowd.push(client);
            break;
        }
        client.expect("220").await;
        greeted += 1;
        crowd.push(client);
    }
    assert!((1..40).contains(&greeted), "{greeted}");
    working.command("NOOP", "250").await;
    working.command("MAIL FROM:<sender@client.test>", "250").await;
    let mut waiting = crowd.pop().unwrap();
    drop(crowd);
    // As soon as there is room, whoever waited is served.
    waiting.expect("220").await;
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert!(counted(&daemon, "pillarbox_ingest_accept_errors_total", "").await >= 1);
    working.command("RCPT TO:<alice@example.test>", "250").await;
    others_are_served(&daemon).await;
}
