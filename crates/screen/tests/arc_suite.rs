//! The ARC validation suite of ValiMail, through the screen's own checks. The signing suite is beside the sealer.

mod support;

use bytes::Bytes;
use pillarbox_screen::auth::{Checks, authenticate};
use pillarbox_smtp::ReversePath;
use support::dns::{Script, Server};
use yaml_rust2::Yaml;

/// Validation cases in which we differ, each with its reason.
const KNOWN: &[(&str, &str)] = &[
    (
        "ams_fields_h_empty",
        "a message signature over no field at all proves nothing; RFC 6376 §5.4 wants From in h=, and mail-auth refuses it",
    ),
    ("ams_fields_c_na", "signed as relaxed/relaxed without saying so; without c= it is simple/simple (RFC 6376 §3.5), and so it fails"),
];

#[tokio::test]
async fn published_chains_are_judged_as_they_should_be() {
    let Some(text) = support::data::read("arc/arc-draft-validation-tests.yml") else { return };
    let (mut wrong, mut run) = (Vec::new(), 0);
    for scenario in support::data::yaml(&text) {
        let dns = Server::start(zone(&scenario["txt-records"])).await.dns();
        for (name, case) in scenario["tests"].as_hash().expect("tests") {
            let name = name.as_str().expect("a name");
            run += 1;
            let message = crlf(case["message"].as_str().unwrap_or_default());
            let checks = Checks { dkim: false, dmarc: false, arc: true };
            let found = authenticate(&dns, checks, &ReversePath::Null, None, Bytes::from(message)).await;
            let found_word = found.arc.as_ref().map_or("none", |arc| arc.result.as_str());
            // The suite leaves open what to call a chain that says itself that it failed; RFC 8617 §5.2 calls it failed.
            let expected = match case["cv"].as_str().unwrap_or("none").to_ascii_lowercase() {
                open if open.is_empty() => "fail".to_owned(),
                word => word,
            };
            let known = KNOWN.iter().any(|(known, _)| *known == name);
            match (expected == found_word, known) {
                (true, false) | (false, true) => {}
                (true, true) => wrong.push(format!("{name}: passes now; take it off the list")),
                (false, false) => {
                    let why = found.arc.and_then(|arc| arc.reason).unwrap_or_default();
                    wrong.push(format!(
                        "{name}: expected {expected}, found {found_word} {why} -- {}",
                        case["description"].as_str().unwrap_or_default()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {run} cases:\n{}", wrong.join("\n"));
    assert_eq!((run, KNOWN.len()), (175, 2), "as docs/spam.md has it");
}

fn zone(records: &Yaml) -> Script {
    let mut script = Script::default();
    for (name, text) in records.as_hash().into_iter().flatten() {
        if let (Some(name), Some(text)) = (name.as_str(), text.as_str()) {
            script.txt(name, &text.replace('\n', ""));
        }
    }
    script
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}
