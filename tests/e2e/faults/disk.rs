//! Disks without room, and disks that turn read-only.

use pillarbox_testkit::disk;

use super::*;

#[tokio::test]
async fn below_the_room_to_be_kept_mail_is_452_until_there_is_room() {
    if !disk::may_mount() {
        return;
    }
    let mut town = Town::with(|builder| builder.small_disk("state", 48 << 10).set("limits.free_space", "4M")).await;
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.daemon.disk("state").fill(2 << 10);
    town.send_until(&[BOB, CAROL], 3000, "452").await;
    assert!(town.problems().await.contains("octets free"), "{}", town.problems().await);
    assert!(town.check_fails().await.contains("make room: mail is refused with 452"));
    town.daemon.disk("state").clear();
    town.send_until(&[BOB, CAROL], 3000, "250").await;
    assert_eq!(town.problems().await, "");
    town.all_there().await;
}

#[tokio::test]
async fn on_a_full_disk_what_is_refused_is_refused_whole_and_what_was_accepted_is_finished() {
    if !disk::may_mount() {
        return;
    }
    let mut town =
        Town::with(|builder| builder.small_disk("state", 48 << 10).set("queue.park_after", "1s").set("limits.free_space", 0)).await;
    // Its beginning is written; then the room ends in the middle of a write.
    let mut client = town.session().await;
    let (mark, content) = town.letter(6_000_000);
    for command in [format!("MAIL FROM:<{ALICE}>"), format!("RCPT TO:<{BOB}>")] {
        client.command(&command, "250").await;
    }
    client.command("DATA", "354").await;
    let (first, rest) = content.split_at(1_000_000);
    client.send(first.as_bytes()).await;
    town.daemon.disk("state").fill(100);
    client.send(format!("{rest}.\r\n").as_bytes()).await;
    let code = client.reply().await.code().to_owned();
    assert_eq!(code, "452");
    town.note(mark, &[BOB], content, &code);
    // Small ones find room in the journal as long as that has some, and then are refused.
    town.daemon.disk("state").fill(0);
    town.sink.on(pillarbox_testkit::Stage::Mail, "*", "451 4.3.0 Not now");
    let mut accepted = 0;
    while town.send(&[BOB, CAROL], 100_000).await == "250" {
        accepted += 1;
        assert!(accepted < 100, "more was taken than fits");
    }
    assert!(accepted > 0);
    assert_eq!(town.sent.iter().filter(|sent| !sent.acknowledged).count(), 2);
    // What was accepted and cannot be parked stays where it is, and a kill now changes nothing.
    town.daemon.kill().await;
    town.daemon.disk("state").fill(0);
    let (status, lines) = town.daemon.fails_to_start().await;
    assert!(!status.success());
    assert!(lines.last().is_some_and(|line| line.contains("No space left on device")), "{lines:?}");
    town.daemon.disk("state").clear();
    town.daemon.restart().await;
    town.sink.behave();
    town.send_until(&[BOB, CAROL], 3000, "250").await;
    town.all_there().await;
}

#[tokio::test]
async fn a_full_mail_folder_puts_mail_off() {
    if !disk::may_mount() {
        return;
    }
    let mut town = Town::with(|builder| builder.small_disk("mail", 4 << 10)).await;
    assert_eq!(town.send(&[BOB], 3000).await, "250");
    town.settled().await;
    town.daemon.disk("mail").fill(64);
    assert_eq!(town.send(&[BOB, CAROL], 200_000).await, "250");
    let put_off = town.daemon.event("defer", |event| event.text("to") == BOB).await;
    assert!(put_off.text("reply").starts_with("452 4.3.1"), "{}", put_off.text("reply"));
    assert!(town.daemon.mailbox(BOB).unfinished.is_empty());
    town.daemon.disk("mail").clear();
    town.all_there().await;
}

#[tokio::test]
async fn a_state_folder_that_turns_read_only_refuses_mail_and_a_repaired_one_has_all_of_it() {
    if !disk::may_mount_ext4() {
        return;
    }
    let mut town = Town::with(|builder| builder.ext4("state", 64).set("queue.park_after", "1s")).await;
    assert_eq!(town.send(&[BOB], 3000).await, "250");
    town.settled().await;
    town.sink.on(pillarbox_testkit::Stage::Mail, "*", "451 4.3.0 Not now");
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.is_parked(1).await;
    assert_eq!(town.send(&[BOB, CAROL], 500_000).await, "250");
    town.daemon.disk("state").breaks();
    assert_eq!(town.send(&[BOB], 3000).await, "451");
    assert_eq!(town.send(&[BOB], 500_000).await, "451");
    assert!(town.problems().await.contains("the journal takes no mail"), "{}", town.problems().await);
    let stranger = town.daemon.try_admin(&["user", "add", "eve@example.test", "--password-stdin"], "secret words\n").await;
    assert!(!stranger.status.success(), "a change that cannot be kept is not acknowledged");
    town.daemon.kill().await;
    let (status, lines) = town.daemon.fails_to_start().await;
    assert!(!status.success());
    assert!(lines.last().is_some_and(|line| line.contains("Read-only file system")), "{lines:?}");
    town.daemon.disk("state").repair();
    town.daemon.restart().await;
    town.sink.behave();
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.all_there().await;
}

#[tokio::test]
async fn a_mail_folder_that_turns_read_only_puts_mail_off() {
    if !disk::may_mount_ext4() {
        return;
    }
    let mut town = Town::with(|builder| builder.ext4("mail", 16)).await;
    assert_eq!(town.send(&[BOB], 3000).await, "250");
    town.settled().await;
    town.daemon.disk("mail").breaks();
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    let put_off = town.daemon.event("defer", |event| event.text("to") == BOB).await;
    assert!(put_off.text("reply").starts_with("451 4.3.0"), "{}", put_off.text("reply"));
    town.daemon.stop().await;
    town.daemon.disk("mail").repair();
    town.daemon.restart().await;
    town.all_there().await;
}
