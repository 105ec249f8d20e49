//! Challenges that fail: one clear line, no storm, and a way on.

use pillarbox_testkit::Daemon;

use super::pebble::{Manners, Pebble};
use super::{FAILED, ISSUED, dns, lines, lines_until, on_disk, served};

#[tokio::test]
async fn a_failing_challenge_is_told_in_one_line_and_not_tried_again_at_once() {
    let dns = dns().await;
    // Nobody listens there.
    dns.remove("mail.example.test").address_of("mail.example.test", "127.0.0.77");
    let Some(pebble) = Pebble::start(dns.address(), Manners::default()).await else { return };
    let daemon = Daemon::builder().dns(dns.address()).set("listen.http", vec![format!("127.0.0.1:{}", pebble.http_port)]);
    let daemon = pebble.customer(daemon).start().await;
    let line = daemon.log_line(FAILED).await;
    for words in ["mail.example.test", "did not accept our proof", "127.0.0.77", "reaches this host's port 80 from outside", "\"next\""] {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
    // Status says it as a note, and the host goes on with a certificate of its own.
    let status = daemon.admin_json(&["status"]).await;
    assert!(status.to_string().contains("it is tried again at"), "{status}");
    assert_eq!(status["certificates"][0]["self_signed"], true, "{status}");
    // Another look, as after a minute, does not order again; the administrator's word does.
    let output = daemon.try_admin(&["tls", "renew"], "").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("did not accept our proof") && said.trim().lines().count() == 1, "{said}");
    lines_until(&daemon, FAILED, 2).await;
    assert_eq!(lines(&daemon, FAILED), 2);
    // Mended, and told so.
    dns.remove("mail.example.test").address_of("mail.example.test", "127.0.0.1");
    daemon.reload();
    daemon.log_line(ISSUED).await;
    assert_eq!(served(&daemon, "smtp").await, on_disk(&daemon, "certificate.pem"));
    assert!(!daemon.admin_json(&["status"]).await.to_string().contains("it is tried again at"));
    assert_eq!(lines(&daemon, FAILED), 2);
}

#[tokio::test]
async fn an_authority_that_forgot_the_account_gets_a_new_one_with_the_same_key() {
    let dns = dns().await;
    let Some(first) = Pebble::start(dns.address(), Manners::default()).await else { return };
    let daemon = Daemon::builder().dns(dns.address()).set("listen.http", vec![format!("127.0.0.1:{}", first.http_port)]);
    let mut daemon = first.customer(daemon).start().await;
    daemon.log_line(ISSUED).await;
    let key = || {
        let text = std::fs::read_to_string(daemon.home().join("state/tls/acme/account.json")).unwrap();
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
        kept["credentials"]["key_pkcs8"].as_str().unwrap().to_owned()
    };
    let before = key();
    let again = first.restart(dns.address()).await;
    daemon.admin(&["tls", "renew"]).await;
    assert_eq!(key(), before);
    assert_eq!(again.said("There are now 1 accounts in memory"), 1);
    assert_eq!(daemon.stop().await.code(), Some(0));
}
