//! Clocks that jump, both ways: the daemon's time of day is moved while it runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;

const DAY: i64 = 86_400;

/// The clock of daemons that are started with it, moved from here.
pub(crate) struct Clock {
    folder: tempfile::TempDir,
    shift: File,
}

impl Clock {
    /// `None`, with a word, where there is no C compiler.
    pub(crate) fn new() -> Option<Self> {
        if !crate::peers::have("cc") {
            return None;
        }
        let folder = pillarbox_testkit::folder();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/faults/clock.c");
        let library = folder.path().join("clock.so");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source).arg("-ldl").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::write(folder.path().join("shift"), 0i64.to_ne_bytes()).unwrap();
        let shift = File::options().write(true).open(folder.path().join("shift")).unwrap();
        Some(Self { folder, shift })
    }

    /// A daemon that goes by it.
    pub(crate) fn ruling(&self, builder: DaemonBuilder) -> DaemonBuilder {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        builder.env("LD_PRELOAD", &at("clock.so")).env("FAULT_CLOCK", &at("shift"))
    }

    /// Sets it so many seconds before or after the right time.
    pub(crate) fn set(&self, seconds: i64) {
        self.shift.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

async fn town(settings: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Option<(Town, Clock)> {
    let clock = Clock::new()?;
    let town = Town::with(|builder| settings(clock.ruling(builder))).await;
    Some((town, clock))
}

/// The ids that were given out, in order.
fn ids(town: &Town) -> Vec<String> {
    let accepted = town.daemon.events().into_iter().filter(|event| event.name == "accept");
    accepted.map(|event| event.text("id")).collect()
}

#[tokio::test]
async fn a_clock_set_back_delays_nothing_and_gives_no_id_twice() {
    let Some((mut town, clock)) = town(|builder| builder.set("queue.park_after", "1s")).await else { return };
    town.sink.on(pillarbox_testkit::Stage::Mail, "*", "451 4.3.0 Not now");
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.is_parked(1).await;
    clock.set(-400 * DAY);
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    // More than a year before, it would be tried again in more than a year.
    town.sink.behave();
    town.daemon.event("deliver", |event| event.text("to") == CAROL).await;
    town.all_there().await;
    town.restart().await;
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.all_there().await;
    let ids = ids(&town);
    let sorted: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert!(sorted.len() == 3 && ids.is_sorted(), "ids are given once, in order: {ids:?}");
}

#[tokio::test]
async fn a_clock_set_forward_tries_what_is_old_once_more_before_it_gives_up() {
    let Some((mut town, clock)) = town(|builder| builder.set("queue.park_after", "1s").set("queue.retry", vec!["1h"])).await else {
        return;
    };
    town.sink.on(pillarbox_testkit::Stage::Mail, "*", "451 4.3.0 Not now");
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.is_parked(1).await;
    town.sink.behave();
    // Past the life of any message in the queue: the other side takes mail by now, so nothing is returned.
    clock.set(30 * DAY);
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.daemon
        .events_until("both are relayed", |events| {
            (events.iter().filter(|event| event.name == "deliver" && event.text("to") == CAROL).count() == 2).then_some(())
        })
        .await;
    town.all_there().await;
    assert!(town.daemon.events().iter().all(|event| event.name != "expire" && event.name != "bounce"));
    // And back: what the clock said meanwhile holds up nothing.
    clock.set(0);
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.all_there().await;
}
