//! TLS at each level, logins, DANE.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{MAIL, world};
use crate::Relay;
use crate::dane::{Matching, Selector, TlsaRecord, TlsaSet, Usage};
use crate::session::{Dial, Endpoint, open};
use crate::testing::{Authority, FakeDns, Issued, Script, Sink, SinkTls, Stage, brief, config, deliver, envelope, timeouts};
use crate::tls::{Policy, Reason, TlsClients};

fn tls(issued: &Issued) -> Script {
    Script::tls(issued.server_config())
}

#[tokio::test]
async fn opportunistic_tls_takes_any_certificate() {
    let authority = Authority::new();
    for issued in [authority.issue(&["mx.example.test"]), authority.issue_expired(&["other.test"])] {
        let (_dns, sink, relay) = world(tls(&issued)).await;
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
        assert_eq!(outcomes.tls, "TLSv1.3 opportunistic");
        assert!(sink.taken()[0].tls);
        assert_eq!(sink.heard("EHLO").len(), 2);
    }
}

#[tokio::test]
async fn what_comes_before_tls_with_the_220_ends_the_connection() {
    let issued = Authority::new().issue(&["mx.example.test"]);
    let (_dns, sink, relay) = world(Script { injected: "250 2.1.0 Ok\r\n", ..tls(&issued) }).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("deferred 451 4.7.0 "), "{:?}", brief(&outcomes));
    assert!(sink.taken().is_empty() && sink.heard("MAIL").is_empty());
}

#[tokio::test]
async fn starttls_that_fails_falls_back_only_where_nobody_demands_it() {
    let issued = Authority::new().issue(&["mx.example.test"]);
    // 454 to STARTTLS: on with the same connection.
    let (_dns, sink, relay) = world(tls(&issued).once(Stage::StartTls, "*", "454 4.7.0 Not now")).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!((brief(&outcomes)[0].as_str(), outcomes.tls.as_str()), ("relayed 250 2.0.0 Ok", ""));
    assert_eq!(sink.connections(), 1);
    // A handshake that breaks off: a second connection without TLS.
    let (_dns, sink, relay) = world(Script::tls(certificate_free())).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!((brief(&outcomes)[0].as_str(), outcomes.tls.as_str()), ("relayed 250 2.0.0 Ok", ""));
    assert_eq!(sink.connections(), 2);
}

/// A TLS server that has no certificate for anyone, so that each handshake fails.
fn certificate_free() -> Arc<rustls::ServerConfig> {
    #[derive(Debug)]
    struct Nothing;
    impl rustls::server::ResolvesServerCert for Nothing {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::new(Nothing)))
}

struct Smart {
    _dns: FakeDns,
    sink: Sink,
    relay: Arc<Relay>,
    folder: tempfile::TempDir,
}

async fn smarthost(issued: &Issued, authority: &Authority, implicit: bool) -> Smart {
    let dns = FakeDns::start().await;
    dns.add("smart.test A 127.0.0.1");
    let tls = if implicit { SinkTls::Implicit(issued.server_config()) } else { SinkTls::StartTls(issued.server_config()) };
    let sink = Sink::start(Script { tls, login: Some(("me", "hunter2")), ..Script::usual() }).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let mut config = config(&dns, 25);
    config.relay.smarthost = format!("{}://me@smart.test:{}", if implicit { "smtps" } else { "smtp" }, sink.port());
    config.relay.smarthost_password_file = folder.path().join("password");
    config.relay.ca_file = folder.path().join("ca.pem");
    let relay = Relay::with_timeouts(&config, timeouts()).unwrap();
    Smart { _dns: dns, sink, relay, folder }
}

