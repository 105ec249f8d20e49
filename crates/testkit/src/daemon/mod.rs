//! The real daemon in a folder of its own: built binaries, free ports, a configuration, its log, its mail, its control socket.

mod control;
mod log;
mod mailbox;
mod programs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::disk::SmallDisk;
use crate::wait::PATIENCE;
use log::Log;

pub use control::Response;
pub use log::Event;
pub use mailbox::{Mailbox, Stored};
pub use programs::{binary, have_binaries};

/// How a daemon is set up.
pub struct DaemonBuilder {
    config: toml::Table,
    environment: Vec<(String, String)>,
    disks: Vec<(String, Mount)>,
    archive: Option<PathBuf>,
    dovecot: bool,
    throw_log_away: bool,
}

type Mount = Box<dyn Fn(&Path) -> std::io::Result<SmallDisk> + Send>;

/// User and group that own the mail where tests run as root: Debian's `nobody` and `nogroup`.
pub const NOBODY: u32 = 65534;

impl Default for DaemonBuilder {
    fn default() -> Self {
        let mut builder = Self {
            config: toml::Table::new(),
            environment: Vec::new(),
            disks: Vec::new(),
            archive: None,
            dovecot: false,
            throw_log_away: false,
        };
        for service in ["smtp", "submission", "submissions"] {
            builder = builder.set(&format!("listen.{service}"), vec!["127.0.0.1:0".to_owned()]);
        }
        // Cheap hashes, so that a test's time goes into what it tests.
        builder
            .set("hostname", "mail.example.test")
            .set("auth.argon2.memory_kib", 256)
            .set("auth.argon2.iterations", 1)
            .set("log.format", "json")
    }
}

