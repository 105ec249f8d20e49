//! Writes and flushes that fail: the journal, a large message's file, a mailbox, the mail folder.

use super::inject::{self, Fault};
use super::*;

/// The journal takes nothing more once a call on it has failed, and a restart reads what is really there.
async fn the_journal_fails(calls: &str, error: &str) {
    if !inject::possible() {
        return;
    }
    let mut town = Town::start().await;
    for _ in 0..3 {
        assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    }
    town.settled().await;
    let fault = Fault::inject(&town.daemon, calls, error, &town.segments()).await;
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "451");
    fault.end().await;
    // The call would succeed now. That would prove nothing about what the kernel has dropped, so nobody asks.
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "451");
    assert_eq!(town.send(&[BOB], 400_000).await, "451");
    let problems = town.problems().await;
    assert!(problems.contains("the journal takes no mail") && problems.contains("restart the daemon"), "{problems}");
    assert!(town.check_fails().await.contains("see to the disk, then restart the daemon"));
    let said = town.daemon.log().iter().filter(|line| line.contains("the journal cannot be written")).count();
    assert_eq!(said, 1, "one clear line");
    town.restart().await;
    assert_eq!(town.problems().await, "");
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    // What was refused is not delivered by the restart either.
    town.all_there().await;
}

#[tokio::test]
async fn a_failed_flush_of_the_journal_is_451_and_no_later_flush_makes_it_250() {
    the_journal_fails("fdatasync", "EIO").await;
}

#[tokio::test]
async fn a_failed_write_of_the_journal_is_451() {
    the_journal_fails("pwritev", "EIO").await;
}

#[tokio::test]
async fn a_large_message_whose_file_cannot_be_written_is_refused_alone() {
    if !inject::possible() {
        return;
    }
    let mut town = Town::start().await;
    let spool = town.daemon.home().join("state/queue/spool");
    // Its octets; the name of the file in its folder.
    for calls in ["pwritev", "fsync"] {
        let mut client = town.session().await;
        let (mark, content) = town.letter(3_000_000);
        for command in [format!("MAIL FROM:<{ALICE}>"), format!("RCPT TO:<{BOB}>")] {
            client.command(&command, "250").await;
        }
        let before = files(&spool);
        client.command("DATA", "354").await;
        let (first, rest) = content.split_at(1_500_000);
        client.send(first.as_bytes()).await;
        let file = spooled(&town, &before).await;
        let at = if calls == "fsync" { spool.clone() } else { file };
        let fault = Fault::inject(&town.daemon, calls, "EIO", &[at]).await;
        client.send(format!("{rest}.\r\n").as_bytes()).await;
        let code = client.reply().await.code().to_owned();
        assert_eq!(code, "451", "{calls}");
        fault.end().await;
        town.note(mark, &[BOB], content, &code);
        assert_eq!(town.send(&[BOB], 2_000_000).await, "250");
    }
    town.all_there().await;
    assert_eq!(town.problems().await, "");
    // A delivered message's file goes with the next flush of the mail folder; the refused ones' are gone.
    assert!(files(&spool).len() <= 2, "{:?}", files(&spool));
}

#[tokio::test]
async fn a_large_message_is_on_the_disk_before_it_is_acknowledged() {
    if !inject::possible() {
        return;
    }
    let mut town = Town::with(|builder| builder.set("queue.segment_size", "64M")).await;
    let mut client = town.session().await;
    let watched = Fault::none(&town.daemon, "fsync,renameat,sendto,sendmsg,writev,pwritev2").await;
    assert_eq!(town.send_over(&mut client, &[BOB], 600_000).await, "250");
    let calls = watched.detach().await;
    // Where strace splits a call in two, the first part has the path.
    let begun = |call: &str, path: &str| calls.iter().position(|line| line.contains(call) && line.contains(path));
    let (file, moved, folder) = (begun("fsync(", "/Maildir/tmp/"), begun("renameat(", "/Maildir/new>"), begun("fsync(", "/Maildir/new>"));
    let last_reply = calls.iter().rposition(|line| line.contains("<socket:") || line.contains("<TCP:"));
    assert!(file.is_some() && file < moved && moved < folder && folder < last_reply, "{calls:#?}");
    town.all_there().await;
}

#[tokio::test]
async fn a_large_message_that_its_mailbox_cannot_make_durable_goes_by_the_journal() {
    if !inject::possible() {
        return;
    }
    let mut town = Town::with(|builder| builder.set("queue.segment_size", "64M")).await;
    assert_eq!(town.send(&[BOB], 3000).await, "250");
    town.settled().await;
    // It stands in the mailbox by then, under the name that the second delivery gives it, too.
    let fault = Fault::inject(&town.daemon, "fsync", "EIO", &[town.daemon.maildir(BOB).join("new")]).await;
    assert_eq!(town.send(&[BOB], 600_000).await, "250");
    fault.end().await;
    town.all_there().await;
    assert_eq!(town.problems().await, "");
}

/// The file that a message under way is written to.
async fn spooled(town: &Town, before: &[PathBuf]) -> PathBuf {
    for _ in 0..600 {
        let newest = files(&town.daemon.home().join("state/queue/spool")).into_iter().rfind(|f| !before.contains(f));
        if let Some(file) = newest {
            return file;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no file was begun");
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_written_defers_its_mail() {
    if !inject::possible() {
        return;
    }
    let mut town = Town::start().await;
    assert_eq!(town.send(&[BOB], 3000).await, "250");
    town.settled().await;
    let folder = town.daemon.maildir(BOB).join("tmp");
    let fault = Fault::inject(&town.daemon, "openat,renameat,renameat2,linkat", "EIO", &[folder]).await;
    assert_eq!(town.send(&[BOB, ALICE, CAROL], 3000).await, "250");
    let put_off = town.daemon.event("defer", |event| event.text("to") == BOB).await;
    assert!(put_off.text("reply").starts_with("451 4.3.0"), "{}", put_off.text("reply"));
    town.daemon.event("deliver", |event| event.text("to") == ALICE).await;
    fault.end().await;
    town.all_there().await;
    assert_eq!(town.problems().await, "");
}

#[tokio::test]
async fn what_a_failed_flush_of_the_mail_folder_covered_is_delivered_again_after_a_restart() {
    if !inject::possible() {
        return;
    }
    let mut town = Town::start().await;
    let fault = Fault::inject(&town.daemon, "syncfs", "EIO", &[]).await;
    for _ in 0..5 {
        assert_eq!(town.send(&[BOB], 3000).await, "250");
    }
    let complaint = town.complains("stored mail").await;
    fault.end().await;
    assert!(complaint.contains("restart the daemon"), "{complaint}");
    assert!(town.check_fails().await.contains("stored mail"));
    // The disk says yes again, and is not believed.
    assert_eq!(town.send(&[BOB], 3000).await, "250");
    town.settled().await;
    town.daemon.log_line("cannot be made durable").await;
    assert!(town.problems().await.contains("stored mail"));
    // What the kernel dropped stands under the message's name as something else, or as nothing.
    let stored = town.daemon.mailbox(BOB).messages;
    std::fs::write(&stored[0].path, "").unwrap();
    std::fs::remove_file(&stored[1].path).unwrap();
    town.restart().await;
    town.all_there().await;
    assert_eq!(town.problems().await, "");
}
