//! DANE with a signed zone: good, wrong, bogus, unsigned, unusable.

use hickory_proto::rr::RecordType;
use pillarbox_config::Config;
use pillarbox_smtp::{Domain, ReversePath};
use pillarbox_testkit::dns::{DnsServer, Misbehaviour};

use super::MAIL;
use crate::Relay;
use crate::testing::{Authority, FakeDns, Issued, Script, Sink, brief, config, deliver, envelope, timeouts};

struct World {
    dns: FakeDns,
    sink: Sink,
    issued: Issued,
    config: Config,
    folder: tempfile::TempDir,
}

/// `example.test` in a signed zone, with an MX host that offers STARTTLS with a certificate of nobody's authority.
async fn world() -> World {
    let dns = FakeDns(DnsServer::start_signed().await);
    dns.add("example.test MX 10 mx.example.test").add("mx.example.test A 127.0.0.1");
    let issued = Authority::new().issue(&["mx.example.test"]);
    let sink = Sink::start(Script::tls(issued.server_config()).and("REQUIRETLS")).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("anchor"), dns.0.trust_anchor()).unwrap();
    let mut config = config(&dns, sink.port());
    config.relay.dane = true;
    config.dns.trust_anchor = folder.path().join("anchor");
    World { dns, sink, issued, config, folder }
}

impl World {
    fn tlsa(&self, usage: u8, selector: u8, data: &[u8]) {
        self.dns.0.tlsa("mx.example.test", self.sink.port(), usage, selector, 1, data);
    }

    fn tlsa_name(&self) -> String {
        format!("_{}._tcp.mx.example.test", self.sink.port())
    }

    async fn send(&self) -> (String, String) {
        let relay = Relay::with_timeouts(&self.config, timeouts()).unwrap();
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
        (brief(&outcomes)[0].clone(), outcomes.tls)
    }
}

#[tokio::test]
async fn proved_records_bind_the_certificate() {
    let world = world().await;
    world.tlsa(3, 1, &world.issued.spki_sha256());
    assert_eq!(world.send().await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 dane".into()));
    let relay = Relay::with_timeouts(&world.config, timeouts()).unwrap();
    let told = relay.explain(&Domain::new("example.test").unwrap(), &ReversePath::Null).await;
    assert_eq!(told.hosts[0].policy, "dane");
    assert_eq!(relay.health().dnssec, "available");
    // REQUIRETLS finds here what it needs.
    let mut strict = envelope("a@me.test", &["b@example.test"]);
    strict.require_tls = true;
    let (outcomes, _) = deliver(&relay, strict, MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    assert!(world.sink.taken()[1].mail.ends_with(" REQUIRETLS"));
}

#[tokio::test]
async fn a_certificate_that_does_not_match_gets_no_mail() {
    let world = world().await;
    world.tlsa(3, 1, &[7; 32]);
    let told = world.send().await.0;
    assert!(told.starts_with("deferred 451 4.7.5 ") && told.contains("dane demands secure TLS"), "{told}");
    assert!(world.sink.taken().is_empty());
}

#[tokio::test]
async fn an_answer_that_fails_validation_is_never_used() {
    let world = world().await;
    world.tlsa(3, 1, &world.issued.spki_sha256());
    for (name, kind) in [("example.test".to_owned(), RecordType::MX), (world.tlsa_name(), RecordType::TLSA)] {
        world.dns.0.misbehave(&name, Some(kind), Misbehaviour::BadSignature);
        let told = world.send().await.0;
        assert!(told.starts_with("deferred 451 4.7.5 ") && told.contains("failed DNSSEC validation"), "{told}");
        world.dns.0.behave(&name);
    }
    // A TLSA look-up that fails is no reason to do without (RFC 7672 §2.1.2).
    world.dns.0.misbehave(&world.tlsa_name(), Some(RecordType::TLSA), Misbehaviour::ServFail);
    let told = world.send().await.0;
    assert!(told.starts_with("deferred 451 4.4.3 "), "{told}");
    assert!(world.sink.taken().is_empty());
}

#[tokio::test]
async fn without_records_or_signatures_tls_is_opportunistic() {
    // Signed, without TLSA records.
    let bare = world().await;
    assert_eq!(bare.send().await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 opportunistic".into()));
    // TLSA records in a zone without signatures prove nothing and are not asked for.
    let unsigned = world().await;
    unsigned.dns.0.unsigned_zone("example.test");
    unsigned.tlsa(3, 1, &[7; 32]);
    assert_eq!(unsigned.send().await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 opportunistic".into()));
    assert_eq!(unsigned.dns.asked(&unsigned.tlsa_name(), RecordType::TLSA), 0);
    // Name servers that strip signatures are recognised, said, and do not stop the mail.
    let mut stripped = world().await;
    let plain = FakeDns::start().await;
    plain.add("example.test MX 10 mx.example.test").add("mx.example.test A 127.0.0.1");
    stripped.config.dns.servers = vec![plain.address()];
    assert_eq!(stripped.send().await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 opportunistic".into()));
    let relay = Relay::with_timeouts(&stripped.config, timeouts()).unwrap();
    relay.probe().await;
    assert_eq!(relay.health().dnssec, "unavailable");
    assert!(relay.health().warnings.iter().any(|w| w.contains("DNSSEC")));
    assert!(stripped.folder.path().exists());
}

#[tokio::test]
async fn unusable_records_demand_encryption_alone() {
    let world = world().await;
    world.tlsa(1, 1, &[7; 32]);
    assert_eq!(world.send().await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 encrypted".into()));
    // And where TLS is not to be had, there is no mail.
    let plain = Sink::start(Script::usual()).await;
    let mut config = world.config.clone();
    config.relay.port = plain.port();
    world.dns.0.tlsa("mx.example.test", plain.port(), 0, 0, 1, &[7; 32]);
    let relay = Relay::with_timeouts(&config, timeouts()).unwrap();
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].contains("encrypted demands secure TLS"), "{:?}", brief(&outcomes));
    assert!(plain.taken().is_empty());
}

#[tokio::test]
async fn aliases_and_implicit_hosts_are_followed_by_proved_steps() {
    let world = world().await;
    world.dns.add("alias.test MX 10 mail.alias.test").add("mail.alias.test CNAME mx.example.test").add("solo.test A 127.0.0.1");
    world.tlsa(3, 1, &world.issued.spki_sha256());
    world.dns.0.tlsa("solo.test", world.sink.port(), 3, 1, 1, &world.issued.spki_sha256());
    let relay = Relay::with_timeouts(&world.config, timeouts()).unwrap();
    for to in ["b@alias.test", "b@solo.test"] {
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &[to]), MAIL).await;
        assert_eq!((brief(&outcomes)[0].as_str(), outcomes.tls.as_str()), ("relayed 250 2.0.0 Ok", "TLSv1.3 dane"), "{to}");
    }
}

#[tokio::test]
async fn dane_comes_before_mta_sts() {
    let mut world = world().await;
    world.tlsa(3, 1, &world.issued.spki_sha256());
    world.dns.add("_mta-sts.example.test TXT v=STSv1; id=1;");
    world.config.relay.mta_sts = true;
    world.config.paths.state = world.folder.path().to_owned();
    assert_eq!(world.send().await, ("relayed 250 2.0.0 Ok".into(), "TLSv1.3 dane".into()));
    assert_eq!(world.dns.asked("_mta-sts.example.test", RecordType::TXT), 0);
}
