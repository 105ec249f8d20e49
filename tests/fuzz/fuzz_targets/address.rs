//! Addresses, paths, xtext, dates: what parses prints to something that parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox_smtp::params::{format_date_time, parse_date_time};
use pillarbox_smtp::server::HeloName;
use pillarbox_smtp::{Domain, ForwardPath, LocalPart, Mailbox, ReversePath, printable, xtext};

fuzz_target!(|input: &[u8]| {
    let shown = printable(input);
    assert!(shown.len() <= pillarbox_smtp::MAX_PRINTABLE && !shown.chars().any(char::is_control));
    assert_eq!(xtext::decode(&xtext::encode(input)).as_deref(), Some(input));
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        let printed = mailbox.to_string();
        assert!(!printed.chars().any(char::is_control));
        assert_eq!(printed.parse::<Mailbox>().as_ref(), Ok(&mailbox));
        assert!(mailbox.same_as(&mailbox));
        let _ = (mailbox.key(), mailbox.split_detail("+"));
    }
    if let Ok((path, rest)) = ForwardPath::parse(text) {
        assert!(text.ends_with(rest));
        assert_eq!(ForwardPath::parse(&format!("<{path}>")), Ok((path, "")));
    }
    if let Ok((path, _)) = ReversePath::parse(text) {
        assert_eq!(ReversePath::parse(&format!("<{path}> SIZE=1")), Ok((path, " SIZE=1")));
    }
    if let Ok(domain) = Domain::new(text) {
        assert_eq!(Domain::new(domain.as_str()).as_ref(), Ok(&domain));
        let _ = (domain.to_unicode(), domain.ip());
    }
    if let Ok(local) = LocalPart::new(text) {
        let _ = local.key();
    }
    let _ = HeloName::new(text);
    if let Some(decoded) = xtext::decode_utf8_addr(text) {
        assert_eq!(xtext::decode_utf8_addr(&xtext::encode_utf8_addr(&decoded)), Some(decoded));
    }
    if let Some(unix) = parse_date_time(text) {
        let _ = format_date_time(unix);
    }
});
