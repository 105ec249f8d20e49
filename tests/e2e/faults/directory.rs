//! A directory that is damaged or will not open: rebuilt from its export by itself, or by hand as the documentation says.

use super::*;
use crate::post::{login_code, stderr};

fn database(town: &Town) -> PathBuf {
    town.daemon.home().join("state/directory.sled")
}

/// Overwrites the middle of the database with something else.
fn damage(town: &Town) {
    let file = database(town).join("db");
    let len = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0x5a; usize::try_from(len).unwrap()]).unwrap();
}

/// Mail, logins and aliases are as they were.
async fn as_before(town: &mut Town) {
    assert_eq!(login_code(&town.daemon, BOB, "wonderland").await, "235");
    assert_eq!(login_code(&town.daemon, BOB, "wrong").await, "535");
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    crate::post::deliver(&town.daemon, "sender@client.test", &["info@example.test"], "Subject: alias\r\n\r\nhello\r\n").await;
    town.all_there().await;
}

async fn town() -> Town {
    let mut town = Town::start().await;
    town.daemon.add_alias("info@example.test", &[BOB]).await;
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town
}

#[tokio::test]
async fn a_damaged_directory_is_rebuilt_from_its_export_and_says_so() {
    let mut town = town().await;
    town.daemon.stop().await;
    damage(&town);
    town.daemon.restart().await;
    let problems = town.problems().await;
    assert!(problems.contains("was damaged") && problems.contains("was rebuilt from"), "{problems}");
    assert!(town.check_fails().await.contains("was rebuilt from"));
    as_before(&mut town).await;
    town.restart().await;
    assert_eq!(town.problems().await, "");
    as_before(&mut town).await;
}

#[tokio::test]
async fn without_an_export_the_daemon_stops_with_one_line_and_the_documented_repair_mends_it() {
    let mut town = town().await;
    let kept = town.daemon.home().join("directory.toml");
    std::fs::write(&kept, town.daemon.admin(&["export"]).await).unwrap();
    assert_eq!(town.send(&[BOB, CAROL], 3000).await, "250");
    town.daemon.stop().await;
    std::fs::remove_file(town.daemon.home().join("state/directory-export.toml")).unwrap();
    damage(&town);
    // Twice: what the database's library makes of the damage must not look like an empty directory at the next start.
    let _ = town.daemon.fails_to_start().await;
    let (status, lines) = town.daemon.fails_to_start().await;
    assert!(!status.success());
    let last = lines.last().unwrap();
    assert!(last.starts_with("pillarboxd: ") && last.contains("directory.sled") && last.contains("restore a backup"), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| !line.starts_with('{')).count(), 1, "one clear line beside the log: {lines:?}");

    // `check` works without a daemon and without a directory, and names the way out.
    let output = town.daemon.try_admin(&["check"], "").await;
    let text = stdout(&output) + &stderr(&output);
    assert!(!output.status.success() && text.contains("FAIL directory") && text.contains("pillarbox apply"), "{text}");

    // docs/backup.md: the damaged folder away, the kept export applied.
    std::fs::rename(database(&town), town.daemon.home().join("state/directory.sled.damaged")).unwrap();
    town.daemon.admin(&["apply", &kept.display().to_string()]).await;
    town.daemon.restart().await;
    as_before(&mut town).await;
    assert_eq!(town.problems().await, "");
}

#[tokio::test]
async fn a_directory_that_is_no_folder_stops_the_daemon_with_one_line() {
    let mut town = town().await;
    town.daemon.stop().await;
    let away = town.daemon.home().join("state/away");
    std::fs::rename(database(&town), &away).unwrap();
    std::fs::write(database(&town), "not a folder").unwrap();
    let (status, lines) = town.daemon.fails_to_start().await;
    assert!(!status.success());
    assert!(lines.last().is_some_and(|line| line.contains("directory.sled")), "{lines:?}");
    let output = town.daemon.try_admin(&["check"], "").await;
    let text = stdout(&output) + &stderr(&output);
    assert!(!output.status.success() && text.contains("FAIL directory"), "{text}");
    std::fs::remove_file(database(&town)).unwrap();
    std::fs::rename(away, database(&town)).unwrap();
    town.daemon.restart().await;
    as_before(&mut town).await;
}
