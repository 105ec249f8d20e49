//! No password anywhere but in the hands of who checks it: not in a whole run's log, not in files, not in what is shown.

use std::path::Path;

use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{CertificateAuthority, DnsServer, Sink};

use super::*;

/// Everything below a folder, file by file.
fn files(folder: &Path, visit: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), visit);
        } else if kind.is_file() {
            visit(&entry.path(), &std::fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test]
async fn no_password_in_a_whole_run_s_log_at_trace_nor_in_any_file_or_list() {
    const PASSWORDS: [&str; 5] = ["open-sesame-4711", "a-wrong-guess-4712", "smarthost-pass-4713", "changed-to-4714", "database-pass-4715"];
    let authority = CertificateAuthority::new();
    let tls = SinkTls::Implicit(authority.issue(&["smart.test"]).server_config());
    let sink = Sink::builder().tls(tls).login("relay-user", PASSWORDS[2]).start().await;
    let dns = DnsServer::start().await;
    dns.address_of("smart.test", "127.0.0.1").mx("client.test", 10, "mx.client.test").address_of("mx.client.test", "192.0.2.25");
    let folder = pillarbox_testkit::folder();
    let (password_file, ca) = (folder.path().join("smarthost"), folder.path().join("ca.pem"));
    std::fs::write(&password_file, format!("{}\n", PASSWORDS[2])).unwrap();
    std::fs::write(&ca, authority.pem()).unwrap();
    let daemon = builder()
        .dns(dns.address())
        .set("log.level", "trace")
        .set("auth.mechanisms", ["PLAIN", "LOGIN", "SCRAM-SHA-256"].map(str::to_owned).to_vec())
        .relay_to_loopback(sink.port())
        .set("relay.smarthost", format!("smtps://relay-user@smart.test:{}", sink.port()))
        .set("relay.smarthost_password_file", password_file.display().to_string())
        .set("relay.ca_file", ca.display().to_string())
        .set("directory.url", "postgres://pillarbox:database-pass-4715@db.example.test/pillarbox")
        .start()
        .await;
    daemon.add_user("alice@example.test", PASSWORDS[0]).await;
    let app = daemon.admin(&["app-password", "add", "alice@example.test", "phone"]).await;
    let app = app.split_whitespace().find(|word| word.matches('-').count() >= 3).unwrap_or_else(|| panic!("{app}")).to_owned();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for password in [PASSWORDS[0], PASSWORDS[1], &app] {
        let mut client = submitting(&daemon, source(0)).await;
        let code = if password == PASSWORDS[1] { "535" } else { "235" };
        client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", password)), code).await;
        let mut client = submitting(&daemon, source(1)).await;
        client.command("AUTH LOGIN", "334").await;
        client.command(&encode("alice@example.test"), "334").await;
        client.command(&encode(password), code).await;
        client.command("QUIT", "221").await;
    }
    let mut client = submitting(&daemon, source(3)).await;
    client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", PASSWORDS[0])), "235").await;
    client.command("MAIL FROM:<alice@example.test>", "250").await;
    client.command("RCPT TO:<carol@friend.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"From: alice@example.test\r\nSubject: out\r\n\r\nhello\r\n.\r\n").await;
    client.expect("250").await;
    assert_eq!(sink.messages(1).await.remove(0).user.as_deref(), Some("relay-user"), "the smarthost was given the password");
    // Something that is told at the lower levels alone.
    let mut client = from(source(4), daemon.address("submissions")).await;
    client.send(b"no handshake\r\n\r\n").await;
    daemon.log_line("TLS handshake failed").await;
    // A password in the wrong place: as a command of its own, and before TLS.
    let mut client = from(source(2), daemon.address("submission")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", PASSWORDS[0])), "538").await;
    daemon.admin_with(&["user", "passwd", "alice@example.test", "--password-stdin"], &format!("{}\n", PASSWORDS[3])).await;
    others_are_served(&daemon).await;
    let shown = daemon.admin(&["config", "show"]).await;
    // While it all still runs.
    let mut processes = String::new();
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let id = entry.file_name().to_string_lossy().into_owned();
        if id == daemon.pid().to_string() {
            processes.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).unwrap()));
        }
    }
    let log = daemon.log();
    assert!(log.iter().any(|l| l.contains("\"DEBUG\"")) && log.iter().any(|l| l.contains("\"auth\"")), "the run was logged in full");
    let mut forbidden: Vec<String> = PASSWORDS.iter().map(|p| (*p).to_owned()).chain([app.clone()]).collect();
    for password in PASSWORDS.iter().copied().chain([app.as_str()]) {
        forbidden.push(encode(password));
        forbidden.push(plain("alice@example.test", password));
    }
    let mut searched = 0;
    for name in ["state", "run"] {
        files(&daemon.home().join(name), &mut |path, content| {
            searched += content.len();
            // By a search made for it: room that the journal took in advance is megabytes to look through.
            let found = forbidden.iter().find(|secret| memchr::memmem::find(content, secret.as_bytes()).is_some());
            assert!(found.is_none(), "{found:?} in {}", path.display());
        });
    }
    assert!(searched > 10_000, "{searched}");
    for secret in &forbidden {
        if let Some(line) = log.iter().find(|line| line.contains(secret)) {
            panic!("{secret} in the log: {line}");
        }
        assert!(!shown.contains(secret), "{secret} is shown");
        assert!(!processes.contains(secret), "{secret} in the process list");
    }
    assert!(shown.contains("pillarbox:") && shown.contains("db.example.test"), "{shown}");
}

#[tokio::test]
async fn nothing_in_the_state_folder_is_open_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = started(builder()).await;
    others_are_served(&daemon).await;
    daemon.mail("alice@example.test", 1).await;
    fn walk(folder: &Path, look: &mut dyn FnMut(&Path, u32)) {
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
            look(&entry.path(), entry.metadata().unwrap().permissions().mode());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), look);
            }
        }
    }
    let mut seen = 0;
    for name in ["state", "mail"] {
        walk(&daemon.home().join(name), &mut |path, mode| {
            seen += 1;
            // The drop folder takes files from everybody and shows none: its mode is its own matter.
            if !path.components().any(|c| c.as_os_str() == "drop") {
                assert_eq!(mode & 0o007, 0, "{} is {mode:o}", path.display());
            }
        });
    }
    assert!(seen > 10);
}
