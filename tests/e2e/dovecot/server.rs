//! A real Dovecot in the foreground, over a test daemon's mailboxes, with the configuration that `etc/dovecot` holds for its version.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use pillarbox_testkit::{Daemon, PATIENCE};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, ChildStderr, Command};

use crate::peers;

/// The global scripts of `etc/dovecot`.
const SCRIPTS: [&str; 2] = ["junk.sieve", "detail.sieve"];

/// Where a Dovecot will run, known before the daemon that it serves is.
#[derive(Clone)]
pub(crate) struct Place {
    folder: Arc<TempDir>,
    /// `2.3` or `2.4`.
    version: String,
}

/// A running Dovecot.
pub(crate) struct Dovecot {
    folder: Arc<TempDir>,
    /// IMAP with TLS from the first octet.
    pub(crate) imaps: SocketAddr,
    /// IMAP with STARTTLS.
    pub(crate) imap: SocketAddr,
    child: Child,
    log: Log,
}

impl Place {
    /// `None`, said loudly, where no Dovecot is installed or none that there is a configuration for.
    pub(crate) async fn new() -> Option<Self> {
        if !["dovecot", "imap", "imap-login"].iter().all(|program| peers::have(program)) {
            return None;
        }
        let output = peers::run("dovecot", &["--version"]).await;
        let version: String = String::from_utf8_lossy(&output.stdout).chars().take(3).collect();
        let folder = pillarbox_testkit::folder();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(snippets().join(format!("dovecot-{version}.conf")).is_file(), "etc/dovecot has nothing for Dovecot {version}");
        Some(Self { folder: Arc::new(folder), version })
    }

    /// `mailbox.deliver_to` for its LMTP server.
    pub(crate) fn lmtp(&self) -> String {
        format!("lmtp:unix:{}/run/lmtp", self.folder.path().display())
    }

