//! Moving in and out: users with their old hashes, ten thousand messages, the directory as text, what happens to a damaged database, backups.

use std::path::Path;
use std::process::Stdio;

use pillarbox_testkit::daemon::binary;
use pillarbox_testkit::{Daemon, folder};
use rustix::process::{Pid, Signal, kill_process};

use crate::post::{deliver, letter, login_code, rcpt, stderr, stdout};

/// "geheim" by Dovecot's `doveadm pw`.
const SHA512: &str =
    "{SHA512-CRYPT}$6$rounds=1000$J/5KI/nPJo90ODGH$YdDN7NWjdwbG1BTf4e8RVj2jNcDLloE5/TgCJIkvgd1ihSG81414XGqyoUxGhMXeiSG332g9gFQe02vVynEwy.";
const BLF: &str = "{BLF-CRYPT}$2y$05$s7xFXMRa2SjiCylhCH3vburDHjcfdTm438u7F0SX.kSJibu2Uh7Ya";
const ARGON: &str = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$LBSFvEf+vntQwcEqvboEMw$FYRQSKMoy2XY+z9+rVltt7uGiDS33Dg1va+NTFjERSc";

#[tokio::test]
async fn users_come_with_their_hashes_which_are_made_better_at_the_next_login() {
    let daemon = Daemon::start().await;
    daemon.add_domain("example.test").await;
    let files = folder();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let passwd = format!(
        "# Dovecot's\nsha@example.test:{SHA512}:5000:5000:Sha Two,room 3:/var/vmail:/bin/false:userdb_quota_rule=*:storage=1G\n\
         blf:{BLF}\nlocked@example.test:!\nbroken@example.test:{{NOSUCH}}x\n"
    );
    let output = daemon.try_admin(&["--json", "user", "import", &write("users", &passwd), "--domain", "example.test"], "").await;
    let done: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(output.status.code(), Some(1), "a line was refused: {done}");
    assert_eq!((&done["users"], done["refused"].as_array().unwrap().len()), (&3.into(), 1), "{done}");
    assert!(done["refused"][0].as_str().unwrap().starts_with("line 5"), "{done}");
    let csv = format!(
        "address,password,quota,name\nargon@example.test,\"{ARGON}\",2G,\"Argon, the second\"\nplain@example.test,{{PLAIN}}geheim,,\n"
    );
    daemon.admin(&["user", "import", &write("users.csv", &csv)]).await;
    let map = "info@example.test sha@example.test, blf@example.test\n@example.test argon@example.test\n";
    daemon.admin(&["user", "import", &write("virtual", map)]).await;
    let again = daemon.admin_json(&["user", "import", &write("users.csv", &csv)]).await;
    assert_eq!((&again["users"], &again["existing"]), (&0.into(), &2.into()), "{again}");

    let users = ["sha", "blf", "argon", "plain"];
    let hash = async |user: &str| {
        let text = daemon.admin(&["user", "export"]).await;
        let line = text.lines().find(|l| l.starts_with(&format!("{user}@"))).unwrap().to_owned();
        line.split_once(',').unwrap().1.trim_start_matches('"').to_owned()
    };
    assert!(hash("sha").await.starts_with("{SHA512-CRYPT}") && hash("blf").await.starts_with("{BLF-CRYPT}"));
    assert!(!daemon.admin(&["user", "export"]).await.contains("geheim"), "a plain password is hashed when it comes");
    for user in users {
        let address = format!("{user}@example.test");
        assert_eq!(login_code(&daemon, &address, "wrong").await, "535", "{user}");
        for round in ["the old hash", "the new one"] {
            assert_eq!(login_code(&daemon, &address, "geheim").await, "235", "{user} by {round}");
        }
    }
    assert_eq!(login_code(&daemon, "locked@example.test", "!").await, "535");
    // Hashing anew happens behind the answer.
    let mut upgraded = 0;
    for user in users {
        for _ in 0..200 {
            if hash(user).await.contains("$argon2id$") {
                upgraded += 1;
                break;
            }
        }
    }
    assert_eq!(upgraded, users.len());
    let shown = daemon.admin_json(&["user", "show", "argon@example.test"]).await;
    assert_eq!((&shown["quota_bytes"], &shown["name"]), (&(2u64 << 30).into(), &"Argon, the second".into()), "{shown}");
    assert_eq!(daemon.admin_json(&["user", "show", "sha@example.test"]).await["quota_bytes"], 1u64 << 30);
    for to in ["info@example.test", "whoever@example.test"] {
        assert_eq!(rcpt(&daemon, to).await.code(), "250", "{to}");
    }
}

