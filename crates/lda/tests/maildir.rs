//! Deliveries into Maildirs, as the queue makes them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};

use common::{House, envelope, user};
use pillarbox_queue::{Outcome, Route, Transport};

const BODY: &str = "Received: by mail.example.org\r\nSubject: hi\r\n\r\n.\r\n..two\r\nend\r\n";
const STORED: &str =
    "Return-Path: <ann@example.net>\nDelivered-To: bob@example.org\nReceived: by mail.example.org\nSubject: hi\n\n.\n..two\nend\n";

fn reply_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Deferred { reply } | Outcome::Failed { reply } => reply.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_is_stored_as_documented() {
    let house = House::new().await;
    assert_eq!(house.deliver_one(envelope(7, "ann@example.net", &["bob@example.org"]), BODY).await, Outcome::Delivered);
    house.transport.sync().await.unwrap();
    let (name, content) = house.only("bob@example.org", "new");
    assert_eq!(String::from_utf8(content.clone()).unwrap(), STORED);
    let lines = content.iter().filter(|&&b| b == b'\n').count();
    assert!(name.ends_with(&format!(".mail.example.org,S={},W={}", content.len(), content.len() + lines)), "{name}");
    assert!(house.names("bob@example.org", "tmp").is_empty());
    let mode = |path: std::path::PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(house.maildir("bob@example.org").join("new").join(name)), 0o600);
    for sub in ["", "tmp", "new", "cur", ".."] {
        assert_eq!(mode(house.maildir("bob@example.org").join(sub)), 0o700, "{sub}");
    }
}

#[tokio::test]
async fn every_recipient_has_a_copy_and_no_mailbox_has_two() {
    let house = House::new().await;
    let to = ["bob@example.org", "eve@example.org", "Bob@EXAMPLE.org"];
    let outcomes = house.deliver(envelope(7, "", &to), BODY).await;
    assert_eq!(outcomes.each, vec![Outcome::Delivered; 3]);
    let (_, content) = house.only("eve@example.org", "new");
    assert!(content.starts_with(b"Return-Path: <>\nDelivered-To: eve@example.org\n"));
    house.only("bob@example.org", "new");
}

#[tokio::test]
async fn many_messages_to_one_user_are_many_files() {
    let house = House::new().await;
    for id in 0..100 {
        house.deliver(envelope(id, "ann@example.net", &["bob@example.org"]), BODY).await;
    }
    assert_eq!(house.names("bob@example.org", "new").len(), 100);
}

#[tokio::test]
async fn large_bodies_are_stored_like_small_ones() {
    let house = House::new().await;
    let body = "0123456789\r\n".repeat(300_000);
    house.deliver(envelope(7, "", &["bob@example.org", "eve@example.org"]), body.clone()).await;
    let (name, content) = house.only("bob@example.org", "new");
    assert!(content.ends_with(body.replace("\r\n", "\n").as_bytes()) && name.contains(&format!(",S={},", content.len())));
    assert_eq!(house.only("eve@example.org", "new").1.len(), content.len());
}

#[tokio::test]
async fn junk_goes_to_its_folder_which_is_made_and_subscribed() {
    let house = House::new().await;
    for id in 1..=2 {
        let mut junk = envelope(id, "", &["bob@example.org"]);
        junk.junk = true;
        assert_eq!(house.deliver_one(junk, BODY).await, Outcome::Delivered);
    }
    assert_eq!(house.names("bob@example.org", ".Junk/new").len(), 2);
    assert!(house.names("bob@example.org", "new").is_empty());
    assert_eq!(std::fs::read_to_string(house.maildir("bob@example.org").join("subscriptions")).unwrap(), "V\t2\n\nJunk\n");
    assert!(house.maildir("bob@example.org").join(".Junk/maildirfolder").exists());
}

#[tokio::test]
async fn subscriptions_of_either_format_are_kept() {
    for (before, after) in
        [("V\t2\n\nLists\trust\n", "V\t2\n\nLists\trust\nJunk\n"), ("Lists.rust", "Lists.rust\nJunk\n"), ("Junk\n", "Junk\n")]
    {
        let house = House::new().await;
        std::fs::create_dir_all(house.maildir("bob@example.org")).unwrap();
        let list = house.maildir("bob@example.org").join("subscriptions");
        std::fs::write(&list, before).unwrap();
        let mut junk = envelope(7, "", &["bob@example.org"]);
        junk.junk = true;
        house.deliver(junk, BODY).await;
        assert_eq!(std::fs::read_to_string(&list).unwrap(), after);
    }
}

#[tokio::test]
async fn a_folder_in_the_address_is_used_only_when_it_exists() {
    let house = House::new().await;
    let wish = |id, folder: &str| {
        let mut wish = envelope(id, "", &["bob@example.org"]);
        wish.recipients[0].route = Route::Mailbox { folder: Some(folder.into()) };
        wish
    };
    house.deliver(wish(1, "Lists"), BODY).await;
    assert_eq!(house.names("bob@example.org", "new").len(), 1);
    for sub in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(house.maildir("bob@example.org").join(".Lists").join(sub)).unwrap();
    }
    house.deliver(wish(2, "Lists"), BODY).await;
    assert_eq!(house.names("bob@example.org", ".Lists/new").len(), 1);
    for (id, folder) in [(3, "../../eve/Maildir"), (4, "a/../../b"), (5, "\0"), (6, "")] {
        house.deliver(wish(id, folder), BODY).await;
    }
    assert_eq!(house.names("bob@example.org", "new").len(), 5);
}

