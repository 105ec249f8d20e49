//! Limits that the system sets: open files, and the size of a file.

use pillarbox_testkit::client::ReplyLines;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::*;

fn limit(daemon: &Daemon, what: Resource, to: u64) -> Rlimit {
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    let former = rustix::process::getrlimit(what);
    prlimit(pid, what, Rlimit { current: Some(to), maximum: former.maximum }).unwrap()
}

/// The lowest descriptor that is not taken: with that as the limit there is none left.
fn next_descriptor(daemon: &Daemon) -> u64 {
    let taken = |n: &u64| std::fs::symlink_metadata(format!("/proc/{}/fd/{n}", daemon.pid())).is_ok();
    (0..).find(|n| !taken(n)).unwrap()
}

#[tokio::test]
async fn without_descriptors_open_sessions_go_on_and_new_ones_wait() {
    let mut town = Town::start().await;
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.settled().await;
    let (mut first, mut second) = (town.session().await, town.session().await);
    let former = limit(&town.daemon, Resource::Nofile, next_descriptor(&town.daemon));
    // The kernel completes this one's handshake; the daemon cannot take it.
    let address = town.daemon.address("smtp");
    let waiting = tokio::spawn(async move {
        let mut client = Client::connect(address).await;
        client.expect("220").await
    });
    town.daemon.log_line("connections cannot be accepted at the moment").await;
    let small = town.send_over(&mut first, &[BOB, CAROL], 3000).await;
    let large = town.send_over(&mut second, &[BOB, CAROL], 500_000).await;
    // A small message needs no file but the journal, which is open; a large one has nowhere to go.
    assert_eq!((small.as_str(), large.as_str()), ("250", "451"));
    town.daemon.event("defer", |event| event.text("to") == BOB).await;
    assert!(!waiting.is_finished());
    let pid = i32::try_from(town.daemon.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, former).unwrap();
    let greeting: ReplyLines = waiting.await.unwrap();
    assert_eq!(greeting.code(), "220");
    assert_eq!(town.send(&[BOB, CAROL], 500_000).await, "250");
    town.all_there().await;
    let told = town.daemon.log().iter().filter(|line| line.contains("connections cannot be accepted")).count();
    assert_eq!(told, 1, "one line, and not ten a second");
}

#[tokio::test]
async fn a_file_that_may_not_grow_is_a_full_disk_and_not_the_end() {
    let mut town = Town::start().await;
    assert_eq!(town.send(&[BOB], 3000).await, "250");
    // The write that crosses the limit is a short one; the one behind it fails, with a signal that ends most programs.
    let former = limit(&town.daemon, Resource::Fsize, 1_100_000);
    assert_eq!(town.send(&[BOB], 3_000_000).await, "452");
    assert_eq!(town.send(&[BOB, CAROL], 500_000).await, "250");
    let pid = i32::try_from(town.daemon.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, former).unwrap();
    assert_eq!(town.send(&[BOB, CAROL], 3_000_000).await, "250");
    town.all_there().await;
    assert_eq!(town.problems().await, "");
}
