//! Quotas at delivery and at RCPT, and the file that Dovecot shares.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{House, envelope, mailbox, user};
use pillarbox_directory::{Quota, UserRecord};
use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Destination, Outcome, Transport};

const BOB: &str = "bob@example.org";

fn body(octets: usize) -> String {
    format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(octets))
}

fn bob(quota: u64) -> UserRecord {
    UserRecord { quota: Some(Quota::Bytes(quota)), ..user(BOB) }
}

impl House {
    fn sizes(&self) -> String {
        std::fs::read_to_string(self.maildir(BOB).join("maildirsize")).unwrap()
    }

    fn stored(&self) -> u64 {
        self.names(BOB, "new").iter().map(|name| self.maildir(BOB).join("new").join(name).metadata().unwrap().len()).sum()
    }
}

#[tokio::test]
async fn deliveries_are_counted_as_dovecot_counts_them() {
    let house = House::new().await;
    house.put(bob(1_000_000)).await;
    for id in 1..=3 {
        assert_eq!(house.deliver_one(envelope(id, "", &[BOB]), body(100)).await, Outcome::Delivered);
    }
    let each = house.stored() / 3;
    assert_eq!(house.sizes(), format!("1000000S\n0 0\n{each} 1\n{each} 1\n{each} 1\n"));
    let used = house.transport.quota().used(&mailbox(BOB)).await.unwrap();
    assert_eq!((used.bytes, used.count), (each * 3, 3));
    let mail = house.folder.path().join("mail");
    assert_eq!(pillarbox_lda::quota::used_in(&mail, &mailbox(BOB)).unwrap(), used);
    assert_eq!(pillarbox_lda::quota::used_in(&mail.join("missing"), &mailbox(BOB)).unwrap().bytes, 0);
}

