//! Ports 587 and 465: TLS, passwords, whose address may be used, and what is added.

use base64::Engine as _;
use pillarbox_testkit::{Client, Daemon, certificates};

use crate::peers;

fn plain(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"))
}

async fn with_users() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.add_alias("info@example.test", &["alice@example.test"]).await;
    daemon
}

#[tokio::test]
async fn no_mail_and_no_password_before_tls() {
    let daemon = with_users().await;
    let mut client = Client::connect(daemon.address("submission")).await;
    client.expect("220").await;
    assert!(!client.command("EHLO client.test", "250").await.has("AUTH*"));
    let refused = client.command("MAIL FROM:<alice@example.test>", "530").await;
    assert!(refused.has("5.7.0 *"), "{refused:?}");
    client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", "wonderland")), "538").await;
}

#[tokio::test]
async fn the_sender_is_the_users_own_and_missing_fields_are_added() {
    let daemon = with_users().await;
    let mut client = Client::connect(daemon.address("submissions")).await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    assert!(client.command("EHLO client.test", "250").await.has("AUTH PLAIN LOGIN"));
    client.command("MAIL FROM:<alice@example.test>", "530").await;
    let bad = client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", "wrong")), "535").await;
    let unknown = client.command(&format!("AUTH PLAIN {}", plain("nobody@example.test", "wrong")), "535").await;
    assert_eq!(bad, unknown);
    client.command(&format!("AUTH PLAIN {}", plain("alice@example.test", "wonderland")), "235").await;
    client.command("MAIL FROM:<bob@example.test>", "553").await;
    client.command("MAIL FROM:<info@example.test>", "250").await;
    client.command("RCPT TO:<bob@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"From: info@example.test\r\nTo: bob@example.test\r\nBcc: secret@example.test\r\nSubject: hi\r\n\r\nhello\r\n.\r\n").await;
    client.expect("250").await;
    client.command("MAIL FROM:<alice@example.test>", "250").await;
    client.command("RCPT TO:<bob@example.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"From: bob@example.test\r\nSubject: forged\r\n\r\nhello\r\n.\r\n").await;
    client.expect("553").await;
    let stored = daemon.mail("bob@example.test", 1).await.remove(0);
    assert!(!stored.header("Date").is_empty() && stored.header("Message-ID").ends_with("@mail.example.test>"), "{}", stored.text());
    assert!(!stored.text().contains("secret@"), "{}", stored.text());
    assert!(stored.header("Received").contains("ESMTPSA"), "{}", stored.text());
}

#[tokio::test]
async fn python_submits_on_both_ports() {
    let daemon = with_users().await;
    let script = r#"
import smtplib, ssl, sys
from email.message import EmailMessage
port, ports = int(sys.argv[1]), int(sys.argv[2])
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
for kind in ("starttls", "tls"):
    message = EmailMessage()
    message["From"] = "alice@example.test"; message["To"] = "bob@example.test"; message["Subject"] = "by " + kind
    message.set_content("Grüße\n.a dot leads\n")
    if kind == "tls":
        server = smtplib.SMTP_SSL("127.0.0.1", ports, context=context)
    else:
        server = smtplib.SMTP("127.0.0.1", port); server.starttls(context=context)
    server.login("alice@example.test", "wonderland")
    server.send_message(message); server.quit()
"#;
    let (port, ports) = (daemon.address("submission").port().to_string(), daemon.address("submissions").port().to_string());
    let output = peers::run("python3", &["-c", script, &port, &ports]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut subjects: Vec<String> = daemon.mail("bob@example.test", 2).await.iter().map(|m| m.header("Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, ["by starttls", "by tls"]);
}

#[tokio::test]
async fn swaks_submits_and_delivers() {
    if !peers::have("swaks") {
        return;
    }
    let daemon = with_users().await;
    let (port, ports, smtp) = (
        daemon.address("submission").port().to_string(),
        daemon.address("submissions").port().to_string(),
        daemon.address("smtp").port().to_string(),
    );
    let login = ["--auth-user", "alice@example.test", "--auth-password", "wonderland", "--from", "alice@example.test"];
    let common = ["--server", "127.0.0.1", "--to", "bob@example.test", "--ehlo", "client.test"];
    for mechanism in ["PLAIN", "LOGIN"] {
        for extra in [vec!["--port", &port, "-tls"], vec!["--port", &ports, "--tls-on-connect"]] {
            let all: Vec<&str> = common.iter().chain(&login).copied().chain(extra).chain(["--auth", mechanism]).collect();
            let output = peers::run("swaks", &all).await;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    let all: Vec<&str> = common.iter().copied().chain(["--port", &smtp, "--from", "sender@client.test"]).collect();
    assert!(peers::run("swaks", &all).await.status.success());
    daemon.mail("bob@example.test", 5).await;
}

#[tokio::test]
async fn an_open_session_sees_a_suspension_and_a_new_password_at_once() {
    let daemon = with_users().await;
    let mut sessions = Vec::new();
    for (user, password) in [("alice@example.test", "wonderland"), ("bob@example.test", "builder"), ("bob@example.test", "builder")] {
        let mut client = Client::connect(daemon.address("submissions")).await;
        client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
        client.expect("220").await;
        client.command("EHLO client.test", "250").await;
        client.command(&format!("AUTH PLAIN {}", plain(user, password)), "235").await;
        client.command(&format!("MAIL FROM:<{user}>"), "250").await;
        client.command("RSET", "250").await;
        sessions.push(client);
    }
    daemon.admin(&["user", "suspend", "alice@example.test"]).await;
    sessions[0].command("MAIL FROM:<alice@example.test>", "421").await;
    sessions[1].command("MAIL FROM:<bob@example.test>", "250").await;
    daemon.admin_with(&["user", "passwd", "bob@example.test", "--password-stdin"], "another\n").await;
    sessions[2].command("MAIL FROM:<bob@example.test>", "421").await;
}
