//! Programs that people send mail with: each logs in by every mechanism that it knows, over STARTTLS and over TLS, and its mail arrives.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use pillarbox_testkit::Daemon;

use crate::peers;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
/// With what programs quote wrongly.
const PASSWORD: &str = "wonder=land,100% \"\u{e4}\"";

/// A daemon that offers these mechanisms, with its users added while it does.
async fn offering(mechanisms: &[&str]) -> Daemon {
    let mechanisms: Vec<String> = mechanisms.iter().map(|&m| m.to_owned()).collect();
    let daemon = Daemon::builder().set("auth.mechanisms", mechanisms).start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    daemon.add_user(BOB, "builder").await;
    daemon
}

const ALL: [&str; 4] = ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];

/// Ports of submission with STARTTLS and with TLS at once.
fn ports(daemon: &Daemon) -> [String; 2] {
    ["submission", "submissions"].map(|service| daemon.address(service).port().to_string())
}

/// Both streams as text, for the message of a failure.
fn said(output: &Output) -> String {
    format!("{}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How often alice logged in with success, by mechanism.
fn logins(daemon: &Daemon, mechanism: &str) -> usize {
    let ours = |event: &&pillarbox_testkit::daemon::Event| {
        event.name == "auth" && event.text("user") == ALICE && event.text("mechanism") == mechanism && event.text("status") == "ok"
    };
    daemon.events().iter().filter(ours).count()
}

/// Waits until bob has messages with exactly these subjects, each sent by alice who was authenticated.
async fn arrived(daemon: &Daemon, mut expected: Vec<String>) {
    let stored = daemon.mail(BOB, expected.len()).await;
    let mut subjects: Vec<String> = stored.iter().map(|message| message.header("Subject")).collect();
    subjects.sort();
    expected.sort();
    assert_eq!(subjects, expected);
    for message in stored {
        assert!(message.header("Received").contains("with ESMTPSA"), "{}", message.text());
        assert_eq!(message.header("Return-Path"), format!("<{ALICE}>"));
    }
}

#[tokio::test]
async fn msmtp_knows_plain_login_and_scram() {
    if !peers::have("msmtp") {
        return;
    }
    let daemon = offering(&ALL).await;
    let folder = pillarbox_testkit::folder();
    let [starttls, tls] = ports(&daemon);
    let message = folder.path().join("message");
    let config = folder.path().join("msmtprc");
    let send = async |port: &str, starttls: &str, method: &str, password: &str| {
        std::fs::write(folder.path().join("password"), password).unwrap();
        let text = format!(
            "account test\nhost 127.0.0.1\nport {port}\ntls on\ntls_starttls {starttls}\ntls_certcheck off\ndomain client.test\n\
             from {ALICE}\nauth {method}\nuser {ALICE}\npasswordeval cat {}/password\n",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&message, format!("From: {ALICE}\nTo: {BOB}\nSubject: {method} starttls {starttls}\n\n.dot\n")).unwrap();
        // `on` lets the program choose.
        let script = format!("exec msmtp -C '{}' -a test {BOB} < '{}'", config.display(), message.display());
        peers::run("sh", &["-c", &script]).await
    };
    let mut expected = Vec::new();
    for method in ["on", "plain", "login", "scram-sha-256"] {
        for (port, way) in [(&starttls, "on"), (&tls, "off")] {
            let output = send(port, way, method, PASSWORD).await;
            assert!(output.status.success(), "{method} {way}: {}", said(&output));
            expected.push(format!("{method} starttls {way}"));
        }
    }
    let wrong = send(&starttls, "on", "scram-sha-256", "wrong").await;
    assert!(!wrong.status.success() && said(&wrong).contains("535"), "{}", said(&wrong));
    let unknown = send(&starttls, "on", "cram-md5", PASSWORD).await;
    assert!(!unknown.status.success(), "{}", said(&unknown));
    arrived(&daemon, expected).await;
    assert!(logins(&daemon, "SCRAM-SHA-256") >= 2 && logins(&daemon, "LOGIN") >= 2 && logins(&daemon, "PLAIN") >= 2);
}

#[tokio::test]
async fn python_logs_in_by_every_mechanism_it_knows_and_finds_no_cram_md5() {
    let daemon = offering(&ALL).await;
    let script = r#"
import smtplib, ssl, sys
from email.message import EmailMessage
starttls, tls, smtp, password = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
class Wide(str):
    def encode(self, *_):
        return str.encode(self, "utf-8")
def connect(port):
    if port == tls:
        return smtplib.SMTP_SSL("127.0.0.1", port, context=context)
    server = smtplib.SMTP("127.0.0.1", port)
    server.ehlo()
    assert not server.has_extn("auth"), server.esmtp_features
    server.starttls(context=context)
    return server
for port in (starttls, tls):
    for mechanism in ("PLAIN", "LOGIN"):
        for initial in (True, False):
            server = connect(port)
            server.ehlo()
            offered = server.esmtp_features["auth"].split()
            assert "CRAM-MD5" not in offered and "DIGEST-MD5" not in offered and mechanism in offered, offered
            # smtplib would refuse to send a password beyond ASCII.
            server.user, server.password = "alice@example.test", password
            step = server.auth_plain if mechanism == "PLAIN" else server.auth_login
            code, text = server.auth(mechanism, lambda challenge=None: Wide(step(challenge)), initial_response_ok=initial)
            assert code == 235, (code, text)
            message = EmailMessage()
            message["From"] = "alice@example.test"; message["To"] = "bob@example.test"
            message["Subject"] = "%s %s %s" % (mechanism, initial, "tls" if port == tls else "starttls")
            message.set_content("x")
            server.send_message(message); server.quit()
server = connect(starttls)
try:
    server.login("alice@example.test", "wrong")
    raise SystemExit("let in")
except smtplib.SMTPAuthenticationError as error:
    assert error.smtp_code == 535, error
server = smtplib.SMTP("127.0.0.1", smtp); server.starttls(context=context); server.ehlo()
assert not server.has_extn("auth"), "port 25 takes no logins"
"#;
    let [starttls, tls] = ports(&daemon);
    let smtp = daemon.address("smtp").port().to_string();
    let output = peers::run("python3", &["-c", script, &starttls, &tls, &smtp, PASSWORD]).await;
    assert!(output.status.success(), "{}", said(&output));
    let mut expected = Vec::new();
    for mechanism in ["PLAIN", "LOGIN"] {
        for initial in ["True", "False"] {
            expected.extend(["tls", "starttls"].map(|way| format!("{mechanism} {initial} {way}")));
        }
    }
    arrived(&daemon, expected).await;
    assert_eq!((logins(&daemon, "PLAIN"), logins(&daemon, "LOGIN")), (4, 4));
}

#[tokio::test]
async fn curl_sends_over_both_ports() {
    if !peers::have("curl") {
        return;
    }
    let daemon = offering(&ALL).await;
    let folder = pillarbox_testkit::folder();
    let message = folder.path().join("message");
    let [starttls, tls] = ports(&daemon);
    let mut expected = Vec::new();
    for mechanism in ["PLAIN", "LOGIN"] {
        for url in [format!("smtp://127.0.0.1:{starttls}/client.test"), format!("smtps://127.0.0.1:{tls}/client.test")] {
            let subject = format!("{mechanism} {}", if url.starts_with("smtps") { "tls" } else { "starttls" });
            std::fs::write(&message, format!("From: {ALICE}\r\nTo: {BOB}\r\nSubject: {subject}\r\n\r\n.dot\r\n")).unwrap();
            let (options, user, file) = (format!("AUTH={mechanism}"), format!("{ALICE}:{PASSWORD}"), message.display().to_string());
            let arguments = [
                "--silent",
                "--show-error",
                "--insecure",
                "--ssl-reqd",
                "--url",
                &url,
                "--login-options",
                &options,
                "--user",
                &user,
                "--mail-from",
                ALICE,
                "--mail-rcpt",
                BOB,
                "--upload-file",
                &file,
            ];
            let output = peers::run("curl", &arguments).await;
            assert!(output.status.success(), "{subject}: {}", said(&output));
            expected.push(subject);
        }
    }
    arrived(&daemon, expected).await;
    assert_eq!((logins(&daemon, "PLAIN"), logins(&daemon, "LOGIN")), (2, 2));
}

/// Logs in with GNU SASL over STARTTLS, which binds SCRAM to the TLS channel where the mechanism says so.
async fn gsasl(daemon: &Daemon, mechanism: &str, password: &str) -> Output {
    let options = [
        format!("--connect=localhost:{}", daemon.address("submission").port()),
        format!("--x509-ca-file={}", daemon.home().join("state/tls/self-signed.pem").display()),
        format!("--mechanism={mechanism}"),
        format!("--authentication-id={ALICE}"),
        format!("--password={password}"),
        "--quality-of-protection=qop-auth".to_owned(),
    ];
    let mut arguments = vec!["--smtp", "--starttls"];
    arguments.extend(options.iter().map(String::as_str));
    match mechanism {
        "PLAIN" => arguments.push("--authorization-id="),
        "SCRAM-SHA-256" => arguments.push("--no-cb"),
        _ => {}
    }
    peers::run("gsasl", &arguments).await
}

#[tokio::test]
async fn gnu_sasl_binds_scram_to_the_channel() {
    if !peers::have("gsasl") {
        return;
    }
    // It wants a certificate for the name that it connects to.
    let daemon = Daemon::builder().set("hostname", "localhost").set("auth.mechanisms", ALL.map(str::to_owned).to_vec()).start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    for mechanism in ALL {
        let output = gsasl(&daemon, mechanism, PASSWORD).await;
        assert!(said(&output).contains("235 2.7.0"), "{mechanism}: {}", said(&output));
        assert_eq!(logins(&daemon, mechanism), 1, "{mechanism}");
        let output = gsasl(&daemon, mechanism, "wrong").await;
        assert!(said(&output).contains("535 5.7.8"), "{mechanism}: {}", said(&output));
    }
}

#[tokio::test]
async fn scram_works_from_the_first_password_that_is_set_while_it_is_on() {
    if !peers::have("gsasl") {
        return;
    }
    let mut daemon = Daemon::builder().set("hostname", "localhost").start().await;
    daemon.add_user(ALICE, PASSWORD).await;
    daemon.stop().await;
    daemon.configure("auth.mechanisms", ALL.map(str::to_owned).to_vec());
    daemon.restart().await;
    let without_keys = gsasl(&daemon, "SCRAM-SHA-256", PASSWORD).await;
    assert!(said(&without_keys).contains("535 5.7.8"), "{}", said(&without_keys));
    assert!(said(&gsasl(&daemon, "PLAIN", PASSWORD).await).contains("235 2.7.0"));
    daemon.admin_with(&["user", "passwd", ALICE, "--password-stdin"], "jabberwock\n").await;
    for mechanism in ALL {
        let output = gsasl(&daemon, mechanism, "jabberwock").await;
        assert!(said(&output).contains("235 2.7.0"), "{mechanism}: {}", said(&output));
    }
}

#[tokio::test]
async fn nodemailer_sends_what_web_shops_send() {
    let Some(folder) = nodemailer().await else { return };
    let daemon = offering(&ALL).await;
    let script = folder.path().join("send.js");
    let text = r#"
const nodemailer = require("nodemailer");
const [starttls, tls, password] = process.argv.slice(2);
(async () => {
  for (const authMethod of [undefined, "PLAIN", "LOGIN"]) {
    for (const port of [starttls, tls]) {
      const secure = port === tls;
      const transport = nodemailer.createTransport({
        host: "127.0.0.1", port: Number(port), secure, requireTLS: !secure, authMethod,
        tls: { rejectUnauthorized: false }, auth: { user: "alice@example.test", pass: password },
      });
      await transport.verify();
      await transport.sendMail({
        from: '"Älice" <alice@example.test>', to: "bob@example.test", subject: `${authMethod} ${secure ? "tls" : "starttls"}`,
        text: "Grüße\n.dot\n..dots\n", html: "<p>Grüße</p>", attachments: [{ filename: "größe.bin", content: Buffer.alloc(100000, 7) }],
      });
    }
  }
  const refused = nodemailer.createTransport({
    host: "127.0.0.1", port: Number(tls), secure: true, tls: { rejectUnauthorized: false }, auth: { user: "alice@example.test", pass: "wrong" },
  });
  await refused.verify().then(() => { throw new Error("let in"); }, (error) => { if (error.responseCode !== 535) throw error; });
  const many = nodemailer.createTransport({
    host: "127.0.0.1", port: Number(tls), secure: true, pool: true, maxConnections: 3, tls: { rejectUnauthorized: false },
    auth: { user: "alice@example.test", pass: password },
  });
  await Promise.all([...Array(20).keys()].map((n) => many.sendMail({ from: "alice@example.test", to: "bob@example.test", subject: `pooled ${n}`, text: "x" })));
  many.close();
})().catch((error) => { console.error(error); process.exit(1); });
"#;
    std::fs::write(&script, text).unwrap();
    let [starttls, tls] = ports(&daemon);
    let output = peers::run("node", &[&script.display().to_string(), &starttls, &tls, PASSWORD]).await;
    assert!(output.status.success(), "{}", said(&output));
    let mut expected: Vec<String> = (0..20).map(|n| format!("pooled {n}")).collect();
    for method in ["undefined", "PLAIN", "LOGIN"] {
        expected.extend(["tls", "starttls"].map(|way| format!("{method} {way}")));
    }
    arrived(&daemon, expected).await;
}

/// A folder with nodemailer in it. It comes from the registry of npm, so that it is no required peer: without one the test is passed over, loudly.
async fn nodemailer() -> Option<tempfile::TempDir> {
    if peers::path("npm").is_none() || peers::path("node").is_none() {
        eprintln!("skipped: npm is not installed");
        return None;
    }
    let folder = pillarbox_testkit::folder();
    let prefix = folder.path().display().to_string();
    let output = peers::run("npm", &["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", &prefix, "nodemailer"]).await;
    if !output.status.success() {
        eprintln!("skipped: npm cannot install nodemailer: {}", said(&output));
        return None;
    }
    Some(folder)
}