    /// Starts it over the daemon's mailboxes, with LMTP and Sieve if wanted. A place that was kept may be started in again.
    pub(crate) async fn start(self, daemon: &Daemon, sieve: bool) -> Dovecot {
        let at = |name: &str| self.folder.path().join(name);
        let (imap, imaps) = addresses();
        let (user, group) = identity().await;
        let adapted = |name: &str| {
            let text = std::fs::read_to_string(snippets().join(name)).unwrap();
            substitute(&text, "user = pillarbox", &format!("user = {user}"))
        };
        let mut text = adapted(&format!("dovecot-{}.conf", self.version));
        text = substitute(&text, "/var/lib/pillarbox", &daemon.home().join("state").display().to_string());
        text = substitute(&text, "listen = *, ::", &format!("listen = {}", imap.ip()));
        text = substitute(&text, "port = 143", &format!("port = {}", imap.port()));
        text = substitute(&text, "port = 993", &format!("port = {}", imaps.port()));
        text = substitute(&text, "/etc/dovecot/pillarbox-sieve.conf", &at("sieve.conf").display().to_string());
        if sieve {
            let mut text = adapted(&format!("sieve-{}.conf", self.version));
            for script in SCRIPTS {
                std::fs::copy(snippets().join(script), at(script)).unwrap();
                text = substitute(&text, &format!("/etc/dovecot/{script}"), &at(script).display().to_string());
            }
            std::fs::write(at("sieve.conf"), text).unwrap();
        }
        // What a test needs beyond what an administrator copies: a place of its own, and no waiting after wrong passwords.
        text.push_str(&format!(
            "\nbase_dir = {}\nstate_dir = {}\nlog_path = /dev/stderr\nauth_failure_delay = 0\n\
             service anvil {{\n  unix_listener anvil-auth-penalty {{\n    mode = 0\n  }}\n}}\n",
            at("run").display(),
            at("lib").display()
        ));
        if !rustix::process::geteuid().is_root() {
            text.push_str(&format!(
                "default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n\
                 service anvil {{\n  chroot =\n}}\nservice imap-login {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n"
            ));
        }
        let config = at("dovecot.conf");
        std::fs::write(&config, text).unwrap();
        for script in SCRIPTS.iter().filter(|_| sieve) {
            let output = peers::run("sievec", &["-c", &config.display().to_string(), &at(script).display().to_string()]).await;
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let mut child = Command::new(peers::path("dovecot").unwrap())
            .args(["-F", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log = Log::default();
        loop {
            let line = log.next(&mut lines).await;
            let Some(line) = line else { panic!("dovecot did not start:\n{}", log.text()) };
            // The listeners are open by then.
            if line.contains("starting up for") {
                break;
            }
        }
        let followed = log.clone();
        tokio::spawn(async move { while followed.next(&mut lines).await.is_some() {} });
        Dovecot { folder: self.folder, imaps, imap, child, log }
    }
}

impl Dovecot {
    /// Ends it, and fails the test when it had anything to complain of.
    pub(crate) async fn stop(mut self) {
        self.terminate();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        let log = self.log.text();
        let complaint = |line: &&str| ["Error:", "Warning:", "Fatal:", "Panic:"].iter().any(|word| line.contains(word));
        let complaints: Vec<&str> = log.lines().filter(complaint).filter(|line| !line.contains("Killed with signal 15")).collect();
        assert!(complaints.is_empty(), "{complaints:#?}\n{log}");
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn terminate(&self) {
        let pid = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.terminate();
        if std::thread::panicking() {
            eprintln!("Dovecot's log in {}:\n{}", self.folder().display(), self.log.text());
        }
    }
}

/// What it said on standard error.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    async fn next(&self, lines: &mut BufReader<ChildStderr>) -> Option<String> {
        let mut line = Vec::new();
        match lines.read_until(b'\n', &mut line).await {
            Ok(1..) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                self.0.lock().unwrap().push_str(&line);
                Some(line)
            }
            _ => None,
        }
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// Replaces what must be there: a configuration that changed is not silently tested with other paths than meant.
fn substitute(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the configuration any more");
    text.replace(from, to)
}

fn snippets() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../etc/dovecot")
}

/// Two free ports of a loopback address that no other test uses: Dovecot must be told its ports, it cannot be asked.
fn addresses() -> (SocketAddr, SocketAddr) {
    let [b, c, d] = rand::random::<[u8; 3]>();
    let ip = Ipv4Addr::new(127, b, c, d.clamp(1, 254));
    let bind = || TcpListener::bind((ip, 0)).unwrap();
    let (one, two) = (bind(), bind());
    (one.local_addr().unwrap(), two.local_addr().unwrap())
}

/// User and group that own the mail, by name.
async fn identity() -> (String, String) {
    if rustix::process::geteuid().is_root() {
        return ("nobody".into(), "nogroup".into());
    }
    let ask = async |flag: &str| String::from_utf8_lossy(&peers::run("id", &[flag]).await.stdout).trim().to_owned();
    (ask("-un").await, ask("-gn").await)
}

/// Waits until the daemon has written a passwd-file that `wanted` accepts, and returns it.
pub(crate) async fn passwd_file(daemon: &Daemon, wanted: impl Fn(&str) -> bool) -> String {
    use rustix::fs::inotify;
    let folder = daemon.home().join("state/dovecot");
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &folder, inotify::WatchFlags::MOVED_TO).unwrap();
    // What is read from it comes as from a pipe.
    let mut watch = Receiver::from_file_unchecked(std::fs::File::from(watch)).unwrap();
    let waiting = async {
        loop {
            match std::fs::read_to_string(folder.join("users")) {
                Ok(text) if wanted(&text) => return text,
                Ok(_) => {}
                Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
            }
            assert!(watch.read(&mut [0; 4096]).await.unwrap() > 0);
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(text) => text,
        Err(_) => panic!("the passwd-file did not become as wanted: {:?}", std::fs::read_to_string(folder.join("users"))),
    }
}

/// Only one Dovecot is installed where the tests run: what can be held against the other's configuration is that it names the same files, folders and ports.
#[test]
fn both_configurations_name_the_same() {
    let named = |file: &str| {
        let text = std::fs::read_to_string(snippets().join(file)).unwrap();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let words = lines.flat_map(|line| line.split([' ', '<', ';', ':', '='])).map(str::to_owned);
        let mut found: Vec<String> = words
            .filter(|word| word.starts_with('/') || word.starts_with('\\') || word.starts_with('~') || word.parse::<u16>().is_ok())
            .collect();
        found.sort();
        found.dedup();
        (found, text.matches('{').count(), text.matches('}').count())
    };
    for kind in ["dovecot", "sieve"] {
        let ((older, ..), (newer, opened, closed)) = (named(&format!("{kind}-2.3.conf")), named(&format!("{kind}-2.4.conf")));
        assert!(older.len() >= 4, "{older:?}");
        assert_eq!(older, newer, "{kind}");
        assert_eq!(opened, closed, "{kind}");
    }
}
