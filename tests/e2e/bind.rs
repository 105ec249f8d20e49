//! Debian's BIND in the foreground, for tests that write its configuration.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Stdio;

use pillarbox_testkit::free_port;
use pillarbox_testkit::wait::until_it_says;
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
    until_it_says("named", child.stderr.take().unwrap(), |line| line.ends_with(" running")).await;
    child
}
