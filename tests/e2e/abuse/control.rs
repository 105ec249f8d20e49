//! The administration socket: strangers, garbage, lengths that are none.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use pillarbox_testkit::daemon::NOBODY;

use super::*;

/// As the user nobody, without any group, over a socket whose mode lets everybody connect.
fn as_nobody(daemon: &Daemon, path: &str) -> std::process::Output {
    std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--unix-socket"])
        .arg(daemon.home().join("run/control.sock"))
        .arg(format!("http://localhost{path}"))
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_stranger_s_uid_is_refused_by_what_the_kernel_says() {
    if !rustix::process::geteuid().is_root() || !crate::peers::have("curl") {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let daemon = started(builder()).await;
    let open = |path: std::path::PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    // The file's mode would keep a stranger out already; this is about what comes behind it.
    open(daemon.home().to_owned(), 0o755);
    open(daemon.home().join("run"), 0o755);
    open(daemon.home().join("run/control.sock"), 0o666);
    for path in ["/v1/users", "/v1/export", "/v1/status"] {
        let output = as_nobody(&daemon, path);
        let said = String::from_utf8_lossy(&output.stdout);
        let log = || format!("{}\n{}", String::from_utf8_lossy(&output.stderr), daemon.log().join("\n"));
        assert!(said.contains("\"denied\"") && !said.contains("alice"), "{path}: {said}{}", log());
    }
    daemon.log_line("control socket: refused").await;
    assert_eq!(daemon.get("/v1/status").await.status, 200);
}

#[tokio::test]
async fn garbage_and_lengths_that_are_none_leave_the_daemon_up() {
    let daemon = started(builder()).await;
    let before = Memory::of(&daemon);
    let socket = daemon.home().join("run/control.sock");
    let huge = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    for bytes in [
        &b"\0\xff\xfe\r\n\r\n"[..],
        b"POST /v1/domains HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n{}",
        b"POST /v1/domains HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /v1/domains HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"GET /v1/users/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        huge.as_bytes(),
        many.as_bytes(),
    ] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(!said.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&said));
        assert_eq!(daemon.get("/v1/status").await.status, 200);
    }
    Memory::of(&daemon).grew_less_than(before, 16 << 10, "garbage on the control socket");
}
