//! A real Dovecot over the same Maildirs: it sees what we store, counts as we count, and takes mail from us by LMTP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{House, envelope, mailbox, user};
use pillarbox_directory::{Quota, UserRecord};
use pillarbox_queue::fake::FakeQueue;
use pillarbox_queue::{Body, Outcome, Route, Transport};

const BOB: &str = "bob@example.org";
/// `nobody` and `nogroup` of Debian: whoever, as long as it is not root.
const OWNER: u32 = 65534;

struct Dovecot {
    folder: PathBuf,
    child: Child,
}

impl Dovecot {
    /// `None`, said loudly, where there is no Dovecot 2.3 or this user may not start one.
    fn start(folder: &Path) -> Option<Self> {
        let version = Command::new("dovecot").arg("--version").output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let root = std::fs::metadata("/proc/self").is_ok_and(|seen| std::os::unix::fs::MetadataExt::uid(&seen) == 0);
        if !version.as_ref().is_ok_and(|version| version.starts_with("2.3.")) || !root {
            eprintln!("SKIPPED: needs Dovecot 2.3 and root (version {version:?}, root {root})");
            return None;
        }
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let at = folder.display();
        let text = format!(
            "base_dir = {at}/run\nstate_dir = {at}/state\nlog_path = {at}/log\nprotocols = lmtp\nssl = no\nmail_location = maildir:~/Maildir\n\
             first_valid_uid = 1\nmail_plugins = quota\nplugin {{\n quota = maildir:User quota\n quota_rule = *:bytes=5000000\n}}\n\
             passdb {{\n driver = static\n args = password=x\n}}\nuserdb {{\n driver = static\n args = uid={OWNER} gid={OWNER} home={at}/mail/%d/%n\n}}\n\
             namespace inbox {{\n inbox = yes\n}}\nlda_mailbox_autocreate = yes\nlmtp_save_to_detail_mailbox = yes\n\
             service lmtp {{\n unix_listener {at}/lmtp {{\n  mode = 0666\n }}\n}}\nservice auth {{\n unix_listener auth-userdb {{\n  mode = 0666\n }}\n}}\n"
        );
        std::fs::write(folder.join("dovecot.conf"), text).unwrap();
        let child = Command::new("dovecot").args(["-F", "-c"]).arg(folder.join("dovecot.conf")).stdin(Stdio::null()).spawn().unwrap();
        let mut this = Self { folder: folder.to_owned(), child };
        while std::os::unix::net::UnixStream::connect(folder.join("lmtp")).is_err() {
            assert!(
                this.child.try_wait().unwrap().is_none(),
                "dovecot ended: {}",
                std::fs::read_to_string(folder.join("log")).unwrap_or_default()
            );
            std::thread::yield_now();
        }
        Some(this)
    }

