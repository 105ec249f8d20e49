//! Files that are damaged, cut short or gone: journal, parked mail, mailboxes.

use std::os::unix::fs::FileExt;
use std::path::Path;

use pillarbox_testkit::Stage;

use super::*;

/// A town whose mail for the world waits: in the journal or, with a short `park_after`, as files.
async fn waiting(park_after: &str, messages: usize) -> Town {
    let mut town = Town::with(|builder| builder.set("queue.park_after", park_after).set("queue.retry", vec!["1h"])).await;
    town.sink.on(Stage::Mail, "*", "451 4.3.0 Not now");
    for _ in 0..messages {
        assert_eq!(town.send(&[CAROL], 3000).await, "250");
    }
    let put_off = |events: &[pillarbox_testkit::daemon::Event]| events.iter().filter(|e| e.name == "defer").count() >= messages;
    town.daemon.events_until("all were tried", |events| put_off(events).then_some(())).await;
    town
}

/// Where this text stands in a file.
fn place(files: &[PathBuf], text: &str) -> (PathBuf, u64) {
    for file in files {
        let octets = std::fs::read(file).unwrap();
        if let Some(at) = octets.windows(text.len()).position(|window| window == text.as_bytes()) {
            return (file.clone(), at as u64);
        }
    }
    panic!("{text} is nowhere");
}

fn overwrite(file: &Path, at: u64, octets: &[u8]) {
    std::fs::File::options().write(true).open(file).unwrap().write_all_at(octets, at).unwrap();
}

/// The world takes mail again, and everything that can be sent is sent now.
async fn sent_on(town: &Town, messages: usize) {
    town.sink.behave();
    town.daemon.admin(&["queue", "retry", "--all"]).await;
    let relayed = |events: &[pillarbox_testkit::daemon::Event]| events.iter().filter(|e| e.text("status") == "relayed").count() >= messages;
    town.daemon.events_until("all were relayed", |events| relayed(events).then_some(())).await;
}

#[tokio::test]
async fn a_damaged_record_in_the_middle_of_the_journal_is_set_aside_and_said_and_costs_no_other() {
    let mut town = waiting("1h", 5).await;
    town.daemon.kill().await;
    // Wherever it stands: a record may have been carried over into a later segment, and then both copies are damaged.
    for segment in town.segments() {
        let octets = std::fs::read(&segment).unwrap();
        for at in memchr::memmem::find_iter(&octets, b"m2 line 30") {
            overwrite(&segment, at as u64, b"XX");
        }
    }
    town.daemon.restart().await;
    let problems = town.problems().await;
    assert!(problems.contains("damaged in the queue") && problems.contains("journal-"), "{problems}");
    assert!(town.check_fails().await.contains("damaged in the queue"));
    // For people: all that is left of it.
    let (_, at) = place(&files(&town.daemon.home().join("state/queue/damaged")), "m2 line 31");
    assert!(at > 0);
    sent_on(&town, 4).await;
    town.sent[2].acknowledged = false;
    town.all_there().await;
}

#[tokio::test]
async fn a_torn_tail_of_the_journal_is_cut_off_and_nothing_is_said_to_be_damaged() {
    let mut town = waiting("1h", 3).await;
    town.daemon.kill().await;
    let last = town.sent[2].content.lines().last().unwrap().to_owned();
    let (file, at) = place(&town.segments(), &last);
    // What a write that a power cut ended may leave: pieces of something behind the last record, notes included.
    let torn: Vec<u8> = (0..5000u32).map(|n| (n * 7 % 251) as u8).collect();
    overwrite(&file, at + 4096, &torn);
    town.daemon.restart().await;
    assert_eq!(town.problems().await, "");
    sent_on(&town, 3).await;
    town.all_there().await;
}

#[tokio::test]
async fn a_parked_message_that_was_cut_short_is_never_sent_so_and_goes_once_it_is_whole() {
    let mut town = waiting("1s", 2).await;
    town.is_parked(2).await;
    for kind in ["kill", "stop"] {
        if kind == "kill" {
            town.daemon.kill().await
        } else {
            let _ = town.daemon.stop().await;
        }
        let file = town.parked("msg").into_iter().find(|f| std::fs::read_to_string(f).unwrap().contains("m0 line")).unwrap();
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        town.daemon.restart().await;
        town.daemon.admin(&["queue", "retry", "--all"]).await;
        let problems = town.complains("damaged in the queue").await;
        assert!(problems.contains(&format!("octets instead of {}", whole.len())), "{problems}");
        assert!(town.check_fails().await.contains("damaged in the queue"));
        // As the documentation says: put the file back as it was, and start again.
        town.daemon.stop().await;
        std::fs::write(&file, &whole).unwrap();
        town.daemon.restart().await;
    }
    sent_on(&town, 2).await;
    town.all_there().await;
    assert_eq!(town.problems().await, "");
}

#[tokio::test]
async fn a_parked_envelope_that_was_cut_short_is_set_aside_and_can_be_put_back() {
    let mut town = waiting("1s", 2).await;
    let envelope = town.is_parked(2).await.remove(0);
    town.daemon.stop().await;
    let whole = std::fs::read(&envelope).unwrap();
    std::fs::write(&envelope, &whole[..whole.len() / 2]).unwrap();
    town.daemon.restart().await;
    assert!(town.problems().await.contains("damaged in the queue"));
    assert!(town.check_fails().await.contains("kept in"));
    let aside = |ending: &str| {
        let name = envelope.with_extension(ending);
        (town.daemon.home().join("state/queue/damaged").join(name.file_name().unwrap()), name)
    };
    let (kept, (message, back)) = (aside("json").0, aside("msg"));
    assert!(kept.exists() && message.exists() && !back.exists());
    town.daemon.stop().await;
    std::fs::rename(message, back).unwrap();
    std::fs::write(&envelope, &whole).unwrap();
    std::fs::remove_file(kept).unwrap();
    town.daemon.restart().await;
    assert_eq!(town.problems().await, "");
    sent_on(&town, 2).await;
    town.all_there().await;
}

#[tokio::test]
async fn mailboxes_and_the_mail_folder_that_are_gone_are_made_anew() {
    let mut town = Town::start().await;
    assert_eq!(town.send(&[ALICE, BOB], 3000).await, "250");
    town.all_there().await;
    for gone in [town.daemon.maildir(BOB), town.daemon.maildir(BOB).join("tmp"), town.daemon.maildir(BOB).parent().unwrap().to_owned()] {
        std::fs::remove_dir_all(&gone).unwrap();
        town.sent.clear();
        assert_eq!(town.send(&[BOB], 3000).await, "250");
        town.daemon.mail(BOB, 1).await;
        town.settled().await;
    }
    // The whole folder, as when it was unmounted: mail waits, and `status` says why and what to do.
    std::fs::remove_dir_all(town.daemon.home().join("mail")).unwrap();
    town.sent.clear();
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    let put_off = town.daemon.event("defer", |event| event.text("to") == BOB).await;
    assert!(put_off.text("reply").starts_with("451 4.3.0"), "{}", put_off.text("reply"));
    assert!(town.problems().await.contains("the mail folder"), "{}", town.problems().await);
    town.restart().await;
    town.all_there().await;
    assert_eq!(town.problems().await, "");
}
