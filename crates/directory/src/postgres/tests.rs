//! The shared suite and what is PostgreSQL's own, against a real server in a temporary folder.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::clock::ManualClock;
use crate::suite::{self, build, user_record};

/// A server of our own on a Unix socket; stopped and gone at the end.
struct Server {
    folder: tempfile::TempDir,
    bin: PathBuf,
    process: Option<Child>,
}

/// The folder of `initdb` and `postgres`: in PATH or where Debian keeps them.
fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    debian.chain(std::env::split_paths(&path)).find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
}

impl Server {
    /// Starts one, or says loudly why not; with PILLARBOX_REQUIRE_PEERS its absence is an error.
    async fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(
                std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none(),
                "PostgreSQL is not installed, and PILLARBOX_REQUIRE_PEERS is set"
            );
            eprintln!("SKIPPED: PostgreSQL is not installed; its store was not tested");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut server = Self { folder, bin, process: None };
        let data = server.data();
        let status = server
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=pillarbox", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "initdb failed");
        server.run().await;
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// PostgreSQL refuses to run as root, so root lends it another user.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/");
        command
    }

    async fn run(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let child = self
            .command("postgres")
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40", "-k"])
            .arg(self.folder.path())
            .arg("-D")
            .arg(self.data())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        for _ in 0..600 {
            if let Ok((_, connection)) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await {
                drop(connection);
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("PostgreSQL did not start: {}", std::fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    fn url(&self) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://pillarbox@{host}/postgres")
    }

    /// Fast shut-down: connections are cut.
    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = rustix::process::Pid::from_child(&process);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            process.wait().unwrap();
        }
    }

    async fn connect(&self, edit: impl FnOnce(&mut PostgresOptions)) -> PostgresDirectory {
        let mut options = PostgresOptions::from_config(&DirectoryConfig { url: self.url(), ..Default::default() });
        edit(&mut options);
        PostgresDirectory::connect(options).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if rustix::process::geteuid().is_root() || Path::new(&self.data()).exists() {
            let _ = std::fs::remove_dir_all(self.data());
        }
    }
}

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

/// Waits for something that another connection brings about.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_server() {
    let Some(mut server) = Server::start().await else { return };
    {
        let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute("CREATE DATABASE suite").await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
    }
    let clock = ManualClock::at(1_000_000);
    let url = server.url().replace("/postgres", "/suite");
    suite::run(&server.connect(|o| (o.clock, o.url) = (Arc::new(clock.clone()), url)).await, &clock).await;
    several_nodes(&mut server).await;
}

async fn several_nodes(server: &mut Server) {
    // Both bring the schema up to date at once.
    let (one, two) = tokio::join!(server.connect(|_| {}), server.connect(|_| {}));
    build(&one, &["example.org"]).await.user("bob@example.org").await;
    let (bob, new) = (mailbox("bob@example.org"), mailbox("new@example.org"));
    until("the first user's arrival", async || two.user(&bob).await.unwrap().is_some()).await;

    // An absent row is remembered, and forgotten when it appears.
    assert!(two.user(&new).await.unwrap().is_none());
    let mut watch = two.watch();
    build(&one, &[]).await.user("new@example.org").await;
    until("the new user's arrival", async || two.user(&new).await.unwrap().is_some()).await;
    watch.changed().await.unwrap();
    assert!(one.user(&new).await.unwrap().is_some(), "on the node itself at once");

    // A change of a remembered row.
    let mut suspended = user_record("bob@example.org");
    suspended.suspended = true;
    two.apply(vec![Change::PutUser(suspended)]).await.unwrap();
    assert!(two.user(&bob).await.unwrap().unwrap().suspended);
    until("the suspension's arrival", async || one.user(&bob).await.unwrap().unwrap().suspended).await;

    // Rules and counters hold when both write at once.
    let adds = (0..20).map(|n| {
        let node = if n % 2 == 0 { &one } else { &two };
        let user = user_record(&format!("u{n}@example.org"));
        async move { node.apply(vec![Change::PutUser(user)]).await }
    });
    for added in futures::future::join_all(adds).await {
        added.unwrap();
    }
    until("the count", async || one.counts(&bob.domain).await.unwrap() == (22, 0) && two.counts(&bob.domain).await.unwrap() == (22, 0))
        .await;

    // State is one for all: of many, one is first.
    let tries = (0..10).map(|n| {
        let node = if n % 2 == 0 { &one } else { &two };
        async move { node.state_put_new("once", b"k", b"v", Duration::from_secs(60)).await.unwrap() }
    });
    assert_eq!(futures::future::join_all(tries).await.into_iter().filter(|won| *won).count(), 1);

    database_away(server, &one).await;
}

/// Known users are served, unknown ones are not said to be unknown, nothing is written; and all is well again afterwards.
async fn database_away(server: &mut Server, one: &PostgresDirectory) {
    let (bob, new) = (mailbox("bob@example.org"), mailbox("new@example.org"));
    let strict = server.connect(|o| o.serve_stale = Duration::ZERO).await;
    assert!(strict.user(&bob).await.unwrap().is_some());
    let absent = mailbox("absent@example.org");
    for address in [&bob, &new, &absent] {
        let _ = one.user(address).await.unwrap();
    }
    assert!(one.domain(&bob.domain).await.unwrap().is_some());
    server.stop();
    until("the loss", async || one.health().is_err() && strict.health().is_err()).await;
    assert!(one.user(&bob).await.unwrap().unwrap().suspended, "known");
    assert!(one.domain(&bob.domain).await.unwrap().is_some(), "known");
    for address in [&absent, &mailbox("never-asked@example.org")] {
        assert!(matches!(one.user(address).await, Err(DirectoryError::Unavailable(_))), "{address}");
    }
    assert!(matches!(strict.user(&bob).await, Err(DirectoryError::Unavailable(_))), "stale for no time at all");
    assert!(matches!(one.apply(vec![Change::PutUser(user_record("lost@example.org"))]).await, Err(DirectoryError::Unavailable(_))));
    assert!(matches!(one.state_put_new("once", b"k2", b"v", Duration::from_secs(60)).await, Err(DirectoryError::Unavailable(_))));
    assert!(matches!(one.users(None, None, 10).await, Err(DirectoryError::Unavailable(_))));

    server.run().await;
    until("the return", async || one.health().is_ok()).await;
    assert!(one.user(&absent).await.unwrap().is_none());
    until("the next change", async || one.apply(vec![Change::PutUser(user_record("later@example.org"))]).await.is_ok()).await;
    let rows = {
        let client = one.shared.client().await.unwrap();
        client.query("SELECT address FROM pillarbox.users WHERE suspended", &[]).await.unwrap()
    };
    assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["bob@example.org"], "a view that people can read");
    {
        let client = one.shared.client().await.unwrap();
        client.execute("INSERT INTO pillarbox.migrations (version) VALUES (99)", &[]).await.unwrap();
    }
    let newer =
        PostgresDirectory::connect(PostgresOptions::from_config(&DirectoryConfig { url: server.url(), ..Default::default() })).await;
    assert!(matches!(newer.err().unwrap(), DirectoryError::Newer { found: 99, known: 2 }));
}