/// Runs `pillarbox import …` and kills it once something of it is in the mailbox.
async fn interrupted(daemon: &Daemon, arguments: &[&str], inbox: &Path) {
    let mut child = tokio::process::Command::new(binary("pillarbox"))
        .arg("--config")
        .arg(daemon.config_path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let started = async {
        loop {
            let some = count(&inbox.join("new")) + count(&inbox.join("cur"));
            if some > 1500 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = started => {}
        status = child.wait() => panic!("the import was over too soon: {status:?}"),
    }
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert!(!child.wait().await.unwrap().success());
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map(|d| d.count()).unwrap_or(0)
}

const MANY: usize = 10_000;

#[tokio::test]
async fn ten_thousand_messages_of_a_maildir_arrive_once_though_the_import_was_killed() {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let source = folder();
    for sub in ["cur", "new", "tmp", ".Old.Stuff/cur", ".Old.Stuff/new", ".Old.Stuff/tmp"] {
        std::fs::create_dir_all(source.path().join(sub)).unwrap();
    }
    for n in 0..MANY {
        let path = match n % 10 {
            0 => format!("new/{}.M{n}.host", 1_700_000_000 + n),
            1 => format!(".Old.Stuff/cur/{}.M{n}.host:2,FS", 1_700_000_000 + n),
            2 => format!("cur/{}.M{n}.host:2,", 1_700_000_000 + n),
            _ => format!("cur/{}.M{n}.host:2,RS", 1_700_000_000 + n),
        };
        std::fs::write(source.path().join(path), format!("Message-ID: <{n}@old.test>\nSubject: number {n}\n\nbody {n}\n")).unwrap();
    }
    let path = source.path().display().to_string();
    let arguments = ["import", "maildir", &path, "--to", "alice@example.test"];
    let inbox = daemon.maildir("alice@example.test");
    interrupted(&daemon, &arguments, &inbox).await;
    // Mail comes in meanwhile.
    deliver(&daemon, "sender@client.test", &["alice@example.test"], &letter("sender@client.test", "alice@example.test", "meanwhile")).await;
    let done = daemon.admin_json(&arguments).await;
    let (stored, known) = (done["stored"].as_u64().unwrap(), done["known"].as_u64().unwrap());
    assert!(stored + known == MANY as u64 && known >= 1, "{done}");
    let again = daemon.admin_json(&arguments).await;
    assert_eq!((&again["stored"], &again["known"]), (&0.into(), &MANY.into()), "{again}");

    let (inbox_now, old) = (daemon.mailbox("alice@example.test"), daemon.folder("alice@example.test", "Old.Stuff"));
    assert_eq!((inbox_now.messages.len(), old.messages.len()), (MANY - MANY / 10 + 1, MANY / 10));
    let mut seen = std::collections::HashSet::new();
    for message in inbox_now.messages.iter().chain(&old.messages) {
        let Some(n) = message.header("Subject").strip_prefix("number ").and_then(|n| n.parse::<usize>().ok()) else { continue };
        assert!(seen.insert(n), "{n} is there twice");
        let name = message.path.file_name().unwrap().to_string_lossy().into_owned();
        let flags = name.rsplit_once(":2,").map(|(_, flags)| flags.to_owned());
        let wanted = match n % 10 {
            0 => None,
            1 => Some("FS"),
            2 => Some(""),
            _ => Some("RS"),
        };
        assert_eq!((message.new, flags.as_deref()), (n % 10 == 0, wanted), "{n}: {name}");
        assert_eq!(message.content, format!("Message-ID: <{n}@old.test>\nSubject: number {n}\n\nbody {n}\n").as_bytes());
    }
    assert_eq!(seen.len(), MANY);
}

#[tokio::test]
async fn ten_thousand_messages_of_an_mbox_file_too() {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    let home = folder();
    let mbox = home.path().join("archive.mbox");
    let mut text = String::new();
    for n in 0..MANY {
        let status = if n % 2 == 0 { "Status: RO\nX-Status: A\n" } else { "" };
        text.push_str(&format!(
            "From x@old.test Mon Nov 23 10:00:00 2026\nMessage-ID: <{n}@old.test>\n{status}Subject: number {n}\n\n>From the body\n\n"
        ));
    }
    std::fs::write(&mbox, text).unwrap();
    let path = mbox.display().to_string();
    let arguments = ["import", "mbox", &path, "--to", "alice@example.test", "--folder", "Archive"];
    let target = daemon.maildir("alice@example.test").join(".Archive");
    interrupted(&daemon, &arguments, &target).await;
    let done = daemon.admin_json(&arguments).await;
    assert_eq!(done["stored"].as_u64().unwrap() + done["known"].as_u64().unwrap(), MANY as u64, "{done}");
    let stored = daemon.folder("alice@example.test", "Archive").messages;
    let mut subjects: Vec<String> = stored.iter().map(|m| m.header("Subject")).collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!((stored.len(), subjects.len()), (MANY, MANY));
    let read = stored.iter().filter(|m| m.path.to_string_lossy().ends_with(":2,RS")).count();
    assert_eq!(read, MANY / 2, "flags are kept");
    assert!(daemon.mailbox("alice@example.test").messages.is_empty());
    for (arguments, code) in [
        (["import", "mbox", &path, "--to", "nobody@example.test"], 3),
        (["import", "mbox", "/nonexistent/file", "--to", "alice@example.test"], 1),
    ] {
        let output = daemon.try_admin(&arguments, "").await;
        assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(code), 1), "{}", stderr(&output));
    }
}

