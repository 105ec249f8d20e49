//! The lines, and the real Dovecot reading them where one is installed.

use std::process::Command;

use pillarbox_config::Argon2Cost;
use pillarbox_smtp::Secret;

use super::*;
use crate::memory::MemoryDirectory;
use crate::password;
use crate::records::{AppPassword, Change};
use crate::suite::{build, user_record};

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };

fn options() -> DovecotOptions {
    DovecotOptions {
        uid: 5000,
        gid: 5001,
        home: Arc::new(|m| Some(PathBuf::from(format!("/var/vmail/{}/{}", m.domain, m.local.key())))),
        default_quota: None,
    }
}

async fn directory() -> MemoryDirectory {
    let d = MemoryDirectory::new();
    let put = |address: &str, password: Option<&str>, edit: &dyn Fn(&mut UserRecord)| {
        let mut user = user_record(address);
        edit(&mut user);
        let app = |label: &str, secret: &str| AppPassword {
            label: label.into(),
            hash: password::hash(&Secret::new(secret), &CHEAP).unwrap(),
            created: String::new(),
            last_used: None,
        };
        let credential = CredentialRecord {
            password: password.map(|p| password::hash(&Secret::new(p), &CHEAP).unwrap()),
            scram: None,
            app: vec![app("phone", "app-one"), app("desk", "app-two")],
        };
        let address = user.address.clone();
        vec![Change::PutUser(user), Change::PutCredential(address, credential)]
    };
    build(&d, &["example.org"]).await;
    let bob = put("Bob@example.org", Some("right"), &|u| {
        u.logins = vec!["robert@example.org".parse().unwrap()];
        u.quota = Some(Quota::Bytes(1000));
    });
    let gone = put("gone@example.org", Some("right"), &|u| u.suspended = true);
    let none = put("none@example.org", None, &|_| {});
    let odd = put("\"a:b\"@example.org", Some("right"), &|_| {});
    d.apply([bob, gone, none, odd].concat()).await.unwrap();
    d
}

#[tokio::test]
async fn lines_say_what_dovecot_needs() {
    let (d, folder) = (directory().await, tempfile::tempdir().unwrap());
    DovecotFile::write_once(&d, folder.path(), &options()).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let users = read("users");
    let line = |start: &str| users.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start} in {users}")).to_owned();
    let bob = line("bob@example.org:");
    assert!(bob.starts_with("bob@example.org:{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$"), "{bob}");
    assert!(
        bob.ends_with(":5000:5001::/var/vmail/example.org/bob::userdb_quota_rule=*:storage=1000B userdb_quota_storage_size=1000B"),
        "{bob}"
    );
    assert!(line("robert@example.org:").ends_with(" user=bob@example.org"));
    assert!(line("gone@example.org:").contains(":{CRYPT}*:") && line("gone@example.org:").ends_with("::nologin reason=suspended"));
    assert!(line("none@example.org:").starts_with("none@example.org:{CRYPT}*:5000:"));
    assert_eq!(users.lines().count(), 4, "an address with a colon is left out: {users}");
    for n in [1, 2] {
        let apps = read(&format!("app-passwords-{n}"));
        assert!(
            apps.contains("bob@example.org:{ARGON2ID}$") && apps.contains(" user=bob@example.org\n")
                || apps.contains(":user=bob@example.org\n"),
            "{apps}"
        );
        assert!(!apps.contains("gone@example.org"), "suspended");
    }
    assert_eq!(read("app-passwords-10"), "");
    let limited = DovecotOptions { default_quota: Some(5), ..options() };
    DovecotFile::write_once(&d, folder.path(), &limited).await.unwrap();
    assert!(read("users").contains("/var/vmail/example.org/none::userdb_quota_rule=*:storage=5B userdb_quota_storage_size=5B"));
}

/// Runs a command of Dovecot's, or tells why not: an error where the peers must be there, else a loud skip.
fn doveadm() -> Option<&'static str> {
    if Command::new("doveadm").arg("--version").output().is_ok() {
        return Some("doveadm");
    }
    assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none(), "doveadm is not installed, and PILLARBOX_REQUIRE_PEERS is set");
    eprintln!("SKIPPED: doveadm is not installed; Dovecot's own reading of our hashes was not tested");
    None
}

#[test]
fn dovecot_accepts_our_hashes() {
    let Some(doveadm) = doveadm() else { return };
    for cost in [Argon2Cost::default(), password::APP_PASSWORD_COST] {
        let hash = scheme_of(&password::hash(&Secret::new("pässwörd"), &cost).unwrap());
        let test = |secret: &str| Command::new(doveadm).args(["-O", "pw", "-t", &hash, "-p", secret]).status().unwrap().success();
        assert!(test("pässwörd"), "{hash}");
        assert!(!test("wrong"), "{hash}");
    }
    let locked = Command::new(doveadm).args(["-O", "pw", "-t", "{CRYPT}*", "-p", "*"]).output().unwrap();
    assert!(!locked.status.success(), "a locked entry must match nothing");
}

fn scheme_of(hash: &str) -> String {
    format!("{{ARGON2ID}}{hash}")
}
