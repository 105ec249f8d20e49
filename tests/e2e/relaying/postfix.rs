//! Postfix from Debian as the receiver, in a folder of its own.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use pillarbox_testkit::Issued;
use pillarbox_testkit::daemon::NOBODY;
use pillarbox_testkit::wait::Changes;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::peers;

/// Services that a receiver needs, as in Debian's master.cf, without chroot.
const SERVICES: &str = "\
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
";

/// The running server, for `friend.test` with a mailbox for each of a few people; it ends when dropped.
pub(crate) struct Postfix {
    folder: TempDir,
    log: Arc<parking::Log>,
    _child: Child,
}

/// Lines, and word of each.
mod parking {
    use super::Changes;

    #[derive(Default)]
    pub(super) struct Log {
        pub(super) lines: std::sync::Mutex<Vec<String>>,
        pub(super) changes: Changes,
    }
}

impl Postfix {
    /// Starts one on this address, with further lines for main.cf. `None` where it is not installed, or this is not root.
    pub(crate) async fn start(address: SocketAddr, settings: &[(&str, String)], tls: Option<&Issued>) -> Option<Self> {
        if !peers::have("postfix") {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: Postfix can be started by root alone");
            return None;
        }
        let folder = pillarbox_testkit::folder();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["config", "queue", "data", "mail"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        chown(at("mail"), Some(NOBODY), Some(NOBODY)).unwrap();
        done(Command::new("chown").arg("postfix").arg(at("data")).output().await.unwrap());
        let boxes: Vec<String> = ["carol", "dave", "j\u{f6}rg"].iter().map(|name| format!("{name}@friend.test={name}/")).collect();
        let mut main: Vec<(&str, String)> = vec![
            ("compatibility_level", "3.6".into()),
            ("queue_directory", at("queue").display().to_string()),
            ("data_directory", at("data").display().to_string()),
            ("maillog_file", "/dev/stdout".into()),
            ("myhostname", "mx.friend.test".into()),
            ("mydestination", String::new()),
            ("mynetworks", "127.0.0.0/8".into()),
            ("inet_interfaces", address.ip().to_string()),
            ("inet_protocols", "ipv4".into()),
            ("alias_maps", String::new()),
            ("biff", "no".into()),
            ("disable_dns_lookups", "yes".into()),
            ("smtp_host_lookup", "native".into()),
            ("smtpd_peername_lookup", "no".into()),
            ("smtputf8_enable", "yes".into()),
            ("virtual_mailbox_domains", "friend.test".into()),
            ("virtual_mailbox_base", at("mail").display().to_string()),
            ("virtual_mailbox_maps", format!("inline:{{ {} }}", boxes.join(", "))),
            ("virtual_uid_maps", format!("static:{NOBODY}")),
            ("virtual_gid_maps", format!("static:{NOBODY}")),
            ("virtual_minimum_uid", "100".into()),
            ("virtual_mailbox_limit", "0".into()),
        ];
        if let Some(issued) = tls {
            let (certificate, key) = issued.write(&at("config"), "server");
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
            main.push(("smtpd_tls_security_level", "may".into()));
            main.push(("smtpd_tls_cert_file", certificate.display().to_string()));
            main.push(("smtpd_tls_key_file", key.display().to_string()));
        }
        // A name given twice is warned of by every process, and ten warnings at once are more than `postlogd` starts with.
        main.retain(|(name, _)| !settings.iter().any(|(other, _)| other == name));
        main.extend(settings.iter().cloned());
        let main: String = main.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        std::fs::write(at("config/main.cf"), main).unwrap();
        std::fs::write(at("config/master.cf"), format!("{address} inet n - n - - smtpd\n{SERVICES}")).unwrap();
        let mut child = Command::new(peers::path("postfix")?)
            .arg("-c")
            .arg(at("config"))
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(parking::Log::default());
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        let follower = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                follower.lines.lock().unwrap().push(line);
                follower.changes.note();
            }
        });
        let this = Self { folder, log, _child: child };
        this.line("daemon started").await;
        Some(this)
    }

    /// Waits for a line of its log that holds this.
    pub(super) async fn line(&self, text: &str) -> String {
        let find = || self.log.lines.lock().unwrap().iter().find(|line| line.contains(text)).cloned();
        let state = || self.log.lines.lock().unwrap().join("\n");
        self.log.changes.until(&format!("Postfix to say {text:?}"), find, state).await
    }

    /// The only message in somebody's mailbox, once it is there.
    pub(super) async fn mail(&self, name: &str) -> String {
        self.line(&format!("to=<{name}@friend.test>, relay=virtual")).await;
        let new: PathBuf = self.folder.path().join("mail").join(name).join("new");
        let files: Vec<PathBuf> = std::fs::read_dir(new).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        String::from_utf8(std::fs::read(&files[0]).unwrap()).unwrap()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // What was started is a script that waits for the master, which ends its children when it is told to end. `postfix stop` would not do in another
        // network namespace, whose addresses it misses.
        let file = std::fs::read_to_string(self.folder.path().join("queue/pid/master.pid")).unwrap_or_default();
        let pid = file.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

fn done(output: std::process::Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