#[tokio::test]
async fn smarthosts_get_the_password_inside_verified_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&["smart.test"]);
    for implicit in [false, true] {
        let smart = smarthost(&issued, &authority, implicit).await;
        let (outcomes, _) = deliver(&smart.relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
        assert_eq!(outcomes.tls, "TLSv1.3 verified");
        assert_eq!(smart.sink.heard("AUTH"), ["AUTH PLAIN"]);
        assert!(smart.sink.taken()[0].tls);
        let checks = smart.relay.check(&smart.relay.named_hops()[0]).await;
        let connected = checks[0].connected.clone().unwrap();
        assert!(connected.authenticated && connected.certificate.unwrap().names == ["smart.test"]);
        // A wrong password is a fault of ours: mail waits, and the reply says so.
        std::fs::write(smart.folder.path().join("password"), "wrong").unwrap();
        let (outcomes, down) = deliver(&smart.relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        assert!(brief(&outcomes)[0].starts_with("deferred 451 4.7.8 ") && !brief(&outcomes)[0].contains("wrong"), "{:?}", brief(&outcomes));
        assert!(down.is_some());
    }
}

#[tokio::test]
async fn smarthosts_that_cannot_be_verified_get_neither_password_nor_mail() {
    let authority = Authority::new();
    let other = Authority::new();
    for (issued, why) in [
        (authority.issue_expired(&["smart.test"]), "expired"),
        (authority.issue(&["other.test"]), "name"),
        (other.issue(&["smart.test"]), "BadSignature"),
    ] {
        let smart = smarthost(&issued, &authority, false).await;
        let (outcomes, down) = deliver(&smart.relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        let told = brief(&outcomes);
        assert!(told[0].starts_with("deferred 451 4.7.5 ") && told[0].contains(why), "{told:?}");
        assert!(down.is_some() && smart.sink.heard("AUTH").is_empty() && smart.sink.heard("MAIL").is_empty());
    }
    // No STARTTLS at all.
    let issued = authority.issue(&["smart.test"]);
    let smart = smarthost(&issued, &authority, false).await;
    let plain = Sink::start(Script::with(&["AUTH PLAIN"])).await;
    let mut config = config(&smart._dns, 25);
    config.relay.smarthost = format!("smtp://me@127.0.0.1:{}", plain.port());
    config.relay.smarthost_password_file = smart.folder.path().join("password");
    smart.relay.reload(&config).unwrap();
    let (outcomes, _) = deliver(&smart.relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].contains("does not offer STARTTLS"), "{:?}", brief(&outcomes));
    assert!(plain.heard("AUTH").is_empty());
    // A password file that is not there.
    config.relay.smarthost_password_file = PathBuf::from("/nonexistent");
    smart.relay.reload(&config).unwrap();
    let (outcomes, _) = deliver(&smart.relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("deferred 451 4.3.5 "), "{:?}", brief(&outcomes));
}

/// Opens a session with `issued` under `policy`; the TLS text, or the refusal.
async fn try_policy(issued: &Issued, roots: &Authority, policy: Policy) -> Result<String, String> {
    let sink = Sink::start(tls(issued)).await;
    let clients = TlsClients::with_roots(trusting(roots)).unwrap();
    let helo = pillarbox_smtp::Domain::new("relay.test").unwrap();
    let dial = Dial {
        host: "mx.example.test",
        endpoint: Endpoint::Tcp(sink.address()),
        source: None,
        policy: &policy,
        implicit_tls: false,
        lmtp: false,
        credentials: None,
        helo: &helo,
        tls: &clients,
        timeouts: timeouts(),
        judge: false,
    };
    match open(&dial).await {
        Ok(session) => {
            assert_eq!(session.security.authenticated, policy.authenticates());
            Ok(session.security.tls)
        }
        Err(refusal) => Err(refusal.tls.unwrap().result.to_owned()),
    }
}

fn trusting(authority: &Authority) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().into()).unwrap();
    roots
}

fn dane(usage: Usage, selector: Selector, matching: Matching, data: Vec<u8>) -> Policy {
    let records = vec![TlsaRecord { usage, selector, matching, data }];
    Policy::Dane(Arc::new(TlsaSet { records, names: vec!["mx.example.test".into(), "example.test".into()] }))
}

#[tokio::test]
async fn dane_matches_keys_certificates_and_authorities() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = authority.issue(&["mx.example.test"]);
    let wrong_name_and_expired = authority.issue_expired(&["other.test"]);
    let by_domain = authority.issue(&["example.test"]);
    let other_name = authority.issue(&["other.test"]);
    let ee = |issued: &Issued| dane(Usage::EndEntity, Selector::PublicKey, Matching::Sha256, issued.spki_sha256());
    let ok = Ok("TLSv1.3 dane".to_owned());
    let fails = |result: &str| Err(result.to_owned());
    // DANE-EE: the key alone counts, neither name nor date (RFC 7672 §3.1.1).
    assert_eq!(try_policy(&good, &stranger, ee(&good)).await, ok);
    assert_eq!(try_policy(&wrong_name_and_expired, &stranger, ee(&wrong_name_and_expired)).await, ok);
    assert_eq!(try_policy(&good, &authority, ee(&other_name)).await, fails("validation-failure"));
    let whole = dane(Usage::EndEntity, Selector::Certificate, Matching::Exact, good.certificate_der.clone());
    assert_eq!(try_policy(&good, &stranger, whole).await, ok);
    let long = dane(Usage::EndEntity, Selector::Certificate, Matching::Sha512, sha2::Sha512::digest(&good.certificate_der).to_vec());
    assert_eq!(try_policy(&good, &stranger, long).await, ok);
    // DANE-TA: names and dates count (RFC 7672 §3.1.2).
    let ta = |of: &Authority| dane(Usage::TrustAnchor, Selector::Certificate, Matching::Sha256, Sha256::digest(of.der()).to_vec());
    assert_eq!(try_policy(&good, &stranger, ta(&authority)).await, ok);
    assert_eq!(try_policy(&by_domain, &stranger, ta(&authority)).await, ok);
    assert_eq!(try_policy(&other_name, &stranger, ta(&authority)).await, fails("certificate-host-mismatch"));
    assert_eq!(try_policy(&wrong_name_and_expired, &stranger, ta(&authority)).await, fails("certificate-expired"));
    assert_eq!(try_policy(&good, &authority, ta(&stranger)).await, fails("certificate-not-trusted"));
    // A trust anchor given whole needs not be in the chain that the host shows.
    let given = dane(Usage::TrustAnchor, Selector::Certificate, Matching::Exact, authority.der());
    assert_eq!(try_policy(&good, &stranger, given).await, ok);
}

#[tokio::test]
async fn each_policy_level_judges_for_itself() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = authority.issue(&["mx.example.test"]);
    let expired = authority.issue_expired(&["mx.example.test"]);
    let verified = || Policy::Verified(Reason::MtaSts);
    assert_eq!(try_policy(&good, &authority, verified()).await, Ok("TLSv1.3 mta-sts".into()));
    assert_eq!(try_policy(&good, &stranger, verified()).await, Err("certificate-not-trusted".into()));
    assert_eq!(try_policy(&expired, &authority, verified()).await, Err("certificate-expired".into()));
    assert_eq!(try_policy(&expired, &stranger, Policy::Encrypted).await, Ok("TLSv1.3 encrypted".into()));
}
