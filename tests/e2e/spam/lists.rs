//! Block lists, allow lists, and the verdict as the header, the log and `trace` tell it. Clients come through a proxy that names them.

use pillarbox_testkit::dns::RecordType;
use pillarbox_testkit::{Client, Daemon, DaemonBuilder, Misbehaviour};

use super::with_users;
use crate::post::{letter, transmit};

/// One of `screen.dnsbl`.
fn zone(name: &str, action: &str) -> toml::Value {
    let mut table = toml::Table::new();
    table.insert("zone".into(), name.into());
    table.insert("action".into(), action.into());
    toml::Value::Table(table)
}

/// A daemon that believes the PROXY header of this machine and asks three lists.
fn listing() -> DaemonBuilder {
    let zones = vec![zone("block.test", "reject"), zone("points.test", "score"), zone("good.test", "allow")];
    Daemon::builder().set("listen.proxy_protocol_from", vec!["127.0.0.0/8".to_owned()]).set("screen.dnsbl", zones)
}

fn lists(daemon: &Daemon) {
    let dns = daemon.dns();
    dns.address_of("9.113.0.203.block.test", "127.0.0.4").txt("9.113.0.203.block.test", "see https://block.test/203.0.113.9");
    dns.address_of("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.block.test", "127.0.0.2");
    // A refusal to answer a public resolver, and an expired zone that answers everything.
    dns.address_of("8.113.0.203.block.test", "127.255.255.254").address_of("8.113.0.203.points.test", "203.0.113.1");
    dns.address_of("7.113.0.203.block.test", "127.0.0.2").address_of("7.113.0.203.good.test", "127.0.0.2");
    dns.address_of("6.113.0.203.points.test", "127.0.0.3");
    dns.misbehave("5.113.0.203.block.test", None, Misbehaviour::ServFail);
    dns.txt("client.test", "v=spf1 ip4:203.0.113.0/24 -all");
    dns.mx("strict.test", 10, "mx.client.test").txt("strict.test", "v=spf1 -all").txt("_dmarc.strict.test", "v=DMARC1; p=reject");
    dns.mx("soft.test", 10, "mx.client.test").txt("soft.test", "v=spf1 ~all").txt("_dmarc.soft.test", "v=DMARC1; p=quarantine");
    dns.mx("ill.test", 10, "mx.client.test");
    dns.misbehave("ill.test", Some(RecordType::TXT), Misbehaviour::ServFail);
    dns.misbehave("_dmarc.ill.test", None, Misbehaviour::ServFail);
}

/// A session from this address.
async fn from(daemon: &Daemon, client: &str) -> Client {
    let mut session = Client::connect(daemon.address("smtp")).await;
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let ours = if client.contains(':') { "2001:db8::25" } else { "192.0.2.25" };
    session.line(&format!("PROXY {family} {client} {ours} 40000 25")).await;
    session.expect("220").await;
    session.command("EHLO mx.client.test", "250").await;
    session
}

async fn send(daemon: &Daemon, client: &str, sender: &str) -> String {
    let content = letter(sender, "bob@example.test", "hello");
    transmit(&mut from(daemon, client).await, sender, &["bob@example.test"], content.as_bytes()).await.to_string()
}

#[tokio::test]
async fn listed_clients_are_refused_and_refusals_of_the_lists_are_not_listings() {
    let daemon = with_users(listing()).await;
    lists(&daemon);
    for client in ["203.0.113.9", "2001:db8::1"] {
        let mut session = from(&daemon, client).await;
        session.command("MAIL FROM:<sender@client.test>", "250").await;
        let reply = session.command("RCPT TO:<bob@example.test>", "550").await;
        assert!(reply.has("5.7.1 *block.test*"), "{reply}");
        assert_eq!(reply.has("*see https://block.test/203.0.113.9*"), client == "203.0.113.9", "{reply}");
        // A listing can be talked about.
        session.command("RCPT TO:<postmaster@example.test>", "250").await;
    }
    for client in ["203.0.113.8", "203.0.113.7", "203.0.113.5"] {
        let reply = send(&daemon, client, "sender@client.test").await;
        assert!(reply.contains("250"), "{client}: {reply}");
    }
    // The refusal is in the life of the address, with the rule's own words.
    let told = daemon.admin(&["trace", "bob@example.test"]).await;
    assert!(told.contains("listed by block.test"), "{told}");
}

