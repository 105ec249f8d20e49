//! Renewal by itself, while sessions are open.

use pillarbox_testkit::Daemon;

use super::pebble::{Manners, Pebble};
use super::{ISSUED, MAIL, dns, lines_until, on_disk, served, session};

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_and_open_sessions_go_on() {
    let dns = dns().await;
    // Two thirds of its life, and it is renewed: after ten seconds.
    let Some(pebble) = Pebble::start(dns.address(), Manners { life: 15, ..Manners::default() }).await else { return };
    let daemon = Daemon::builder().dns(dns.address()).set("listen.http", vec![format!("127.0.0.1:{}", pebble.http_port)]);
    let daemon = pebble.customer(daemon).start().await;
    daemon.log_line(ISSUED).await;
    let mut open = Vec::new();
    for service in MAIL {
        open.push(session(&daemon, service).await);
    }
    let first: Vec<Vec<u8>> = open.iter().map(|client| client.tls.clone().and_then(|tls| tls.peer_certificate).unwrap()).collect();
    lines_until(&daemon, ISSUED, 2).await;
    for (service, first) in MAIL.into_iter().zip(first) {
        let now = served(&daemon, service).await;
        assert_ne!(now, first, "{service} still presents the old certificate");
    }
    for client in &mut open {
        client.command("NOOP", "250").await;
        client.command("QUIT", "221").await;
    }
    assert!(!on_disk(&daemon, "certificate.pem").is_empty());
}
