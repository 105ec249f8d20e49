//! TLS at each level, logins, DANE.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{MAIL, world};
use crate::Relay;
use crate::dane::{Matching, Selector, TlsaRecord, TlsaSet, Usage};
use crate::session::{Dial, Endpoint, open};
use crate::testing::{Authority, FakeDns, Issued, Script, Sink, brief, config, deliver, envelope, timeouts};
use crate::tls::{Policy, Reason, TlsClients};

fn tls(issued: &Issued) -> Script {
    Script { tls: Some(issued.server()), ..Script::default() }
}

#[tokio::test]
async fn opportunistic_tls_takes_any_certificate() {
    let authority = Authority::new();
    for issued in [authority.issue(&["mx.example.test"], false), authority.issue(&["other.test"], true)] {
        let (_dns, sink, relay) = world(tls(&issued)).await;
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Taken"]);
        assert_eq!(outcomes.tls, "TLSv1.3 opportunistic");
        assert!(sink.taken()[0].tls);
        assert_eq!(sink.heard("EHLO").len(), 2);
    }
}

#[tokio::test]
async fn what_comes_before_tls_with_the_220_ends_the_connection() {
    let issued = Authority::new().issue(&["mx.example.test"], false);
    let (_dns, sink, relay) = world(Script { injected: "250 2.1.0 Ok".into(), ..tls(&issued) }).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("deferred 451 4.7.0 "), "{:?}", brief(&outcomes));
    assert!(sink.taken().is_empty() && sink.heard("MAIL").is_empty());
}

#[tokio::test]
async fn starttls_that_fails_falls_back_only_where_nobody_demands_it() {
    let issued = Authority::new().issue(&["mx.example.test"], false);
    // 454 to STARTTLS: on with the same connection.
    let (_dns, sink, relay) = world(tls(&issued).reply("STARTTLS", "454 4.7.0 Not now")).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!((brief(&outcomes)[0].as_str(), outcomes.tls.as_str()), ("relayed 250 2.0.0 Taken", ""));
    assert_eq!(sink.connections(), 1);
    // A handshake that breaks off: a second connection without TLS.
    let (_dns, sink, relay) = world(tls(&issued).reply("STARTTLS", "220 2.0.0 Go\n220 nonsense")).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("deferred"), "injection is no reason for plain text: {:?}", brief(&outcomes));
    assert!(sink.taken().is_empty());
    let (_dns, sink, relay) = world(tls(&issued).reply("STARTTLS", "220 2.0.0 Go")).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert_eq!((brief(&outcomes)[0].as_str(), outcomes.tls.as_str()), ("relayed 250 2.0.0 Taken", ""));
    assert_eq!(sink.connections(), 2);
}

struct Smart {
    sink: Sink,
    relay: Arc<Relay>,
    _folder: tempfile::TempDir,
}

async fn smarthost(issued: &Issued, authority: &Authority, implicit: bool, mechanisms: &str) -> Smart {
    let dns = FakeDns::start().await;
    dns.add("smart.test A 127.0.0.1");
    let sink = Sink::start(Script { implicit, extensions: vec![format!("AUTH {mechanisms}"), "PIPELINING".into()], ..tls(issued) }).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let mut config = config(&dns, 25);
    config.relay.smarthost = format!("{}://me@smart.test:{}", if implicit { "smtps" } else { "smtp" }, sink.port());
    config.relay.smarthost_password_file = folder.path().join("password");
    config.relay.ca_file = folder.path().join("ca.pem");
    let relay = Relay::with_timeouts(&config, timeouts()).unwrap();
    Smart { sink, relay, _folder: folder }
}