#[tokio::test]
async fn the_verdict_names_the_rules_that_spoke() {
    let daemon = with_users(listing().set("screen.junk_score", 4.0)).await;
    lists(&daemon);
    let reply = send(&daemon, "203.0.113.6", "sender@client.test").await;
    assert!(reply.contains("250"), "{reply}");
    let stored = daemon.mail("bob@example.test", 1).await.remove(0);
    assert_eq!(
        stored.header("X-Pillarbox-Verdict"),
        "accept, score=3.0 required=4.0; client is listed by points.test with 127.0.0.3 (+3.0)",
        "{}",
        stored.text()
    );
    assert!(stored.header("Authentication-Results").contains("spf=pass smtp.mailfrom=client.test"), "{}", stored.text());

    // A second rule brings it over the line, and into the junk folder.
    let reply = send(&daemon, "203.0.113.6", "sender@soft.test").await;
    assert!(reply.contains("250"), "{reply}");
    let junk = daemon.event("deliver", |event| event.text("from") == "sender@soft.test").await;
    let stored = daemon.folder("bob@example.test", "Junk").messages.remove(0);
    let verdict = stored.header("X-Pillarbox-Verdict");
    for rule in
        ["junk, score=4.0 required=4.0", "listed by points.test", "SPF says softfail for soft.test (+1.0)", "DMARC fails for soft.test"]
    {
        assert!(verdict.contains(rule), "{rule}: {verdict}");
    }
    let told = daemon.admin(&["trace", &junk.text("id")]).await;
    assert!(told.contains("listed by points.test with 127.0.0.3") && told.contains("whose policy is quarantine"), "{told}");

    // A refusal names its rule in the reply, and trace tells the reply.
    let reply = send(&daemon, "203.0.113.1", "sender@strict.test").await;
    assert!(reply.contains("550") && reply.contains("strict.test, whose DMARC policy"), "{reply}");
    let told = daemon.admin(&["trace", "sender@strict.test"]).await;
    assert!(told.contains("whose DMARC policy asks to refuse"), "{told}");

    // Name servers that fail are held against nobody.
    let reply = send(&daemon, "203.0.113.1", "sender@ill.test").await;
    assert!(reply.contains("250"), "{reply}");
    let stored = daemon.mail("bob@example.test", 2).await.remove(1);
    assert_eq!(stored.header("X-Pillarbox-Verdict"), "accept, score=0.0 required=4.0");
    let results = stored.header("Authentication-Results");
    assert!(results.contains("spf=temperror") && results.contains("dmarc=temperror"), "{results}");
}

#[tokio::test]
async fn our_own_lists_come_first() {
    let builder = listing()
        .set("screen.allow", vec!["203.0.113.9".to_owned(), "friend@strict.test".to_owned(), "@client.test".to_owned()])
        .set("screen.deny", vec!["198.51.100.0/24".to_owned(), "@bad.test".to_owned()]);
    let daemon = with_users(builder).await;
    lists(&daemon);
    daemon.dns().mx("bad.test", 10, "mx.client.test");
    assert!(send(&daemon, "203.0.113.9", "anyone@soft.test").await.contains("250"), "a network on the allow list is not judged");
    // A sender on it is, as far as SPF goes: friend@strict.test cannot be spoken for by anybody.
    let reply = send(&daemon, "203.0.113.1", "friend@strict.test").await;
    assert!(reply.contains("550"), "{reply}");
    assert!(send(&daemon, "203.0.113.6", "sender@client.test").await.contains("250"));
    let stored = daemon.mail("bob@example.test", 2).await;
    assert!(stored.iter().any(|m| m.header("X-Pillarbox-Verdict").contains("sender is on the allow list")), "{stored:?}");
    assert!(stored.iter().any(|m| m.header("X-Pillarbox-Verdict").is_empty()));
    let mut session = from(&daemon, "203.0.113.1").await;
    session.command("MAIL FROM:<x@bad.test>", "550").await;
    let mut denied = Client::connect(daemon.address("smtp")).await;
    denied.line("PROXY TCP4 198.51.100.7 192.0.2.25 40000 25").await;
    denied.expect("5").await;
}
