//! testssl.sh looks at our TLS as a stranger's auditor would: ports 25 and 587 by STARTTLS, 465 from the first octet, with the certificate of a
//! fresh installation. Nothing above LOW may be found but what [`EXEMPT`] explains.

use std::process::Stdio;
use std::time::Duration;

use pillarbox_testkit::Daemon;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::peers;

/// The longest that a scan may take; one takes under a minute on an idle machine.
const LONGEST: Duration = Duration::from_secs(300);

/// Findings that say something of the test's certificate and nothing of the server.
const EXEMPT: [(&str, &str); 2] = [
    ("cert_chain_of_trust", "a fresh installation signs its own certificate, until ACME or the administrator brings another"),
    ("cert_revocation", "a certificate that signed itself has nobody to revoke it"),
];

/// Scans, and fails with what was found. `starttls` is testssl's word for the protocol, or empty for TLS at once.
async fn scan(service: &str, starttls: &[&str]) {
    // Debian calls it testssl, its makers testssl.sh.
    let program = match ["testssl", "testssl.sh"].into_iter().find(|name| peers::path(name).is_some()) {
        Some(program) => program,
        None => {
            peers::have("testssl");
            return;
        }
    };
    let daemon = Daemon::start().await;
    let folder = pillarbox_testkit::folder();
    let report = folder.path().join("report.json");
    let target = format!("mail.example.test:{}", daemon.address(service).port());
    let log = folder.path().join("testssl.log");
    let file = std::fs::File::create(&log).unwrap();
    let mut command = tokio::process::Command::new(peers::path(program).unwrap());
    command
        .args(["--quiet", "--warnings", "off", "--color", "0", "--fast", "--nodns", "none", "--ip", "127.0.0.1"])
        // Protocols, cipher classes, forward secrecy, certificate, the server's preferences, known vulnerabilities.
        .args(["-p", "-s", "-f", "-S", "-P", "-U", "--jsonfile"])
        .arg(&report)
        .args(starttls)
        .arg(&target)
        .stdin(Stdio::null())
        // No pipe, which a child of its own could keep open beyond its end.
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .process_group(0);
    let mut scan = command.spawn().unwrap();
    let group = scan.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap())).unwrap();
    let ended = tokio::time::timeout(LONGEST, scan.wait()).await;
    // Itself and whatever it left behind.
    let _ = kill_process_group(group, Signal::KILL);
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(ended.is_ok(), "testssl was not done with {service} in {} s:\n{said}", LONGEST.as_secs());
    let text = std::fs::read_to_string(&report).unwrap_or_else(|e| panic!("testssl wrote no report ({e}):\n{said}"));
    let findings: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"));
    let findings = findings.as_array().unwrap_or_else(|| panic!("no list: {text}"));
    let field = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    // A scan that saw nothing proves nothing.
    for (id, wanted) in [("TLS1", "not offered"), ("TLS1_1", "not offered"), ("TLS1_2", "offered"), ("TLS1_3", "offered with final")] {
        let found = findings.iter().find(|f| field(f, "id") == id).map(|f| field(f, "finding")).unwrap_or_default();
        assert!(found.starts_with(wanted), "{service}: {id} is {found:?}, not {wanted:?}:\n{said}");
    }
    // Each answers at once: a client that asks for another handshake is told no, and not left waiting.
    let renegotiation = findings.iter().find(|f| field(f, "id") == "secure_client_renego").map(|f| field(f, "finding")).unwrap_or_default();
    assert_eq!(renegotiation, "not vulnerable", "{service}:\n{said}");
    let bad: Vec<String> = findings
        .iter()
        .filter(|f| matches!(f["severity"].as_str(), Some("MEDIUM" | "HIGH" | "CRITICAL" | "FATAL")))
        .filter(|f| !EXEMPT.iter().any(|(id, _)| field(f, "id").split(' ').next() == Some(id)))
        .map(|f| format!("{} {}: {}", field(f, "severity"), field(f, "id"), field(f, "finding")))
        .collect();
    assert!(bad.is_empty(), "{service}: {}\n{said}", bad.join("\n"));
}

#[tokio::test]
async fn port_25_has_no_finding_above_low() {
    scan("smtp", &["--starttls", "smtp"]).await;
}

#[tokio::test]
async fn port_587_has_no_finding_above_low() {
    scan("submission", &["--starttls", "smtp"]).await;
}

#[tokio::test]
async fn port_465_has_no_finding_above_low() {
    scan("submissions", &[]).await;
}
