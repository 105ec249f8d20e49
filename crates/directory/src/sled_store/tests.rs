//! What is sled's own: lives on disk, one process, repair.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::export::ExportKeeper;
use crate::state::FOREVER;
use crate::suite::{alias_record, build, domain_record, user_record};

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

/// A folder with a filled database and its export, closed.
async fn filled() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("directory.sled");
    let directory = SledDirectory::open(&path).unwrap();
    build(&directory, &["example.org"]).await.user("bob@example.org").await.alias("info@example.org", &["bob@example.org"]).await;
    directory.state_put("settings", b"srs-secret", b"s3cret", FOREVER).await.unwrap();
    directory.state_put("greylist", b"k", b"v", Duration::from_secs(3600)).await.unwrap();
    ExportKeeper::write_once(&directory, &folder.path().join("directory-export.toml")).await.unwrap();
    (folder, path)
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (_folder, path) = filled().await;
    let directory = SledDirectory::open(&path).unwrap();
    assert!(directory.rebuilt().is_none() && directory.health().is_ok());
    assert!(directory.user(&mailbox("bob@example.org")).await.unwrap().is_some());
    assert_eq!(directory.counts(&"example.org".parse().unwrap()).await.unwrap(), (1, 1));
    assert_eq!(directory.state_get("greylist", b"k").await.unwrap().as_deref(), Some(b"v".as_slice()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_second_opener_is_told_to_ask_the_first() {
    let (_folder, path) = filled().await;
    let first = SledDirectory::open(&path).unwrap();
    assert!(matches!(SledDirectory::open(&path), Err(DirectoryError::Locked { .. })));
    assert!(first.user(&mailbox("bob@example.org")).await.unwrap().is_some());
    drop(first);
    assert!(SledDirectory::open(&path).is_ok());
}

#[tokio::test]
async fn changes_made_at_once_are_all_kept() {
    let (_folder, path) = filled().await;
    let directory = SledDirectory::open(&path).unwrap();
    let generation = directory.generation();
    let adds = (0..200).map(|n| directory.apply(vec![Change::PutUser(user_record(&format!("u{n}@example.org")))]));
    let refused = directory.apply(vec![Change::PutUser(user_record("x@nowhere.example"))]);
    let (added, refused) = tokio::join!(futures::future::join_all(adds), refused);
    assert!(added.into_iter().all(|r| r.is_ok()), "one refusal in a group does not touch the others");
    assert!(matches!(refused, Err(DirectoryError::Refused(_))));
    assert_eq!(directory.generation() - generation, 200);
    drop(directory);
    let directory = SledDirectory::open(&path).unwrap();
    assert_eq!(directory.counts(&"example.org".parse().unwrap()).await.unwrap(), (201, 1));
}

#[tokio::test]
async fn a_damaged_database_is_rebuilt_from_the_export() {
    for damage in ["db", "conf", "missing"] {
        let (folder, path) = filled().await;
        let size = fs::metadata(path.join("db")).unwrap().len();
        match damage {
            // The log's head, where every page is listed.
            "db" => fs::write(path.join("db"), vec![0xa5; usize::try_from(size).unwrap()]).unwrap(),
            "conf" => fs::write(path.join("conf"), b"not a configuration").unwrap(),
            _ => fs::remove_dir_all(&path).unwrap(),
        }
        let directory = SledDirectory::open(&path).unwrap();
        let words = directory.rebuilt().unwrap_or_else(|| panic!("{damage}: nobody noticed")).to_owned();
        assert!(directory.user(&mailbox("bob@example.org")).await.unwrap().is_some(), "{damage}: {words}");
        assert_eq!(directory.alias(&"info@example.org".parse().unwrap()).await.unwrap().unwrap().targets, vec![mailbox("bob@example.org")]);
        assert_eq!(directory.counts(&"example.org".parse().unwrap()).await.unwrap(), (1, 1));
        assert_eq!(directory.state_get("settings", b"srs-secret").await.unwrap().as_deref(), Some(b"s3cret".as_slice()));
        let kept =
            fs::read_dir(folder.path()).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with("directory.sled.damaged-"));
        assert_eq!(kept, damage != "missing", "the damaged one is kept for whoever wants to look");
        drop(directory);
        assert!(SledDirectory::open(&path).unwrap().rebuilt().is_none(), "once");
    }
}

#[tokio::test]
async fn without_an_export_a_damaged_database_is_never_taken_for_an_empty_one() {
    let (folder, path) = filled().await;
    fs::remove_file(folder.path().join("directory-export.toml")).unwrap();
    fs::write(path.join("conf"), b"not a configuration").unwrap();
    let error = SledDirectory::open(&path).err().unwrap();
    assert!(matches!(error, DirectoryError::Damaged { .. }) && error.to_string().contains("restore a backup"), "{error}");
    assert!(path.join("db").exists(), "left as it was");
}

#[tokio::test]
async fn a_rebuild_that_was_cut_short_is_done_again() {
    let (_folder, path) = filled().await;
    let db = sled::open(&path).unwrap();
    db.remove("format").unwrap();
    db.open_tree("users").unwrap().clear().unwrap();
    db.open_tree("counts").unwrap().clear().unwrap();
    db.flush().unwrap();
    drop(db);
    open::wait_until_unlocked(&path);
    let directory = SledDirectory::open(&path).unwrap();
    assert!(directory.rebuilt().is_some());
    assert!(directory.user(&mailbox("bob@example.org")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_database_behind_its_export_has_lost_changes() {
    let (folder, path) = filled().await;
    let copy = folder.path().join("older.sled");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&path).unwrap().map(|e| e.unwrap()).filter(|e| e.file_type().unwrap().is_file()) {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let directory = SledDirectory::open(&path).unwrap();
    build(&directory, &[]).await.user("late@example.org").await;
    ExportKeeper::write_once(&directory, &folder.path().join("directory-export.toml")).await.unwrap();
    drop(directory);
    fs::remove_dir_all(&path).unwrap();
    fs::rename(&copy, &path).unwrap();
    let directory = SledDirectory::open(&path).unwrap();
    assert!(directory.rebuilt().unwrap().contains("later changes are lost"));
    assert!(directory.user(&mailbox("late@example.org")).await.unwrap().is_some());
    let generation = directory.generation();
    build(&directory, &[]).await.user("later@example.org").await;
    assert!(directory.generation() > generation, "revisions go on from the export's");
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let (_folder, path) = filled().await;
    let db = sled::open(&path).unwrap();
    db.insert("format", b"2").unwrap();
    db.flush().unwrap();
    drop(db);
    let error = SledDirectory::open(&path).err().unwrap();
    assert!(matches!(error, DirectoryError::Newer { found: 2, known: 1 }), "{error}");
    assert_eq!(sled::open(&path).unwrap().get("format").unwrap().unwrap(), b"2");
}

#[tokio::test]
async fn after_a_write_error_reads_go_on_and_writes_do_not() {
    let (_folder, path) = filled().await;
    let directory = SledDirectory::open(&path).unwrap();
    directory.writer.handle().fail("no space left on device");
    for outcome in [
        directory.apply(vec![Change::PutDomain(domain_record("other.example"))]).await,
        directory.state_put("t", b"k", b"v", FOREVER).await,
        directory.state_remove("t", b"k").await,
        directory.state_add("t", b"k", 1, FOREVER).await.map(drop),
        directory.state_put_new("t", b"k", b"v", FOREVER).await.map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, DirectoryError::Unavailable(_)) && error.to_string().contains("no space left"), "{error}");
    }
    assert!(directory.user(&mailbox("bob@example.org")).await.unwrap().is_some());
    assert!(directory.health().unwrap_err().contains("restart"));
}

#[tokio::test]
async fn expired_state_is_swept_and_renewed_state_stays() {
    let clock = ManualClock::at(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let options = SledOptions { clock: Arc::new(clock.clone()), ..Default::default() };
    let directory = SledDirectory::open_with(folder.path().join("directory.sled"), options).unwrap();
    let minute = Duration::from_secs(60);
    for n in 0..100u8 {
        directory.state_put("grey", &[n], &vec![n; if n == 0 { 20_000 } else { 10 }], minute).await.unwrap();
    }
    clock.advance(minute);
    directory.state_put("grey", &[1], b"renewed", minute).await.unwrap();
    let mut sweeper = state::Sweeper::new(directory.forest.clone(), Arc::new(clock));
    let pass = sweeper.pass().unwrap();
    assert!(pass.removed == 99 && !pass.more);
    assert_eq!(directory.forest.state().len(), 1);
    assert_eq!(directory.forest.tree(Table::Chunks).len(), 0, "pieces of long values go along");
    assert_eq!(sweeper.pass().unwrap().removed, 0);
}

#[tokio::test]
async fn a_damaged_record_names_itself() {
    let (_folder, path) = filled().await;
    let directory = SledDirectory::open(&path).unwrap();
    directory.forest.tree(Table::Users).insert(b"example.org\0eve", b"{").unwrap();
    let error = directory.user(&mailbox("eve@example.org")).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Damaged { .. }) && error.to_string().contains("users/example.org\\x00eve"), "{error}");
    directory.apply(vec![Change::PutAlias(alias_record("x@example.org", &["bob@example.org"]))]).await.unwrap();
}

#[tokio::test]
async fn a_database_that_lost_its_contents_is_never_taken_for_a_new_one() {
    let (folder, path) = filled().await;
    fs::remove_file(folder.path().join("directory-export.toml")).unwrap();
    let db = path.join("db");
    let len = usize::try_from(fs::metadata(&db).unwrap().len()).unwrap();
    for content in [vec![0x5a; len], vec![0; len], Vec::new()] {
        fs::write(&db, &content).unwrap();
        let error = SledDirectory::open(&path).err().unwrap();
        assert!(matches!(&error, DirectoryError::Damaged { .. }), "{error}");
    }
    fs::write(path.join("format"), "2\n").unwrap();
    assert!(matches!(SledDirectory::open(&path).err().unwrap(), DirectoryError::Newer { found: 2, known: 1 }));
    // Away with the folder, and it is a new one.
    fs::remove_dir_all(&path).unwrap();
    assert!(SledDirectory::open(&path).unwrap().users(None, None, 10).await.unwrap().is_empty());
}
