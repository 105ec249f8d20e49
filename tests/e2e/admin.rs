//! The admin command and the daemon as a service: exit codes, JSON, configuration errors, signals, and the users they run as.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::Stdio;

use pillarbox_testkit::daemon::{NOBODY, binary};
use pillarbox_testkit::wait::until_it_says;
use pillarbox_testkit::{Client, Daemon, PATIENCE, Sink, folder};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::peers;
use crate::post::{code, feed, login, login_code, rcpt, session, stderr, stdout, transmit, world_dns};

async fn with_alice() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_alias("info@example.test", &["alice@example.test"]).await;
    daemon
}

#[tokio::test]
async fn exit_codes_tell_scripts_what_happened() {
    let daemon = with_alice().await;
    daemon.admin(&["app-password", "add", "alice@example.test", "phone"]).await;
    for (line, wanted) in [
        ("domain add example.test", 4),
        ("domain add example.test --if-missing", 0),
        ("domain show nowhere.test", 3),
        ("domain remove nowhere.test --yes", 3),
        ("domain remove example.test", 2),
        ("domain add not..a.domain", 2),
        ("user add alice@example.test --generate", 4),
        ("user add alice@example.test", 4),
        ("user add alice@example.test --if-missing", 0),
        ("user add bob@nowhere.test --generate", 3),
        ("user add bob@example.test", 2),
        ("user add bob --generate", 2),
        ("user show bob@example.test", 3),
        ("user remove bob@example.test --yes", 3),
        ("user remove alice@example.test", 2),
        ("user suspend bob@example.test", 3),
        ("user passwd bob@example.test --generate", 3),
        ("user quota alice@example.test lots", 2),
        ("user quota alice@example.test 0", 2),
        ("user list nowhere.test", 3),
        ("alias add info@example.test alice@example.test", 4),
        ("alias add info@example.test alice@example.test --if-missing", 0),
        ("alias add info@nowhere.test alice@example.test", 3),
        ("alias add x@example.test x@example.test", 1),
        ("alias remove nobody@example.test --yes", 3),
        ("alias remove info@example.test bob@example.test --yes", 3),
        ("alias remove info@example.test", 2),
        ("app-password add alice@example.test phone", 4),
        ("app-password list bob@example.test", 3),
        ("app-password revoke alice@example.test tablet --yes", 3),
        ("app-password revoke alice@example.test phone", 2),
        ("queue show 0000000000000", 3),
        ("queue show ?", 2),
        ("queue remove 0000000000000", 2),
        ("queue hold 0000000000000", 3),
        ("config explain limits.mesage_size", 3),
        ("config explain limits.message_size", 0),
        ("frobnicate", 2),
        ("user", 2),
        ("trace nothing-of-this-name", 3),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = daemon.try_admin(&arguments, "").await;
        assert_eq!(code(&output), wanted, "{line}: {}{}", stdout(&output), stderr(&output));
        if wanted > 0 && !["frobnicate", "user"].contains(&line) {
            assert_eq!((stdout(&output).as_str(), stderr(&output).lines().count()), ("", 1), "{line}: {}", stderr(&output));
            assert!(stderr(&output).starts_with("pillarbox: "), "{line}: {}", stderr(&output));
        }
    }
    assert_eq!(login_code(&daemon, "alice@example.test", "wonderland").await, "235", "nothing was changed by any of it");
    daemon.admin(&["user", "remove", "alice@example.test", "--yes"]).await;
    assert_eq!(rcpt(&daemon, "alice@example.test").await.code(), "550");
}

