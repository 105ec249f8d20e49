//! A domain's DKIM keys over time, as its correspondent sees them: replaced while mail is on its way, and nothing ever fails to verify.

use pillarbox_testkit::{Daemon, DnsServer, Misbehaviour};

use super::clock::Clock;
use crate::post::{letter, login, transmit};

/// Publishes what `dns records` names as keys, and takes out what it names no more; returns the selectors.
async fn publish(sender: &Daemon, dns: &DnsServer, published: &mut Vec<String>) -> Vec<String> {
    let records = sender.admin_json(&["dns", "records", "sender.test"]).await;
    for name in published.drain(..) {
        dns.remove(&name);
    }
    for record in records.as_array().unwrap().iter().filter(|record| record["role"] == "dkim") {
        let (name, value) = (record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
        dns.txt(name, value);
        published.push(name.to_owned());
    }
    let selectors = published.iter().map(|name| name.split('.').next().unwrap_or_default().to_owned());
    selectors.collect()
}

/// Alice sends a letter to Bob at one of his addresses.
async fn send(sender: &Daemon, to: &str, subject: &str) {
    let (mut client, _) = login(sender, "alice@sender.test", "wonderland").await;
    let content = letter("alice@sender.test", to, subject);
    let reply = transmit(&mut client, "alice@sender.test", &[to], content.as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
}

/// The same to an address whose domain cannot be looked up for now.
async fn send_later(sender: &Daemon, to: &str, subject: &str) {
    send(sender, to, subject).await;
    sender.event("defer", |event| event.text("to") == to).await;
}

/// The selectors whose signatures held, as Bob's server wrote them down for the letter.
async fn proven(receiver: &Daemon, letters: usize, subject: &str) -> Vec<String> {
    let stored = receiver.mail("bob@example.test", letters).await;
    let letter = stored.iter().find(|letter| letter.header("Subject") == subject).unwrap_or_else(|| panic!("no letter {subject}"));
    let results = letter.header("Authentication-Results");
    assert!(!results.contains("dkim=fail") && !results.contains("dkim=permerror") && results.contains("dmarc=pass"), "{results}");
    let passed = results.split(';').filter(|statement| statement.trim().starts_with("dkim=pass"));
    let selector = |statement: &str| statement.split("header.s=").nth(1).and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
    let mut selectors: Vec<String> = passed.filter_map(selector).collect();
    selectors.sort();
    selectors
}

#[tokio::test]
async fn keys_are_replaced_while_mail_is_under_way() {
    let Some(clock) = Clock::new() else { return };
    let dns = DnsServer::start().await;
    dns.address_of("mx.example.test", "127.0.0.1");
    for domain in ["example.test", "soon.test", "later.test"] {
        dns.mx(domain, 10, "mx.example.test");
    }
    for domain in ["soon.test", "later.test"] {
        dns.misbehave(domain, None, Misbehaviour::ServFail);
    }
    dns.mx("sender.test", 10, "mail.sender.test").address_of("mail.sender.test", "127.0.0.1");
    dns.txt("_dmarc.sender.test", "v=DMARC1; p=reject");
    // A receiver with a grey list: a signature that holds spares its sender the wait, and there is no SPF here.
    let receiver = Daemon::builder().dns(dns.address()).set("screen.greylist", true).start().await;
    receiver.add_user("bob@example.test", "builder").await;
    for domain in ["soon.test", "later.test"] {
        receiver.add_domain(domain).await;
        receiver.add_alias(&format!("bob@{domain}"), &["bob@example.test"]).await;
    }
    let builder = Daemon::builder().dns(dns.address()).relay_to_loopback(receiver.address("smtp").port());
    let mut sender = clock.rules(builder.set("hostname", "mail.sender.test").set("queue.lifetime", "30d")).start().await;
    sender.add_user("alice@sender.test", "wonderland").await;

    let mut published = Vec::new();
    let mut old = publish(&sender, &dns, &mut published).await;
    old.sort();
    assert_eq!(old.len(), 2, "RSA and Ed25519");
    send(&sender, "bob@example.test", "first").await;
    assert_eq!(proven(&receiver, 1, "first").await, old);

    // Signed with the old keys, and kept from leaving until the new ones sign.
    send_later(&sender, "bob@soon.test", "before").await;
    let rotated = sender.admin_json(&["dkim", "rotate", "sender.test"]).await;
    let mut retiring: Vec<String> = serde_json::from_value(rotated["retiring"].clone()).unwrap();
    retiring.sort();
    assert_eq!((retiring, rotated["remove"].as_array().unwrap().len()), (old.clone(), 0));
    let both = publish(&sender, &dns, &mut published).await;
    assert_eq!(both.len(), 4, "the old ones stay while the new ones become known");
    let mut new: Vec<String> = both.into_iter().filter(|selector| !old.contains(selector)).collect();
    new.sort();

    // Within the overlap the old ones sign.
    clock.set("+2d");
    send(&sender, "bob@example.test", "within").await;
    assert_eq!(proven(&receiver, 2, "within").await, old);
    send_later(&sender, "bob@later.test", "last").await;
    // After it the new ones do, and the old ones still prove what they signed.
    clock.set("+4d");
    send(&sender, "bob@example.test", "after").await;
    assert_eq!(proven(&receiver, 3, "after").await, new);
    for domain in ["soon.test", "later.test"] {
        dns.behave(domain);
    }
    sender.admin(&["queue", "retry", "--all"]).await;
    for subject in ["before", "last"] {
        assert_eq!(proven(&receiver, 5, subject).await, old, "{subject}");
    }

    // Long after, their records may go, and the next rotation says so.
    clock.set("+40d");
    let mut left = publish(&sender, &dns, &mut published).await;
    left.sort();
    assert_eq!(left, new);
    send(&sender, "bob@example.test", "much later").await;
    assert_eq!(proven(&receiver, 6, "much later").await, new);
    let rotated = sender.admin_json(&["dkim", "rotate", "sender.test"]).await;
    let remove: Vec<String> = serde_json::from_value(rotated["remove"].clone()).unwrap();
    assert!(old.iter().all(|selector| remove.iter().any(|name| name.starts_with(selector))), "{remove:?}");
    sender.stop().await;
}
