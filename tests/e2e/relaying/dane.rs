//! DANE (RFC 7672) with zones that BIND signed: right, wrong, forged, and none.

use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{Daemon, Sink, certificates};

use super::named::{Named, Zone};
use super::{Submission, count, message, send, with_alice};

/// Hexadecimal, as zone files want it.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[tokio::test]
async fn signed_zones_bind_the_certificate_and_forged_ones_get_no_mail() {
    let names = ["good", "wrong", "forged", "address", "none", "unsigned"];
    let hosts: Vec<String> = names.iter().map(|name| format!("mx.{name}.test")).collect();
    let issued = certificates::self_signed(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let sink = Sink::builder()
        .capabilities(&["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "REQUIRETLS"])
        .tls(SinkTls::StartTls(issued.server_config()))
        .start()
        .await;
    let port = sink.port();
    let right = format!("3 1 1 {}", hex(&issued.spki_sha256()));
    let wrong = format!("3 1 1 {}", "7A".repeat(32));
    let records = |name: &str, tlsa: Option<&str>| {
        let tlsa = tlsa.map(|data| format!("_{port}._tcp.mx.{name}.test. IN TLSA {data}\n")).unwrap_or_default();
        format!("@ IN MX 10 mx.{name}.test.\nmx IN A 127.0.0.1\n{tlsa}")
    };
    let zone = |name: &'static str, tlsa: Option<&str>, signed| {
        let short = name.trim_end_matches(".test");
        Zone { name, records: records(short, tlsa), forged: None, signed }
    };
    let mut forged = zone("forged.test", Some(&wrong), true);
    // Somebody on the way puts in the MX host of his choice.
    forged.records = forged.records.replace("mx.forged.test.\nmx IN A", "mx.forged.test.\nevil IN A 127.0.0.1\nmx IN A");
    forged.forged = Some(("10 mx.forged.test.".into(), "10 evil.forged.test.".into()));
    let mut address = zone("address.test", Some(&right), true);
    address.records = address.records.replace("127.0.0.1", "127.0.0.9");
    address.forged = Some(("127.0.0.9".into(), "127.0.0.1".into()));
    let zones = [
        zone("good.test", Some(&right), true),
        zone("wrong.test", Some(&wrong), true),
        forged,
        address,
        zone("none.test", None, true),
        // Without signatures the records say nothing, right or wrong.
        zone("unsigned.test", Some(&wrong), false),
    ];
    let Some(named) = Named::start(&zones).await else { return };
    let builder = Daemon::builder().dns(named.address()).relay_to_loopback(port);
    let daemon =
        with_alice(builder.set("dns.trust_anchor", named.trust_anchor()).set("relay.dane", true).set("queue.retry", vec!["1h"])).await;
    let to = names.map(|name| format!("carol@{name}.test"));
    send(&daemon, &to.iter().map(String::as_str).collect::<Vec<_>>(), "dane").await;

    for (name, tls) in [("good", "dane"), ("none", "opportunistic"), ("unsigned", "opportunistic")] {
        let event = daemon.event("deliver", |e| e.text("to") == format!("carol@{name}.test")).await;
        assert_eq!(event.text("tls"), format!("TLSv1.3 {tls}"), "{name}");
    }
    for (name, words) in
        [("wrong", "dane demands secure TLS"), ("forged", "failed DNSSEC validation"), ("address", "failed DNSSEC validation")]
    {
        let event = daemon.event("defer", |e| e.text("to") == format!("carol@{name}.test")).await;
        assert_eq!(event.text("dsn"), "4.7.5", "{name}: {event:?}");
        assert!(event.text("reply").contains(words), "{name}: {event:?}");
    }
    let taken: Vec<String> = sink.transactions().iter().flat_map(|t| t.to().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect();
    assert_eq!(taken.len(), 3, "{taken:?}");
    assert_eq!(count(&daemon, "bounce", "carol@wrong.test"), 0);
    // Where the host is proved, REQUIRETLS has what it asks for, and is passed on (RFC 8689).
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> REQUIRETLS", &["<dave@good.test>", "<dave@none.test>"], &message("secret", "hello")).await;
    let secret = sink.message("the secret one", |r| r.to() == ["dave@good.test"]).await;
    assert!(secret.from_parameters.iter().any(|p| p == "REQUIRETLS"), "{secret:?}");
    let event = daemon.event("bounce", |e| e.text("to") == "dave@none.test").await;
    assert_eq!(event.text("dsn"), "5.7.30");
}

#[tokio::test]
async fn a_name_server_without_dnssec_is_told_of_in_one_sentence() {
    let (daemon, sink, _dns) = super::world().await;
    send(&daemon, &["carol@friend.test"], "plain").await;
    sink.messages(1).await;
    daemon.log_line("the name servers pass no DNSSEC on").await;
    let packets: Vec<String> = daemon.log().into_iter().filter(|line| line.contains("hickory")).collect();
    assert!(packets.is_empty(), "{packets:?}");
    let status = daemon.admin(&["status"]).await;
    assert!(status.contains("DNSSEC"), "{status}");
}
