//! OpenDKIM and OpenDMARC as milters of the receiving server: what they make of mail that we signed, and of mail that nobody did, beside what
//! we say of it ourselves. Both ask the test's name server, through a `resolv.conf` that only they see.

use std::path::Path;

use pillarbox_testkit::daemon::Stored;
use pillarbox_testkit::{Daemon, DnsServer};
use tokio::process::Command;

use super::scanners::Scanner;
use super::with_milters;
use crate::peers;
use crate::post::{letter, login, session, transmit};

/// OpenDKIM with these keys and OpenDMARC, their sockets in the folder. OpenDMARC lives in a mount namespace of its own, where
/// `/etc/resolv.conf` names this server.
async fn peers_of(folder: &Path, dns: &DnsServer, keys: &[(String, String)]) -> [Scanner; 2] {
    let at = |name: &str| folder.join(name).display().to_string();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("resolv.conf", format!("nameserver {}\n", dns.address().ip()));
    write("keys", keys.iter().map(|(name, text)| format!("{name} {text}\n")).collect());
    write("nobody", "192.0.2.255\n".into());
    write("suffixes", "test\n".into());
    let common = "Background no\nUMask 077\n";
    write(
        "opendkim.conf",
        format!(
            "{common}Socket local:{}\nMode v\nAuthservID dkim.peer.test\nAlwaysAddARHeader yes\nRequireSafeKeys no\nInternalHosts {}\n\
             TestDNSData file:{}\n",
            at(SOCKETS[0]),
            at("nobody"),
            at("keys")
        ),
    );
    write(
        "opendmarc.conf",
        format!(
            "{common}Socket local:{}\nAuthservID dmarc.peer.test\nTrustedAuthservIDs dkim.peer.test,mail.example.test\nIgnoreHosts {}\n\
             PublicSuffixList {}\nRejectFailures false\nSyslog false\n",
            at(SOCKETS[1]),
            at("nobody"),
            at("suffixes")
        ),
    );
    let mut dkim = Command::new(peers::path("opendkim").unwrap());
    dkim.args(["-f", "-x", &at("opendkim.conf")]);
    let mut dmarc = Command::new("unshare");
    dmarc.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"", &at("resolv.conf")]);
    dmarc.arg(peers::path("opendmarc").unwrap()).args(["-f", "-c", &at("opendmarc.conf")]);
    [Scanner::start(dkim, &folder.join(SOCKETS[0])).await, Scanner::start(dmarc, &folder.join(SOCKETS[1])).await]
}

/// The peers' sockets, in the order in which they are asked.
const SOCKETS: [&str; 2] = ["opendkim.sock", "opendmarc.sock"];

/// The statements of the Authentication-Results that this host wrote.
fn results(stored: &Stored, host: &str) -> String {
    let all = stored.headers("Authentication-Results");
    let ours: Vec<String> = all.into_iter().filter(|field| field.split([';', ' ']).next() == Some(host)).collect();
    assert!(!ours.is_empty(), "{host} says nothing: {}", stored.text());
    ours.join("; ")
}

/// The word behind `method=`.
fn word(results: &str, method: &str) -> String {
    let rest = results.split(&format!("{method}=")).nth(1).unwrap_or_else(|| panic!("no {method} in {results}"));
    rest.chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[tokio::test]
async fn opendkim_and_opendmarc_come_to_what_we_say() {
    if !["opendkim", "opendmarc", "unshare"].into_iter().all(peers::have) {
        return;
    }
    let Some(dns) = DnsServer::start_on_port_53().await else {
        assert!(std::env::var_os("PILLARBOX_REQUIRE_PEERS").is_none_or(|v| v != "1"), "port 53 is not permitted");
        eprintln!("skipped: port 53 is not permitted");
        return;
    };
    let folder = pillarbox_testkit::folder();
    let milters = SOCKETS.map(|socket| format!("unix:{}", folder.path().join(socket).display()));
    // What fails is to reach the peers too.
    let builder = with_milters(&[&milters[0], &milters[1]]).dns(dns.address()).set("screen.dmarc", "report-only");
    let receiver = builder.start().await;
    receiver.add_user("bob@example.test", "builder").await;
    let builder = Daemon::builder().dns(dns.address()).relay_to_loopback(receiver.address("smtp").port());
    let sender = builder.set("hostname", "mail.sender.test").start().await;
    dns.mx("example.test", 10, "mx.example.test").address_of("mx.example.test", "127.0.0.1");
    for domain in ["sender.test", "plain.test", "lenient.test"] {
        dns.mx(domain, 10, "mail.sender.test");
    }
    dns.address_of("mail.sender.test", "127.0.0.1");
    dns.txt("_dmarc.sender.test", "v=DMARC1; p=reject; adkim=s").txt("_dmarc.lenient.test", "v=DMARC1; p=none; sp=quarantine");
    sender.add_user("alice@sender.test", "wonderland").await;
    let records = sender.admin_json(&["dns", "records", "sender.test"]).await;
    let text = |record: &serde_json::Value, field: &str| record[field].as_str().unwrap().to_owned();
    let keys = records.as_array().unwrap().iter().filter(|record| record["role"] == "dkim");
    let keys: Vec<_> = keys.map(|record| (text(record, "name"), text(record, "value"))).collect();
    for (name, value) in &keys {
        dns.txt(name, value);
    }
    let _peers = peers_of(folder.path(), &dns, &keys).await;

    let (mut client, _) = login(&sender, "alice@sender.test", "wonderland").await;
    let content = letter("alice@sender.test", "bob@example.test", "signed by us");
    let reply = transmit(&mut client, "alice@sender.test", &["bob@example.test"], content.as_bytes()).await;
    assert_eq!(reply.code(), "250", "{reply}");
    receiver.mail("bob@example.test", 1).await;
    for author in ["alice@sender.test", "x@plain.test", "x@lenient.test"] {
        let content = letter(author, "bob@example.test", &format!("unsigned, from {author}"));
        let reply = transmit(&mut session(&receiver).await, author, &["bob@example.test"], content.as_bytes()).await;
        assert_eq!(reply.code(), "250", "{reply}");
    }
    let stored = receiver.mail("bob@example.test", 4).await;
    for (subject, dkim, dmarc) in [
        ("signed by us", "pass", "pass"),
        ("unsigned, from alice@sender.test", "none", "fail"),
        ("unsigned, from x@plain.test", "none", "none"),
        ("unsigned, from x@lenient.test", "none", "fail"),
    ] {
        let letter = stored.iter().find(|letter| letter.header("Subject") == subject).unwrap_or_else(|| panic!("no letter {subject}"));
        let ours = results(letter, "mail.example.test");
        let (theirs_dkim, theirs) = (results(letter, "dkim.peer.test"), results(letter, "dmarc.peer.test"));
        assert_eq!((word(&ours, "dkim"), word(&ours, "dmarc")), (dkim.into(), dmarc.into()), "{subject}: {ours}");
        assert_eq!((word(&theirs_dkim, "dkim"), word(&theirs, "dmarc")), (dkim.into(), dmarc.into()), "{subject}: {theirs_dkim} {theirs}");
        if dkim == "pass" {
            assert_eq!(
                (ours.matches("dkim=pass").count(), theirs_dkim.matches("dkim=pass").count()),
                (2, 2),
                "RSA and Ed25519: {theirs_dkim}"
            );
        }
    }
}
