//! The command without a daemon: it opens the directory itself.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use predicates::prelude::*;
use serde_json::json;
use support::{Home, field};

#[test]
fn domains_users_and_aliases_come_and_go_with_the_contract_s_exit_codes() {
    let home = Home::new();
    home.run(&["domain", "add", "example.test"], 0);
    home.run(&["domain", "add", "EXAMPLE.test."], 4);
    home.run(&["domain", "add", "example.test", "--if-missing"], 0);
    home.run(&["domain", "show", "other.test"], 3);
    home.run(&["domain", "add", "not a domain"], 2);
    home.run(&["user", "add", "bob@other.test", "--generate"], 3);

    home.command(&["user", "add", "bob@example.test", "--password-stdin"]).write_stdin("geheim\n").assert().code(0);
    home.run(&["user", "add", "bob@example.test", "--generate"], 4);
    home.run(&["user", "add", "Bob@example.test", "--generate", "--if-missing"], 0);
    home.command(&["user", "add", "eve@example.test", "--password-stdin"]).write_stdin("\n").assert().code(2);
    home.run(&["user", "add", "eve@example.test"], 2);
    home.run(&["user", "show", "nobody@example.test"], 3);
    home.run(&["user", "passwd", "nobody@example.test", "--generate"], 3);

    home.run(&["alias", "add", "info@example.test", "bob@example.test", "x@y.org"], 0);
    home.run(&["alias", "add", "info@example.test", "x@y.org"], 4);
    home.run(&["alias", "add", "info@example.test", "x@y.org", "--if-missing"], 0);
    home.run(&["alias", "add", "@example.test", "bob@example.test"], 0);
    home.run(&["alias", "add", "loop@example.test", "loop@example.test"], 1);
    home.run(&["alias", "remove", "none@example.test", "--yes"], 3);

    assert_eq!(home.json(&["domain", "list"], 0).pointer("/0/users"), Some(&json!(1)));
    assert_eq!(home.json(&["alias", "list"], 0).pointer("/1/targets"), Some(&json!(["bob@example.test", "x@y.org"])));

    // Destructive: refused without a terminal and without --yes.
    home.run(&["domain", "remove", "example.test"], 2).stderr(predicate::str::contains("--yes"));
    home.run(&["user", "remove", "bob@example.test"], 2);
    home.run(&["alias", "remove", "info@example.test", "x@y.org", "--yes"], 0);
    assert_eq!(home.json(&["alias", "list", "example.test"], 0).pointer("/1/targets"), Some(&json!(["bob@example.test"])));
    home.run(&["domain", "remove", "example.test", "--yes"], 0);
    assert_eq!(home.json(&["user", "list"], 0), json!([]));
    assert_eq!(home.json(&["alias", "list"], 0), json!([]));
}

#[test]
fn the_json_fields_of_the_contract() {
    let home = Home::with("mailbox.default_quota = \"1G\"");
    home.run(&["domain", "add", "example.test"], 0);
    let added = home.json(&["user", "add", "bob@example.test", "--generate", "--quota", "2M"], 0);
    assert!(field(&added, "/password").len() > 15);
    home.run(&["user", "add", "amy@example.test", "--generate"], 0);
    home.run(&["alias", "add", "info@example.test", "bob@example.test"], 0);
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let has = |value: &serde_json::Value, wanted: &[&str]| {
        let found = keys(value);
        wanted.iter().for_each(|w| assert!(found.iter().any(|k| k == w), "{w} is not in {found:?}"));
    };
    has(home.json(&["domain", "list"], 0).pointer("/0").unwrap(), &["name", "users", "aliases"]);
    let bob = home.json(&["user", "show", "bob@example.test"], 0);
    has(&bob, &["address", "suspended", "quota_bytes", "used_bytes", "created"]);
    assert_eq!(bob.get("quota_bytes"), Some(&json!(2 << 20)));
    assert_eq!(home.json(&["user", "quota", "bob@example.test", "none"], 0).get("quota_bytes"), Some(&json!(null)));
    assert_eq!(home.json(&["user", "quota", "bob@example.test", "default"], 0).get("quota_bytes"), Some(&json!(1 << 30)));
    home.run(&["user", "quota", "bob@example.test", "lots"], 2);
    has(home.json(&["alias", "list"], 0).pointer("/0").unwrap(), &["address", "targets"]);
    let status = home.json(&["status"], 1);
    has(&status, &["version", "hostname", "listeners", "queue", "certificates", "healthy"]);
    has(status.get("queue").unwrap(), &["messages", "recipients", "oldest_seconds"]);
    assert_eq!(status.get("healthy"), Some(&json!(false)));

    let route = home.json(&["route", "info+news@example.test"], 0);
    has(&route, &["address", "steps", "final"]);
    assert_eq!(route.pointer("/final/0/action"), Some(&json!("mailbox")));
    assert_eq!(home.json(&["route", "nobody@example.test"], 0).pointer("/final/0/action"), Some(&json!("reject")));
    home.run(&["user", "suspend", "bob@example.test"], 0);
    assert_eq!(home.json(&["user", "list", "example.test"], 0).pointer("/1/suspended"), Some(&json!(true)));
    assert_eq!(home.json(&["route", "bob@example.test"], 0).pointer("/final/0/action"), Some(&json!("reject")));
    home.run(&["user", "resume", "bob@example.test"], 0);
}

