//! The servers that are measured: Pillarbox, started here, and the peers that `scripts/bench.d/peers` has installed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use pillarbox_testkit::speed::{Access, handshakes};
use pillarbox_testkit::{Daemon, DaemonBuilder};

use crate::account::Account;

/// The users of every server, `u0@bench.test` and on.
pub(crate) const USERS: u64 = 400;
/// Every user's password.
pub(crate) const PASSWORD: &str = "bench";
/// Where the peers send mail for relay.test.
pub(crate) const RELAY_PORT: u16 = 2690;
/// A mailbox whose last message came this long ago gets no more.
const STALLED: Duration = Duration::from_secs(10);

/// One server, running.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) smtp: SocketAddr,
    submission: SocketAddr,
    mail: PathBuf,
    /// Below `mail`, behind the user's name.
    inbox: &'static str,
    pub(crate) account: Account,
    /// Idle connections that its usual limits admit from one client.
    pub(crate) crowd: usize,
    /// It does not read a QUIT that comes right behind a message.
    quit_apart: bool,
    pub(crate) daemon: Option<Daemon>,
    halted: bool,
    script: PathBuf,
}

impl Server {
    /// Pillarbox with so many users, in a folder of its own; mail for relay.test goes to `relay_port`.
    pub(crate) async fn pillarbox(users: u64, relay_port: u16) -> Result<Self> {
        let route: toml::Table = toml::from_str(&format!("domain = \"relay.test\"\nvia = \"smtp://127.0.0.1:{relay_port}\""))?;
        let empty = Vec::<String>::new();
        let daemon = DaemonBuilder::default()
            .set("hostname", "mx.bench.test")
            .set("auth.argon2.memory_kib", 19456)
            .set("auth.argon2.iterations", 2)
            .set("log.format", "text")
            // All load comes from one address.
            .set("limits.connections", 20_000)
            .set("limits.connections_per_client", 20_000)
            // The peers judge nothing and sign nothing.
            .set("screen.spf", false)
            .set("screen.dkim", false)
            .set("screen.arc", false)
            .set("screen.dmarc", "off")
            .set("screen.allow", vec!["src.test".to_owned()])
            .set("submission.sign_dkim", false)
            .set("submission.rate_per_user", "")
            .set("relay.routes", vec![toml::Value::Table(route)])
            .set("relay.deny_networks", empty)
            .log_thrown_away()
            .start()
            .await;
        daemon.add_domain("bench.test").await;
        import(&daemon, users).await?;
        Ok(Self::around(daemon))
    }

    fn around(daemon: Daemon) -> Self {
        let pid = daemon.pid();
        Self {
            name: "pillarbox".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            smtp: daemon.address("smtp"),
            submission: daemon.address("submission"),
            mail: daemon.home().join("mail/bench.test"),
            inbox: "Maildir/new",
            account: Account::of(pid, &format!("pillarbox-bench-{pid}")),
            crowd: 10_000,
            quit_apart: false,
            daemon: Some(daemon),
            halted: false,
            script: PathBuf::new(),
        }
    }

    /// Stops it until it is started again, so that it takes nothing from the others.
    pub(crate) async fn halt(&mut self) {
        if let Some(daemon) = self.daemon.as_mut().filter(|_| !self.halted) {
            daemon.stop().await;
            self.account.close();
            self.halted = true;
        }
    }

