//! What happens when the disk is full or the folder may not be written: mail waits, nothing is left half done.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{House, envelope};
use pillarbox_queue::{Outcome, Transport};

const BOB: &str = "bob@example.org";

/// A file system of 256 KiB, gone when this goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said loudly, where this user may not mount.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"]).arg(at).output();
        match done {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            other => {
                eprintln!("SKIPPED: cannot mount a small tmpfs here, which takes root ({other:?})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn body(octets: usize) -> String {
    format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(octets))
}

#[tokio::test]
async fn mail_waits_while_the_disk_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk")) else { return };
    let house = House::with(|config| config.paths.mail = disk.0.clone()).await;
    assert_eq!(house.deliver_one(envelope(1, "", &[BOB]), body(50_000)).await, Outcome::Delivered);
    let maildir = disk.0.join("example.org/bob/Maildir");
    for size in [300_000, 2_000_000] {
        match house.deliver_one(envelope(2, "", &[BOB]), body(size)).await {
            Outcome::Deferred { reply } => assert_eq!(reply.to_string(), "452 4.3.1 The disk that holds the mailbox is full"),
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read_dir(maildir.join("tmp")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(maildir.join("new")).unwrap().count(), 1);
    }
    assert_eq!(house.deliver_one(envelope(3, "", &[BOB]), body(50_000)).await, Outcome::Delivered);
    house.transport.sync().await.unwrap();
    assert!(house.transport.is_healthy());
}

#[tokio::test]
async fn mail_waits_while_a_directory_is_a_file() {
    let house = House::new().await;
    std::fs::create_dir_all(house.maildir(BOB).parent().unwrap()).unwrap();
    std::fs::write(house.maildir(BOB), "").unwrap();
    match house.deliver_one(envelope(1, "", &[BOB]), body(10)).await {
        Outcome::Deferred { reply } => assert_eq!(reply.status().to_string(), "4.3.5"),
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(house.maildir(BOB)).unwrap();
    assert_eq!(house.deliver_one(envelope(1, "", &[BOB]), body(10)).await, Outcome::Delivered);
}