#[test]
fn a_list_of_more_than_a_page_is_whole() {
    let home = Home::new();
    home.run(&["domain", "add", "example.test"], 0);
    let lines: String = (0..2100).map(|n| format!("user{n:04}@example.test,{{SSHA}}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n")).collect();
    let file = home.path().join("users.csv");
    std::fs::write(&file, lines).unwrap();
    let done = home.json(&["user", "import", file.to_str().unwrap()], 0);
    assert_eq!(field(&done, "/users"), "2100", "{done}");
    assert_eq!(home.json(&["user", "list"], 0).as_array().unwrap().len(), 2100);
    assert_eq!(home.text(&["user", "export"]).lines().count(), 2101);
}

#[test]
fn app_passwords_and_vacations() {
    let home = Home::new();
    home.run(&["domain", "add", "example.test"], 0);
    home.run(&["user", "add", "bob@example.test", "--generate"], 0);
    let made = home.json(&["app-password", "add", "bob@example.test", "phone 📱"], 0);
    let password = field(&made, "/password");
    home.run(&["app-password", "add", "bob@example.test", "phone 📱"], 4);
    let list = home.json(&["app-password", "list", "bob@example.test"], 0);
    assert_eq!(list.pointer("/0/label"), Some(&json!("phone 📱")));
    assert!(!list.to_string().contains(&password));
    home.run(&["app-password", "revoke", "bob@example.test", "phone 📱"], 2);
    home.run(&["app-password", "revoke", "bob@example.test", "phone 📱", "--yes"], 0);
    home.run(&["app-password", "revoke", "bob@example.test", "phone 📱", "--yes"], 3);

    let vacation = |more: &[&str]| {
        let mut arguments = vec!["vacation", "set", "bob@example.test", "--subject", "Away", "--text-file", "-"];
        arguments.extend(more);
        home.command(&arguments).write_stdin("Back soon.\n").assert()
    };
    home.run(&["vacation", "show", "bob@example.test"], 3);
    vacation(&["--from", "2026-13-01"]).code(2);
    vacation(&["--from", "2026-12-24", "--until", "2026-12-01"]).code(2);
    vacation(&["--from", "2026-12-01", "--until", "2026-12-24"]).code(0);
    home.run(&["vacation", "show", "bob@example.test"], 0).stdout(predicate::str::contains("from 2026-12-01 to 2026-12-24"));
    home.run(&["vacation", "clear", "bob@example.test"], 0);
    home.run(&["vacation", "clear", "bob@example.test"], 3);
}

#[test]
fn an_export_applied_elsewhere_gives_the_same_server() {
    let (one, two) = (Home::new(), Home::new());
    one.run(&["domain", "add", "example.test"], 0);
    one.command(&["user", "add", "bob@example.test", "--password-stdin", "--name", "Bob"]).write_stdin("geheim\n").assert().code(0);
    one.run(&["alias", "add", "info@example.test", "bob@example.test"], 0);
    let text = one.text(&["export"]);
    let file = one.path().join("export.toml");
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    let plan = two.json(&["apply", file, "--dry-run"], 0);
    assert_eq!(plan.get("applied"), Some(&json!(false)));
    assert!(plan.get("changes").unwrap().as_array().unwrap().len() >= 3, "{plan}");
    assert_eq!(two.json(&["domain", "list"], 0), json!([]));
    two.run(&["apply", file], 0);
    two.run(&["apply", file], 0).stdout(predicate::str::contains("Everything is as the file says"));
    assert_eq!(two.text(&["export"]), text);
    // What the file does not name goes only when asked, and only with consent.
    two.run(&["user", "add", "extra@example.test", "--generate"], 0);
    two.run(&["apply", file, "--prune"], 2);
    two.run(&["apply", file, "--prune", "--yes"], 0).stdout(predicate::str::contains("remove user extra@example.test"));
    two.run(&["user", "show", "extra@example.test"], 3);
    two.command(&["apply", "-"]).write_stdin("nonsense = 1\n").assert().code(1);
}

