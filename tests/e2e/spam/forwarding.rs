//! Mail that one server forwards to another: sealed by the first (RFC 8617), believed by the second where it trusts the first.

use pillarbox_testkit::{Daemon, DnsServer};

use crate::post::{letter, session, transmit};

/// A stranger writes to a list; nothing of the message but its seal shows at the end that it came from him.
async fn write_to(forwarder: &Daemon, list: &str) {
    let content = letter("alice@author.test", list, "sealed");
    let reply = transmit(&mut session(forwarder).await, "alice@author.test", &[list], content.as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
}

#[tokio::test]
async fn what_a_trusted_forwarder_sealed_is_let_in_and_of_others_is_not() {
    let dns = DnsServer::start().await;
    for domain in ["example.test", "middle.test", "author.test"] {
        dns.mx(domain, 10, &format!("mx.{domain}")).address_of(&format!("mx.{domain}"), "127.0.0.1");
    }
    dns.txt("author.test", "v=spf1 ip4:127.0.0.1 -all").txt("_dmarc.author.test", "v=DMARC1; p=reject");
    let trusting = Daemon::builder().dns(dns.address()).set("screen.trusted_forwarders", vec!["middle.test".to_owned()]);
    let receiver = trusting.start().await;
    receiver.add_user("bob@example.test", "builder").await;
    // Another host, where nobody vouches for the forwarder.
    let port = receiver.address("smtp").port();
    dns.mx("strict.test", 10, "mx.strict.test").address_of("mx.strict.test", "127.0.0.2");
    let strict = Daemon::builder().dns(dns.address()).set("listen.smtp", vec![format!("127.0.0.2:{port}")]).start().await;
    strict.add_user("eve@strict.test", "builder").await;
    let builder = Daemon::builder().dns(dns.address()).relay_to_loopback(port);
    let forwarder = builder.set("hostname", "mx.middle.test").start().await;
    forwarder.add_domain("middle.test").await;
    forwarder.add_alias("list@middle.test", &["bob@example.test"]).await;
    forwarder.add_alias("other@middle.test", &["eve@strict.test"]).await;
    for record in forwarder.admin_json(&["dns", "records", "middle.test"]).await.as_array().unwrap() {
        if record["role"] == "dkim" {
            dns.txt(record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
        }
    }

    write_to(&forwarder, "list@middle.test").await;
    let stored = receiver.mail("bob@example.test", 1).await.remove(0);
    let sealed = stored.header("ARC-Authentication-Results");
    assert!(sealed.starts_with("i=1; mx.middle.test;") && sealed.contains("dmarc=pass"), "{}", stored.text());
    assert!(stored.header("ARC-Seal").contains("cv=none") && stored.header("ARC-Seal").contains("d=middle.test"), "{}", stored.text());
    let results = stored.header("Authentication-Results");
    assert!(results.contains("arc=pass (i=1 middle.test)") && results.contains("dmarc=fail"), "{results}");
    let verdict = stored.header("X-Pillarbox-Verdict");
    assert!(
        verdict.contains("DMARC fails for author.test") && verdict.contains("came through the trusted forwarder middle.test"),
        "{verdict}"
    );

    write_to(&forwarder, "other@middle.test").await;
    let refused = strict.event("reject", |event| event.text("reply").contains("author.test")).await;
    assert!(refused.text("reply").starts_with("550"), "{refused:?}");
    assert!(strict.mailbox("eve@strict.test").messages.is_empty());
}