impl DaemonBuilder {
    /// Sets a configuration key by its dotted path, such as `relay.port`.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap_or(key);
        let mut table = &mut self.config;
        for name in path {
            let entry = table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let toml::Value::Table(inner) = entry else { panic!("{key}: {name} is no table") };
            table = inner;
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    /// Asks this name server, in place of one of the daemon's own ([`Daemon::dns`]) that knows `client.test` and nothing else.
    pub fn dns(self, address: SocketAddr) -> Self {
        self.set("dns.servers", vec![address.to_string()])
    }

    /// Listens on this address of the loopback network, so that several daemons are told apart as machines are.
    pub fn listen_on(mut self, ip: &str) -> Self {
        for service in ["smtp", "submission", "submissions"] {
            self = self.set(&format!("listen.{service}"), vec![format!("{ip}:0")]);
        }
        self
    }

    /// Stores mail in this folder, which several daemons may share, in place of one of its own.
    pub fn mail_folder(self, folder: &Path) -> Self {
        self.set("paths.mail", folder.display().to_string())
    }

    /// Relays to this port, and to hosts of the loopback network, as scripted ones are.
    pub fn relay_to_loopback(self, port: u16) -> Self {
        self.set("relay.port", i64::from(port)).set("relay.deny_networks", Vec::<String>::new())
    }

    /// Lets a Dovecot open the mailboxes: where the test runs as root, the mail and the passwd-files belong to [`NOBODY`], since Dovecot opens no mailbox of
    /// root's. (The daemon gives what it stores to the owner of the mail folder.)
    pub fn for_dovecot(mut self) -> Self {
        self.dovecot = true;
        self
    }

    /// Sets an environment variable of the daemon.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a folder (`state` or `mail`) on a file system of its own, of so many KiB. See [`crate::disk::may_mount`].
    pub fn small_disk(mut self, folder: &str, kib: u64) -> Self {
        self.disks.push((folder.to_owned(), Box::new(move |at| SmallDisk::mount(at, kib))));
        self
    }

    /// The same with an ext4 of so many MiB, which [`SmallDisk::breaks`] breaks. See [`crate::disk::may_mount_ext4`].
    pub fn ext4(mut self, folder: &str, mib: u64) -> Self {
        self.disks.push((folder.to_owned(), Box::new(move |at| SmallDisk::ext4(at, mib))));
        self
    }

    /// Begins with the `state/` and `mail/` of this archive (`.tar.gz`) in place of empty ones.
    pub fn unpack(mut self, archive: &Path) -> Self {
        self.archive = Some(archive.to_owned());
        self
    }

    /// Reads the daemon's log and keeps none of it, on a thread of its own: for measuring, where nobody looks and the reader must cost nothing.
    /// What waits for events or log lines waits in vain then.
    pub fn log_thrown_away(mut self) -> Self {
        self.throw_log_away = true;
        self
    }

    /// Starts it and waits until it says that it is ready. Panics when the binaries are not built; see [`have_binaries`].
    pub async fn start(self) -> Daemon {
        let home = crate::folder();
        let at = |name: &str| home.path().join(name);
        if let Some(archive) = &self.archive {
            let done = std::process::Command::new("tar").arg("-xzf").arg(archive).args(["--no-same-owner", "-C"]).arg(home.path()).status();
            assert!(done.is_ok_and(|status| status.success()), "{} cannot be unpacked", archive.display());
        }
        for name in ["state", "mail", "run"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let disks: BTreeMap<String, SmallDisk> = self.disks.iter().map(|(name, mount)| (name.clone(), mount(&at(name)).unwrap())).collect();
        if self.dovecot && rustix::process::geteuid().is_root() {
            give_to_nobody(home.path()).unwrap();
        }
        let given = self.config.get("paths").and_then(|paths| paths.get("mail")).and_then(|mail| mail.as_str()).map(PathBuf::from);
        let mail = given.unwrap_or_else(|| at("mail"));
        let this = self
            .set("paths.state", at("state").display().to_string())
            .set("paths.mail", mail.display().to_string())
            .set("paths.runtime", at("run").display().to_string());
        let asks = this.config.get("dns").and_then(|dns| dns.get("servers")).is_some();
        let dns = if asks { None } else { Some(crate::DnsServer::start().await) };
        let this = match &dns {
            Some(server) => {
                // Senders of this domain are believed to exist.
                server.mx("client.test", 10, "mx.client.test").address_of("mx.client.test", "192.0.2.25");
                this.dns(server.address())
            }
            None => this,
        };
        let config = at("pillarbox.toml");
        std::fs::write(&config, toml::to_string(&this.config).unwrap()).unwrap();
        let mut daemon = Daemon {
            disks,
            home: Arc::new(home),
            mail,
            config_path: config,
            config: this.config,
            environment: this.environment,
            child: None,
            dns,
            listeners: BTreeMap::new(),
            log: Log::default(),
            throw_log_away: this.throw_log_away,
        };
        daemon.spawn().await;
        daemon
    }
}

fn give_to_nobody(home: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o711))?;
    chown(home.join("mail"), Some(NOBODY), Some(NOBODY))?;
    let passwd = home.join("state/dovecot");
    std::fs::create_dir(&passwd)?;
    chown(&passwd, None, Some(NOBODY))?;
    // With the setgid bit the daemon's files belong to the folder's group.
    std::fs::set_permissions(&passwd, std::fs::Permissions::from_mode(0o2750))
}

/// The daemon. It is killed and its folder removed when dropped.
pub struct Daemon {
    /// Unmounted before the folder goes.
    disks: BTreeMap<String, SmallDisk>,
    home: Arc<TempDir>,
    mail: PathBuf,
    config_path: PathBuf,
    config: toml::Table,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    dns: Option<crate::DnsServer>,
    listeners: BTreeMap<String, SocketAddr>,
    log: Log,
    throw_log_away: bool,
}

impl Daemon {
    /// One with the usual listeners and no domain.
    pub async fn start() -> Self {
        DaemonBuilder::default().start().await
    }

