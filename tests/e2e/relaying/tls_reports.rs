//! TLS reports (RFC 8460): what the sessions of a day met is mailed to the domains that ask for it.

use pillarbox_testkit::sink::SinkTls;
use pillarbox_testkit::{CertificateAuthority, Daemon, Sink};

use super::{emptied, friendly_dns, send, settings, with_alice};
use crate::peers;

/// Unpacks a report's mail and prints what it is made of.
const READER: &str = r#"
import email, email.policy, gzip, json, sys
message = email.message_from_binary_file(open(sys.argv[1], "rb"), policy=email.policy.default)
parts = list(message.iter_parts())
attached = parts[1]
print(json.dumps(dict(
    type=message.get_content_type(), kind=message.get_param("report-type"), to=str(message["To"]), author=str(message["From"]),
    domain=str(message["TLS-Report-Domain"]), submitter=str(message["TLS-Report-Submitter"]), subject=str(message["Subject"]),
    signed=[str(s) for s in message.get_all("DKIM-Signature", [])], parts=[p.get_content_type() for p in parts],
    name=attached.get_filename(), report=json.loads(gzip.decompress(attached.get_payload(decode=True))),
    defects=[repr(d) for part in message.walk() for d in part.defects])))
"#;

/// The report that came for this address, taken apart.
async fn report(sink: &Sink, to: &str) -> serde_json::Value {
    let received = sink.message(&format!("a report to {to}"), |r| r.to() == [to]).await;
    assert_eq!(received.from, "", "a report is never answered by one");
    let folder = pillarbox_testkit::folder();
    let file = folder.path().join("report.eml");
    std::fs::write(&file, &received.body).unwrap();
    let output = peers::run("python3", &["-c", READER, &file.display().to_string()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((read["type"].as_str(), read["kind"].as_str()), (Some("multipart/report"), Some("tlsrpt")), "{read}");
    assert_eq!((&read["defects"], &read["parts"]), (&serde_json::json!([]), &serde_json::json!(["text/plain", "application/tlsrpt+gzip"])));
    assert_eq!(read["to"], to);
    assert_eq!(read["submitter"], "mail.example.test");
    read
}

/// Lets a day end while the daemon is down: what was counted on its date becomes that of the day before.
fn a_day_passes(daemon: &Daemon) -> String {
    let folder = daemon.home().join("state/tlsrpt");
    let names = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let counted: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    let format = time::macros::format_description!("[year]-[month]-[day]");
    let before = time::Date::parse(&counted[0], format).unwrap().previous_day().unwrap().format(format).unwrap();
    std::fs::rename(folder.join(format!("{}.json", counted[0])), folder.join(format!("{before}.json"))).unwrap();
    before
}

#[tokio::test]
async fn those_who_ask_are_told_what_a_days_sessions_met() {
    if !peers::have("python3") {
        return;
    }
    let authority = CertificateAuthority::new();
    let secure = Sink::builder().tls(SinkTls::StartTls(authority.issue(&["mx.friend.test"]).server_config())).start().await;
    let plain = Sink::builder().ip("127.0.0.2").port(secure.port()).start().await;
    let dns = friendly_dns().await;
    dns.mx("plain.test", 10, "mx.plain.test").address_of("mx.plain.test", "127.0.0.2");
    dns.mx("silent.test", 10, "mx.plain.test");
    dns.mx("reports.test", 10, "mx.reports.test").address_of("mx.reports.test", "127.0.0.1");
    dns.txt("_smtp._tls.friend.test", "v=TLSRPTv1; rua=mailto:friend@reports.test");
    dns.txt("_smtp._tls.plain.test", "v=TLSRPTv1;rua=mailto:plain@reports.test");
    let mut daemon = with_alice(settings(&dns, secure.port()).set("relay.tls_reports", true)).await;
    daemon.admin(&["dkim", "rotate", "example.test", "--now"]).await;

    for n in 1..=2u64 {
        send(&daemon, &["carol@friend.test", "carol@plain.test", "carol@silent.test"], &format!("number {n}")).await;
        emptied(&daemon).await;
        // A connection of its own for each.
        secure.idle().await;
        plain.idle().await;
    }
    assert_eq!((secure.connections(), plain.connections()), (2, 4));
    assert_eq!(daemon.admin_json(&["report", "tls", "send"]).await["sent"], 0, "today is not over");
    assert!(daemon.stop().await.success());
    let day = a_day_passes(&daemon);
    daemon.restart().await;
    let told = daemon.admin_json(&["report", "tls", "send"]).await;
    assert_eq!(told["sent"], 2);

    let good = report(&secure, "friend@reports.test").await;
    assert_eq!(good["domain"], "friend.test");
    assert!(good["author"].as_str().unwrap().contains("postmaster@mail.example.test"), "{good}");
    assert!(good["signed"].to_string().contains("d=example.test"), "{good}");
    let name = good["name"].as_str().unwrap();
    assert!(name.starts_with("mail.example.test!friend.test!") && name.ends_with(".json.gz"), "{name}");
    let json = &good["report"];
    assert_eq!(json["organization-name"], "mail.example.test");
    assert_eq!(json["date-range"]["start-datetime"], format!("{day}T00:00:00Z"));
    assert_eq!(json["date-range"]["end-datetime"], format!("{day}T23:59:59Z"));
    let policy = &json["policies"][0];
    assert_eq!(policy["policy"], serde_json::json!({ "policy-type": "no-policy-found", "policy-domain": "friend.test" }), "{json}");
    assert_eq!(policy["summary"], serde_json::json!({ "total-successful-session-count": 2, "total-failure-session-count": 0 }));

    let bad = report(&secure, "plain@reports.test").await["report"]["policies"].clone();
    assert_eq!(bad[0]["summary"], serde_json::json!({ "total-successful-session-count": 0, "total-failure-session-count": 2 }), "{bad}");
    let failure = &bad[0]["failure-details"][0];
    assert_eq!(failure["result-type"], "starttls-not-supported");
    assert_eq!(failure["receiving-mx-hostname"], "mx.plain.test");
    assert_eq!((failure["receiving-ip"].as_str(), failure["failed-session-count"].as_u64()), (Some("127.0.0.2"), Some(2)));

    // Told once; and a domain that did not ask was not told.
    assert_eq!(daemon.admin_json(&["report", "tls", "send"]).await["sent"], 0);
    emptied(&daemon).await;
    assert_eq!(secure.transactions().iter().filter(|r| r.to().iter().any(|to| to.ends_with("@reports.test"))).count(), 2);
    assert_eq!(
        daemon.admin(&["report", "tls", "send"]).await.trim(),
        "No report was due: nothing is left of the days before today, or nobody asked."
    );
}