#[tokio::test]
async fn what_dovecot_appended_counts() {
    let house = House::new().await;
    house.put(bob(1_000_000)).await;
    house.deliver(envelope(1, "", &[BOB]), body(100)).await;
    let text = house.sizes();
    std::fs::write(house.maildir(BOB).join("maildirsize"), format!("{text}-{} -1\n", house.stored())).unwrap();
    assert_eq!(house.transport.quota().used(&mailbox(BOB)).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn a_full_mailbox_defers_or_rejects_as_configured() {
    for (policy, reply) in [("defer", "452 4.2.2 The mailbox is full"), ("reject", "552 5.2.2 The mailbox is full")] {
        let house = House::with(|config| config.mailbox.over_quota = policy.into()).await;
        house.put(bob(2_000)).await;
        assert_eq!(house.deliver_one(envelope(1, "", &[BOB]), body(1_000)).await, Outcome::Delivered);
        let outcome = house.deliver_one(envelope(2, "", &[BOB]), body(1_000)).await;
        match (policy, &outcome) {
            ("defer", Outcome::Deferred { reply: said }) | ("reject", Outcome::Failed { reply: said }) => {
                assert_eq!(said.to_string(), reply)
            }
            _ => panic!("{policy}: {outcome:?}"),
        }
        assert_eq!(house.names(BOB, "new").len(), 1);
        let quota = house.transport.quota();
        assert_eq!(quota.would_exceed(&bob(2_000).into(), 1_000).await.unwrap().to_string(), reply);
        assert_eq!(quota.would_exceed(&bob(2_000).into(), 100).await, None);
        assert_eq!(quota.would_exceed(&user(BOB).into(), 1_000_000).await, None);
        // A message that fits still does.
        assert_eq!(house.deliver_one(envelope(3, "", &[BOB]), body(100)).await, Outcome::Delivered);
    }
}

#[tokio::test]
async fn the_default_applies_unless_the_user_has_none() {
    let house = House::with(|config| config.mailbox.default_quota = "1K".into()).await;
    assert!(matches!(house.deliver_one(envelope(1, "", &[BOB]), body(2_000)).await, Outcome::Deferred { .. }));
    house.put(UserRecord { quota: Some(Quota::None), ..user(BOB) }).await;
    assert_eq!(house.deliver_one(envelope(1, "", &[BOB]), body(2_000)).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_sum_is_counted_anew_when_it_cannot_be_right() {
    let long = format!("5000S\n{}", "1 1\n".repeat(2_000));
    for wrong in ["garbage", "", "5000S\n-5 -1\n", "9999S\n0 0\n", "5000S\n4900 1\n1 0\n", &long] {
        let house = House::new().await;
        house.put(bob(5_000)).await;
        house.deliver(envelope(1, "", &[BOB]), body(100)).await;
        let one = house.stored();
        // A message in a folder and one without a size in its name count too.
        let lists = house.maildir(BOB).join(".Lists/cur");
        std::fs::create_dir_all(&lists).unwrap();
        std::fs::write(lists.join("1.a.b,S=70:2,S"), "").unwrap();
        std::fs::write(lists.join("2.a.b:2,"), "12345").unwrap();
        std::fs::write(house.maildir(BOB).join("maildirsize"), wrong).unwrap();
        assert_eq!(house.deliver_one(envelope(2, "", &[BOB]), body(100)).await, Outcome::Delivered, "{wrong:.40}");
        assert_eq!(house.sizes(), format!("5000S\n{} 3\n{one} 1\n", one + 75), "{wrong:.40}");
    }
}

#[tokio::test]
async fn a_fresh_sum_that_says_full_is_believed() {
    let house = House::new().await;
    house.put(bob(5_000)).await;
    house.deliver(envelope(1, "", &[BOB]), body(100)).await;
    std::fs::write(house.maildir(BOB).join("maildirsize"), "5000S\n5000 9\n").unwrap();
    *house.clock.lock() = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(matches!(house.deliver_one(envelope(2, "", &[BOB]), body(100)).await, Outcome::Deferred { .. }));
    *house.clock.lock() += 3600;
    assert_eq!(house.deliver_one(envelope(2, "", &[BOB]), body(100)).await, Outcome::Delivered);
}

#[tokio::test]
async fn without_a_quota_nothing_is_counted_unless_someone_else_counts() {
    let house = House::new().await;
    house.deliver(envelope(1, "", &[BOB]), body(100)).await;
    assert!(!house.maildir(BOB).join("maildirsize").exists());
    assert_eq!(house.transport.quota().used(&mailbox(BOB)).await.unwrap().bytes, house.stored());
    assert_eq!(house.transport.quota().used(&mailbox("nobody@example.org")).await.unwrap().bytes, 0);
    let one = house.stored();
    std::fs::write(house.maildir(BOB).join("maildirsize"), "777S\n10 1\n").unwrap();
    house.deliver(envelope(2, "", &[BOB]), body(100)).await;
    assert_eq!(house.sizes(), format!("777S\n10 1\n{one} 1\n"));
}

#[tokio::test]
async fn a_planted_link_is_not_written_through() {
    let house = House::new().await;
    house.put(bob(5_000)).await;
    house.deliver(envelope(1, "", &[BOB]), body(100)).await;
    let target = house.folder.path().join("target");
    std::fs::write(&target, "5000S\n0 0\n").unwrap();
    std::fs::remove_file(house.maildir(BOB).join("maildirsize")).unwrap();
    std::os::unix::fs::symlink(&target, house.maildir(BOB).join("maildirsize")).unwrap();
    assert_eq!(house.deliver_one(envelope(2, "", &[BOB]), body(100)).await, Outcome::Delivered);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "5000S\n0 0\n");
}

#[tokio::test]
async fn a_user_is_warned_once_at_each_mark() {
    let house = House::new().await;
    house.put(bob(100_000)).await;
    let warnings = |house: &House| {
        let names = house.names(BOB, "new");
        let texts = names.iter().map(|name| std::fs::read_to_string(house.maildir(BOB).join("new").join(name)).unwrap());
        let subjects: Vec<String> =
            texts.filter_map(|t| t.lines().find(|l| l.starts_with("Subject: Your mailbox")).map(str::to_owned)).collect();
        subjects
    };
    for id in 0..7 {
        house.deliver(envelope(id, "", &[BOB]), body(10_000)).await;
    }
    assert!(warnings(&house).is_empty());
    house.deliver(envelope(8, "", &[BOB]), body(10_000)).await;
    assert_eq!(warnings(&house), ["Subject: Your mailbox is 80 % full"]);
    house.deliver(envelope(9, "", &[BOB]), body(5_000)).await;
    assert_eq!(warnings(&house).len(), 1);
    house.deliver(envelope(10, "", &[BOB]), body(9_000)).await;
    assert_eq!(warnings(&house).len(), 2);
    house.deliver(envelope(11, "", &[BOB]), body(100)).await;
    assert_eq!(warnings(&house).len(), 2);
    assert_eq!(house.transport.quota().used(&mailbox(BOB)).await.unwrap().bytes, house.stored());
    // Replayed, the message that crossed the mark is found and warns of nothing.
    house.replay(envelope(10, "", &[BOB]), body(9_000)).await;
    assert_eq!(warnings(&house).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_runs_into_one_new_mailbox_lose_no_message_and_no_count() {
    let house = House::new().await;
    house.put(bob(1 << 30)).await;
    let queue = FakeQueue::new();
    for id in 0..400 {
        let mut mail = envelope(id, "", &[BOB]);
        mail.junk = id % 2 == 0;
        drop(queue.push(mail, vec![0], Body::from_bytes(body(10).into_bytes())));
    }
    let runs: Vec<_> = (0..4)
        .map(|_| {
            let (transport, feed) = (std::sync::Arc::clone(&house.transport), queue.feed());
            tokio::spawn(async move { transport.run(Destination("maildir".into()), feed).await })
        })
        .collect();
    for run in runs {
        run.await.unwrap();
    }
    assert_eq!((house.names(BOB, "new").len(), house.names(BOB, ".Junk/new").len()), (200, 200));
    let used = house.transport.quota().used(&mailbox(BOB)).await.unwrap();
    assert_eq!((used.bytes, used.count), (house.stored() * 2, 400), "{}", house.sizes());
}