#[tokio::test]
async fn a_locked_database_without_a_daemon_to_ask_is_69_and_offline_changes_are_there_at_the_start() {
    let mut daemon = with_alice().await;
    let other = daemon.home().join("other.toml");
    let text = std::fs::read_to_string(daemon.config_path()).unwrap();
    let runtime = daemon.home().join("run").display().to_string();
    std::fs::write(&other, text.replace(&runtime, &daemon.home().join("elsewhere").display().to_string())).unwrap();
    let mut command = Command::new(binary("pillarbox"));
    command.arg("--config").arg(&other).args(["user", "list"]);
    let output = feed(command, b"").await;
    assert_eq!((code(&output), stderr(&output).lines().count()), (69, 1), "{}", stderr(&output));

    assert!(daemon.stop().await.success());
    let status = daemon.try_admin(&["--json", "status"], "").await;
    assert_eq!(code(&status), 1);
    let status: Value = serde_json::from_str(&stdout(&status)).unwrap();
    assert_eq!((&status["running"], &status["healthy"]), (&false.into(), &false.into()));
    assert_eq!(code(&daemon.try_admin(&["queue", "list"], "").await), 1);
    daemon.add_user("bob@example.test", "builder").await;
    assert_eq!(daemon.admin_json(&["user", "list"]).await.as_array().unwrap().len(), 2);
    daemon.restart().await;
    assert_eq!(login_code(&daemon, "bob@example.test", "builder").await, "235");
    let owner = std::fs::metadata(daemon.home().join("state")).unwrap().uid();
    for entry in std::fs::read_dir(daemon.home().join("state")).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().uid(), owner, "{}", entry.path().display());
    }
}

/// Each of these fields is there, of this kind.
fn has(value: &Value, fields: &[(&str, &str)]) {
    for (name, kind) in fields {
        let field = value.get(name).unwrap_or_else(|| panic!("{name} is missing in {value}"));
        let fits = match *kind {
            "text" => field.is_string(),
            "number" => field.is_u64(),
            "number?" => field.is_u64() || field.is_null(),
            "text?" => field.is_string() || field.is_null(),
            "time" => field.as_str().is_some_and(|t| t.len() >= 20 && t.contains('T') && t.ends_with('Z')),
            "bool" => field.is_boolean(),
            _ => field.is_array(),
        };
        assert!(fits, "{name} is no {kind} in {value}");
    }
}