#[test]
fn errors_are_one_line_and_name_what_to_do() {
    let home = Home::new();
    let text = home.error(&["user", "show", "a@example.test\u{1b}[31m"], 2);
    assert!(!text.contains('\u{1b}'), "{text}");
    let text = home.error(&["queue", "list"], 1);
    assert!(text.contains("daemon is not running"), "{text}");
    let missing = Home::new();
    std::fs::remove_file(&missing.file).unwrap();
    let text = missing.error(&["domain", "list"], 1);
    assert!(text.contains("cannot read the configuration"), "{text}");
    home.run(&["usr", "list"], 2).stderr(predicate::str::contains("user"));
    home.run(&["queue", "retry"], 2);
}

#[test]
fn the_configuration_is_checked_shown_and_explained() {
    let home = Home::new();
    home.run(&["config", "check"], 0);
    home.run(&["config", "defaults"], 0).stdout(predicate::str::contains("message_size = \"50M\""));
    home.run(&["config", "explain", "limits.message_size"], 0).stdout(predicate::str::contains("50M"));
    let text = home.error(&["config", "explain", "limits.mesage_size"], 3);
    assert!(text.contains("did you mean limits.message_size?"), "{text}");

    let bad = Home::with("[limits]\nmesage_size = 1\nrecipents = 2\n");
    let run = bad.run(&["config", "check"], 1);
    let errors = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert_eq!(errors.lines().count(), 2, "{errors}");
    assert!(errors.contains("pillarbox.toml:5: limits.mesage_size: unknown key; did you mean limits.message_size?"), "{errors}");
    bad.run(&["domain", "list"], 1);

    let secret = Home::with("directory = { backend = \"sled\", url = \"postgres://me:geheim@db/x\" }");
    let shown = secret.text(&["config", "show"]);
    assert!(shown.contains("me:***@db") && !shown.contains("geheim"), "{shown}");
    assert!(!secret.json(&["config", "show"], 0).to_string().contains("geheim"));
    let by_variable = secret.command(&["config", "show"]).env("PILLARBOX_LIMITS__RECIPIENTS", "7").assert().code(0);
    assert!(String::from_utf8_lossy(&by_variable.get_output().stdout).contains("recipients = 7"));
}

#[test]
fn a_database_in_other_hands_is_told_apart() {
    let home = Home::new();
    home.run(&["domain", "list"], 0);
    let _held = pillarbox_directory::SledDirectory::open(home.path().join("state/directory.sled")).unwrap();
    let text = home.error(&["domain", "list"], 69);
    assert!(text.contains("another process holds the database"), "{text}");
}

#[test]
fn a_mailbox_moves_in_and_an_interrupted_import_goes_on() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("mail")).unwrap();
    home.run(&["domain", "add", "example.test"], 0);
    home.run(&["user", "add", "bob@example.test", "--generate"], 0);
    let mbox = home.path().join("old.mbox");
    let text: String =
        (0..20).map(|n| format!("From x@y.org Mon Nov 23 10:00:00 2026\nSubject: {n}\nStatus: RO\n\ntext {n}\n\n")).collect();
    std::fs::write(&mbox, text).unwrap();
    let mbox = mbox.to_str().unwrap();
    home.run(&["import", "mbox", mbox, "--to", "nobody@example.test"], 3);
    let done = home.json(&["import", "mbox", mbox, "--to", "bob@example.test", "--folder", "Old"], 0);
    assert_eq!((field(&done, "/stored"), field(&done, "/known")), ("20".into(), "0".into()));
    let again = home.json(&["import", "mbox", mbox, "--to", "bob@example.test", "--folder", "Old"], 0);
    assert_eq!((field(&again, "/stored"), field(&again, "/known")), ("0".into(), "20".into()));
    let folder = home.path().join("mail/example.test/bob/Maildir/.Old/cur");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 20);
    home.run(&["import", "mbox", "/nowhere/at/all", "--to", "bob@example.test"], 1);
}

