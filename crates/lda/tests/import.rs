//! Moving in from Maildirs and mbox files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::{House, mailbox};
use pillarbox_lda::import::{Import, ImportError, Progress, Quoting, Source, import};

const BOB: &str = "bob@example.org";

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

impl House {
    fn import(
        &self,
        source: Source,
        folder: Option<&str>,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Progress, ImportError> {
        let to = mailbox(BOB);
        let state = self.folder.path().join("state");
        import(self.transport.root(), &Import { source, to: &to, folder, state: &state, hostname: "mail.example.org" }, report)
    }

    fn count(&self, sub: &str) -> usize {
        self.names(BOB, sub).len()
    }
}

fn maildir(at: &Path) {
    for sub in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(at.join(sub)).unwrap();
    }
}

fn message(at: PathBuf, text: &str, seconds: u64) {
    std::fs::write(&at, text).unwrap();
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(at).unwrap().set_modified(date).unwrap();
}

#[tokio::test]
async fn a_maildir_comes_with_folders_flags_dates_and_keywords() {
    let house = House::new().await;
    let from = house.folder.path().join("from");
    maildir(&from);
    maildir(&from.join(".Sent"));
    maildir(&from.join(".Lists.rust"));
    message(from.join("new/1.a.h"), "Subject: new\n\nx\n", 1_000_000);
    message(from.join("cur/2.b.h:2,FSa"), "Subject: read\r\n\r\nx\r\n", 2_000_000);
    message(from.join(".Sent/cur/3.c.h,S=9:2,RSb"), "Subject: sent\n\n", 3_000_000);
    message(from.join(".Lists.rust/cur/4.d.h:2,"), "Subject: list\n\n", 4_000_000);
    std::fs::write(from.join("dovecot-keywords"), "0 $Work\n").unwrap();
    let secret = house.folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, from.join("cur/5.e.h:2,")).unwrap();
    std::os::unix::fs::symlink(house.folder.path(), from.join(".Link")).unwrap();

    let progress = house.import(Source::Maildir(from.clone()), None, &mut go_on).unwrap();
    assert_eq!((progress.stored, progress.known, progress.failed, progress.total), (4, 0, 1, 5));
    assert!(progress.failures[0].contains("5.e.h"), "{:?}", progress.failures);
    let (name, content) = house.only(BOB, "new");
    assert_eq!(content, b"Subject: new\n\nx\n");
    let modified = house.maildir(BOB).join("new").join(&name).metadata().unwrap().modified().unwrap();
    assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let (name, content) = house.only(BOB, "cur");
    assert_eq!(content, b"Subject: read\n\nx\n");
    assert!(name.starts_with("2000000.I") && name.ends_with(",S=17,W=20:2,FSa"), "{name}");
    assert!(house.only(BOB, ".Sent/cur").0.ends_with(":2,RS"));
    assert!(house.only(BOB, ".Lists.rust/cur").0.ends_with(":2,"));
    let subscriptions = std::fs::read_to_string(house.maildir(BOB).join("subscriptions")).unwrap();
    assert_eq!(subscriptions, "V\t2\n\nLists\trust\nSent\n");
    assert_eq!(std::fs::read_to_string(house.maildir(BOB).join("dovecot-keywords")).unwrap(), "0 $Work\n");
    assert!(!house.maildir(BOB).join(".Link").exists());

    // Again, with one more: only that one comes.
    message(from.join("new/6.f.h"), "Subject: more\n\n", 6_000_000);
    let progress = house.import(Source::Maildir(from), None, &mut go_on).unwrap();
    assert_eq!((progress.stored, progress.known), (1, 4));
    assert_eq!((house.count("new"), house.count("cur")), (2, 1));
}

#[tokio::test]
async fn a_maildir_can_go_into_a_folder() {
    let house = House::new().await;
    let from = house.folder.path().join("from");
    maildir(&from);
    maildir(&from.join(".Sent"));
    message(from.join("new/1.a.h"), "Subject: new\n\n", 1);
    message(from.join(".Sent/new/2.a.h"), "Subject: sent\n\n", 1);
    house.import(Source::Maildir(from.clone()), Some("Old/Mail"), &mut go_on).unwrap();
    assert_eq!((house.count(".Old.Mail/new"), house.count(".Old.Mail.Sent/new"), house.count("new")), (1, 1, 0));
    let error = house.import(Source::Maildir(from), Some("../../x"), &mut go_on).unwrap_err();
    assert_eq!(error.to_string(), "\"../../x\" is not a folder name");
}

