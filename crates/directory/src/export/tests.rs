//! Out and back in.

use super::*;
use crate::memory::MemoryDirectory;
use crate::password::verify;
use crate::records::{AppPassword, Change, CredentialRecord, Quota, ScramKeys, Vacation};
use crate::state::{FOREVER, SETTINGS};
use crate::store::Directory;
use crate::suite::{build, user_record};
use pillarbox_config::Argon2Cost;
use pillarbox_smtp::{Mailbox, Secret};
use std::sync::Arc;

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

fn options() -> ApplyOptions {
    ApplyOptions { cost: CHEAP, ..Default::default() }
}

async fn full() -> MemoryDirectory {
    let directory = MemoryDirectory::new();
    let mut bob = user_record("\"Böb \\\"x\\\"\"@example.org");
    bob.quota = Some(Quota::Bytes(5 << 30));
    bob.logins = vec![mailbox("b@old.example")];
    bob.vacation = Some(Vacation {
        subject: "Away: \"soon\" back".into(),
        text: "line\n[[user]]\n'''\"\"\"\\\n\ttab".into(),
        from: Some("2026-07-01".into()),
        until: None,
    });
    let credential = CredentialRecord {
        password: Some(crate::password::hash(&Secret::new("x"), &CHEAP).unwrap()),
        scram: Some(ScramKeys::generate(&Secret::new("x"))),
        app: vec![AppPassword {
            label: "Böb's \"phone\"".into(),
            hash: crate::password::hash(&Secret::new("y"), &CHEAP).unwrap(),
            created: "2026-01-01T00:00:00Z".into(),
            last_used: Some("2026-01-02T00:00:00Z".into()),
        }],
    };
    let mut eve = user_record("eve@example.org");
    eve.suspended = true;
    eve.quota = Some(Quota::None);
    let address = bob.address.clone();
    build(&directory, &["example.org", "bücher.example"])
        .await
        .put(Change::PutUser(bob))
        .await
        .put(Change::PutCredential(address, credential))
        .await
        .put(Change::PutUser(eve))
        .await
        .alias("info@example.org", &["eve@example.org", "far@elsewhere.example"])
        .await
        .alias("@bücher.example", &["eve@example.org"])
        .await;
    directory.state_put(SETTINGS, b"srs-secret", &[0, 255, 7], FOREVER).await.unwrap();
    directory.state_put("greylist", b"x", b"y", FOREVER).await.unwrap();
    directory
}

#[tokio::test]
async fn an_export_restores_the_same_state() {
    let text = render(&full().await).await.unwrap();
    let restored = MemoryDirectory::new();
    let dry = apply(&restored, &text, &ApplyOptions { dry_run: true, ..options() }).await.unwrap();
    assert!(restored.domains().await.unwrap().is_empty(), "a dry run changes nothing");
    let plan = apply(&restored, &text, &options()).await.unwrap();
    assert_eq!(dry, plan);
    assert_eq!(render(&restored).await.unwrap(), text);
    assert_eq!(
        apply(&restored, &text, &ApplyOptions { prune: true, ..options() }).await.unwrap(),
        Plan::default(),
        "twice changes nothing"
    );
    assert!(!text.contains("greylist"));
    let words: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
    assert!(words.contains(&"add domain example.org".to_owned()) && words.contains(&"add setting srs-secret".to_owned()), "{words:?}");
}

#[tokio::test]
async fn prune_removes_the_rest_and_nothing_else_does() {
    let text = render(&full().await).await.unwrap();
    let directory = MemoryDirectory::new();
    apply(&directory, &text, &options()).await.unwrap();
    build(&directory, &["extra.example"]).await.user("x@extra.example").await.alias("y@example.org", &["eve@example.org"]).await;
    assert!(apply(&directory, &text, &options()).await.unwrap().is_empty());
    let plan = apply(&directory, &text, &ApplyOptions { prune: true, ..options() }).await.unwrap();
    let words: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["remove user x@extra.example", "remove alias y@example.org", "remove domain extra.example"]);
    assert_eq!(render(&directory).await.unwrap(), text);
}