#[tokio::test]
async fn json_has_the_fields_that_were_promised() {
    let sink = Sink::start().await;
    let dns = world_dns().await;
    let daemon = Daemon::builder().dns(dns.address()).relay_to_loopback(sink.port()).start().await;
    for list in [&["domain", "list"][..], &["user", "list"], &["alias", "list"], &["queue", "list"], &["queue", "summary"]] {
        assert_eq!(daemon.admin_json(list).await, Value::Array(vec![]), "{list:?}");
    }
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_alias("info@example.test", &["alice@example.test", "far@friend.test"]).await;
    daemon.admin(&["app-password", "add", "alice@example.test", "phone"]).await;
    sink.stop().await;
    let (mut client, _) = login(&daemon, "alice@example.test", "wonderland").await;
    transmit(&mut client, "alice@example.test", &["carol@friend.test"], b"From: alice@example.test\r\n\r\nx\r\n").await;
    daemon.event("defer", |e| e.text("to") == "carol@friend.test").await;

    let domains = daemon.admin_json(&["domain", "list"]).await;
    has(&domains[0], &[("name", "text"), ("users", "number"), ("aliases", "number")]);
    assert_eq!((&domains[0]["users"], &domains[0]["aliases"]), (&1.into(), &1.into()));
    let user = [("address", "text"), ("suspended", "bool"), ("quota_bytes", "number?"), ("used_bytes", "number"), ("created", "time")];
    has(&daemon.admin_json(&["user", "list", "example.test"]).await[0], &user);
    has(&daemon.admin_json(&["user", "show", "alice@example.test"]).await, &user);
    has(&daemon.admin_json(&["alias", "list"]).await[0], &[("address", "text"), ("targets", "list")]);
    has(&daemon.admin_json(&["app-password", "list", "alice@example.test"]).await[0], &[("label", "text"), ("created", "time")]);
    let entry = [
        ("id", "text"),
        ("from", "text"),
        ("size_bytes", "number"),
        ("received", "time"),
        ("next_attempt", "text?"),
        ("held", "bool"),
        ("recipients", "list"),
    ];
    let queue = daemon.admin_json(&["queue", "list"]).await;
    has(&queue[0], &entry);
    has(&queue[0]["recipients"][0], &[("address", "text"), ("status", "text"), ("attempts", "number"), ("last_reply", "text?")]);
    let id = queue[0]["id"].as_str().unwrap();
    has(&daemon.admin_json(&["queue", "show", id]).await, &entry);
    assert_eq!(daemon.admin_json(&["queue", "list", "--to", "elsewhere.test"]).await, Value::Array(vec![]));
    assert!(daemon.admin(&["queue", "cat", id]).await.ends_with("\r\n\r\nx\r\n"));
    daemon.admin(&["queue", "hold", id]).await;
    assert_eq!(daemon.admin_json(&["queue", "show", id]).await["held"], true);
    let status = daemon.admin_json(&["status"]).await;
    has(&status, &[("version", "text"), ("hostname", "text"), ("listeners", "list"), ("certificates", "list"), ("healthy", "bool")]);
    has(&status["listeners"][0], &[("name", "text"), ("address", "text")]);
    has(&status["queue"], &[("messages", "number"), ("recipients", "number"), ("oldest_seconds", "number")]);
    has(&status["certificates"][0], &[("name", "text"), ("not_after", "time"), ("self_signed", "bool")]);
    for (address, actions) in
        [("info@example.test", &["mailbox", "relay"][..]), ("nobody@example.test", &["reject"]), ("x@friend.test", &["relay"])]
    {
        let route = daemon.admin_json(&["route", address]).await;
        has(&route, &[("address", "text"), ("steps", "list"), ("final", "list")]);
        let found: Vec<&str> = route["final"].as_array().unwrap().iter().filter_map(|f| f["action"].as_str()).collect();
        assert_eq!(found, actions, "{route}");
    }
    daemon.admin(&["queue", "remove", id, "--yes"]).await;
    assert_eq!(daemon.admin_json(&["queue", "list"]).await, Value::Array(vec![]));
}

#[tokio::test]
async fn a_password_that_is_changed_or_revoked_fails_at_the_next_login() {
    let daemon = with_alice().await;
    daemon
        .admin_with(
            &["user", "add", "bob@example.test", "--password-stdin", "--login", "b@example.test", "--login", "robert@old.test"],
            "builder\n",
        )
        .await;
    for name in ["bob@example.test", "b@example.test", "robert@old.test", "BOB@Example.test"] {
        assert_eq!(login_code(&daemon, name, "builder").await, "235", "{name}");
    }
    let (mut client, _) = login(&daemon, "robert@old.test", "builder").await;
    client.command("MAIL FROM:<bob@example.test>", "250").await;
    let made = daemon.admin_json(&["app-password", "add", "alice@example.test", "my phone"]).await;
    let phone = made["password"].as_str().unwrap().to_owned();
    let tablet = daemon.admin_json(&["app-password", "add", "alice@example.test", "tablet"]).await["password"].as_str().unwrap().to_owned();
    assert!(phone.len() >= 16 && phone != tablet);
    for password in [&phone, &tablet, "wonderland"] {
        assert_eq!(login_code(&daemon, "alice@example.test", password).await, "235");
    }
    let listed = daemon.admin_json(&["app-password", "list", "alice@example.test"]).await;
    assert!(!listed.to_string().contains(&phone), "it is shown once");
    daemon.admin(&["app-password", "revoke", "alice@example.test", "my phone", "--yes"]).await;
    daemon.admin_with(&["user", "passwd", "alice@example.test", "--password-stdin"], "new one\n").await;
    for (password, wanted) in [(phone.as_str(), "535"), (&tablet, "235"), ("wonderland", "535"), ("new one", "235")] {
        assert_eq!(login_code(&daemon, "alice@example.test", password).await, wanted, "{password}");
    }
    let generated = daemon.admin_json(&["user", "passwd", "alice@example.test", "--generate"]).await;
    assert_eq!(login_code(&daemon, "alice@example.test", generated["password"].as_str().unwrap()).await, "235");
    let log = daemon.log().join("\n");
    for secret in ["builder", "wonderland", "new one", &phone, &tablet] {
        assert!(!log.contains(secret), "a password is in the log");
    }
}

