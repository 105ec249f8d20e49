//! Mail to Postfix: what it got is compared octet for octet, and who reports is seen.

use std::net::SocketAddr;

use pillarbox_testkit::{CertificateAuthority, Daemon, DnsServer, Issued};

use super::postfix::Postfix;
use super::{ALICE, Submission, friendly_dns, message, settings, with_alice};
use crate::peers;

/// Postfix as the MX of `friend.test`, and the daemon to which it gives its own reports.
async fn world(main: &[(&str, String)], tls: Option<&Issued>) -> Option<(Daemon, Postfix, DnsServer)> {
    let address = SocketAddr::from(([127, 0, 0, 1], pillarbox_testkit::free_port()));
    let dns = friendly_dns().await;
    let daemon = with_alice(settings(&dns, address.port())).await;
    let mut main = main.to_vec();
    main.push(("relayhost", format!("[127.0.0.1]:{}", daemon.address("smtp").port())));
    let postfix = Postfix::start(address, &main, tls).await?;
    Some((daemon, postfix, dns))
}

/// What was stored without what was added on the way, which must be of known kinds.
fn as_sent(stored: &str) -> String {
    let from = stored.find("From: alice@example.test").unwrap_or_else(|| panic!("the message's beginning is missing:\n{stored}"));
    let (added, rest) = stored.split_at(from);
    for line in added.lines() {
        let known = ["Return-Path:", "X-Original-To:", "Delivered-To:", "Received:", "DKIM-Signature:", " ", "\t"];
        assert!(known.iter().any(|prefix| line.starts_with(prefix)), "{line:?} was added:\n{stored}");
    }
    rest.to_owned()
}

/// A body with what gets lost or bent on the way where anything does.
fn awkward() -> String {
    let long = "x".repeat(990);
    format!(".\r\n..\r\n.leading dot\r\n\r\n \r\ntrailing space \r\nFrom the beginning\r\n{long}\r\nGr\u{fc}\u{df}e\r\n\ttab\r\n\r\n")
}

fn eight_bit(subject: &str, body: &str) -> String {
    let mime = "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    message(subject, "\u{0}").replacen("\r\n\r\n\u{0}", mime, 1) + body
}

#[tokio::test]
async fn mail_arrives_octet_for_octet_with_and_without_chunking() {
    for keywords in ["", "chunking, silent-discard", "pipelining, chunking, silent-discard", "dsn, silent-discard"] {
        let main = [("smtpd_discard_ehlo_keywords", keywords.to_owned())];
        let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
        let content = eight_bit("octets", &awkward());
        let mut session = Submission::open(&daemon).await;
        session.send("<alice@example.test> BODY=8BITMIME", &["<carol@friend.test>"], &content).await;
        let stored = postfix.mail("carol").await;
        assert_eq!(as_sent(&stored), format!("{content}\r\n").replace("\r\n", "\n"), "{keywords:?}");
        let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
        assert_eq!((event.text("status"), event.text("tls")), ("relayed".to_owned(), String::new()));
        assert!(event.text("relay").starts_with("mx.friend.test[127.0.0.1]"), "{event:?}");
    }
}

#[tokio::test]
async fn starttls_is_used_with_postfix() {
    let issued = CertificateAuthority::new().issue(&["mx.friend.test"]);
    let Some((daemon, postfix, _dns)) = world(&[("smtpd_tls_loglevel", "1".to_owned())], Some(&issued)).await else { return };
    let content = message("tls", "hello");
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test>", &["<carol@friend.test>", "<dave@friend.test>"], &content).await;
    for name in ["carol", "dave"] {
        assert_eq!(as_sent(&postfix.mail(name).await), format!("{content}\r\n").replace("\r\n", "\n"));
    }
    postfix.line("TLS connection established").await;
    let event = daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
    assert_eq!(event.text("tls"), "TLSv1.3 opportunistic");
}

