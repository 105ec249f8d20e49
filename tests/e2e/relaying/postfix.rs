//! Postfix from Debian as the receiver, in a folder of its own: what it got is compared octet for octet.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use pillarbox_testkit::wait::Changes;
use pillarbox_testkit::{CertificateAuthority, Daemon, DnsServer, Issued};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{ALICE, Submission, friendly_dns, message, settings, with_alice};
use crate::peers;

/// Who owns the mail: Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

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
pub(super) struct Postfix {
    folder: TempDir,
    log: Arc<parking::Log>,
    child: Child,
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
    pub(super) async fn start(address: SocketAddr, settings: &[(&str, String)], tls: Option<&Issued>) -> Option<Self> {
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
        let this = Self { folder, log, child };
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
        // The master ends its children when it is told to end; when it is killed they find out by themselves.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            let _ = std::process::Command::new("postfix").arg("-c").arg(self.folder.path().join("config")).arg("abort").output();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

fn done(output: std::process::Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Postfix as the MX of `friend.test`, and the daemon to which it gives its own reports.
async fn world(main: &[(&str, String)], tls: Option<&Issued>) -> Option<(Daemon, Postfix, DnsServer)> {
    let address = SocketAddr::from(([127, 0, 0, 1], pillarbox_testkit::free_port()));
    let dns = friendly_dns().await;
    let daemon = with_alice(settings(&dns, address.port())).await;
    let mut main = main.to_vec();
    main.push(("relayhost", format!("[127.0.0.1]:{}", daemon.address("smtp").port())));
    let postfix = Postfix::start(address, &main, tls).await?;
    Some((daemon, postfix, dns))
}

/// What was stored without what was added on the way, which must be of known kinds.
fn as_sent(stored: &str) -> String {
    let from = stored.find("From: alice@example.test").unwrap_or_else(|| panic!("the message's beginning is missing:\n{stored}"));
    let (added, rest) = stored.split_at(from);
    for line in added.lines() {
        let known = ["Return-Path:", "X-Original-To:", "Delivered-To:", "Received:", "DKIM-Signature:", " ", "\t"];
        assert!(known.iter().any(|prefix| line.starts_with(prefix)), "{line:?} was added:\n{stored}");
    }
    rest.to_owned()
}

/// A body with what gets lost or bent on the way where anything does.
fn awkward() -> String {
    let long = "x".repeat(990);
    format!(".\r\n..\r\n.leading dot\r\n\r\n \r\ntrailing space \r\nFrom the beginning\r\n{long}\r\nGr\u{fc}\u{df}e\r\n\ttab\r\n\r\n")
}

fn eight_bit(subject: &str, body: &str) -> String {
    let mime = "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    message(subject, "\u{0}").replacen("\r\n\r\n\u{0}", mime, 1) + body
}

#[tokio::test]
async fn mail_arrives_octet_for_octet_with_and_without_chunking() {
    for keywords in ["", "chunking, silent-discard", "pipelining, chunking, silent-discard", "dsn, silent-discard"] {
        let main = [("smtpd_discard_ehlo_keywords", keywords.to_owned())];
        let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
        let content = eight_bit("octets", &awkward());
        let mut session = Submission::open(&daemon).await;
        session.send("<alice@example.test> BODY=8BITMIME", &["<carol@friend.test>"], &content).await;
        let stored = postfix.mail("carol").await;
        assert_eq!(as_sent(&stored), format!("{content}\r\n").replace("\r\n", "\n"), "{keywords:?}");
        let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
        assert_eq!((event.text("status"), event.text("tls")), ("relayed".to_owned(), String::new()));
        assert!(event.text("relay").starts_with("mx.friend.test[127.0.0.1]"), "{event:?}");
    }
}

#[tokio::test]
async fn starttls_is_used_with_postfix() {
    let issued = CertificateAuthority::new().issue(&["mx.friend.test"]);
    let Some((daemon, postfix, _dns)) = world(&[("smtpd_tls_loglevel", "1".to_owned())], Some(&issued)).await else { return };
    let content = message("tls", "hello");
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test>", &["<carol@friend.test>", "<dave@friend.test>"], &content).await;
    for name in ["carol", "dave"] {
        assert_eq!(as_sent(&postfix.mail(name).await), format!("{content}\r\n").replace("\r\n", "\n"));
    }
    postfix.line("TLS connection established").await;
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(event.text("tls"), "TLSv1.3 opportunistic");
}

#[tokio::test]
async fn postfix_reports_success_itself_and_its_report_reaches_the_sender() {
    let Some((daemon, postfix, _dns)) = world(&[], None).await else { return };
    let mut session = Submission::open(&daemon).await;
    let to = "<carol@friend.test> NOTIFY=SUCCESS ORCPT=rfc822;carol@friend.test";
    session.send("<alice@example.test> RET=HDRS ENVID=envelope-1", &[to], &message("success", "hello")).await;
    postfix.mail("carol").await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Reporting-MTA: dns; mx.friend.test"), "{report}");
    assert!(report.contains("Original-Envelope-Id: envelope-1") && report.contains("Action: delivered"), "{report}");
}

#[tokio::test]
async fn without_dsn_at_postfix_we_report_that_it_was_relayed() {
    let main = [("smtpd_discard_ehlo_keywords", "dsn, silent-discard".to_owned())];
    let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> ENVID=envelope-2", &["<carol@friend.test> NOTIFY=SUCCESS"], &message("relayed", "hello")).await;
    postfix.mail("carol").await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Reporting-MTA: dns; mail.example.test"), "{report}");
    assert!(report.contains("Original-Envelope-Id: envelope-2") && report.contains("Action: relayed"), "{report}");
}

#[tokio::test]
async fn postfix_without_8bitmime_gets_seven_bits_that_say_the_same() {
    let main = [("smtpd_discard_ehlo_keywords", "8bitmime, smtputf8, chunking, silent-discard".to_owned())];
    let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
    let body = awkward();
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> BODY=8BITMIME", &["<carol@friend.test>"], &eight_bit("seven", &body)).await;
    let stored = postfix.mail("carol").await;
    assert!(stored.is_ascii(), "{stored}");
    let file = pillarbox_testkit::folder();
    let path = file.path().join("message");
    std::fs::write(&path, &stored).unwrap();
    let reader = "import email, email.policy, sys\n\
                  m = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)\n\
                  sys.stdout.buffer.write(m.get_payload(decode=True))";
    let output = peers::run("python3", &["-c", reader, &path.display().to_string()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert_eq!(read.trim_end_matches('\n'), body.replace("\r\n", "\n").trim_end_matches('\n'));
}

#[tokio::test]
async fn addresses_beyond_ascii_reach_postfix() {
    let Some((daemon, postfix, _dns)) = world(&[], None).await else { return };
    let content = message("utf8", "hello").replace("To: carol@", "To: j\u{f6}rg@");
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> SMTPUTF8", &["<j\u{f6}rg@friend.test>"], &content).await;
    assert_eq!(as_sent(&postfix.mail("j\u{f6}rg").await), format!("{content}\r\n").replace("\r\n", "\n"));
}

#[tokio::test]
async fn an_unknown_recipient_comes_back_in_postfixs_words() {
    let Some((daemon, _postfix, _dns)) = world(&[], None).await else { return };
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test>", &["<nobody@friend.test>", "<carol@friend.test>"], &message("unknown", "hello")).await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Status: 5.1.1") && report.contains("User unknown in virtual mailbox table"), "{report}");
    daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
}

#[tokio::test]
async fn a_large_message_arrives_whole_and_needs_little_memory() {
    let main = [("message_size_limit", "0".to_owned())];
    let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
    let line = format!("{}\r\n", "0123456789abcdef".repeat(4));
    let content = message("large", &line.repeat(24 * 1024 * 1024 / line.len()));
    let mut session = Submission::open(&daemon).await;
    let before = daemon.resident_kib();
    session.send("<alice@example.test>", &["<carol@friend.test>"], &content).await;
    let stored = postfix.mail("carol").await;
    assert!(as_sent(&stored) == format!("{content}\r\n").replace("\r\n", "\n"), "{} octets of {}", stored.len(), content.len());
    let grown = daemon.resident_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more for a message of 24 MiB");
}
