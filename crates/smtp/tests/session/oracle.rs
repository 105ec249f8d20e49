//! Our commands and replies against another one's (the `smtp-proto` crate), where both must agree.

use bytes::BytesMut;
use pillarbox_smtp::client::Capabilities;
use pillarbox_smtp::server::Role;
use pillarbox_smtp::{ReplyParser, Severity};
use proptest::prelude::*;
use smtp_proto::{EhloResponse, Request, response::parser::ResponseReceiver};

use crate::driver::{Driver, config, has_rule};

/// Paths as the other crate reads them.
fn theirs(line: &str) -> Option<String> {
    let mut octets = line.as_bytes().iter();
    match Request::parse(&mut octets).ok()? {
        Request::Mail { from } => Some(from.address.to_string()),
        Request::Rcpt { to } => Some(to.address.to_string()),
        _ => None,
    }
}

fn ours(line: &str) -> Option<String> {
    let mut driver = Driver::new(config(Role::Mta));
    driver.feed(b"EHLO x\r\n");
    if line.starts_with("RCPT") {
        driver.feed(b"MAIL FROM:<> SMTPUTF8\r\n");
    }
    driver.events.clear();
    driver.feed(line.as_bytes());
    let transaction = driver.session.transaction();
    if line.starts_with("RCPT") {
        transaction.recipients.first().map(|(path, _)| path.to_string())
    } else {
        transaction.from.as_ref().map(ToString::to_string)
    }
}

#[test]
fn known_paths() {
    for line in [
        "MAIL FROM:<>\r\n",
        "MAIL FROM:<bob@example.org>\r\n",
        "MAIL FROM:<bob@example.org> BODY=8BITMIME SIZE=12\r\n",
        "MAIL FROM:<bob@example.org> RET=FULL ENVID=abc\r\n",
        "RCPT TO:<bob+x@example.org>\r\n",
        "RCPT TO:<a.b@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.org\r\n",
    ] {
        assert_eq!(ours(line), theirs(line), "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn ordinary_addresses_are_read_alike(local in "[a-z0-9]{1,8}([.+_-][a-z0-9]{1,5}){0,2}", domain in "[a-z]{1,8}(\\.[a-z]{2,6}){1,2}", size in 0u64..1000) {
        let address = format!("{local}@{domain}");
        // The driver refuses some, whichever way they are read.
        prop_assume!(!has_rule(&address));
        let mail = format!("MAIL FROM:<{address}> SIZE={size}\r\n");
        prop_assert_eq!(ours(&mail), theirs(&mail));
        let rcpt = format!("RCPT TO:<{address}> NOTIFY=NEVER\r\n");
        prop_assert_eq!(ours(&rcpt), theirs(&rcpt));
    }
}

#[test]
fn our_ehlo_reply_says_the_same_to_both() {
    for role in [Role::Mta, Role::Submission, Role::SubmissionTls] {
        let mut driver = Driver::new(config(role));
        let said = driver.feed(b"EHLO x\r\n");
        let theirs = EhloResponse::parse(&mut said.iter()).unwrap();
        let reply = ReplyParser::new().parse(&mut BytesMut::from(said.as_slice())).unwrap().unwrap();
        let ours = Capabilities::parse(&reply);
        assert_eq!((theirs.hostname.as_str(), Some(theirs.size as u64)), (ours.name.as_str(), ours.max_size));
        for (bit, offered) in [
            (smtp_proto::EXT_8BIT_MIME, ours.eight_bit_mime),
            (smtp_proto::EXT_AUTH, !ours.auth.is_empty()),
            (smtp_proto::EXT_BINARY_MIME, ours.binary_mime),
            (smtp_proto::EXT_CHUNKING, ours.chunking),
            (smtp_proto::EXT_DELIVER_BY, ours.deliver_by.is_some()),
            (smtp_proto::EXT_DSN, ours.dsn),
            (smtp_proto::EXT_ENHANCED_STATUS_CODES, ours.enhanced_status_codes),
            (smtp_proto::EXT_FUTURE_RELEASE, ours.future_release.is_some()),
            (smtp_proto::EXT_MT_PRIORITY, ours.mt_priority.is_some()),
            (smtp_proto::EXT_PIPELINING, ours.pipelining),
            (smtp_proto::EXT_REQUIRE_TLS, ours.require_tls),
            (smtp_proto::EXT_SMTP_UTF8, ours.smtputf8),
            (smtp_proto::EXT_START_TLS, ours.starttls),
        ] {
            assert_eq!(theirs.has_capability(bit), offered, "{role:?} {bit}");
        }
        if let Some(seconds) = ours.future_release {
            assert_eq!(theirs.future_release_interval, seconds);
        }
    }
}

proptest! {
    #[test]
    fn replies_are_read_alike(first in 2u16..6, rest in 0u16..60, lines in proptest::collection::vec("[a-zA-Z][a-zA-Z ,]{0,30}[a-z]", 1..4)) {
        let code = first * 100 + rest;
        prop_assume!(code != 250);
        let wire: String = lines.iter().enumerate().map(|(at, line)| format!("{code}{}{line}\r\n", if at + 1 == lines.len() { ' ' } else { '-' })).collect();
        let theirs = ResponseReceiver::default().parse(&mut wire.as_bytes().iter()).unwrap();
        let ours = ReplyParser::new().parse(&mut BytesMut::from(wire.as_str())).unwrap().unwrap();
        prop_assert_eq!((ours.code, ours.is_positive()), (theirs.code(), theirs.is_positive_completion()));
        prop_assert_eq!(ours.severity() == Severity::Permanent, theirs.severity() == smtp_proto::Severity::PermanentNegativeCompletion);
    }
}