#[tokio::test]
async fn postfix_reports_success_itself_and_its_report_reaches_the_sender() {
    let Some((daemon, postfix, _dns)) = world(&[], None).await else { return };
    let mut session = Submission::open(&daemon).await;
    let to = "<carol@friend.test> NOTIFY=SUCCESS ORCPT=rfc822;carol@friend.test";
    session.send("<alice@example.test> RET=HDRS ENVID=envelope-1", &[to], &message("success", "hello")).await;
    postfix.mail("carol").await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Reporting-MTA: dns; mx.friend.test"), "{report}");
    assert!(report.contains("Original-Envelope-Id: envelope-1") && report.contains("Action: delivered"), "{report}");
}

#[tokio::test]
async fn without_dsn_at_postfix_we_report_that_it_was_relayed() {
    let main = [("smtpd_discard_ehlo_keywords", "dsn, silent-discard".to_owned())];
    let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> ENVID=envelope-2", &["<carol@friend.test> NOTIFY=SUCCESS"], &message("relayed", "hello")).await;
    postfix.mail("carol").await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Reporting-MTA: dns; mail.example.test"), "{report}");
    assert!(report.contains("Original-Envelope-Id: envelope-2") && report.contains("Action: relayed"), "{report}");
}

#[tokio::test]
async fn postfix_without_8bitmime_gets_seven_bits_that_say_the_same() {
    let main = [("smtpd_discard_ehlo_keywords", "8bitmime, smtputf8, chunking, silent-discard".to_owned())];
    let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
    let body = awkward();
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> BODY=8BITMIME", &["<carol@friend.test>"], &eight_bit("seven", &body)).await;
    let stored = postfix.mail("carol").await;
    assert!(stored.is_ascii(), "{stored}");
    let file = pillarbox_testkit::folder();
    let path = file.path().join("message");
    std::fs::write(&path, &stored).unwrap();
    let reader = "import email, email.policy, sys\n\
                  m = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)\n\
                  sys.stdout.buffer.write(m.get_payload(decode=True))";
    let output = peers::run("python3", &["-c", reader, &path.display().to_string()]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert_eq!(read.trim_end_matches('\n'), body.replace("\r\n", "\n").trim_end_matches('\n'));
}

#[tokio::test]
async fn addresses_beyond_ascii_reach_postfix() {
    let Some((daemon, postfix, _dns)) = world(&[], None).await else { return };
    let content = message("utf8", "hello").replace("To: carol@", "To: j\u{f6}rg@");
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test> SMTPUTF8", &["<j\u{f6}rg@friend.test>"], &content).await;
    assert_eq!(as_sent(&postfix.mail("j\u{f6}rg").await), format!("{content}\r\n").replace("\r\n", "\n"));
}

#[tokio::test]
async fn an_unknown_recipient_comes_back_in_postfixs_words() {
    let Some((daemon, _postfix, _dns)) = world(&[], None).await else { return };
    let mut session = Submission::open(&daemon).await;
    session.send("<alice@example.test>", &["<nobody@friend.test>", "<carol@friend.test>"], &message("unknown", "hello")).await;
    let report = daemon.mail(ALICE, 1).await.remove(0).text();
    assert!(report.contains("Status: 5.1.1") && report.contains("User unknown in virtual mailbox table"), "{report}");
    daemon.event("deliver", |e| e.text("to") == "carol@friend.test").await;
}

#[tokio::test]
async fn a_large_message_arrives_whole_and_needs_little_memory() {
    let main = [("message_size_limit", "0".to_owned())];
    let Some((daemon, postfix, _dns)) = world(&main, None).await else { return };
    let line = format!("{}\r\n", "0123456789abcdef".repeat(4));
    let content = message("large", &line.repeat(24 * 1024 * 1024 / line.len()));
    let mut session = Submission::open(&daemon).await;
    let before = daemon.resident_kib();
    session.send("<alice@example.test>", &["<carol@friend.test>"], &content).await;
    let stored = postfix.mail("carol").await;
    assert!(as_sent(&stored) == format!("{content}\r\n").replace("\r\n", "\n"), "{} octets of {}", stored.len(), content.len());
    let grown = daemon.resident_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more for a message of 24 MiB");
}
