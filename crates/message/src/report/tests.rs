//! Reports as other programs read them.

use mail_parser::{MessageParser, MimeHeaders, PartType};

use super::*;

const ORIGINAL: &[u8] = b"From: Ada <ada@example.org>\r\nTo: bob@example.net\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.org>\r\n\r\nHello\r\n";

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

fn failed() -> ReportRecipient {
    ReportRecipient {
        reply: Some(Reply {
            code: 550,
            enhanced: Some(EnhancedCode(5, 1, 1)),
            lines: vec!["No such user".into(), "see https://example.net/\r\nBcc: x".into()],
        }),
        remote: Some("mx.example.net".into()),
        last_attempt: Some(1_795_502_539_000),
        original: Some(OriginalRecipient { address_type: "rfc822".into(), address: "bob@example.net".into() }),
        ..ReportRecipient::new(mailbox("bob@example.net"), Action::Failed, EnhancedCode(5, 1, 1))
    }
}

fn built(original: Returned<'_>, ret: Option<Ret>, recipients: &[ReportRecipient]) -> String {
    let to = mailbox("ada@example.org");
    let report = Report {
        hostname: "mail.example.org",
        to: &to,
        smtputf8: false,
        now: 1_795_502_539_000,
        random: 7,
        queue_id: "0123456789abc",
        arrival: 1_795_502_000_000,
        received_from: Some("client.example.com"),
        envid: Some("QQ314159"),
        ret,
        original,
        full_limit: DEFAULT_FULL_LIMIT,
        recipients,
    };
    String::from_utf8(build(&report)).unwrap()
}

#[test]
fn a_failure_report_has_three_parts_that_parse() {
    let text = built(Returned::Message(ORIGINAL), None, &[failed()]);
    let message = MessageParser::default().parse(text.as_bytes()).unwrap();
    assert_eq!(message.content_type().unwrap().attribute("report-type"), Some("delivery-status"));
    assert_eq!(message.header_raw("Auto-Submitted").unwrap().trim(), "auto-replied");
    let PartType::Multipart(children) = &message.part(0).unwrap().body else { panic!("no multipart: {text}") };
    assert_eq!(children.len(), 3);
    let human = message.body_text(0).unwrap();
    assert!(human.contains("550 5.1.1 No such user\n") || human.contains("550 5.1.1 No such user\r\n"), "{human}");
    assert!(human.contains("Subject: Grüße"), "{human}");
    assert!(text.contains("Original-Envelope-Id: QQ314159\r\n"));
    assert!(text.contains(
        "Original-Recipient: rfc822; bob@example.net\r\nFinal-Recipient: rfc822; bob@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    ));
    assert!(text.replace("\r\n ", " ").contains(
        "Remote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user / see https://example.net/ Bcc: x\r\n"
    ));
    assert!(text.contains("Content-Type: message/rfc822\r\n"));
    assert!(text.contains("In-Reply-To: <1@example.org>\r\n"));
    assert!(!text.contains("\r\nBcc:"), "a remote's words must not make fields");
}

#[test]
fn headers_only_when_asked_or_when_nothing_failed_or_when_large() {
    for (ret, recipients) in [
        (Some(Ret::Hdrs), failed()),
        (Some(Ret::Full), ReportRecipient::new(mailbox("b@example.net"), Action::Delivered, EnhancedCode(2, 0, 0))),
    ] {
        let text = built(Returned::Message(ORIGINAL), ret, &[recipients]);
        assert!(text.contains("Content-Type: text/rfc822-headers\r\n"), "{text}");
        assert!(!text.contains("Hello"));
    }
    let mut large = ORIGINAL.to_vec();
    large.extend(b"line\r\n".repeat(20_000));
    assert!(built(Returned::Message(&large), Some(Ret::Full), &[failed()]).len() < 10_000);
    assert!(!built(Returned::Nothing, None, &[failed()]).contains("rfc822-headers"));
}

#[test]
fn bodies_that_are_no_lines_are_not_returned() {
    for body in [&b"a\nb"[..], b"a\rb", b"a\0b", &[b'x'; 2000]] {
        let mut message = ORIGINAL.to_vec();
        message.extend_from_slice(body);
        assert!(built(Returned::Message(&message), None, &[failed()]).contains("text/rfc822-headers"));
    }
}

#[test]
fn the_class_of_the_status_agrees_with_the_action() {
    let recipient = |action, status| ReportRecipient::new(mailbox("b@example.net"), action, status).consistent_status();
    assert_eq!(recipient(Action::Delayed, EnhancedCode(5, 4, 1)), EnhancedCode(4, 4, 1));
    assert_eq!(recipient(Action::Delivered, EnhancedCode(4, 2, 2)), EnhancedCode(2, 0, 0));
    assert_eq!(recipient(Action::Failed, EnhancedCode(4, 4, 7)), EnhancedCode(4, 4, 7));
    assert_eq!(recipient(Action::Failed, EnhancedCode(2, 1, 1)), EnhancedCode(5, 1, 1));
}

#[test]
fn delays_say_until_when() {
    let recipient = ReportRecipient {
        will_retry_until: Some(1_795_502_539_000 + 3 * 86_400_000),
        ..ReportRecipient::new(mailbox("b@example.net"), Action::Delayed, EnhancedCode(4, 4, 1))
    };
    let text = built(Returned::Header(ORIGINAL), None, &[recipient]);
    assert!(text.contains("Will-Retry-Until: Fri, 27 Nov 2026 06:42:19 +0000\r\n"), "{text}");
    assert!(text.contains("another 3 days"), "{text}");
    assert!(text.contains("Subject: Your message is delayed\r\n"));
}

#[test]
fn addresses_beyond_ascii() {
    let recipients = [ReportRecipient::new(mailbox("δοκιμή@example.net"), Action::Failed, EnhancedCode(5, 1, 1))];
    let text = built(Returned::Message(ORIGINAL), None, &recipients);
    assert!(text.contains("report-type=delivery-status"));
    assert!(text.contains("Final-Recipient: utf-8; \\x{3B4}\\x{3BF}"), "{text}");
    let to = mailbox("ada@example.org");
    let report = Report {
        hostname: "mail.example.org",
        to: &to,
        smtputf8: true,
        now: 0,
        random: 1,
        queue_id: "x",
        arrival: 0,
        received_from: None,
        envid: None,
        ret: None,
        original: Returned::Message("From: δ@example.org\r\n\r\nx\r\n".as_bytes()),
        full_limit: DEFAULT_FULL_LIMIT,
        recipients: &recipients,
    };
    let text = String::from_utf8(build(&report)).unwrap();
    assert!(text.contains("report-type=global-delivery-status"));
    assert!(text.contains("Final-Recipient: utf-8; δοκιμή@example.net\r\n"));
    assert!(text.contains("Content-Type: message/global\r\n"));
}
