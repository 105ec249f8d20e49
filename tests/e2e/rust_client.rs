//! Programs written in Rust send with lettre; so it is a client too, by both ports and both mechanisms that it and we know.

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Tls, TlsParametersBuilder};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use pillarbox_testkit::Daemon;

fn transport(daemon: &Daemon, service: &str, mechanism: Mechanism, password: &str) -> AsyncSmtpTransport<Tokio1Executor> {
    let parameters = TlsParametersBuilder::new("mail.example.test".into())
        .dangerous_accept_invalid_certs(true)
        .dangerous_accept_invalid_hostnames(true)
        .build_rustls()
        .unwrap();
    let tls = if service == "submissions" { Tls::Wrapper(parameters) } else { Tls::Required(parameters) };
    AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(daemon.address(service).port())
        .tls(tls)
        .credentials(Credentials::new("alice@example.test".into(), password.into()))
        .authentication(vec![mechanism])
        .build()
}

#[tokio::test]
async fn lettre_sends_over_both_ports_by_plain_and_login() {
    let daemon = Daemon::start().await;
    daemon.add_user("alice@example.test", "wonderland").await;
    daemon.add_user("bob@example.test", "builder").await;
    let mut subjects = Vec::new();
    for service in ["submission", "submissions"] {
        for mechanism in [Mechanism::Plain, Mechanism::Login] {
            let subject = format!("{service} {mechanism}");
            let message = Message::builder()
                .from("Älice <alice@example.test>".parse().unwrap())
                .to("bob@example.test".parse().unwrap())
                .subject(subject.clone())
                .header(ContentType::TEXT_PLAIN)
                .body(String::from("Grüße\n.a line with a dot\n"))
                .unwrap();
            let response = transport(&daemon, service, mechanism, "wonderland").send(message).await.unwrap();
            assert!(response.is_positive(), "{response:?}");
            subjects.push(subject);
        }
    }
    let mut stored: Vec<String> = daemon.mail("bob@example.test", 4).await.iter().map(|m| m.header("Subject")).collect();
    stored.sort();
    subjects.sort();
    assert_eq!(stored, subjects);
    assert!(transport(&daemon, "submissions", Mechanism::Plain, "wrong").test_connection().await.is_err());
}