#[tokio::test]
async fn a_file_written_by_hand_needs_little() {
    let directory = MemoryDirectory::new();
    let text = "version = 1\n[[domain]]\nname = \"example.org\"\n[[user]]\naddress = \"bob@example.org\"\npassword = \"{PLAIN}s3cret\"\nquota = \"2G\"\n\
                [[alias]]\naddress = \"@example.org\"\ntargets = [\"bob@example.org\"]\n";
    assert_eq!(apply(&directory, text, &options()).await.unwrap().changes.len(), 3);
    assert!(apply(&directory, text, &options()).await.unwrap().is_empty());
    let bob = directory.user(&mailbox("bob@example.org")).await.unwrap().unwrap();
    assert!(bob.quota == Some(Quota::Bytes(2 << 30)) && !bob.created.is_empty());
    let stored = directory.credential(&bob.address).await.unwrap().unwrap().password.unwrap();
    assert!(stored.starts_with("$argon2id$") && verify(&stored, b"s3cret").unwrap());
    // No credentials in the file leaves those that are there.
    let bare = "version = 1\n[[user]]\naddress = \"bob@example.org\"\nsuspended = true\nquota = 2147483648\n";
    let plan = apply(&directory, bare, &options()).await.unwrap();
    assert_eq!(plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["change user bob@example.org (suspended)"]);
    assert_eq!(directory.credential(&bob.address).await.unwrap().unwrap().password, Some(stored));
}

#[tokio::test]
async fn wrong_files_are_refused_in_words() {
    let directory = MemoryDirectory::new();
    for (text, words) in [
        ("version = 1\n[[user]]\nadress = \"x@y.example\"", "adress"),
        ("version = 1\n[[user]]\naddress = \"x\"", "line 3"),
        ("version = 9\nfuture = true", "newer"),
        ("", "version"),
        ("version = 1\n[[user]]\naddress = \"x@y.example\"\npassword = \"hunter2\"", "x@y.example"),
        ("version = 1\n[[user]]\naddress = \"x@y.example\"\npassword = \"{PLAIN}a\"", "y.example"),
        ("version = 1\n[[domain]]\nname = \"y.example\"\n[[domain]]\nname = \"Y.example\"", "twice"),
    ] {
        let error = apply(&directory, text, &options()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{text:?} gave {error}");
        assert!(!error.contains("hunter2"), "a message must not show a password: {error}");
    }
    assert!(directory.domains().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_keeper_writes_a_private_file_that_restores() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let directory = Arc::new(full().await);
    let keeper = ExportKeeper::start(Arc::clone(&directory) as Arc<dyn Directory>, &path);
    keeper.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(revision(&text), Some(directory.generation()));
    let restored = MemoryDirectory::new();
    apply(&restored, &text, &options()).await.unwrap();
    assert_eq!(render(&restored).await.unwrap(), render(directory.as_ref()).await.unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_keeper_leaves_a_file_that_is_current_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let directory: Arc<dyn Directory> = Arc::new(full().await);
    directory.state_put(SETTINGS, b"srs-secret", b"one", FOREVER).await.unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    let kept = async || ExportKeeper::start(Arc::clone(&directory), &path).stop().await;
    kept().await;
    // Held open, so that no other file gets its number.
    let first = (std::fs::File::open(&path).unwrap(), inode());
    kept().await;
    assert_eq!(inode(), first.1, "nothing changed");
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = text.find("\n[[alias]]").unwrap();
    let other = text.replacen("revision = ", "revision = 9", 1);
    for damaged in [&text[..cut], "", other.as_str()] {
        std::fs::write(&path, damaged).unwrap();
        kept().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "written anew");
    }
    directory.state_put(SETTINGS, b"srs-secret", b"two", FOREVER).await.unwrap();
    kept().await;
    assert_ne!(std::fs::read_to_string(&path).unwrap(), text, "a secret is no change of the directory, and is kept all the same");
}
