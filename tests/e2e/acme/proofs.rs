//! Each way to prove that a name is ours.

use std::sync::Arc;

use pillarbox_testkit::stream::connect_tls;
use pillarbox_testkit::{Daemon, folder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::pebble::{Manners, Pebble};
use super::zone::Zone;
use super::{FAILED, ISSUED, MAIL, dns, lines, lines_until, on_disk, served};

#[tokio::test]
async fn http_01_on_our_own_port_and_check_tls_compares_what_is_served() {
    let dns = dns().await;
    let Some(pebble) = Pebble::start(dns.address(), Manners { nonce_reject: 25, ..Manners::default() }).await else { return };
    let daemon = pebble.customer(Daemon::builder().dns(dns.address()).set("listen.http", vec![format!("127.0.0.1:{}", pebble.http_port)]));
    let mut daemon = daemon.start().await;
    daemon.log_line(ISSUED).await;
    for service in MAIL {
        assert_eq!(served(&daemon, service).await, on_disk(&daemon, "certificate.pem"), "{service}");
    }
    // The challenge is gone, the account is kept: the next order makes none.
    let account = std::fs::read(daemon.home().join("state/tls/acme/account.json")).unwrap();
    daemon.configure("relay.ca_file", pebble.root().await.display().to_string());
    let before = on_disk(&daemon, "certificate.pem");
    let key = std::fs::read(daemon.home().join("state/tls/acme/private_key.pem")).unwrap();
    daemon.admin(&["tls", "renew"]).await;
    assert_ne!(on_disk(&daemon, "certificate.pem"), before);
    // TLSA records name the key, so a renewal keeps it.
    assert_eq!(std::fs::read(daemon.home().join("state/tls/acme/private_key.pem")).unwrap(), key);
    assert_eq!(std::fs::read(daemon.home().join("state/tls/acme/account.json")).unwrap(), account);
    assert_eq!(pebble.said("There are now 1 accounts in memory"), 1);
    assert_eq!(pebble.said("There are now 2 accounts in memory"), 0);
    let served_probe = |probes: serde_json::Value| probes.as_array().unwrap().iter().find(|p| p["name"] == "tls served").cloned().unwrap();
    let found = served_probe(daemon.admin_json(&["check", "tls"]).await);
    assert_eq!(
        (found["grade"].as_str(), found["found"].as_str()),
        (Some("ok"), Some("what is served is what lies on disk, and everybody can verify it"))
    );
    // Another certificate on disk than in force is told.
    let file = daemon.home().join("state/tls/acme/certificate.pem");
    let own = std::fs::read(daemon.home().join("state/tls/self-signed.pem")).unwrap();
    std::fs::write(&file, own).unwrap();
    let output = daemon.try_admin(&["check", "tls"], "").await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("FAIL tls served: ") && said.contains("serves another certificate than"), "{said}");
}

/// A web server of somebody else's, which serves the files of a folder.
async fn web_server(port: u16, root: std::path::PathBuf) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let root = Arc::new(root);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let root = root.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
                let answer = match tokio::fs::read(root.join(path)).await {
                    Ok(body) => {
                        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).as_bytes(), &body]
                            .concat()
                    }
                    Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
                };
                let _ = stream.write_all(&answer).await;
            });
        }
    });
}

#[tokio::test]
async fn http_01_in_the_folder_of_another_web_server() {
    let dns = dns().await;
    let Some(pebble) = Pebble::start(dns.address(), Manners::default()).await else { return };
    let root = folder();
    web_server(pebble.http_port, root.path().to_owned()).await;
    let daemon = Daemon::builder().dns(dns.address()).set("tls.acme.webroot", root.path().display().to_string());
    let daemon = pebble.customer(daemon).start().await;
    daemon.log_line(ISSUED).await;
    assert_eq!(served(&daemon, "submissions").await, on_disk(&daemon, "certificate.pem"));
    let left = std::fs::read_dir(root.path().join(".well-known/acme-challenge")).unwrap().count();
    assert_eq!(left, 0, "files of challenges were left behind");
}

#[tokio::test]
async fn dns_01_by_a_hook_with_a_wildcard() {
    let Some(zone) = Zone::start().await else { return };
    let Some(pebble) = Pebble::start(zone.address(), Manners::default()).await else { return };
    let names = ["mail.example.test", "*.example.test", "example.test"].map(str::to_owned).to_vec();
    let daemon = Daemon::builder()
        .dns(zone.address())
        .set("tls.acme.challenge", "dns-01")
        .set("tls.acme.dns_hook", zone.hook().display().to_string())
        .set("tls.acme.domains", names);
    let daemon = pebble.customer(daemon).start().await;
    daemon.log_line(ISSUED).await;
    assert_eq!(served(&daemon, "smtp").await, on_disk(&daemon, "certificate.pem"));
    let status = daemon.admin_json(&["status"]).await;
    assert_eq!(status["certificates"][0]["self_signed"], false, "{status}");
    let hooked = zone.hooked();
    let count = |verb: &str, name: &str| hooked.iter().filter(|line| line.starts_with(&format!("{verb} _acme-challenge.{name} "))).count();
    for verb in ["add", "remove"] {
        assert_eq!((count(verb, "mail.example.test"), count(verb, "example.test")), (1, 2), "{hooked:?}");
    }
    assert_eq!(zone.texts("_acme-challenge.example.test").await, "");
}