    /// Further ones.
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }

    /// Its folder: `state/`, `mail/`, `run/`, `pillarbox.toml`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The scripted name server that it asks; it knows `client.test` at first. Panics when the test brought its own.
    pub fn dns(&self) -> &crate::DnsServer {
        self.dns.as_ref().unwrap_or_else(|| panic!("this daemon asks a name server that the test set"))
    }

    /// The file system that [`DaemonBuilder::small_disk`] put under a folder.
    pub fn disk(&self, folder: &str) -> &SmallDisk {
        self.disks.get(folder).unwrap_or_else(|| panic!("{folder} has no disk of its own"))
    }

    /// The configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Where a service listens: `smtp`, `submission`, `submissions`, `lmtp`, `http`, `metrics`.
    pub fn address(&self, service: &str) -> SocketAddr {
        match self.listeners.get(service) {
            Some(address) => *address,
            None => panic!("no listener is called {service}; there are {:?}", self.listeners),
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).unwrap_or_else(|| panic!("the daemon is not running"))
    }

    /// Resident memory now, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no VmRSS in {status}"))
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on fresh ports.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "the daemon is still running");
        self.spawn().await;
    }

    /// Changes a configuration key in the file; takes effect at the next start or reload.
    pub fn configure(&mut self, key: &str, value: impl Into<toml::Value>) {
        let builder = DaemonBuilder { config: std::mem::take(&mut self.config), ..DaemonBuilder::default() }.set(key, value);
        self.config = builder.config;
        std::fs::write(&self.config_path, toml::to_string(&self.config).unwrap()).unwrap();
    }

    /// Starts it where it cannot: how it ended, and what it wrote meanwhile.
    pub async fn fails_to_start(&mut self) -> (ExitStatus, Vec<String>) {
        assert!(self.child.is_none(), "the daemon is still running");
        let mut command = self.command();
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("the daemon neither started nor ended")).unwrap();
        let lines = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
        (output.status, lines)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary("pillarboxd"));
        command
            .arg("--config")
            .arg(&self.config_path)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn spawn(&mut self) {
        let notify_path = self.home().join("run/notify.sock");
        let _ = std::fs::remove_file(&notify_path);
        let notify = UnixDatagram::bind(&notify_path).unwrap();
        let mut command = self.command();
        command.env("NOTIFY_SOCKET", &notify_path);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start pillarboxd: {e}"));
        if let Some(stderr) = child.stderr.take() {
            if self.throw_log_away {
                log::throw_away(stderr);
            } else {
                self.log.follow(stderr);
            }
        }
        let ready = async {
            let mut buffer = [0; 1024];
            loop {
                let length = notify.recv(&mut buffer).await.unwrap();
                if String::from_utf8_lossy(&buffer[..length]).lines().any(|l| l == "READY=1") {
                    return;
                }
            }
        };
        tokio::select! {
            () = ready => {}
            status = child.wait() => panic!("the daemon ended at once with {}:\n{}", status.unwrap(), self.log.tail()),
            () = tokio::time::sleep(PATIENCE) => panic!("the daemon did not get ready:\n{}", self.log.tail()),
        }
        let listeners = std::fs::read(self.home().join("run/listeners.json")).unwrap();
        let listeners: Vec<serde_json::Value> = serde_json::from_slice(&listeners).unwrap();
        self.listeners = listeners
            .iter()
            .filter_map(|l| Some((l.get("name")?.as_str()?.to_owned(), l.get("address")?.as_str()?.parse().ok()?)))
            .collect();
        self.child = Some(child);
    }

    /// SIGKILL: as a crash.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("the daemon is not running"));
        child.kill().await.unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let mut child = self.child.take().unwrap_or_else(|| panic!("the daemon is not running"));
        match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("the daemon did not stop:\n{}", self.log.tail()),
        }
    }

    /// SIGHUP.
    pub fn reload(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap_or_else(|| panic!("the daemon is not running"));
        child.wait().await.unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Runs `pillarbox` with this daemon's configuration, whatever comes of it.
    pub async fn try_admin(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut all = vec!["--config", self.config_path.to_str().unwrap_or_default()];
        all.extend_from_slice(arguments);
        programs::run(&binary("pillarbox"), &all, stdin.as_bytes()).await
    }

    /// Runs `pillarbox` and expects success; returns what it printed.
    pub async fn admin(&self, arguments: &[&str]) -> String {
        self.admin_with(arguments, "").await
    }

    /// Runs `pillarbox` with something on standard input and expects success.
    pub async fn admin_with(&self, arguments: &[&str], stdin: &str) -> String {
        let output = self.try_admin(arguments, stdin).await;
        if !output.status.success() {
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            panic!("pillarbox {} ended with {}:\n{out}{err}\nthe daemon's log:\n{}", arguments.join(" "), output.status, self.log.tail());
        }
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `pillarbox --json` and reads what it printed.
    pub async fn admin_json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend_from_slice(arguments);
        let text = self.admin(&all).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("pillarbox {} printed no JSON ({e}): {text}", arguments.join(" ")))
    }

    /// Adds a domain.
    pub async fn add_domain(&self, name: &str) {
        self.admin(&["domain", "add", name, "--if-missing"]).await;
    }

    /// Adds a user, and the domain when it is missing.
    pub async fn add_user(&self, address: &str, password: &str) {
        if let Some((_, domain)) = address.rsplit_once('@') {
            self.add_domain(domain).await;
        }
        self.admin_with(&["user", "add", address, "--password-stdin"], &format!("{password}\n")).await;
    }

    /// Adds an alias.
    pub async fn add_alias(&self, address: &str, targets: &[&str]) {
        let mut arguments = vec!["alias", "add", address];
        arguments.extend_from_slice(targets);
        self.admin(&arguments).await;
    }

    /// Where a user's mail lies.
    pub fn maildir(&self, address: &str) -> PathBuf {
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        self.mail.join(domain).join(local).join("Maildir")
    }

    /// What lies in a user's inbox now.
    pub fn mailbox(&self, address: &str) -> Mailbox {
        Mailbox::read(&self.maildir(address))
    }

    /// What lies in a folder of a user's now.
    pub fn folder(&self, address: &str, name: &str) -> Mailbox {
        Mailbox::read(&self.maildir(address).join(format!(".{name}")))
    }

    /// Waits until a user's inbox holds `n` messages.
    pub async fn mail(&self, address: &str, n: usize) -> Vec<Stored> {
        let look = || Some(self.mailbox(address).messages).filter(|m| m.len() >= n);
        self.log.until(&format!("{n} messages for {address}"), look).await
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.log.events()
    }

    /// Waits for an event of this name that `wanted` accepts.
    pub async fn event(&self, name: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        self.log.until(&format!("the event {name}"), || self.events().into_iter().find(|e| e.name == name && wanted(e))).await
    }

    /// Waits until `look` finds something in the events so far; it looks again after each line of the log.
    pub async fn events_until<T>(&self, what: &str, mut look: impl FnMut(&[Event]) -> Option<T>) -> T {
        self.log.until(what, || look(&self.events())).await
    }

    /// Waits for a log line that holds this text.
    pub async fn log_line(&self, text: &str) -> String {
        self.log.until(&format!("a log line with {text:?}"), || self.log.lines().into_iter().find(|l| l.contains(text))).await
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// GET on the control socket.
    pub async fn get(&self, path: &str) -> Response {
        control::request(&self.home().join("run/control.sock"), "GET", path, None).await
    }

    /// POST with a JSON body on the control socket.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Response {
        control::request(&self.home().join("run/control.sock"), "POST", path, Some(body)).await
    }

    /// Any request on the control socket.
    pub async fn request(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> Response {
        control::request(&self.home().join("run/control.sock"), method, path, body).await
    }
}
