//! Next hops that the operator names: smarthosts with a login over verified TLS, routes by domain and by sender, LMTP.

use pillarbox_testkit::daemon::DaemonBuilder;
use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{CertificateAuthority, Daemon, Sink};

use super::{Submission, friendly_dns, message, send, settings, with_alice};

/// Settings for a smarthost, and the folder in which its password and authority are.
fn smarthost(
    builder: DaemonBuilder,
    scheme: &str,
    port: u16,
    authority: &CertificateAuthority,
    password: &str,
) -> (DaemonBuilder, tempfile::TempDir) {
    let folder = pillarbox_testkit::folder();
    let (ca, secret) = (folder.path().join("ca.pem"), folder.path().join("password"));
    std::fs::write(&ca, authority.pem()).unwrap();
    std::fs::write(&secret, format!("{password}\n")).unwrap();
    private(&secret);
    let builder = builder
        .set("relay.smarthost", format!("{scheme}://relay-user@smart.test:{port}"))
        .set("relay.smarthost_password_file", secret.display().to_string())
        .set("relay.ca_file", ca.display().to_string());
    (builder, folder)
}

fn private(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_smarthost_gets_our_login_over_verified_tls_alone() {
    let authority = CertificateAuthority::new();
    for scheme in ["smtp", "smtps"] {
        let config = authority.issue(&["smart.test"]).server_config();
        let tls = if scheme == "smtp" { SinkTls::StartTls(config) } else { SinkTls::Implicit(config) };
        let sink = Sink::builder().tls(tls).login("relay-user", "secret").start().await;
        let dns = friendly_dns().await;
        dns.address_of("smart.test", "127.0.0.1");
        // Nothing listens on the port of the MX way.
        let (builder, _folder) = smarthost(settings(&dns, pillarbox_testkit::free_port()), scheme, sink.port(), &authority, "secret");
        let daemon = with_alice(builder).await;
        send(&daemon, &["carol@friend.test"], "smart").await;
        let received = sink.messages(1).await.remove(0);
        assert_eq!(received.user.as_deref(), Some("relay-user"), "{scheme}");
        assert_eq!(received.tls.unwrap().server_name.as_deref(), Some("smart.test"), "{scheme}");
        let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
        assert!(event.text("relay").starts_with("smart.test[") && event.text("tls") == "TLSv1.3 verified", "{event:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_keeps_the_mail_and_says_why() {
    let authority = CertificateAuthority::new();
    let config = authority.issue(&["smart.test"]).server_config();
    let sink = Sink::builder().tls(SinkTls::Implicit(config)).login("relay-user", "secret").start().await;
    let dns = friendly_dns().await;
    dns.address_of("smart.test", "127.0.0.1");
    let (builder, folder) = smarthost(settings(&dns, sink.port()), "smtps", sink.port(), &authority, "wrong");
    let daemon = with_alice(builder).await;
    let id = send(&daemon, &["carol@friend.test"], "smart").await;
    let event = daemon.event("defer", |e| e.text("to") == "carol@friend.test").await;
    assert!(event.text("reply").contains("refused our login") && event.text("reply").contains("Wrong user or password"), "{event:?}");
    let shown = daemon.admin(&["queue", "show", &id]).await;
    assert!(shown.contains("refused our login"), "{shown}");
    let summary = daemon.admin(&["queue", "summary"]).await;
    assert!(summary.contains("smart.test") && summary.contains("refused our login"), "{summary}");
    // Put right in the file, it goes without a restart.
    let secret = folder.path().join("password");
    std::fs::write(&secret, "secret\n").unwrap();
    daemon.admin(&["queue", "retry", "--all"]).await;
    sink.messages(1).await;
    assert!(daemon.log().iter().all(|line| !line.contains("wrong") || line.contains("Wrong user")), "the password is in the log");
}

#[tokio::test]
async fn a_smarthost_with_a_wrong_certificate_gets_neither_password_nor_mail() {
    let authority = CertificateAuthority::new();
    let expired = authority.issue_expired(&["smart.test"]).server_config();
    let sink = Sink::builder().tls(SinkTls::StartTls(expired)).login("relay-user", "secret").start().await;
    let dns = friendly_dns().await;
    dns.address_of("smart.test", "127.0.0.1");
    let (builder, _folder) = smarthost(settings(&dns, sink.port()), "smtp", sink.port(), &authority, "secret");
    let daemon = with_alice(builder).await;
    send(&daemon, &["carol@friend.test"], "smart").await;
    let event = daemon.event("defer", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(event.text("dsn"), "4.7.5", "{event:?}");
    assert!(event.text("reply").contains("xpired"), "{event:?}");
    assert!(sink.commands().iter().all(|(_, line)| !line.starts_with("AUTH") && !line.starts_with("MAIL")), "{:?}", sink.commands());
}

/// One of `relay.routes`.
fn route(kind: &str, which: &str, via: String) -> toml::Value {
    let mut table = toml::Table::new();
    table.insert(kind.into(), which.into());
    table.insert("via".into(), via.into());
    toml::Value::Table(table)
}

#[tokio::test]
async fn routes_go_by_domain_then_by_sender_then_by_mx() {
    let (mx, partner, lists) = (Sink::start().await, Sink::start().await, Sink::start().await);
    let store = Sink::builder().lmtp().start().await;
    let dns = friendly_dns().await;
    let routes = vec![
        route("domain", "partner.test", format!("smtp://127.0.0.1:{}", partner.port())),
        route("domain", ".below.test", format!("smtp://127.0.0.1:{}", partner.port())),
        route("domain", "archive.test", format!("lmtp:127.0.0.1:{}", store.port())),
        route("sender", "lists@example.test", format!("smtp://127.0.0.1:{}", lists.port())),
    ];
    let daemon: Daemon = with_alice(settings(&dns, mx.port()).set("relay.routes", routes)).await;
    daemon.add_user("lists@example.test", "wonderland").await;
    send(&daemon, &["a@friend.test", "b@partner.test", "c@deep.below.test", "d@archive.test"], "routed").await;
    let mut other = Submission::open_as(&daemon, "lists@example.test", "wonderland").await;
    let content = message("lists", "hello").replace("From: alice@", "From: lists@");
    other.send("<lists@example.test>", &["<e@friend.test>", "<f@partner.test>"], &content).await;
    let to = |sink: &Sink| {
        let mut all: Vec<String> =
            sink.transactions().iter().flat_map(|t| t.to().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect();
        all.sort();
        all
    };
    partner.until("three recipients", |sink| (to(sink).len() == 3).then_some(())).await;
    mx.messages(1).await;
    lists.messages(1).await;
    store.messages(1).await;
    assert_eq!(to(&partner), ["b@partner.test", "c@deep.below.test", "f@partner.test"]);
    assert_eq!(
        (to(&mx), to(&lists), to(&store)),
        (vec!["a@friend.test".into()], vec!["e@friend.test".into()], vec!["d@archive.test".into()])
    );
}