async fn filled() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.add_alias("team@example.test", &["alice@example.test", "far@friend.test"]).await;
    daemon.admin(&["user", "quota", "bob@example.test", "1G"]).await;
    daemon.admin_with(&["vacation", "set", "bob@example.test", "--subject", "Weg", "--text-file", "-"], "[[user]]\n\"x\"\n").await;
    daemon.admin(&["app-password", "add", "alice@example.test", "phone"]).await;
    daemon
}

#[tokio::test]
async fn the_directory_goes_out_as_text_and_comes_back() {
    let daemon = filled().await;
    let text = daemon.admin(&["export"]).await;
    let files = folder();
    let file = files.path().join("export.toml").display().to_string();
    std::fs::write(&file, &text).unwrap();
    let nothing = daemon.admin_json(&["apply", &file]).await;
    assert_eq!((nothing["changes"].as_array().unwrap().len(), &nothing["applied"]), (0, &true.into()), "{nothing}");

    daemon.admin(&["user", "remove", "bob@example.test", "--yes"]).await;
    daemon.admin(&["domain", "add", "new.test"]).await;
    daemon.add_user("eve@new.test", "apple").await;
    let plan = daemon.admin_json(&["apply", &file, "--dry-run", "--prune"]).await;
    assert_eq!(plan["applied"], false);
    let words: Vec<&str> = plan["changes"].as_array().unwrap().iter().filter_map(|c| c.as_str()).collect();
    assert!(
        words.iter().any(|c| c.contains("bob@example.test")) && words.iter().any(|c| c.starts_with("remove ") && c.contains("new.test")),
        "{words:?}"
    );
    assert_eq!(daemon.try_admin(&["user", "show", "bob@example.test"], "").await.status.code(), Some(3), "--dry-run changes nothing");
    let unasked = daemon.try_admin(&["apply", &file, "--prune"], "").await;
    assert_eq!(unasked.status.code(), Some(2), "{}", stderr(&unasked));
    daemon.admin(&["apply", &file]).await;
    assert_eq!(login_code(&daemon, "bob@example.test", "builder").await, "235", "with the old password");
    assert_eq!(rcpt(&daemon, "eve@new.test").await.code(), "250", "without --prune nothing goes");
    daemon.admin(&["apply", &file, "--prune", "--yes"]).await;
    assert_eq!(rcpt(&daemon, "eve@new.test").await.code(), "550");
    let comparable = |text: &str| -> Vec<String> {
        text.lines().filter(|l| !l.contains("revision") && !l.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(comparable(&daemon.admin(&["export"]).await), comparable(&text));
    let again = daemon.admin_json(&["apply", &file, "--prune", "--yes"]).await;
    assert_eq!(again["changes"].as_array().unwrap().len(), 0, "{again}");
    std::fs::write(&file, "[[user]]\naddress = 7\n").unwrap();
    let bad = daemon.try_admin(&["apply", &file], "").await;
    assert_eq!((bad.status.code(), stderr(&bad).lines().count()), (Some(1), 1), "{}", stderr(&bad));
}

/// The export beside the database, once it says this.
async fn kept(daemon: &Daemon, wanted: &str) {
    let path = daemon.home().join("state/directory-export.toml");
    for _ in 0..2000 {
        if std::fs::read_to_string(&path).is_ok_and(|text| text.contains(wanted)) {
            return;
        }
        // Each look takes a turn of the daemon's, which writes the file at once after a change.
        daemon.get("/v1/status").await;
    }
    panic!("{wanted} is not in {}", path.display());
}

#[tokio::test]
async fn a_lost_or_damaged_database_is_made_again_from_the_export_and_status_says_so() {
    let mut daemon = filled().await;
    kept(&daemon, "team@example.test").await;
    kept(&daemon, "phone").await;
    daemon.add_user("late@example.test", "comer").await;
    kept(&daemon, "late@example.test").await;
    let database = daemon.home().join("state/directory.sled");
    for damage in ["deleted", "garbage", "cut"] {
        assert!(daemon.stop().await.success());
        match damage {
            "deleted" => std::fs::remove_dir_all(&database).unwrap(),
            "garbage" => {
                let file = database.join("db");
                let length = std::fs::metadata(&file).unwrap().len();
                std::fs::write(&file, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
            }
            _ => std::fs::File::options().write(true).open(database.join("db")).unwrap().set_len(100).unwrap(),
        }
        daemon.restart().await;
        let status = daemon.try_admin(&["--json", "status"], "").await;
        let status: serde_json::Value = serde_json::from_str(&stdout(&status)).unwrap();
        let problems = status["problems"].to_string();
        assert!(problems.contains("was rebuilt from") && status["healthy"] == false, "{damage}: {status}");
        for (user, password) in [("alice", "wonderland"), ("bob", "builder"), ("late", "comer")] {
            assert_eq!(login_code(&daemon, &format!("{user}@example.test"), password).await, "235", "{damage}: {user}");
        }
        assert_eq!(rcpt(&daemon, "team@example.test").await.code(), "250");
        assert_eq!(daemon.admin_json(&["vacation", "show", "bob@example.test"]).await["text"], "[[user]]\n\"x\"\n");
    }
    // A start later all is well.
    assert!(daemon.stop().await.success());
    daemon.restart().await;
    let status = daemon.admin_json(&["status"]).await;
    assert_eq!(status["healthy"], true, "{status}");
}

#[tokio::test]
async fn a_backup_made_while_running_brings_everything_back() {
    let mut daemon = filled().await;
    deliver(&daemon, "sender@client.test", &["alice@example.test"], &letter("sender@client.test", "alice@example.test", "kept")).await;
    daemon.mail("alice@example.test", 1).await;
    daemon.configure("mailbox.suspended", "hold");
    daemon.reload();
    daemon.log_line("reload").await;
    daemon.admin(&["user", "suspend", "bob@example.test"]).await;
    deliver(&daemon, "sender@client.test", &["bob@example.test"], &letter("sender@client.test", "bob@example.test", "in the queue")).await;
    let files = folder();
    let file = files.path().join("backup").display().to_string();
    daemon.admin(&["backup", "create", &file, "--with-mail"]).await;
    daemon.admin(&["backup", "verify", &file]).await;
    let twice = daemon.try_admin(&["backup", "create", &file], "").await;
    assert_eq!(twice.status.code(), Some(1), "an existing file is not overwritten: {}", stderr(&twice));
    let damaged = files.path().join("damaged").display().to_string();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&damaged, &bytes).unwrap();
    let verified = daemon.try_admin(&["backup", "verify", &damaged], "").await;
    assert_eq!((verified.status.code(), stderr(&verified).lines().count()), (Some(1), 1), "{}", stderr(&verified));
    let running = daemon.try_admin(&["restore", &file, "--yes"], "").await;
    assert_eq!(running.status.code(), Some(1), "not under a running daemon: {}", stderr(&running));

    assert!(daemon.stop().await.success());
    for lost in ["state", "mail"] {
        std::fs::remove_dir_all(daemon.home().join(lost)).unwrap();
        std::fs::create_dir(daemon.home().join(lost)).unwrap();
    }
    daemon.admin(&["restore", &file, "--yes"]).await;
    daemon.restart().await;
    assert_eq!(login_code(&daemon, "alice@example.test", "wonderland").await, "235");
    assert_eq!(daemon.mail("alice@example.test", 1).await[0].header("Subject"), "kept");
    daemon.admin(&["user", "resume", "bob@example.test"]).await;
    assert_eq!(daemon.mail("bob@example.test", 1).await[0].header("Subject"), "in the queue");
}