#[test]
fn setup_may_be_repeated_and_leaves_records_to_publish() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(pillarbox_testkit::dns::DnsServer::start());
    server.address_of("mx.example.test", "192.0.2.1");
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let file = folder.path().join("etc/pillarbox.toml");
    let setup = || {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("--config").arg(&file).args([
            "--json",
            "setup",
            "example.test",
            "--admin",
            "alice",
            "--hostname",
            "mx.example.test",
            "--yes",
        ]);
        // The file is written with defaults; the folders and the names are this test's.
        for (name, value) in [
            ("PATHS__STATE", format!("{at}/state")),
            ("PATHS__MAIL", format!("{at}/mail")),
            ("PATHS__RUNTIME", format!("{at}/run")),
            ("DNS__SERVERS", format!("[\"{}\"]", server.address())),
            ("LISTEN__SMTP", "[\"127.0.0.1:0\"]".into()),
            ("LISTEN__SUBMISSION", "[]".into()),
            ("LISTEN__SUBMISSIONS", "[\"127.0.0.1:0\"]".into()),
        ] {
            command.env(format!("PILLARBOX_{name}"), value);
        }
        let run = command.assert().code(0);
        serde_json::from_slice::<serde_json::Value>(&run.get_output().stdout).unwrap()
    };
    let first = setup();
    assert_eq!(first.get("config_written"), Some(&json!(true)));
    assert_eq!(field(&first, "/user"), "alice@example.test");
    assert!(field(&first, "/password").len() > 15);
    let names: Vec<String> =
        first.get("records").unwrap().as_array().unwrap().iter().map(|r| format!("{} {}", field(r, "/name"), field(r, "/type"))).collect();
    for wanted in ["example.test MX", "example.test TXT", "_dmarc.example.test TXT", "_submissions._tcp.example.test SRV"] {
        assert!(names.iter().any(|n| n == wanted), "{wanted} is not in {names:?}");
    }
    assert_eq!(names.iter().filter(|n| n.contains("._domainkey.")).count(), 2, "{names:?}");
    assert!(std::fs::read_to_string(folder.path().join("etc/dovecot.conf")).unwrap().contains(&format!("{at}/state/dovecot/users")));

    let second = setup();
    assert_eq!(second.get("config_written"), Some(&json!(false)));
    assert_eq!(second.get("password"), None);
    assert_eq!(second.get("records"), first.get("records"));
}

#[test]
fn a_backup_is_verified_and_restored_elsewhere() {
    let (one, two) = (Home::new(), Home::new());
    one.run(&["domain", "add", "example.test"], 0);
    one.command(&["user", "add", "bob@example.test", "--password-stdin"]).write_stdin("geheim\n").assert().code(0);
    let message = one.path().join("mail/example.test/bob/Maildir/cur/1.x.y,S=3:2,S");
    std::fs::create_dir_all(message.parent().unwrap()).unwrap();
    std::fs::write(&message, "abc").unwrap();
    let file = one.path().join("backup.tar.zst");
    let file = file.to_str().unwrap();
    one.run(&["backup", "create", file, "--with-mail"], 0);
    one.run(&["backup", "create", file, "--with-mail"], 1);
    let seen = one.json(&["backup", "verify", file], 0);
    assert_eq!(seen.pointer("/manifest/with_mail"), Some(&json!(true)));

    // Every cut and a turned bit are found.
    let whole = std::fs::read(file).unwrap();
    let damaged = one.path().join("damaged");
    for broken in [whole[..whole.len() / 2].to_vec(), whole[..whole.len() - 1].to_vec(), {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    }] {
        std::fs::write(&damaged, broken).unwrap();
        one.run(&["backup", "verify", damaged.to_str().unwrap()], 1);
    }
    std::fs::write(&damaged, "no backup").unwrap();
    one.run(&["restore", damaged.to_str().unwrap(), "--yes"], 1);

    two.run(&["restore", file], 2);
    two.run(&["restore", file, "--yes"], 0);
    assert_eq!(two.text(&["export"]), one.text(&["export"]));
    let restored = two.path().join("mail/example.test/bob/Maildir/cur/1.x.y,S=3:2,S");
    assert_eq!(std::fs::read(restored).unwrap(), b"abc");
    for empty in ["tmp", "new"] {
        assert!(two.path().join("mail/example.test/bob/Maildir").join(empty).is_dir(), "{empty}");
    }
    assert_eq!(std::fs::read_dir(two.path().join("state/dkim/example.test")).unwrap().count(), 2);
    assert!(two.path().join("pillarbox.toml.from-backup").exists());
}

#[test]
fn completions_and_manual_pages_are_made_from_the_command_itself() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        home.run(&["completions", shell], 0).stdout(predicate::str::contains("COMPLETE"));
    }
    let man = home.path().join("man");
    home.run(&["man", man.to_str().unwrap()], 0);
    for page in
        ["pillarbox.1", "pillarbox-queue-list.1", "pillarbox-setup.1", "pillarbox-backup-create.1", "sendmail.1", "pillarbox.toml.5"]
    {
        assert!(man.join(page).exists(), "{page}");
    }
}
