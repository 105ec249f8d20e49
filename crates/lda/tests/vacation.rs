//! Vacation replies against twenty and more kinds of mail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{House, envelope, mailbox, user};
use pillarbox_directory::{AliasAddress, AliasRecord, Change, Directory, UserRecord, Vacation};
use pillarbox_queue::{Door, Envelope, Outcome, Route};
use pillarbox_smtp::ReversePath;

const BOB: &str = "bob@example.org";

fn away() -> UserRecord {
    let vacation = Vacation {
        subject: "Weg bis März".into(),
        text: "I am away.\nBack in March.".into(),
        from: Some("2023-11-01".into()),
        until: Some("2023-11-30".into()),
    };
    UserRecord { vacation: Some(vacation), name: Some("Bob Meier".into()), ..user(BOB) }
}

async fn house() -> House {
    let house = House::new().await;
    house.put(away()).await;
    let alias = AliasRecord {
        address: AliasAddress::Mailbox(mailbox("sales@example.org")),
        targets: vec![mailbox(BOB)],
        created: "2023-11-14T00:00:00Z".into(),
    };
    house.directory.apply(vec![Change::PutAlias(alias)]).await.unwrap();
    house
}

async fn replies(envelope: Envelope, header: &str) -> usize {
    let house = house().await;
    assert_eq!(house.deliver_one(envelope, format!("{header}\r\nhello\r\n")).await, Outcome::Delivered);
    house.only(BOB, "new");
    house.submitted.lock().len()
}

#[tokio::test]
async fn twenty_kinds_of_mail() {
    let person = "From: Ann <ann@example.net>\r\nTo: bob@example.org\r\nSubject: hi\r\nMessage-ID: <1@example.net>\r\n";
    let with = |field: &str| format!("{person}{field}\r\n");
    let kinds: Vec<(&str, &str, String, usize)> = vec![
        ("a person", "ann@example.net", person.into(), 1),
        ("a person, in Cc", "ann@example.net", person.replace("To:", "Cc:"), 1),
        ("through an alias", "ann@example.net", person.replace("bob@", "sales@"), 1),
        ("with a detail", "ann@example.net", person.replace("bob@", "bob+x@"), 1),
        ("Auto-Submitted: no", "ann@example.net", with("Auto-Submitted: no"), 1),
        ("a null sender", "", person.into(), 0),
        ("a daemon", "MAILER-DAEMON@example.net", person.into(), 0),
        ("a list owner", "owner-rust@example.net", person.into(), 0),
        ("a list's request address", "rust-request@example.net", person.into(), 0),
        ("noreply", "noreply@example.net", person.into(), 0),
        ("auto-replied", "ann@example.net", with("Auto-Submitted: auto-replied"), 0),
        ("auto-generated", "ann@example.net", with("auto-submitted: Auto-Generated"), 0),
        ("a list with List-Id", "ann@example.net", with("List-Id: <rust.example.net>"), 0),
        ("a list with List-Unsubscribe", "ann@example.net", with("List-Unsubscribe: <mailto:x@example.net>"), 0),
        ("Precedence: bulk", "ann@example.net", with("Precedence: bulk"), 0),
        ("Precedence: list", "ann@example.net", with("Precedence: list"), 0),
        ("Precedence: junk", "ann@example.net", with("Precedence: junk"), 0),
        ("Exchange's own mark", "ann@example.net", with("X-Auto-Response-Suppress: OOF, AutoReply"), 0),
        ("a delivery report", "ann@example.net", with("Content-Type: multipart/report; boundary=x"), 0),
        ("marked as spam", "ann@example.net", with("X-Spam-Flag: YES"), 0),
        ("bcc", "ann@example.net", person.replace("bob@example.org", "someone@example.com"), 0),
        ("from the user", BOB, person.into(), 0),
        ("from the user's alias", "sales@example.org", person.into(), 0),
    ];
    assert!(kinds.len() >= 20);
    for (what, from, header, expected) in kinds {
        assert_eq!(replies(envelope(7, from, &[BOB]), &header).await, expected, "{what}");
    }
}

#[tokio::test]
async fn junk_and_our_own_reports_are_not_answered() {
    let header = "From: ann@example.net\r\nTo: bob@example.org\r\n\r\nhi\r\n";
    let house = house().await;
    let mut junk = envelope(1, "ann@example.net", &[BOB]);
    junk.junk = true;
    house.deliver(junk, header).await;
    let mut own = envelope(2, "ann@example.net", &[BOB]);
    own.source.door = Door::Internal;
    house.deliver(own, header).await;
    assert!(house.submitted.lock().is_empty());
}

#[tokio::test]
async fn the_reply_is_well_formed_and_goes_to_the_envelope_sender() {
    let house = house().await;
    let header = "From: Other <other@example.net>\r\nReply-To: third@example.net\r\nTo: bob@example.org\r\nMessage-ID: <1@example.net>\r\nReferences: <0@example.net>\r\n\r\nhi\r\n";
    house.deliver(envelope(7, "ann@example.net", &[BOB]), header).await;
    let submitted = house.submitted.lock();
    let (envelope, message) = submitted.first().unwrap();
    assert_eq!(envelope.from, ReversePath::Null);
    assert_eq!(envelope.source.door, Door::Internal);
    assert_eq!(envelope.recipients.len(), 1);
    assert_eq!((&envelope.recipients[0].address, &envelope.recipients[0].route), (&mailbox("ann@example.net"), &Route::Relay));
    assert!(!envelope.recipients[0].notify.failure);
    assert_eq!(envelope.size, message.len() as u64);
    let text = String::from_utf8(message.clone()).unwrap();
    for line in [
        "From: Bob Meier <bob@example.org>\r\n",
        "To: ann@example.net\r\n",
        "In-Reply-To: <1@example.net>\r\n",
        "References: <0@example.net> <1@example.net>\r\n",
        "Auto-Submitted: auto-replied (vacation)\r\n",
        "Back in March.\r\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(text.is_ascii() && text.contains("Subject: =?utf-8?"), "{text}");
}

#[tokio::test]
async fn each_correspondent_hears_once_in_seven_days() {
    let house = house().await;
    let header = "From: ann@example.net\r\nTo: bob@example.org\r\n\r\nhi\r\n";
    house.deliver(envelope(1, "ann@example.net", &[BOB]), header).await;
    house.deliver(envelope(2, "Ann@Example.net", &[BOB]), header).await;
    house.replay(envelope(1, "ann@example.net", &[BOB]), header).await;
    assert_eq!(house.submitted.lock().len(), 1);
    house.deliver(envelope(3, "joe@example.net", &[BOB]), header).await;
    assert_eq!(house.submitted.lock().len(), 2);
    assert_eq!(house.directory.state_list("vacation").await.unwrap().len(), 2);
}

#[tokio::test]
async fn outside_its_days_there_is_none() {
    let house = house().await;
    *house.clock.lock() += 20 * 24 * 3600;
    house.deliver(envelope(1, "ann@example.net", &[BOB]), "To: bob@example.org\r\n\r\nhi\r\n").await;
    assert!(house.submitted.lock().is_empty());
}