#[tokio::test]
async fn smarthosts_get_the_password_inside_verified_tls() {
    let authority = Authority::new();
    let issued = authority.issue(&["smart.test"], false);
    for implicit in [false, true] {
        for (mechanisms, said) in [("PLAIN LOGIN", "AUTH PLAIN AG1lAGh1bnRlcjI="), ("LOGIN", "AUTH LOGIN")] {
            let smart = smarthost(&issued, &authority, implicit, mechanisms).await;
            let (outcomes, _) = deliver(&smart.relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
            assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Taken"]);
            assert_eq!(outcomes.tls, "TLSv1.3 verified");
            assert_eq!(smart.sink.heard("AUTH"), [said]);
            assert!(smart.sink.taken()[0].tls);
            let checks = smart.relay.check(&smart.relay.named_hops()[0]).await;
            let connected = checks[0].connected.clone().unwrap();
            assert!(connected.authenticated && connected.certificate.unwrap().names == ["smart.test"]);
        }
    }
}

#[tokio::test]
async fn smarthosts_that_cannot_be_verified_get_neither_password_nor_mail() {
    let authority = Authority::new();
    let other = Authority::new();
    for (issued, why) in [
        (authority.issue(&["smart.test"], true), "expired"),
        (authority.issue(&["other.test"], false), "name"),
        (other.issue(&["smart.test"], false), "UnknownIssuer"),
    ] {
        let smart = smarthost(&issued, &authority, false, "PLAIN").await;
        let (outcomes, down) = deliver(&smart.relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        let told = brief(&outcomes);
        assert!(told[0].starts_with("deferred 451 4.7.5 ") && told[0].contains(why), "{told:?}");
        assert!(down.is_some() && smart.sink.heard("AUTH").is_empty() && smart.sink.heard("MAIL").is_empty());
    }
    // No STARTTLS at all.
    let issued = authority.issue(&["smart.test"], false);
    let smart = smarthost(&issued, &authority, false, "PLAIN").await;
    let plain = Sink::start(Script::with(&["AUTH PLAIN"])).await;
    let mut config = config(&FakeDns::start().await, 25);
    config.relay.smarthost = format!("smtp://me@127.0.0.1:{}", plain.port());
    config.relay.smarthost_password_file = smart._folder.path().join("password");
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
    let clients = TlsClients::with_roots(roots.roots()).unwrap();
    let helo = pillarbox_smtp::Domain::new("relay.test").unwrap();
    let dial = Dial {
        host: "mx.example.test",
        endpoint: Endpoint::Tcp(sink.address),
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

fn spki(issued: &Issued) -> Vec<u8> {
    use x509_parser::prelude::FromDer;
    let (_, certificate) = x509_parser::prelude::X509Certificate::from_der(&issued.certificate).unwrap();
    certificate.tbs_certificate.subject_pki.raw.to_vec()
}

fn dane(usage: Usage, selector: Selector, matching: Matching, data: Vec<u8>) -> Policy {
    let records = vec![TlsaRecord { usage, selector, matching, data }];
    Policy::Dane(Arc::new(TlsaSet { records, names: vec!["mx.example.test".into(), "example.test".into()] }))
}

#[tokio::test]
async fn dane_matches_keys_certificates_and_authorities() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = authority.issue(&["mx.example.test"], false);
    let wrong_name_and_expired = authority.issue(&["other.test"], true);
    let by_domain = authority.issue(&["example.test"], false);
    let other_name = authority.issue(&["other.test"], false);
    let ee = |issued: &Issued| dane(Usage::EndEntity, Selector::PublicKey, Matching::Sha256, Sha256::digest(spki(issued)).to_vec());
    let ok = Ok("TLSv1.3 dane".to_owned());
    let fails = |result: &str| Err(result.to_owned());
    // DANE-EE: the key alone counts, neither name nor date (RFC 7672 §3.1.1).
    assert_eq!(try_policy(&good, &stranger, ee(&good)).await, ok);
    assert_eq!(try_policy(&wrong_name_and_expired, &stranger, ee(&wrong_name_and_expired)).await, ok);
    assert_eq!(try_policy(&good, &authority, ee(&other_name)).await, fails("validation-failure"));
    let whole = dane(Usage::EndEntity, Selector::Certificate, Matching::Exact, good.certificate.to_vec());
    assert_eq!(try_policy(&good, &stranger, whole).await, ok);
    let long = dane(Usage::EndEntity, Selector::Certificate, Matching::Sha512, sha2::Sha512::digest(&good.certificate).to_vec());
    assert_eq!(try_policy(&good, &stranger, long).await, ok);
    // DANE-TA: names and dates count (RFC 7672 §3.1.2).
    let ta = |of: &Authority| dane(Usage::TrustAnchor, Selector::Certificate, Matching::Sha256, Sha256::digest(&of.certificate).to_vec());
    assert_eq!(try_policy(&good, &stranger, ta(&authority)).await, ok);
    assert_eq!(try_policy(&by_domain, &stranger, ta(&authority)).await, ok);
    assert_eq!(try_policy(&other_name, &stranger, ta(&authority)).await, fails("certificate-host-mismatch"));
    assert_eq!(try_policy(&wrong_name_and_expired, &stranger, ta(&authority)).await, fails("certificate-expired"));
    assert_eq!(try_policy(&good, &authority, ta(&stranger)).await, fails("certificate-not-trusted"));
    // A trust anchor given whole needs not be in the chain that the host shows.
    let given = dane(Usage::TrustAnchor, Selector::Certificate, Matching::Exact, authority.certificate.to_vec());
    assert_eq!(try_policy(&good, &stranger, given).await, ok);
}

#[tokio::test]
async fn each_policy_level_judges_for_itself() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = authority.issue(&["mx.example.test"], false);
    let expired = authority.issue(&["mx.example.test"], true);
    let verified = || Policy::Verified(Reason::MtaSts);
    assert_eq!(try_policy(&good, &authority, verified()).await, Ok("TLSv1.3 mta-sts".into()));
    assert_eq!(try_policy(&good, &stranger, verified()).await, Err("certificate-not-trusted".into()));
    assert_eq!(try_policy(&expired, &authority, verified()).await, Err("certificate-expired".into()));
    assert_eq!(try_policy(&expired, &stranger, Policy::Encrypted).await, Ok("TLSv1.3 encrypted".into()));
}
