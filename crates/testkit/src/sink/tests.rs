//! The sink, driven by a client that speaks raw lines.

use super::*;
use crate::certificates::{CertificateAuthority, trusting_client_config};
use crate::client::Client;

async fn deliver(client: &mut Client, to: &str, body: &str) -> String {
    client.command("MAIL FROM:<a@client.test>", "250").await;
    client.command(&format!("RCPT TO:<{to}>"), "250").await;
    client.command("DATA", "354").await;
    client.send(format!("{body}\r\n.\r\n").as_bytes()).await;
    client.reply().await.to_string()
}

#[tokio::test]
async fn messages_are_kept_byte_for_byte() {
    let sink = Sink::start().await;
    let mut client = Client::connect(sink.address()).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<\"a>b\"@client.test> BODY=8BITMIME SIZE=10", "250").await;
    client.command("RCPT TO:<b@sink.test> NOTIFY=NEVER", "250").await;
    client.command("DATA", "354").await;
    client.send(b"..dot\r\nx\r\n...\r\n\xff\r\n.\r\n").await;
    client.expect("250").await;
    client.command("MAIL FROM:<>", "250").await;
    client.command("RCPT TO:<b@sink.test>", "250").await;
    client.send(b"BDAT 3\r\n.\r\n").await;
    client.expect("250").await;
    client.send(b"BDAT 2 LAST\r\na\nQUIT\r\n").await;
    client.expect("250").await;
    client.expect("221").await;
    assert!(client.closed().await);
    let messages = sink.messages(2).await;
    assert_eq!(messages[0].body, b".dot\r\nx\r\n..\r\n\xff\r\n");
    assert_eq!((messages[0].from.as_str(), messages[0].from_parameters.join(" ")), ("\"a>b\"@client.test", "BODY=8BITMIME SIZE=10".into()));
    assert_eq!(messages[0].recipients, [("b@sink.test".to_owned(), vec!["NOTIFY=NEVER".to_owned()])]);
    assert_eq!((messages[1].body.as_slice(), messages[1].chunked), (&b".\r\na\n"[..], true));
    assert!(sink.violations().is_empty());
    sink.idle().await;
}

#[tokio::test]
async fn rules_change_what_is_said() {
    let sink = Sink::start().await;
    sink.on(Stage::Rcpt, "bad@*", "550 5.1.1 No such user").every(2, Stage::Rcpt, "list*@*", "450 4.2.0 Later").next(
        1,
        Stage::Message,
        "slow@*",
        Answer::Close,
    );
    let mut client = Client::connect(sink.address()).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<>", "250").await;
    client.command("RCPT TO:<bad@sink.test>", "550").await;
    for (n, code) in [(1, "250"), (2, "450"), (3, "250"), (4, "450")] {
        client.command(&format!("RCPT TO:<list{n}@sink.test>"), code).await;
    }
    client.command("RSET", "250").await;
    client.command("MAIL FROM:<>", "250").await;
    client.command("RCPT TO:<slow@sink.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b".\r\n").await;
    assert!(client.closed().await);
    let dropped = sink.attempts(1).await;
    assert_eq!((dropped[0].accepted(), dropped[0].body.len()), (false, 0));
    sink.on(Stage::Connect, "*", "421 4.3.2 Not now");
    let mut client = Client::connect(sink.address()).await;
    client.expect("421").await;
    assert!(client.closed().await);
    assert_eq!(sink.connections(), 2);
}

#[tokio::test]
async fn starttls_login_and_lmtp() {
    let authority = CertificateAuthority::new();
    let config = authority.issue(&["sink.test"]).server_config();
    let sink = Sink::builder().tls(SinkTls::StartTls(config)).login("u", "p").tls_required().start().await;
    let mut client = Client::connect(sink.address()).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("MAIL FROM:<>", "530").await;
    client.command("STARTTLS", "220").await;
    client.start_tls(authority.client_config(), "sink.test").await.unwrap();
    client.command("EHLO client.test", "250").await;
    client.command("AUTH PLAIN AHUAeA==", "535").await;
    client.command("AUTH PLAIN AHUAcA==", "235").await;
    assert!(deliver(&mut client, "b@sink.test", "hi").await.starts_with("250"));
    let message = sink.messages(1).await.remove(0);
    assert_eq!(message.tls.unwrap().server_name.as_deref(), Some("sink.test"));
    assert_eq!(message.user.as_deref(), Some("u"));

    let expired = authority.issue_expired(&["sink.test"]).server_config();
    let sink = Sink::builder().tls(SinkTls::Implicit(expired)).lmtp().start().await;
    assert!(Client::connect(sink.address()).await.start_tls(authority.client_config(), "sink.test").await.is_err());
    let mut client = Client::connect(sink.address()).await;
    client.start_tls(trusting_client_config(), "sink.test").await.unwrap();
    client.expect("220").await;
    client.command("LHLO client.test", "250").await;
    sink.on(Stage::Message, "full@*", "452 4.2.2 Full");
    client.command("MAIL FROM:<>", "250").await;
    client.command("RCPT TO:<ok@sink.test>", "250").await;
    client.command("RCPT TO:<full@sink.test>", "250").await;
    client.command("DATA", "354").await;
    client.send(b"x\r\n.\r\n").await;
    client.expect("250").await;
    client.expect("452").await;
    assert_eq!(sink.accepted(), 1);
}

#[tokio::test]
async fn improper_clients_are_noted() {
    let sink = Sink::start().await;
    let mut client = Client::connect(sink.address()).await;
    client.expect("220").await;
    client.send(b"EHLO x\n").await;
    client.expect("250").await;
    let reply = deliver(&mut client, "b@sink.test", "a\nb\n.\nc").await;
    assert!(reply.starts_with("250"));
    assert_eq!(sink.violations().len(), 2, "{:?}", sink.violations());
    assert_eq!(sink.messages(1).await[0].body, b"a\nb\n.\nc\r\n");
}

#[tokio::test]
async fn a_host_goes_down_and_comes_back() {
    let sink = Sink::start().await;
    let mut client = Client::connect(sink.address()).await;
    client.expect("220").await;
    let address = sink.stop().await;
    assert!(client.closed().await);
    assert!(Client::try_connect(address).await.is_err());
    let sink = Sink::builder().port(address.port()).start().await;
    let neighbour = Sink::builder().ip("127.0.0.2").port(address.port()).start().await;
    Client::connect(sink.address()).await.expect("220").await;
    Client::connect(neighbour.address()).await.expect("220").await;
    assert_eq!((sink.connected(1).await, neighbour.connected(1).await), (1, 1));
}

#[tokio::test]
async fn injection_behind_starttls_reaches_the_client() {
    let config = CertificateAuthority::new().issue(&["sink.test"]).server_config();
    let sink = Sink::builder().tls(SinkTls::StartTls(config)).inject_after_starttls(b"250 injected\r\n").start().await;
    let mut client = Client::connect(sink.address()).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.command("STARTTLS", "220").await;
    assert!(client.start_tls(trusting_client_config(), "sink.test").await.is_err());
}

#[tokio::test]
async fn a_server_that_never_answers_lets_go_of_its_client() {
    let sink = Sink::start().await;
    sink.on(Stage::Mail, "*", Answer::Hang);
    let mut client = Client::connect(sink.address()).await;
    client.expect("220").await;
    client.command("EHLO client.test", "250").await;
    client.line("MAIL FROM:<>").await;
    assert_eq!(sink.command("mail from*").await, "MAIL FROM:<>");
    assert_eq!(sink.open_connections(), 1);
    drop(client);
    sink.idle().await;
}
