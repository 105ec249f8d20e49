//! Mail that one server forwards to another: sealed by the first (RFC 8617), believed by the second where it trusts the first.

use pillarbox_testkit::{Daemon, DnsServer};

use crate::post::{letter, session, transmit};

/// A stranger writes to the list; nothing of the message but its seal shows at the end that it came from him.
async fn write_to_the_list(forwarder: &Daemon, subject: &str) {
    let content = letter("alice@author.test", "list@middle.test", subject);
    let reply = transmit(&mut session(forwarder).await, "alice@author.test", &["list@middle.test"], content.as_bytes()).await;
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
    let mut receiver = trusting.start().await;
    receiver.add_user("bob@example.test", "builder").await;
    let builder = Daemon::builder().dns(dns.address()).relay_to_loopback(receiver.address("smtp").port());
    let forwarder = builder.set("hostname", "mx.middle.test").start().await;
    forwarder.add_domain("middle.test").await;
    forwarder.add_alias("list@middle.test", &["bob@example.test"]).await;
    for record in forwarder.admin_json(&["dns", "records", "middle.test"]).await.as_array().unwrap() {
        if record["role"] == "dkim" {
            dns.txt(record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
        }
    }

    write_to_the_list(&forwarder, "sealed").await;
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

    // The same from a forwarder that nobody vouches for.
    receiver.configure("screen.trusted_forwarders", Vec::<String>::new());
    receiver.reload();
    receiver.log_line("reloaded").await;
    write_to_the_list(&forwarder, "sealed, for what it is worth").await;
    let refused = receiver.event("reject", |event| event.text("reply").contains("author.test")).await;
    assert!(refused.text("reply").starts_with("550"), "{refused:?}");
    assert_eq!(receiver.mailbox("bob@example.test").messages.len(), 1);
}
