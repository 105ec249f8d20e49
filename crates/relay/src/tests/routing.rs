//! Finding hosts: MX rules, loops, denied networks, smarthosts, LMTP.

use hickory_proto::rr::RecordType;
use pillarbox_config::RelayRoute;
use pillarbox_smtp::{Domain, ReversePath};

use super::{MAIL, world};
use crate::Relay;
use crate::testing::{FakeDns, Script, Sink, Stage, brief, config, deliver, envelope, timeouts};

#[tokio::test]
async fn implicit_mx_null_mx_and_names_that_do_not_exist() {
    let (dns, sink, relay) = world(Script::usual()).await;
    dns.add("plain.test A 127.0.0.1").add("null.test MX 0 .").add("null.test A 127.0.0.1").add("empty.test TXT x");
    dns.add("alias.test CNAME example.test").add("hollow.test MX 10 nowhere.test").fail("broken.test");
    for (to, told) in [
        ("b@plain.test", "relayed 250 2.0.0 Ok"),
        ("b@alias.test", "relayed 250 2.0.0 Ok"),
        ("b@null.test", "failed 556 5.1.10 The domain null.test accepts no mail (null MX)"),
        ("b@missing.test", "failed 550 5.1.2 The domain missing.test does not exist"),
        ("b@empty.test", "failed 550 5.4.4 The domain empty.test has no mail host with an address"),
        ("b@hollow.test", "failed 550 5.4.4 The domain hollow.test has no mail host with an address"),
    ] {
        let (outcomes, down) = deliver(&relay, envelope("a@me.test", &[to]), MAIL).await;
        assert_eq!(brief(&outcomes), [told]);
        assert_eq!(down, None, "{to}");
    }
    assert_eq!(sink.taken().len(), 2);
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@broken.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("deferred 451 4.4.3 The look-up of broken.test failed"), "{:?}", brief(&outcomes));
    assert!(down.is_some());
    assert!(dns.asked("null.test", RecordType::A) == 0);
}

#[tokio::test]
async fn mail_never_comes_back_to_ourselves() {
    let (dns, sink, relay) = world(Script::usual()).await;
    dns.add("ours.test MX 10 relay.test").add("relay.test A 127.0.0.1");
    dns.add("backup.test MX 20 relay.test").add("backup.test MX 10 mx.example.test").add("backup.test MX 30 worse.test");
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@ours.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("failed 554 5.4.6 "), "{:?}", brief(&outcomes));
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@backup.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    assert_eq!(dns.asked("worse.test", RecordType::A), 0);
    // By address: another name for our own listener.
    let mut own = config(&dns, sink.port());
    own.listen.smtp = vec![format!("127.0.0.1:{}", sink.port())];
    let relay = Relay::with_timeouts(&own, timeouts()).unwrap();
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("failed 554 5.4.6 "), "{:?}", brief(&outcomes));
}

#[tokio::test]
async fn denied_networks_are_never_tried() {
    let (dns, sink, _) = world(Script::usual()).await;
    let mut strict = config(&dns, sink.port());
    strict.relay.deny_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let relay = Relay::with_timeouts(&strict, timeouts()).unwrap();
    for to in ["b@example.test", "b@[127.0.0.1]", "b@[IPv6:::ffff:127.0.0.1]"] {
        let (outcomes, _) = deliver(&relay, envelope("a@me.test", &[to]), MAIL).await;
        assert!(brief(&outcomes)[0].starts_with("failed 550 5.4.4 All mail hosts"), "{:?}", brief(&outcomes));
    }
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn address_literals_and_many_hosts() {
    let (dns, sink, relay) = world(Script::usual()).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@[127.0.0.1]"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    for n in 0..300 {
        dns.add(&format!("many.test MX 10 h{n}.many.test"));
    }
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@many.test"]), MAIL).await;
    assert!(!brief(&outcomes)[0].starts_with("relayed"));
    let asked: usize = (0..300).map(|n| dns.asked(&format!("h{n}.many.test"), RecordType::A)).sum();
    assert!(asked <= 2 * crate::dns::hosts::MAX_HOSTS, "{asked}");
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn routes_lead_to_smarthosts_and_lmtp_services() {
    let dns = FakeDns::start().await;
    dns.add("smart.test A 127.0.0.1");
    let smart = Sink::start(Script::usual()).await;
    let lmtp = Sink::start(Script { lmtp: true, ..Script::usual() }.once(Stage::Message, "c@*", "452 4.2.2 Full")).await;
    let mut config = config(&dns, 25);
    config.relay.smarthost = format!("smtp://smart.test:{}", smart.port());
    let via = format!("lmtp:127.0.0.1:{}", lmtp.port());
    config.relay.routes = vec![RelayRoute { domain: Some("box.test".into()), sender: None, via, password_file: Default::default() }];
    let relay = Relay::with_timeouts(&config, timeouts()).unwrap();
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@anywhere.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@box.test", "c@box.test", "d@box.test"]), MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok", "deferred 452 4.2.2 Full", "relayed 250 2.0.0 Ok"]);
    assert_eq!(lmtp.heard("LHLO").len(), 1);
    // A smarthost without an address is a fault of ours, so mail waits.
    config.relay.smarthost = "smtp://gone.test:25".into();
    relay.reload(&config).unwrap();
    let (outcomes, down) = deliver(&relay, envelope("a@me.test", &["b@anywhere.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("deferred"), "{:?}", brief(&outcomes));
    assert!(down.is_some());
}

#[tokio::test]
async fn explaining_and_checking_send_nothing() {
    let (_dns, sink, relay) = world(Script::usual()).await;
    let told = relay.explain(&Domain::new("example.test").unwrap(), &ReversePath::Null).await;
    assert_eq!(told.destination, "mx:example.test");
    assert_eq!((told.hosts.len(), told.hosts[0].name.as_str(), told.hosts[0].policy), (1, "mx.example.test", "opportunistic"));
    assert!(told.steps.iter().any(|step| step.contains("MX 10 mx.example.test [127.0.0.1]")), "{:?}", told.steps);
    assert_eq!(sink.connections(), 0);
    let told = relay.explain(&Domain::new("missing.test").unwrap(), &ReversePath::Null).await;
    assert_eq!(told.refusal.map(|r| r.code), Some(550));
    let checks = relay.check(&"mx:example.test".to_owned().into()).await;
    let connected = checks[0].connected.clone().unwrap();
    assert_eq!((connected.tls.as_str(), connected.extensions.contains(&"PIPELINING")), ("", true));
    assert!(sink.heard("MAIL").is_empty());
}