    /// Starts it again; returns how long that took until it was ready.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.halt().await;
        let mut daemon = self.daemon.take().context("only Pillarbox is started again")?;
        let began = Instant::now();
        daemon.restart().await;
        let took = began.elapsed();
        *self = Self::around(daemon);
        Ok(took)
    }

    /// Starts a peer.
    pub(crate) fn peer(script: &Path, name: &str) -> Result<Self> {
        // One that an interrupted run left is in the way.
        run(script, &["stop", name])?;
        run(script, &["start", name])?;
        let facts = run(script, &["facts", name])?;
        let fact = |key: &str| {
            let line = facts.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.with_context(|| format!("{name} has no {key}"))
        };
        Ok(Self {
            name: name.into(),
            version: fact("version")?.into(),
            smtp: fact("smtp")?.parse()?,
            submission: fact("submission")?.parse()?,
            mail: fact("mail")?.into(),
            inbox: "new",
            account: Account::Group(fact("cgroup")?.into()),
            crowd: fact("crowd")?.parse()?,
            quit_apart: fact("quit")? == "apart",
            daemon: None,
            halted: false,
            script: script.into(),
        })
    }

    fn at(&self, address: SocketAddr) -> Access {
        let mut access = Access::new(address);
        access.quit_apart = self.quit_apart;
        access
    }

    /// How mail from elsewhere comes.
    pub(crate) fn access(&self) -> Access {
        self.at(self.smtp)
    }

    /// How users send.
    pub(crate) fn submission(&self) -> Access {
        self.at(self.submission).tls(handshakes::config(false)).login("u0@bench.test", PASSWORD)
    }

    fn new_of(&self, user: u64) -> PathBuf {
        self.mail.join(format!("u{user}")).join(self.inbox)
    }

    /// How many messages lie in these mailboxes.
    pub(crate) fn count(&self, users: impl Iterator<Item = u64>) -> u64 {
        users.map(|user| std::fs::read_dir(self.new_of(user)).map_or(0, |entries| entries.count() as u64)).sum()
    }

    /// Waits until `wanted` messages lie in these mailboxes; when the last one came. `None`: some never came.
    pub(crate) async fn stored(&self, users: std::ops::Range<u64>, wanted: u64) -> Option<SystemTime> {
        let (mut most, mut since) = (0, Instant::now());
        loop {
            let there = self.count(users.clone());
            if there >= wanted {
                let changed = |user| std::fs::metadata(self.new_of(user)).and_then(|meta| meta.modified()).ok();
                return users.filter_map(changed).max();
            }
            if there > most {
                (most, since) = (there, Instant::now());
            } else if since.elapsed() > STALLED {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Removes the mail of these users.
    pub(crate) fn empty(&self, users: std::ops::Range<u64>) {
        for user in users {
            for entry in std::fs::read_dir(self.new_of(user)).into_iter().flatten().flatten() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Stops it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        match self.daemon.take() {
            Some(mut daemon) if !self.halted => _ = daemon.stop().await,
            Some(_) => {}
            None => _ = run(&self.script, &["stop", &self.name])?,
        }
        self.account.close();
        Ok(())
    }
}

/// Adds users by the command that an administrator would use; `u0` gets a password, hashed anew, and all others its hash.
async fn import(daemon: &Daemon, users: u64) -> Result<()> {
    use std::io::Write as _;
    daemon.add_user("u0@bench.test", PASSWORD).await;
    let exported = daemon.admin(&["user", "export"]).await;
    let hash = exported.lines().find_map(|line| line.strip_prefix("u0@bench.test,")).context("no hash was exported")?;
    let path = daemon.home().join("users.csv");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    for user in 1..users {
        writeln!(file, "u{user}@bench.test,{hash}")?;
    }
    file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    daemon.admin(&["user", "import", &path.display().to_string(), "--format", "csv"]).await;
    std::fs::remove_file(&path)?;
    Ok(())
}

/// The peers that are installed.
pub(crate) fn installed(script: &Path) -> Result<Vec<String>> {
    Ok(run(script, &["list"])?.lines().map(str::to_owned).collect())
}

/// Which version of a peer is installed.
pub(crate) fn version(script: &Path, name: &str) -> Result<String> {
    let facts = run(script, &["facts", name])?;
    Ok(facts.lines().find_map(|line| line.strip_prefix("version ")).unwrap_or_default().to_owned())
}

fn run(script: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new(script).args(words).output().with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} {} failed: {}", script.display(), words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