/// Runs `pillarboxd --check` on this configuration.
async fn check(text: &str) -> (i32, String) {
    let home = folder();
    let file = home.path().join("pillarbox.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(binary("pillarboxd"));
    command.args(["--check", "--config"]).arg(&file);
    let daemon = feed(command, b"").await;
    let mut command = Command::new(binary("pillarbox"));
    command.args(["config", "check", "--config"]).arg(&file);
    let admin = feed(command, b"").await;
    assert_eq!(code(&daemon), code(&admin), "{}{}", stderr(&daemon), stderr(&admin));
    (code(&daemon), stderr(&daemon) + &stderr(&admin))
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_place_and_what_was_meant() {
    assert_eq!(check("").await, (0, String::new()), "an empty file is valid");
    for (text, words) in [
        (
            "hostname = \"mail.example.test\"\n\n[limits]\nmesage_size = \"1M\"\n",
            &["pillarbox.toml", "4", "limits.mesage_size", "message_size"][..],
        ),
        ("[lisen]\nsmtp = []\n", &["lisen", "listen"]),
        ("[limits]\nmessage_size = \"many\"\n", &["pillarbox.toml", "2", "limits.message_size"]),
        ("[limits]\nrecipients = \"ten\"\n", &["2", "recipients"]),
        ("[queue]\nlifetime = \"5 parsecs\"\n", &["2", "queue.lifetime"]),
        ("[screen]\ndmarc = \"maybe\"\n", &["screen.dmarc", "enforce"]),
        ("hostname = \n", &["pillarbox.toml", "1"]),
    ] {
        let (code, said) = check(text).await;
        assert_eq!(code, 1, "{text}");
        for word in words {
            assert!(said.contains(word), "{word:?} is missing: {said}");
        }
        assert!(!said.contains("panicked") && !said.contains("Error {"), "{said}");
    }
    let mut command = Command::new(binary("pillarboxd"));
    command.args(["--check", "--config", "/dev/null"]).env("PILLARBOX_LISTEN__SMTPP", "[]");
    let output = feed(command, b"").await;
    assert!(code(&output) == 1 && stderr(&output).contains("PILLARBOX_LISTEN__SMTP"), "{}", stderr(&output));
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let mut daemon = with_alice().await;
    daemon.configure("relay.smarthost", "smtps://me:geheim@smart.test:465");
    let refused = daemon.try_admin(&["config", "show"], "").await;
    assert!(code(&refused) == 1 && !stderr(&refused).contains("geheim"), "a password has a file of its own: {}", stderr(&refused));
    daemon.configure("relay.smarthost", "smtps://smart.test:465");
    daemon.configure("directory.url", "postgres://pillar:geheim@db.test/mail");
    for arguments in [&["config", "show"][..], &["--json", "config", "show"]] {
        let shown = daemon.admin(arguments).await;
        assert!(!shown.contains("geheim") && shown.contains("smart.test") && shown.contains("mail.example.test"), "{shown}");
    }
    let defaults = daemon.admin(&["config", "defaults"]).await;
    assert_eq!(check(&defaults).await.0, 0, "the defaults are a valid file");
    let explained = daemon.admin(&["config", "explain", "limits.message_size"]).await;
    assert!(explained.contains("50M"), "{explained}");
}

#[tokio::test]
async fn a_bad_file_at_a_reload_leaves_the_old_one_in_force() {
    let mut daemon = with_alice().await;
    let good = std::fs::read_to_string(daemon.config_path()).unwrap();
    std::fs::write(daemon.config_path(), "[limits]\nmesage_size = \"1K\"\n").unwrap();
    daemon.reload();
    let line = daemon.log_line("reload refused").await;
    assert!(line.contains("mesage_size"), "{line}");
    let refused = daemon.post("/v1/reload", &Value::Null).await;
    assert!(refused.status >= 400 && refused.body.contains("mesage_size"), "{refused:?}");
    assert!(session(&daemon).await.command("EHLO again.test", "250").await.has("SIZE 52428800"));
    std::fs::write(daemon.config_path(), good).unwrap();
    daemon.configure("limits.message_size", "1M");
    daemon.reload();
    daemon.log_line("were reloaded").await;
    assert!(session(&daemon).await.command("EHLO again.test", "250").await.has("SIZE 1048576"));
    assert_eq!(rcpt(&daemon, "alice@example.test").await.code(), "250");
}

#[tokio::test]
async fn setup_makes_a_domain_that_takes_mail_and_may_be_repeated() {
    let mut daemon = Daemon::start().await;
    assert!(daemon.stop().await.success());
    let setup = ["setup", "example.test", "--admin", "alice@example.test", "--yes"];
    let done = daemon.admin_json(&setup).await;
    let password = done["password"].as_str().unwrap().to_owned();
    let records = done["records"].to_string();
    for kind in ["MX", "v=spf1", "v=DMARC1", "v=DKIM1"] {
        assert!(records.contains(kind), "{kind} is missing in {records}");
    }
    let again = daemon.admin_json(&setup).await;
    assert!(again["password"].is_null(), "what is there stays: {again}");
    daemon.restart().await;
    assert_eq!(login_code(&daemon, "alice@example.test", &password).await, "235");
    assert_eq!(rcpt(&daemon, "postmaster@example.test").await.code(), "250");
    let running = daemon.admin(&["setup", "second.test", "--yes"]).await;
    assert!(running.contains("_domainkey") && !running.contains(&password), "{running}");
    assert_eq!(daemon.admin_json(&["domain", "list"]).await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn sigterm_tells_open_sessions_and_ends_with_0() {
    let mut daemon = with_alice().await;
    let mut idle = session(&daemon).await;
    let mut early = session(&daemon).await;
    let reply = transmit(&mut early, "sender@client.test", &["alice@example.test"], b"From: sender@client.test\r\n\r\nlast\r\n").await;
    assert_eq!(reply.code(), "250");
    let address = daemon.address("smtp");
    let told = async {
        let reply = idle.expect("421").await;
        assert!(idle.closed().await, "{reply}");
    };
    let (status, ()) = tokio::join!(daemon.stop(), told);
    assert_eq!(status.code(), Some(0));
    assert!(Client::try_connect(address).await.is_err(), "nobody listens any more");
    daemon.restart().await;
    daemon.mail("alice@example.test", 1).await;
}

/// A daemon started by hand; killed when dropped.
struct ByHand {
    home: tempfile::TempDir,
    child: tokio::process::Child,
}

impl ByHand {
    /// In a folder that belongs to [`NOBODY`]; `as_root`: by root, which it gives up.
    async fn start(as_root: bool) -> Self {
        let home = folder();
        let at = |name: &str| home.path().join(name);
        for name in ["state", "mail", "run"] {
            std::fs::create_dir(at(name)).unwrap();
            chown(at(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let path = |name: &str| at(name).display().to_string();
        let text = format!(
            "hostname = \"mail.example.test\"\n[paths]\nstate = {:?}\nmail = {:?}\nruntime = {:?}\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = \
             []\n[auth]\nargon2 = {{ memory_kib = 256, iterations = 1, parallelism = 1 }}\n[dns]\nservers = [\"127.0.0.1:9\"]\n",
            path("state"),
            path("mail"),
            path("run")
        );
        std::fs::write(at("pillarbox.toml"), text).unwrap();
        chown(at("pillarbox.toml"), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = if as_root { Command::new(binary("pillarboxd")) } else { as_nobody(&binary("pillarboxd").display().to_string()) };
        command
            .arg("--config")
            .arg(at("pillarbox.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        until_it_says("pillarboxd", child.stderr.take().unwrap(), |line| line.contains("ready")).await;
        Self { home, child }
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    async fn admin(&self, nobody: bool, arguments: &[&str], stdin: &str) -> std::process::Output {
        let program = binary("pillarbox").display().to_string();
        let mut command = if nobody { as_nobody(&program) } else { Command::new(program) };
        command.arg("--config").arg(self.home.path().join("pillarbox.toml")).args(arguments);
        feed(command, stdin.as_bytes()).await
    }

    fn smtp(&self) -> std::net::SocketAddr {
        let listeners: Value = serde_json::from_slice(&std::fs::read(self.home.path().join("run/listeners.json")).unwrap()).unwrap();
        listeners[0]["address"].as_str().unwrap().parse().unwrap()
    }

    async fn stop(&mut self) -> Option<i32> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new(peers::path("setpriv").unwrap());
    command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--", program]);
    command
}

/// Everything below belongs to [`NOBODY`].
fn all_nobodys(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let meta = entry.metadata().unwrap();
        assert_eq!(meta.uid(), NOBODY, "{}", entry.path().display());
        if meta.is_dir() {
            all_nobodys(&entry.path());
        }
    }
}

#[tokio::test]
async fn an_ordinary_user_can_run_it_and_root_is_given_up() {
    if !geteuid().is_root() || !peers::have("setpriv") {
        return;
    }
    for as_root in [false, true] {
        let mut daemon = ByHand::start(as_root).await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = |name: &str| {
            status.lines().find(|l| l.starts_with(name)).unwrap().split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(line("Uid:").iter().chain(&line("Gid:")).all(|id| *id == NOBODY.to_string()), "{status}");
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert!(line(set).iter().all(|set| set.bytes().all(|b| b == b'0')), "no right of root's is left: {status}");
        }
        // Of a process whose memory nobody may look into, these files are root's.
        let memory = std::fs::metadata(format!("/proc/{}/mem", daemon.pid())).unwrap();
        assert_eq!(memory.uid(), 0, "it can be dumped");
        for (nobody, arguments, stdin) in [
            (true, &["domain", "add", "example.test"][..], ""),
            (false, &["user", "add", "alice@example.test", "--password-stdin"], "wonderland\n"),
        ] {
            let output = daemon.admin(nobody, arguments, stdin).await;
            assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        }
        let mut client = Client::connect(daemon.smtp()).await;
        client.expect("220").await;
        client.command("EHLO client.test", "250").await;
        let reply = transmit(&mut client, "", &["alice@example.test"], b"From: x@client.test\r\n\r\nhi\r\n").await;
        assert_eq!(reply.code(), "250");
        client.command("QUIT", "221").await;
        let new = daemon.home.path().join("mail/example.test/alice/Maildir/new");
        // Each question takes a turn of the daemon's; delivery is a matter of milliseconds.
        for _ in 0..500 {
            if std::fs::read_dir(&new).is_ok_and(|mut d| d.next().is_some()) {
                break;
            }
            assert!(daemon.admin(false, &["queue", "list"], "").await.status.success());
        }
        assert_eq!(std::fs::read_dir(&new).unwrap().count(), 1);
        assert_eq!(daemon.stop().await, Some(0));
        // Without a daemon, root leaves no file behind that the daemon could not write.
        let output = daemon.admin(false, &["user", "add", "bob@example.test", "--generate"], "").await;
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        for name in ["state", "mail"] {
            all_nobodys(&daemon.home.path().join(name));
        }
    }
}
