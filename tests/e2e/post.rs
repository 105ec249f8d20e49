//! Shorthand of the tests: a message by port 25 or by a user who logs in, and how a program ended.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use base64::Engine as _;
use pillarbox_testkit::client::ReplyLines;
use pillarbox_testkit::daemon::binary;
use pillarbox_testkit::{Client, Daemon, DnsServer, Sink, certificates};
use tokio::io::AsyncWriteExt;

/// A session on port 25, behind EHLO.
pub(crate) async fn session(daemon: &Daemon) -> Client {
    let mut client = Client::connect(daemon.address("smtp")).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client
}

/// What a stranger's RCPT is answered.
pub(crate) async fn rcpt(daemon: &Daemon, to: &str) -> ReplyLines {
    let mut client = session(daemon).await;
    client.command("MAIL FROM:<sender@client.test>", "250").await;
    client.line(&format!("RCPT TO:<{to}>")).await;
    client.reply().await
}

/// Sends a message whose content has CRLF line ends, dots not yet doubled, and returns the last reply.
pub(crate) async fn transmit(client: &mut Client, from: &str, to: &[&str], content: &[u8]) -> ReplyLines {
    client.command(&format!("MAIL FROM:<{from}>"), "250").await;
    for recipient in to {
        client.command(&format!("RCPT TO:<{recipient}>"), "250").await;
    }
    client.command("DATA", "354").await;
    let mut wire = Vec::with_capacity(content.len() + 3);
    for line in content.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    client.send(&wire).await;
    client.reply().await
}

/// A stranger's message that is accepted.
pub(crate) async fn deliver(daemon: &Daemon, from: &str, to: &[&str], content: &str) {
    let reply = transmit(&mut session(daemon).await, from, to, content.as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
}

/// A small message.
pub(crate) fn letter(from: &str, to: &str, subject: &str) -> String {
    format!("From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nhello\r\n")
}

/// A session on the port for submission, and what AUTH was answered.
pub(crate) async fn login(daemon: &Daemon, user: &str, password: &str) -> (Client, ReplyLines) {
    let mut client = Client::connect(daemon.address("submissions")).await;
    client.start_tls(certificates::trusting_client_config(), "mail.example.test").await.unwrap();
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    let token = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
    client.line(&format!("AUTH PLAIN {token}")).await;
    let reply = client.reply().await;
    (client, reply)
}

/// The code of AUTH's answer.
pub(crate) async fn login_code(daemon: &Daemon, user: &str, password: &str) -> String {
    login(daemon, user, password).await.1.code().to_owned()
}

/// A daemon whose relay finds `sink` behind `friend.test` and `client.test`; with the name server, which must live on.
pub(crate) async fn before_the_world(sink: &Sink) -> (Daemon, DnsServer) {
    let dns = world_dns().await;
    let daemon = Daemon::builder().dns(dns.address()).relay_to_loopback(sink.port()).start().await;
    (daemon, dns)
}

/// A name server that knows `friend.test` and `client.test`, both on this machine.
pub(crate) async fn world_dns() -> DnsServer {
    let dns = DnsServer::start().await;
    for domain in ["friend.test", "client.test"] {
        let host = format!("mx.{domain}");
        dns.mx(domain, 10, &host).address_of(&host, "127.0.0.1");
    }
    dns
}

/// How a program ended.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// What it wrote to standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it wrote to standard output.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `pillarbox` under another name, as a link of that name would, with the daemon's configuration.
pub(crate) async fn called(daemon: &Daemon, name: &str, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut command = tokio::process::Command::new(link(daemon, name));
    command.args(arguments).env("PILLARBOX_CONFIG", daemon.config_path());
    feed(command, stdin).await
}

/// A link of this name to the program.
pub(crate) fn link(daemon: &Daemon, name: &str) -> PathBuf {
    let link = daemon.home().join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(binary("pillarbox"), &link).unwrap();
    }
    link
}

/// Runs a command to its end with this input.
pub(crate) async fn feed(mut command: tokio::process::Command, stdin: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let write = async move {
        // A program that does not read its input is no failure.
        let _ = pipe.write_all(stdin).await;
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    output.unwrap()
}
