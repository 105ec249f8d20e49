//! The RFC 7208 test suite of openspf, through our own check and a scripted name server. Every case passes: there is no list of exceptions.

mod support;

use std::net::IpAddr;

use pillarbox_screen::Dns;
use pillarbox_screen::spf::check_spf;
use pillarbox_smtp::{LocalPart, Mailbox, ReversePath};
use support::dns::{Script, Server};
use yaml_rust2::Yaml;

#[tokio::test]
async fn the_published_suite() {
    let Some(text) = support::data::read("spf/rfc7208-tests.yml") else { return };
    let (mut wrong, mut run) = (Vec::new(), 0);
    for scenario in support::data::yaml(&text) {
        let dns = Server::start(zone(&scenario["zonedata"])).await.dns();
        for (name, case) in scenario["tests"].as_hash().expect("tests") {
            let name = name.as_str().expect("a name");
            run += 1;
            let (expected, found) = outcome(&dns, case).await;
            if !expected.contains(&found) {
                wrong.push(format!("{name}: expected {expected:?}, found {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "of {run} cases:\n{}", wrong.join("\n"));
    assert_eq!(run, 203);
}

async fn outcome(dns: &Dns, case: &Yaml) -> (Vec<String>, String) {
    let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
    let expected = match &case["result"] {
        Yaml::Array(results) => results.iter().filter_map(Yaml::as_str).map(str::to_owned).collect(),
        result => vec![result.as_str().expect("a result").to_owned()],
    };
    let client: IpAddr = text("host").parse().expect("an address");
    let sender = text("mailfrom");
    let from = match sender.parse::<ReversePath>() {
        Ok(path) => path,
        // Spaces, which come quoted, and the empty local part, which stands for postmaster (§4.3).
        Err(_) => match sender.rsplit_once('@').map(|(local, domain)| (local, domain.parse())) {
            Some((local, Ok(domain))) => {
                let local = if local.is_empty() { "postmaster" } else { local };
                ReversePath::Mailbox(Mailbox::new(LocalPart::new(local).expect("a name"), domain))
            }
            // A sender that is no mailbox is refused before SPF is asked.
            _ => return (expected, "none".to_owned()),
        },
    };
    let check = check_spf(dns, client, &text("helo"), &from, "receiver.example.org").await;
    let mut found = check.result.as_str().to_owned();
    if let (Some(wanted), true) = (case["explanation"].as_str(), expected.contains(&found)) {
        let given = check.explanation.unwrap_or_else(|| "DEFAULT".to_owned());
        if given != wanted {
            found = format!("{found} with {given:?} for {wanted:?}");
        }
    }
    (expected, found)
}

/// The suite's zone data; text of type SPF stands for TXT where a name has no TXT of its own.
fn zone(data: &Yaml) -> Script {
    let mut script = Script::default();
    for (name, records) in data.as_hash().expect("zone data") {
        let name = name.as_str().expect("a name");
        let records = records.as_vec().expect("records");
        let has_txt = records.iter().any(|record| !record["TXT"].is_badvalue());
        for record in records {
            if record.as_str() == Some("TIMEOUT") {
                script.fails(name);
                continue;
            }
            for (kind, value) in record.as_hash().expect("a record") {
                let text = || value.as_str().expect("text");
                match kind.as_str().expect("a type") {
                    "SPF" if has_txt => {}
                    "SPF" | "TXT" => {
                        let strings: Vec<Vec<u8>> = match value {
                            Yaml::Array(parts) => parts.iter().filter_map(Yaml::as_str).map(latin1).collect(),
                            _ if text() == "NONE" => continue,
                            _ => latin1(text()).chunks(255).map(<[u8]>::to_vec).collect(),
                        };
                        // No string at all cannot be said in DNS (RFC 1035 §3.3.14); an empty one can.
                        let strings = if strings.is_empty() { vec![vec![]] } else { strings };
                        script.txt_bytes(name, &strings.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    }
                    "A" | "AAAA" => drop(script.a(name, text())),
                    "MX" => {
                        let parts = value.as_vec().expect("an exchange");
                        let preference = u16::try_from(parts[0].as_i64().expect("a number")).expect("a preference");
                        script.mx(name, preference, parts[1].as_str().expect("a name"));
                    }
                    "PTR" => drop(script.ptr(name, text())),
                    "CNAME" => drop(script.cname(name, text())),
                    other => unreachable!("a record of type {other}"),
                }
            }
        }
    }
    script
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("an octet")).collect()
}
