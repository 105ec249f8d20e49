//! `dns check` against a scripted DNS: what is published as `dns records` says is ok; each record wrong in turn is named, and no other.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use pillarbox_testkit::dns::{Data, DnsServer};
use serde_json::Value;
use support::{Home, field};

/// An address that counts as public, though nobody has it.
const ADDRESS: &str = "198.18.0.25";

fn data(kind: &str, value: &str) -> Data {
    let words: Vec<&str> = value.split(' ').collect();
    let host = |text: &str| text.trim_end_matches('.').to_owned();
    match (kind, words.as_slice()) {
        ("A", [ip]) => Data::Address(ip.parse().unwrap()),
        ("MX", [preference, exchange]) => Data::Mx(preference.parse().unwrap(), host(exchange)),
        ("TXT", _) => Data::Txt(value.as_bytes().to_vec()),
        ("CNAME", [target]) => Data::Cname(host(target)),
        ("SRV", [a, b, c, target]) => Data::Srv(a.parse().unwrap(), b.parse().unwrap(), c.parse().unwrap(), host(target)),
        ("TLSA", [a, b, c, hex]) => {
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
            Data::Tlsa(a.parse().unwrap(), b.parse().unwrap(), c.parse().unwrap(), bytes)
        }
        other => panic!("{other:?}"),
    }
}

/// The same kind of record with something else in it.
fn wrong(kind: &str, value: &str) -> Data {
    match kind {
        "A" => data(kind, "198.18.0.99"),
        "MX" => data(kind, "10 elsewhere.test."),
        "CNAME" => data(kind, "elsewhere.test."),
        "SRV" => data(kind, "0 1 1 mail.example.test."),
        "TLSA" => data(kind, &format!("3 1 1 {}", "00".repeat(32))),
        _ if value.starts_with("v=spf1") => data(kind, "v=spf1 -all"),
        _ if value.starts_with("v=DKIM1") => data(kind, "v=DKIM1; k=rsa; p=AAAA"),
        _ if value.starts_with("v=DMARC1") => data(kind, "v=DMARC1; p=perhaps"),
        _ if value.starts_with("v=STSv1") => data(kind, "v=STSv1; id=other"),
        _ => data(kind, "v=TLSRPTv1; rua=nowhere"),
    }
}

fn publish(server: &DnsServer, records: &[(String, String, String)], but: Option<(usize, Option<Data>)>) {
    let names: BTreeSet<&String> = records.iter().map(|(name, ..)| name).collect();
    names.iter().for_each(|name| {
        server.remove(name);
    });
    let mut but = but;
    for (n, (name, kind, value)) in records.iter().enumerate() {
        match &mut but {
            Some((at, other)) if *at == n => {
                if let Some(other) = other.take() {
                    server.add(name, other);
                }
            }
            _ => {
                server.add(name, data(kind, value));
            }
        }
    }
}

fn states(lines: &Value) -> Vec<(String, String)> {
    let line = |l: &Value| (format!("{} {}", field(l, "/name"), field(l, "/type")), field(l, "/state"));
    lines.as_array().unwrap().iter().map(line).collect()
}

#[test]
fn each_record_wrong_in_turn_is_named() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(DnsServer::start());
    let home = Home::with(&format!(
        "dns.servers = [\"{}\"]\nrelay.source_addresses = [\"{ADDRESS}\"]\nlisten.http = [\"127.0.0.1:0\"]\nlisten.submission = [\"127.0.0.1:587\"]\nlisten.submissions = [\"127.0.0.1:465\"]",
        server.address()
    ));
    home.run(&["domain", "add", "example.test"], 0);
    let records: Vec<(String, String, String)> = home
        .json(&["dns", "records", "example.test"], 0)
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (field(r, "/name"), field(r, "/type"), field(r, "/value")))
        .filter(|(_, kind, value)| kind != "AAAA" && (kind != "A" || value == ADDRESS))
        .collect();
    assert!(records.len() >= 14, "{records:?}");
    server.ptr(ADDRESS, "mail.example.test");
    let own = |lines: &Value| -> Vec<(String, String)> {
        // The machine that runs this test may have public addresses of its own.
        states(lines).into_iter().filter(|(name, state)| state != "ok" && !name.ends_with("AAAA") && !name.contains("ip6.arpa")).collect()
    };

    publish(&server, &records, None);
    let all = home.json(&["dns", "check", "example.test"], 0);
    assert_eq!(own(&all), [], "{all}");

    for (n, (name, kind, value)) in records.iter().enumerate() {
        let this = format!("{name} {kind}");
        publish(&server, &records, Some((n, Some(wrong(kind, value)))));
        let found = own(&home.json(&["dns", "check", "example.test"], 1));
        // With another address or MX the policies that speak of them no longer let this server pass either; they are compared as text.
        assert_eq!(found, [(this.clone(), "wrong".to_owned())], "{value}");
        // `check DOMAIN` says the same in its own form.
        let probes = home.json(&["check", "example.test"], 1);
        let named = |p: &Value| field(p, "/grade") != "ok" && !field(p, "/name").ends_with("AAAA");
        let failed: Vec<String> = probes.as_array().unwrap().iter().filter(|p| named(p)).map(|p| field(p, "/name")).collect();
        assert_eq!(failed, std::slice::from_ref(&this), "{probes}");
        publish(&server, &records, Some((n, None)));
        let found = own(&home.json(&["dns", "check", "example.test"], 1));
        assert_eq!(found, [(this, "missing".to_owned())], "{value}");
    }

    // Another policy that lets this server pass is as good; two of them are none.
    let spf = records.iter().position(|(name, _, value)| name == "example.test" && value.starts_with("v=spf1")).unwrap();
    publish(&server, &records, Some((spf, Some(data("TXT", &format!("v=spf1 ip4:{ADDRESS} ~all"))))));
    home.run(&["dns", "check", "example.test"], 0);
    publish(&server, &records, None);
    server.add("example.test", data("TXT", "v=spf1 -all"));
    let found = own(&home.json(&["dns", "check", "example.test"], 1));
    assert_eq!(found, [("example.test TXT".to_owned(), "wrong".to_owned())]);

    server.remove("25.0.18.198.in-addr.arpa");
    publish(&server, &records, None);
    let found = own(&home.json(&["dns", "check", "example.test"], 1));
    assert_eq!(found, [("25.0.18.198.in-addr.arpa PTR".to_owned(), "missing".to_owned())]);

    let probes = home.json(&["check", "example.test"], 0);
    assert!(probes.as_array().unwrap().iter().all(|p| field(p, "/grade") != "fail"), "{probes}");
    home.run(&["check", "dns"], 1);
}