#[tokio::test]
async fn dns_01_by_updates_signed_with_a_key() {
    let Some(zone) = Zone::start().await else { return };
    let Some(pebble) = Pebble::start(zone.address(), Manners { authz_reuse: 100, ..Manners::default() }).await else { return };
    let names = ["mail.example.test", "mx.example.test"].map(str::to_owned).to_vec();
    let daemon = Daemon::builder()
        .dns(zone.address())
        .set("tls.acme.challenge", "dns-01")
        .set("tls.acme.dns_update_server", zone.address().to_string())
        .set("tls.acme.dns_update_key_file", zone.key_file(false))
        .set("tls.acme.domains", names);
    let mut daemon = pebble.customer(daemon).start().await;
    // A key that the server does not know: one line with the reason, and nothing is served but our own.
    let line = daemon.log_line(FAILED).await;
    assert!(line.contains("in the zone example.test. failed") && line.contains("does not know the key"), "{line}");
    assert_eq!(lines(&daemon, "left behind"), 0);
    daemon.configure("tls.acme.dns_update_key_file", zone.key_file(true));
    daemon.reload();
    daemon.log_line(ISSUED).await;
    assert_eq!(served(&daemon, "smtp").await, on_disk(&daemon, "certificate.pem"));
    for name in ["_acme-challenge.mail.example.test", "mx.acme.example.test"] {
        assert_eq!(zone.texts(name).await, "", "{name}");
    }
    // Proofs that the authority remembers are not given again.
    let questions = pebble.said("dns-01");
    daemon.admin(&["tls", "renew"]).await;
    lines_until(&daemon, ISSUED, 2).await;
    assert_eq!(lines(&daemon, ISSUED), 2);
    assert!(pebble.said("Pulled a task from the Tasks queue") >= 2 && questions == pebble.said("dns-01"), "the proofs were given again");
}

#[tokio::test]
async fn a_hosted_domain_gets_a_certificate_for_those_of_its_names_that_lead_here() {
    let dns = dns().await;
    for name in ["mta-sts", "autoconfig"] {
        dns.cname(&format!("{name}.hosted.test"), "mail.example.test");
    }
    dns.address_of("autodiscover.hosted.test", "127.0.0.77").address_of("mta-sts.later.test", "127.0.0.77");
    let Some(pebble) = Pebble::start(dns.address(), Manners::default()).await else { return };
    let daemon = Daemon::builder()
        .dns(dns.address())
        .set("listen.http", vec![format!("127.0.0.1:{}", pebble.http_port)])
        .set("listen.https", vec!["127.0.0.1:0".to_owned()]);
    let daemon = pebble.customer(daemon).start().await;
    daemon.log_line(ISSUED).await;
    daemon.add_domain("hosted.test").await;
    daemon.add_domain("later.test").await;
    daemon.reload();
    lines_until(&daemon, ISSUED, 2).await;
    let line = daemon.log().into_iter().filter(|line| line.contains(ISSUED)).nth(1).unwrap();
    assert!(line.contains("mta-sts.hosted.test, autoconfig.hosted.test") && !line.contains("autodiscover"), "{line}");
    // By SNI, and as strangers verify it: against the authority's root.
    let root = std::fs::read_to_string(pebble.root().await).unwrap();
    let io = TcpStream::connect(daemon.address("https")).await.unwrap();
    let (io, facts) =
        connect_tls(Box::new(io), pillarbox_testkit::certificates::client_config_for(&root), "mta-sts.hosted.test").await.unwrap();
    assert_eq!(facts.peer_certificate.unwrap(), on_disk(&daemon, "domains/hosted.test/certificate.pem"));
    let request = b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.hosted.test\r\nConnection: close\r\n\r\n";
    let page = crate::web::talk(io, request).await.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.body.contains("mode: enforce") && page.body.contains("mx: mail.example.test"), "{page:?}");
    assert_eq!(served(&daemon, "smtp").await, on_disk(&daemon, "certificate.pem"));
    assert_eq!(lines(&daemon, FAILED), 0, "a domain that leads elsewhere was ordered for");
}
