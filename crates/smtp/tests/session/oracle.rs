//! Our parser of commands against another one's (the `smtp-proto` crate), where both must agree.

use pillarbox_smtp::server::Role;
use proptest::prelude::*;
use smtp_proto::Request;

use crate::driver::{Driver, config};

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
        let mail = format!("MAIL FROM:<{local}@{domain}> SIZE={size}\r\n");
        prop_assert_eq!(ours(&mail), theirs(&mail));
        let rcpt = format!("RCPT TO:<{local}@{domain}> NOTIFY=NEVER\r\n");
        prop_assert_eq!(ours(&rcpt), theirs(&rcpt));
    }
}
