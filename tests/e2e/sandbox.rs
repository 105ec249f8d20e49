//! What the running daemon has shut itself in with, seen from outside, and that what it must still do goes on.

use std::os::unix::fs::symlink;

use pillarbox_testkit::{Daemon, certificates};
use serde_json::Value;

use crate::peers;

/// A field of a thread's status in /proc.
fn field(status: &str, name: &str) -> String {
    status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn every_thread_is_shut_in_and_status_says_so() {
    let daemon = Daemon::builder().set("security.sandbox", "required").start().await;
    let mut threads = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().map(|t| t.unwrap().path()) {
        // One that has just ended is no matter.
        let Ok(status) = std::fs::read_to_string(thread.join("status")) else { continue };
        assert_eq!(field(&status, "Seccomp:"), "2", "{status}");
        assert_eq!(field(&status, "NoNewPrivs:"), "1", "{status}");
        assert_eq!(field(&status, "Seccomp_filters:"), "2", "{status}");
        threads += 1;
    }
    assert!(threads > 2);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{limits}");
    let sandbox = &daemon.admin_json(&["status"]).await["sandbox"];
    assert_eq!((&sandbox["files"], &sandbox["calls"]), (&Value::from("full"), &Value::from(true)), "{sandbox}");
    assert!(daemon.admin(&["status"]).await.contains("sandbox      files, system calls"));
    daemon.log_line("shut in").await;
}

#[tokio::test]
async fn off_is_said_and_nothing_holds() {
    let daemon = Daemon::builder().set("security.sandbox", "off").start().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert_eq!(field(&status, "Seccomp:"), "0");
    let told = daemon.admin_json(&["status"]).await;
    assert_eq!((&told["sandbox"]["files"], &told["sandbox"]["calls"]), (&Value::from("none"), &Value::from(false)));
    assert!(told["notes"].to_string().contains("security.sandbox is off"), "{told}");
}

/// Keys of a certificate in some folder.
fn keyed(daemon: &mut Daemon, folder: &std::path::Path) {
    daemon.configure("tls.certificate", folder.join("issued.pem").display().to_string());
    daemon.configure("tls.private_key", folder.join("issued.key").display().to_string());
}

#[tokio::test]
async fn files_outside_are_refused_by_the_program_s_word_and_then_by_the_kernel() {
    let mut daemon = Daemon::start().await;
    let outside = pillarbox_testkit::folder();
    let (chain, key) = certificates::CertificateAuthority::new().issue(&["mail.example.test"]).write(outside.path(), "issued");
    std::fs::rename(&chain, outside.path().join("issued.pem")).unwrap();
    std::fs::rename(&key, outside.path().join("issued.key")).unwrap();
    // A reload that names a file in a folder that was not known at the start: told what to do.
    let before = std::fs::read_to_string(daemon.config_path()).unwrap();
    keyed(&mut daemon, outside.path());
    let refused = daemon.post("/v1/reload", &Value::Null).await;
    assert!(refused.status >= 400 && refused.body.contains("restart the daemon"), "{refused:?}");
    // A folder inside that becomes a link to the outside once the daemon has looked at it would pass a check of names; the kernel goes by where
    // a file is. (The daemon may be root here, so that modes alone would let it through.)
    let inside = daemon.home().join("run/certificates");
    std::fs::create_dir(&inside).unwrap();
    symlink(outside.path().join("issued.pem"), inside.join("issued.pem")).unwrap();
    symlink(outside.path().join("issued.key"), inside.join("issued.key")).unwrap();
    keyed(&mut daemon, &inside);
    let refused = daemon.post("/v1/reload", &Value::Null).await;
    assert!(refused.status >= 400, "{refused:?}");
    // In the same folder as files, they are taken.
    for name in ["issued.pem", "issued.key"] {
        std::fs::remove_file(inside.join(name)).unwrap();
        std::fs::copy(outside.path().join(name), inside.join(name)).unwrap();
    }
    let taken = daemon.post("/v1/reload", &Value::Null).await;
    assert!(taken.status < 300, "{taken:?}");
    // And renewed by renaming another over them, as certbot does.
    std::fs::copy(outside.path().join("issued.pem"), inside.join("new")).unwrap();
    std::fs::rename(inside.join("new"), inside.join("issued.pem")).unwrap();
    assert!(daemon.post("/v1/reload", &Value::Null).await.status < 300);
    std::fs::write(daemon.config_path(), before).unwrap();
    assert!(daemon.post("/v1/reload", &Value::Null).await.status < 300);
}

#[tokio::test]
async fn after_a_restart_the_new_folder_is_inside() {
    let mut daemon = Daemon::start().await;
    let outside = pillarbox_testkit::folder();
    let secret = outside.path().join("password");
    std::fs::write(&secret, "x\n").unwrap();
    daemon.configure("relay.smarthost", "smtps://user@smart.test:465");
    daemon.configure("relay.smarthost_password_file", secret.display().to_string());
    assert!(daemon.post("/v1/reload", &Value::Null).await.body.contains("restart the daemon"));
    daemon.stop().await;
    daemon.restart().await;
    assert!(daemon.post("/v1/reload", &Value::Null).await.status < 300);
}

/// What `systemd-analyze security` reached, in tenths; to be lowered, never raised.
const EXPOSURE: &str = "16";

#[tokio::test]
async fn the_unit_leaves_little_exposed() {
    if !peers::have("systemd-analyze") {
        return;
    }
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/systemd/pillarbox.service");
    let unit = unit.canonicalize().unwrap();
    let threshold = format!("--threshold={EXPOSURE}");
    let output = peers::run("systemd-analyze", &["security", "--offline=true", &threshold, "--no-pager", unit.to_str().unwrap()]).await;
    let told = String::from_utf8_lossy(&output.stdout);
    let level = told.lines().rev().find(|l| l.contains("exposure level")).unwrap_or_default();
    println!("{level}");
    assert!(output.status.success(), "{told}");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains("pillarbox.service:"), "a line that systemd does not know: {complaints}");
}