fn mbox(house: &House, messages: usize) -> PathBuf {
    let path = house.folder.path().join("mbox");
    let text: String = (0..messages)
        .map(|n| {
            format!(
                "From ann@example.net Tue Nov 14 22:13:20 2023\nSubject: {n}\nStatus: {}\n\n>From {n}\n\n",
                if n % 2 == 0 { "RO" } else { "" }
            )
        })
        .collect();
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn an_mbox_comes_with_flags_and_dates() {
    let house = House::new().await;
    let path = mbox(&house, 3);
    let progress = house.import(Source::Mbox(path, Quoting::Rd), Some("Old"), &mut go_on).unwrap();
    assert_eq!((progress.stored, progress.failed), (3, 0));
    let (name, content) = house.only(BOB, ".Old/new");
    assert_eq!(content, b"Subject: 1\nStatus: \n\nFrom 1\n");
    assert!(name.starts_with("1700000000.I"));
    assert!(house.names(BOB, ".Old/cur").iter().all(|name| name.ends_with(":2,S")));
    let at = house.maildir(BOB).join(".Old/new").join(name).metadata().unwrap().modified().unwrap();
    assert_eq!(at, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
}

#[tokio::test]
async fn an_interrupted_import_goes_on_and_stores_nothing_twice() {
    let house = House::new().await;
    let path = mbox(&house, 2_000);
    let source = Source::Mbox(path, Quoting::Rd);
    let mut stops = [700u64, 1_300].into_iter();
    let mut stop = stops.next();
    let mut total = 0;
    loop {
        let progress = house
            .import(source.clone(), None, &mut |progress| match stop {
                Some(at) if total + progress.stored >= at => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
            .unwrap();
        total += progress.stored;
        assert_eq!(progress.known + progress.stored, total);
        // A crash can lose the last lines of the state file, never a message that they name.
        let state = house.folder.path().join("state");
        let text = std::fs::read_to_string(&state).unwrap();
        std::fs::write(&state, &text[..text.len() - 100]).unwrap();
        if stop.is_none() {
            break;
        }
        stop = stops.next();
        // Its reader moves what is new and flags it meanwhile.
        let maildir = house.maildir(BOB);
        for name in house.names(BOB, "new").iter().take(50) {
            std::fs::rename(maildir.join("new").join(name), maildir.join("cur").join(format!("{name}:2,F"))).unwrap();
        }
    }
    assert_eq!(total, 2_000);
    assert_eq!(house.count("new") + house.count("cur"), 2_000);
    // Without the state file it still finds what it did, by name.
    std::fs::remove_file(house.folder.path().join("state")).unwrap();
    let progress = house.import(source, None, &mut go_on).unwrap();
    assert_eq!((progress.stored, progress.known), (0, 2_000));
}

#[tokio::test]
async fn sources_that_are_none_say_so() {
    let house = House::new().await;
    let wrong = house.folder.path().join("wrong");
    std::fs::create_dir(&wrong).unwrap();
    let error = house.import(Source::Maildir(wrong.clone()), None, &mut go_on).unwrap_err();
    assert!(error.to_string().contains("no Maildir"), "{error}");
    std::fs::write(wrong.join("text"), "hello\n").unwrap();
    let error = house.import(Source::Mbox(wrong.join("text"), Quoting::Rd), None, &mut go_on).unwrap_err();
    assert!(error.to_string().contains("no mbox file"), "{error}");
    assert!(house.import(Source::Mbox(wrong.join("missing"), Quoting::Rd), None, &mut go_on).is_err());
}

#[tokio::test]
async fn a_quota_file_hears_of_imported_mail() {
    let house = House::new().await;
    let path = mbox(&house, 3);
    std::fs::create_dir_all(house.maildir(BOB)).unwrap();
    std::fs::write(house.maildir(BOB).join("maildirsize"), "100000S\n0 0\n").unwrap();
    house.import(Source::Mbox(path, Quoting::Rd), None, &mut go_on).unwrap();
    let text = std::fs::read_to_string(house.maildir(BOB).join("maildirsize")).unwrap();
    assert!(text.ends_with(" 3\n"), "{text}");
}
