//! DMARC aggregate reports from one server to another: counted, made when the day is over, mailed, proven, read, and shown.

use pillarbox_testkit::dns::RecordType;
use pillarbox_testkit::{Daemon, DnsServer, Sink};

use super::clock::Clock;
use crate::peers;
use crate::post::{letter, session, transmit};

/// Takes the report out of a message: its file's name and its XML.
const UNPACK: &str = r"
import email, email.policy, gzip, sys
message = email.message_from_bytes(open(sys.argv[1], 'rb').read(), policy=email.policy.default)
part = next(part for part in message.walk() if part.get_content_type() == 'application/gzip')
open(sys.argv[2], 'wb').write(gzip.decompress(part.get_payload(decode=True)))
print(part.get_filename())
";

/// The text of the first element of this name in a piece of XML.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let start = xml.find(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}")) + name.len() + 2;
    let end = xml[start..].find(&format!("</{name}>")).unwrap();
    &xml[start..start + end]
}

#[tokio::test]
async fn a_report_goes_to_those_who_may_have_it_and_is_read_there() {
    let Some(clock) = Clock::new() else { return };
    if !peers::have("python3") || !peers::have("xmllint") {
        return;
    }
    let dns = DnsServer::start().await;
    // The author's domain, with a server of ours; a collector that agreed to take reports about it; one that did not.
    let author = Daemon::builder().dns(dns.address()).set("hostname", "mail.sender.test").start().await;
    author.add_user("dmarc@sender.test", "wonderland").await;
    let collector = Sink::builder().ip("127.0.0.2").port(author.address("smtp").port()).start().await;
    for (domain, address) in [("sender.test", "127.0.0.1"), ("agreed.test", "127.0.0.2"), ("stranger.test", "127.0.0.2")] {
        dns.mx(domain, 10, &format!("mx.{domain}")).address_of(&format!("mx.{domain}"), address);
    }
    let rua = "mailto:dmarc@sender.test,mailto:box@agreed.test,mailto:victim@stranger.test";
    dns.txt("_dmarc.sender.test", &format!("v=DMARC1; p=quarantine; sp=reject; np=reject; adkim=s; t=y; rua={rua}"));
    dns.txt("sender.test._report._dmarc.agreed.test", "v=DMARC1");
    dns.txt("sender.test", "v=spf1 ip4:127.0.0.1 -all");
    dns.mx("elsewhere.test", 10, "mx.sender.test");
    // The reporter proves who it is, or its report would count for nothing.
    dns.address_of("mail.example.test", "127.0.0.1").txt("mail.example.test", "v=spf1 ip4:127.0.0.1 -all");
    dns.txt("_dmarc.example.test", "v=DMARC1; p=reject");
    let builder = Daemon::builder().dns(dns.address()).relay_to_loopback(author.address("smtp").port()).set("screen.dmarc_reports", true);
    let mut reporter = clock.rules(builder).start().await;
    reporter.add_user("bob@example.test", "builder").await;

    let content = letter("alice@sender.test", "bob@example.test", "hello");
    for envelope in ["alice@sender.test", "alice@sender.test", "alice@sender.test", "forger@elsewhere.test"] {
        let reply = transmit(&mut session(&reporter).await, envelope, &["bob@example.test"], content.as_bytes()).await;
        assert_eq!(reply.code(), "250", "{reply}");
    }
    reporter.mail("bob@example.test", 4).await;
    reporter.stop().await;
    clock.set("+1d");
    reporter.restart().await;

    let mail = author.mail("dmarc@sender.test", 1).await.remove(0);
    assert!(mail.header("From").ends_with("<postmaster@mail.example.test>"), "{}", mail.text());
    let subject = mail.header("Subject");
    assert!(subject.starts_with("Report Domain: sender.test Submitter: mail.example.test Report-ID: <"), "{subject}");
    let folder = pillarbox_testkit::folder();
    let xml_path = folder.path().join("report.xml");
    let (message, xml_file) = (mail.path.display().to_string(), xml_path.display().to_string());
    let output = peers::run("python3", &["-c", UNPACK, &message, &xml_file]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file_name = String::from_utf8(output.stdout).unwrap();
    let xml = std::fs::read_to_string(&xml_path).unwrap();
    let (begin, end): (u64, u64) = (element(&xml, "begin").parse().unwrap(), element(&xml, "end").parse().unwrap());
    assert_eq!((begin % 86_400, end - begin), (0, 86_399), "a whole day, UTC");
    assert_eq!(file_name.trim(), format!("mail.example.test!sender.test!{begin}!{end}!{begin}.sender.test.mail.example.test.xml.gz"));

    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/spam/dmarc-2.0.xsd");
    let checked = peers::run("xmllint", &["--noout", "--schema", schema, &xml_file]).await;
    assert!(checked.status.success(), "{}\n{xml}", String::from_utf8_lossy(&checked.stderr));
    let published = element(&xml, "policy_published");
    for (name, value) in
        [("domain", "sender.test"), ("p", "quarantine"), ("sp", "reject"), ("np", "reject"), ("adkim", "s"), ("testing", "y")]
    {
        assert_eq!(element(published, name), value, "{published}");
    }
    assert_eq!(element(published, "discovery_method"), "treewalk");
    let records: Vec<&str> = xml.split("<record>").skip(1).collect();
    let of = |count: &str| records.iter().find(|r| element(r, "count") == count).copied().unwrap_or_else(|| panic!("{xml}"));
    for (count, disposition, spf, result, envelope) in
        [("3", "pass", "pass", "pass", "sender.test"), ("1", "none", "fail", "none", "elsewhere.test")]
    {
        let record = of(count);
        assert_eq!((element(record, "disposition"), element(record, "source_ip")), (disposition, "127.0.0.1"), "{record}");
        assert_eq!((element(record, "header_from"), element(record, "envelope_from")), ("sender.test", envelope), "{record}");
        assert_eq!(element(element(record, "policy_evaluated"), "spf"), spf, "{record}");
        assert_eq!(element(element(record, "auth_results"), "result"), result, "{record}");
    }
    // What failed was not quarantined, since the domain is testing; the report says so.
    assert_eq!(element(of("1"), "type"), "policy_test_mode");

    // The same went to the collector that agreed, and nobody even asked where the other one is.
    let copy = collector.messages(1).await.remove(0);
    assert_eq!(copy.to(), ["box@agreed.test"]);
    assert_eq!(dns.count("stranger.test", RecordType::MX), 0);

    // At the author's server it is taken in, beside its delivery.
    author.log_line("a DMARC report was received").await;
    let shown = author.admin_json(&["report", "dmarc"]).await;
    let report = &shown[0];
    assert_eq!((report["organisation"].as_str(), report["domain"].as_str()), (Some("mail.example.test"), Some("sender.test")), "{shown}");
    assert_eq!((report["messages"].as_u64(), report["passed"].as_u64()), (Some(4), Some(3)), "{shown}");
    assert!(author.admin(&["report", "dmarc"]).await.contains("mail.example.test"));
}