    fn doveadm(&self, args: &[&str]) -> String {
        let output = Command::new("doveadm").arg("-c").arg(self.folder.join("dovecot.conf")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Octets and messages by Dovecot's own account.
    fn quota(&self) -> (u64, u64) {
        let text = self.doveadm(&["-f", "tab", "quota", "get", "-u", BOB]);
        let value = |kind: &str| text.lines().find(|l| l.contains(kind)).unwrap().split('\t').nth(2).unwrap().parse().unwrap();
        // STORAGE is in KiB.
        (value("STORAGE"), value("MESSAGE"))
    }

    fn messages(&self, folder: &str) -> u64 {
        let text = self.doveadm(&["-f", "tab", "mailbox", "status", "-u", BOB, "messages", folder]);
        text.lines().last().unwrap().split('\t').next_back().unwrap().parse().unwrap()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// A house whose mail folder belongs to [`OWNER`], and the Dovecot over it.
async fn with_dovecot(change: impl FnOnce(&mut pillarbox_config::Config, &Path)) -> Option<(House, Dovecot, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let dovecot = Dovecot::start(folder.path())?;
    let mail = folder.path().join("mail");
    std::fs::create_dir(&mail).unwrap();
    chown(&mail, Some(OWNER), Some(OWNER)).unwrap();
    let house = House::with(|config| {
        config.paths.mail = mail;
        change(config, folder.path());
    })
    .await;
    Some((house, dovecot, folder))
}

fn body(n: u64) -> String {
    format!("Subject: message {n}\r\nMessage-ID: <{n}@example.net>\r\n\r\n{}\r\n", "text\r\n".repeat(100))
}

#[tokio::test]
async fn a_thousand_messages_are_a_thousand_and_both_count_alike() {
    let Some((house, dovecot, _folder)) = with_dovecot(|_, _| {}).await else { return };
    house.put(UserRecord { quota: Some(Quota::Bytes(5_000_000)), ..user(BOB) }).await;
    let queue = FakeQueue::new();
    for n in 0..1000 {
        drop(queue.push(envelope(n, "ann@example.net", &[BOB]), vec![0], Body::from_bytes(body(n).into_bytes())));
    }
    let mail = envelope(1, "", &[BOB]);
    let destination = house.transport.destination(&mail, &mail.recipients[0]);
    house.transport.run(destination, queue.feed()).await;
    assert_eq!(dovecot.messages("INBOX"), 1000);
    let agree = async |messages: u64| {
        let ours = house.transport.quota().used(&mailbox(BOB)).await.unwrap();
        let (kib, count) = dovecot.quota();
        assert_eq!((ours.count, ours.bytes.div_ceil(1024)), (count, kib), "{ours:?}");
        assert_eq!(ours.count, messages);
    };
    agree(1000).await;
    dovecot.doveadm(&["expunge", "-u", BOB, "mailbox", "INBOX", "1:100"]);
    agree(900).await;
    let mut junk = envelope(2000, "", &[BOB]);
    junk.junk = true;
    assert_eq!(house.deliver_one(junk, body(2000)).await, Outcome::Delivered);
    agree(901).await;
    assert_eq!(dovecot.messages("Junk"), 1);
    assert_eq!(dovecot.doveadm(&["mailbox", "list", "-s", "-u", BOB]).trim(), "Junk");
    // Dovecot makes the folder, we find it by the name people see.
    dovecot.doveadm(&["mailbox", "create", "-u", BOB, "Entwürfe"]);
    let mut wish = envelope(2001, "", &[BOB]);
    wish.recipients[0].route = Route::Mailbox { folder: Some("Entwürfe".into()) };
    assert_eq!(house.deliver_one(wish, body(2001)).await, Outcome::Delivered);
    assert_eq!(dovecot.messages("Entwürfe"), 1);
    agree(902).await;
    let log = std::fs::read_to_string(dovecot.folder.join("log")).unwrap();
    assert!(!log.contains("Error") && !log.contains("Warning"), "{log}");
}

#[tokio::test]
async fn a_message_that_dovecot_moved_and_flagged_is_found_again() {
    let Some((house, dovecot, _folder)) = with_dovecot(|_, _| {}).await else { return };
    assert_eq!(house.deliver_one(envelope(1, "", &[BOB]), body(1)).await, Outcome::Delivered);
    dovecot.doveadm(&["flags", "add", "-u", BOB, "\\Seen \\Flagged", "mailbox", "INBOX", "1"]);
    // doveadm leaves a message recent, and so in new/, though its name carries flags by now.
    let (name, content) = house.only(BOB, "new");
    assert!(name.ends_with(":2,FS"), "{name}");
    house.replay(envelope(1, "", &[BOB]), body(1)).await;
    assert_eq!(dovecot.messages("INBOX"), 1);
    let size = dovecot.doveadm(&["-f", "tab", "fetch", "-u", BOB, "size.physical size.virtual", "mailbox", "INBOX", "1"]);
    assert_eq!(house.only(BOB, "new"), (name, content.clone()));
    let wire = content.len() + content.iter().filter(|&&b| b == b'\n').count();
    assert_eq!(size.lines().last().unwrap(), format!("{}\t{wire}", content.len()));
}

#[tokio::test]
async fn mail_goes_to_it_by_lmtp() {
    let lmtp = |config: &mut pillarbox_config::Config, folder: &Path| {
        config.mailbox.deliver_to = format!("lmtp:unix:{}", folder.join("lmtp").display());
    };
    let Some((house, dovecot, _folder)) = with_dovecot(lmtp).await else { return };
    let mut mail = envelope(1, "ann@example.net", &[BOB, "eve@example.org"]);
    mail.recipients[1].route = Route::Mailbox { folder: Some("lists".into()) };
    let outcomes = house.deliver(mail, body(1)).await;
    assert_eq!(outcomes.each, vec![Outcome::Delivered; 2]);
    assert_eq!(dovecot.messages("INBOX"), 1);
    let text = dovecot.doveadm(&["fetch", "-u", "eve@example.org", "text", "mailbox", "lists"]);
    assert!(text.contains("Return-Path: <ann@example.net>") && text.contains("Subject: message 1"), "{text}");
}