#[tokio::test]
async fn users_who_may_not_have_mail_get_none() {
    let house = House::new().await;
    let mut bob = user("bob@example.org");
    bob.suspended = true;
    house.put(bob.clone()).await;
    let outcome = house.deliver_one(envelope(1, "", &["bob@example.org"]), BODY).await;
    assert!(matches!(outcome, Outcome::Failed { .. }) && reply_of(&outcome).starts_with("550 5.2.1 "), "{outcome:?}");
    let outcome = house.deliver_one(envelope(2, "", &["nobody@example.org"]), BODY).await;
    assert!(reply_of(&outcome).starts_with("550 5.1.1 "), "{outcome:?}");

    let house = House::with(|config| config.mailbox.suspended = "hold".into()).await;
    house.put(bob).await;
    let outcome = house.deliver_one(envelope(1, "", &["bob@example.org"]), BODY).await;
    assert!(matches!(outcome, Outcome::Deferred { .. }) && reply_of(&outcome).starts_with("450 4.2.1 "), "{outcome:?}");
    assert!(!house.maildir("bob@example.org").exists());
}

#[tokio::test]
async fn a_planted_link_is_refused_wherever_it_stands() {
    for at in ["../..", "..", "", "tmp", "new", "cur", ".Lists", ".Lists/new"] {
        let house = House::new().await;
        let elsewhere = house.folder.path().join("elsewhere");
        for sub in ["tmp", "new", "cur"] {
            std::fs::create_dir_all(elsewhere.join(sub)).unwrap();
            std::fs::create_dir_all(elsewhere.join("bob/Maildir").join(sub)).unwrap();
            std::fs::create_dir_all(elsewhere.join("Maildir").join(sub)).unwrap();
            std::fs::create_dir_all(house.maildir("bob@example.org").join(".Lists").join(sub)).unwrap();
            std::fs::create_dir_all(house.maildir("bob@example.org").join(sub)).unwrap();
        }
        let path = match at {
            "../.." => house.folder.path().join("mail/example.org"),
            ".." => house.folder.path().join("mail/example.org/bob"),
            "" => house.maildir("bob@example.org"),
            at => house.maildir("bob@example.org").join(at),
        };
        std::fs::remove_dir_all(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        let mut wish = envelope(7, "", &["bob@example.org"]);
        wish.recipients[0].route = Route::Mailbox { folder: Some("Lists".into()) };
        let outcome = house.deliver_one(wish, BODY).await;
        let reply = reply_of(&outcome);
        assert!(
            matches!(outcome, Outcome::Deferred { .. }) && reply.starts_with("451 4.3.5 ") && !reply.contains('/'),
            "{at}: {outcome:?}"
        );
        for sub in ["new", "tmp", "cur", "bob/Maildir/new", "Maildir/new"] {
            assert_eq!(std::fs::read_dir(elsewhere.join(sub)).unwrap().count(), 0, "{at}: {sub}");
        }
    }
}

#[tokio::test]
async fn a_link_planted_while_the_folder_is_open_here_is_not_followed() {
    let house = House::new().await;
    house.deliver(envelope(1, "", &["bob@example.org"]), BODY).await;
    let elsewhere = house.folder.path().join("elsewhere");
    for sub in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(elsewhere.join(sub)).unwrap();
    }
    std::fs::rename(house.maildir("bob@example.org"), house.folder.path().join("old")).unwrap();
    symlink(&elsewhere, house.maildir("bob@example.org")).unwrap();
    let outcome = house.deliver_one(envelope(2, "", &["bob@example.org"]), BODY).await;
    assert!(reply_of(&outcome).starts_with("451 4.3.5 "), "{outcome:?}");
    assert_eq!(std::fs::read_dir(elsewhere.join("new")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_mailbox_moved_away_or_deleted_is_made_anew() {
    let house = House::new().await;
    house.deliver(envelope(1, "", &["bob@example.org"]), BODY).await;
    std::fs::rename(house.maildir("bob@example.org"), house.folder.path().join("old")).unwrap();
    assert_eq!(house.deliver_one(envelope(2, "", &["bob@example.org"]), BODY).await, Outcome::Delivered);
    std::fs::remove_dir_all(house.maildir("bob@example.org").join("new")).unwrap();
    assert_eq!(house.deliver_one(envelope(3, "", &["bob@example.org"]), BODY).await, Outcome::Delivered);
    std::fs::remove_dir_all(house.maildir("bob@example.org")).unwrap();
    assert_eq!(house.deliver_one(envelope(4, "", &["bob@example.org"]), BODY).await, Outcome::Delivered);
    assert_eq!(house.names("bob@example.org", "new").len(), 1);
}
