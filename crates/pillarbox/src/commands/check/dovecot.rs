//! Dovecot, which serves the mailboxes: installed, paired with us, answering.

use std::path::Path;
use std::time::Duration;

use pillarbox_config::Config;
use pillarbox_control::api::Probe;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// Longest wait for a greeting.
const GREETING: Duration = Duration::from_secs(5);
const CONFIGURATION: &str = "/etc/dovecot";

pub(super) async fn probes(config: &Config) -> Vec<Probe> {
    let mut probes = vec![passwd_files(&config.paths.state)];
    if !Path::new(CONFIGURATION).is_dir() {
        probes.push(Probe::warn(
            "dovecot",
            "it is not installed: mail is stored, but no mail program can read it",
            "apt install dovecot-imapd",
        ));
        return probes;
    }
    probes.push(paired(config));
    probes.push(imap().await);
    if let Some(path) = config.mailbox.deliver_to.strip_prefix("lmtp:unix:") {
        probes.push(lmtp(path).await);
    }
    probes
}

fn passwd_files(state: &Path) -> Probe {
    let file = state.join("dovecot/users");
    match std::fs::metadata(&file) {
        Ok(_) => Probe::ok("dovecot users", format!("{} is kept for it", file.display())),
        Err(error) => Probe::warn("dovecot users", format!("{}: {error}", file.display()), "start the daemon, which writes it"),
    }
}

/// Whether any of its configuration files names our passwd-file.
fn paired(config: &Config) -> Probe {
    let wanted = config.paths.state.join("dovecot/users");
    let wanted = wanted.to_string_lossy();
    let mut folders = vec![Path::new(CONFIGURATION).to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && folders.len() < 100 {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "conf" || e == "ext")
                && std::fs::read_to_string(&path).is_ok_and(|text| text.contains(wanted.as_ref()))
            {
                return Probe::ok("dovecot pairing", format!("{} names {wanted}", path.display()));
            }
        }
    }
    let fix = "copy the file that `pillarbox setup` wrote to /etc/dovecot/dovecot.conf and restart Dovecot";
    Probe::fail("dovecot pairing", format!("nothing in {CONFIGURATION} names {wanted}"), fix)
}

async fn imap() -> Probe {
    let greeting = async {
        let stream = TcpStream::connect(("127.0.0.1", 143)).await?;
        first_line(stream).await
    };
    match tokio::time::timeout(GREETING, greeting).await {
        Ok(Ok(line)) if line.starts_with("* OK") => Probe::ok("dovecot imap", "it answers on port 143"),
        Ok(Ok(line)) => {
            Probe::fail("dovecot imap", format!("port 143 says {}", pillarbox_smtp::printable(line.as_bytes())), "see `doveadm log errors`")
        }
        Ok(Err(error)) => Probe::fail("dovecot imap", format!("port 143: {error}"), "systemctl start dovecot"),
        Err(_) => Probe::fail("dovecot imap", "port 143 is silent", "see `doveadm log errors`"),
    }
}

async fn lmtp(path: &str) -> Probe {
    let greeting = async {
        let stream = UnixStream::connect(path).await?;
        first_line(stream).await
    };
    match tokio::time::timeout(GREETING, greeting).await {
        Ok(Ok(line)) if line.starts_with("220") => Probe::ok("dovecot lmtp", format!("{path} answers")),
        Ok(Ok(line)) => {
            Probe::fail("dovecot lmtp", format!("{path} says {}", pillarbox_smtp::printable(line.as_bytes())), "see `doveadm log errors`")
        }
        Ok(Err(error)) => {
            Probe::fail("dovecot lmtp", format!("{path}: {error}"), "install dovecot-lmtpd, and see service lmtp in its configuration")
        }
        Err(_) => Probe::fail("dovecot lmtp", format!("{path} is silent"), "see `doveadm log errors`"),
    }
}

async fn first_line(stream: impl tokio::io::AsyncRead + Unpin) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(stream, 1024));
    reader.read_until(b'\n', &mut line).await?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}
