//! Debian's BIND in the foreground, for tests that write its configuration.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Stdio;

use pillarbox_testkit::{PATIENCE, free_port};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::peers;

/// Options that keep it in its folder and away from the world.
pub(crate) const QUIET: &str =
    "listen-on-v6 { none; }; recursion no; pid-file none; lock-file none; session-keyfile none; dnssec-validation no; notify no;";

/// A port of 127.0.0.1 that is free for both protocols.
pub(crate) fn port() -> u16 {
    loop {
        let port = free_port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts it with a configuration file and waits until it serves; it ends when dropped.
pub(crate) async fn serve(config: &Path) -> Child {
    let mut command = Command::new(peers::path("named").unwrap());
    command.args(["-g", "-n", "1", "-c"]).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let ready = async {
        while let Ok(Some(line)) = lines.next_line().await {
            let is_ready = line.ends_with(" running");
            said.push(line);
            if is_ready {
                return true;
            }
        }
        false
    };
    let ready = tokio::time::timeout(PATIENCE, ready).await.unwrap_or(false);
    assert!(ready, "named did not start:\n{}", said.join("\n"));
    // Its further words go nowhere, but must be read.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}
