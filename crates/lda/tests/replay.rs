//! What a replay finds after a crash at each point of a delivery: nobody gets a message twice, nobody half of one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{House, envelope};
use pillarbox_queue::{Envelope, Outcome, Route};

const BODY: &str = "Received: by mail.example.org\r\nSubject: hi\r\n\r\none\r\ntwo\r\n";
const BOB: &str = "bob@example.org";

fn mail() -> Envelope {
    envelope(7, "ann@example.net", &[BOB])
}

/// Delivered once already; its name and content.
async fn delivered() -> (House, String, Vec<u8>) {
    let house = House::new().await;
    house.deliver(mail(), BODY).await;
    let (name, content) = house.only(BOB, "new");
    (house, name, content)
}

async fn replayed(house: &House) {
    assert_eq!(house.replay(mail(), BODY).await.each, [Outcome::Delivered]);
}

#[tokio::test]
async fn before_anything_was_written() {
    let house = House::new().await;
    replayed(&house).await;
    house.only(BOB, "new");
}

#[tokio::test]
async fn with_a_piece_in_tmp() {
    let (house, name, content) = delivered().await;
    let stem = name.split(',').next().unwrap().to_owned();
    let maildir = house.maildir(BOB);
    std::fs::remove_file(maildir.join("new").join(&name)).unwrap();
    std::fs::write(maildir.join("tmp").join(stem), &content[..10]).unwrap();
    replayed(&house).await;
    assert_eq!(house.only(BOB, "new"), (name, content));
    assert!(house.names(BOB, "tmp").is_empty());
}

#[tokio::test]
async fn whole_in_new() {
    let (house, name, content) = delivered().await;
    let inode = |house: &House| std::os::unix::fs::MetadataExt::ino(&house.maildir(BOB).join("new").join(&name).metadata().unwrap());
    let before = inode(&house);
    replayed(&house).await;
    assert_eq!(inode(&house), before);
    assert_eq!(house.only(BOB, "new"), (name.clone(), content));
}

#[tokio::test]
async fn torn_in_new() {
    for torn in [0, 1, 30] {
        let (house, name, content) = delivered().await;
        std::fs::write(house.maildir(BOB).join("new").join(&name), &content[..torn]).unwrap();
        replayed(&house).await;
        assert_eq!(house.only(BOB, "new"), (name, content));
    }
}

#[tokio::test]
async fn zeroed_in_new_with_the_right_length() {
    let (house, name, content) = delivered().await;
    std::fs::write(house.maildir(BOB).join("new").join(&name), vec![0; content.len()]).unwrap();
    replayed(&house).await;
    assert_eq!(house.only(BOB, "new"), (name, content));
}

#[tokio::test]
async fn longer_than_it_should_be() {
    let (house, name, mut content) = delivered().await;
    content.push(b'x');
    std::fs::write(house.maildir(BOB).join("new").join(&name), &content).unwrap();
    replayed(&house).await;
    content.pop();
    assert_eq!(house.only(BOB, "new"), (name, content));
}

#[tokio::test]
async fn moved_to_cur_with_flags() {
    for flags in ["", "S", "FRS", "Sab"] {
        let (house, name, content) = delivered().await;
        let flagged = format!("{name}:2,{flags}");
        let maildir = house.maildir(BOB);
        std::fs::rename(maildir.join("new").join(&name), maildir.join("cur").join(&flagged)).unwrap();
        replayed(&house).await;
        assert!(house.names(BOB, "new").is_empty());
        assert_eq!(house.only(BOB, "cur"), (flagged, content));
    }
}

#[tokio::test]
async fn torn_in_cur_keeps_its_flags() {
    let (house, name, content) = delivered().await;
    let flagged = format!("{name}:2,FS");
    let maildir = house.maildir(BOB);
    std::fs::remove_file(maildir.join("new").join(&name)).unwrap();
    std::fs::write(maildir.join("cur").join(&flagged), &content[..7]).unwrap();
    replayed(&house).await;
    assert!(house.names(BOB, "new").is_empty());
    assert_eq!(house.only(BOB, "cur"), (flagged, content));
}

#[tokio::test]
async fn under_the_name_of_another_host_or_size() {
    let (house, name, content) = delivered().await;
    let other = name.replace(".mail.example.org,", ".old-name,").replace(",S=", ",S=1");
    let maildir = house.maildir(BOB);
    std::fs::rename(maildir.join("new").join(&name), maildir.join("new").join(&other)).unwrap();
    replayed(&house).await;
    assert_eq!(house.only(BOB, "new"), (other.clone(), content.clone()));
    std::fs::write(maildir.join("new").join(&other), "").unwrap();
    replayed(&house).await;
    assert_eq!(house.only(BOB, "new"), (name, content));
}

#[tokio::test]
async fn a_link_under_its_name_is_replaced_and_not_written_through() {
    let (house, name, content) = delivered().await;
    let target = house.folder.path().join("target");
    std::fs::write(&target, "keep").unwrap();
    for sub in ["new", "tmp"] {
        let at = house.maildir(BOB).join(sub).join(if sub == "new" { name.clone() } else { name.split(',').next().unwrap().to_owned() });
        let _ = std::fs::remove_file(&at);
        std::os::unix::fs::symlink(&target, &at).unwrap();
    }
    replayed(&house).await;
    assert_eq!(house.only(BOB, "new"), (name, content));
    assert_eq!(std::fs::read(&target).unwrap(), b"keep");
    assert!(house.maildir(BOB).join("new").read_dir().unwrap().all(|e| e.unwrap().file_type().unwrap().is_file()));
}

#[tokio::test]
async fn in_the_inbox_though_its_folder_exists_by_now() {
    let house = House::new().await;
    let mut wish = mail();
    wish.recipients[0].route = Route::Mailbox { folder: Some("Lists".into()) };
    house.deliver(wish.clone(), BODY).await;
    for sub in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(house.maildir(BOB).join(".Lists").join(sub)).unwrap();
    }
    assert_eq!(house.replay(wish, BODY).await.each, [Outcome::Delivered]);
    house.only(BOB, "new");
    assert!(house.names(BOB, ".Lists/new").is_empty());
}

#[tokio::test]
async fn one_of_two_recipients_was_served() {
    let house = House::new().await;
    house.deliver(mail(), BODY).await;
    let both = envelope(7, "ann@example.net", &[BOB, "eve@example.org"]);
    assert_eq!(house.replay(both, BODY).await.each, vec![Outcome::Delivered; 2]);
    house.only(BOB, "new");
    house.only("eve@example.org", "new");
}

#[tokio::test]
async fn a_large_message_is_compared_and_mended_too() {
    let house = House::new().await;
    let body = "0123456789\r\n".repeat(200_000);
    house.deliver(mail(), body.clone()).await;
    let (name, content) = house.only(BOB, "new");
    let path = house.maildir(BOB).join("new").join(&name);
    for cut in [content.len(), content.len() - 1, 1_000_000] {
        std::fs::write(&path, &content[..cut]).unwrap();
        assert_eq!(house.replay(mail(), body.clone()).await.each, [Outcome::Delivered]);
        assert!(house.only(BOB, "new") == (name.clone(), content.clone()), "{cut}");
    }
}
