//! Messages: the header section, address lists, submission fix-ups, down-conversion, line ends.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use pillarbox_message::downgrade::{Hop, convert, has_8bit, needs};
use pillarbox_message::header::{self, Limits};
use pillarbox_message::submission::{Submission, fix_up};
use pillarbox_message::{address_list, lines, trace};

fuzz_target!(|message: &[u8]| {
    let limits = Limits { octets: 4000, fields: 40 };
    let mut fields = header::fields_within(message, limits);
    let mut at = 0;
    for field in fields.by_ref() {
        assert_eq!((field.range.start, field.raw), (at, &message[field.range.clone()]));
        at = field.range.end;
        let _ = (field.text(), address_list::parse(field.value), address_list::mailboxes(field.value));
    }
    assert_eq!(fields.offset(), at);
    assert!(header::summary(message, limits).fields <= limits.fields);
    let split = header::split(message);
    assert!(split.header <= split.body && split.body <= message.len());
    let _ = (header::decoded(message, "Subject"), header::message_id(message), trace::hops(message), needs(message));
    let _ = trace::own_hops(message, "mail.example.org");
    let dropped = header::ranges_of(message, |field| field.is("Bcc"));
    let left: usize = header::without(message, &dropped).iter().map(|slice| slice.len()).sum();
    assert_eq!(left + dropped.iter().map(|range| range.len()).sum::<usize>(), message.len());
    if let (Ok(user), Ok(sender)) = ("ann@example.org".parse(), "ann@example.org".parse()) {
        let submission =
            Submission { sender: &sender, user: Some(&user), user_name: "Ann", hostname: "mail.example.org", now: 0, random: 7, limits };
        if let Ok(fixed) = fix_up(message, &submission) {
            let _ = header::without(message, &fixed.remove);
        }
    }
    for (eight_bit, utf8_header) in [(false, false), (true, false), (true, true)] {
        if let Ok(converted) = convert(message, Hop { eight_bit, utf8_header, short_lines: true }) {
            assert!(eight_bit || !has_8bit(&converted), "8-bit content for a 7-bit hop");
            if let Cow::Owned(text) = &converted {
                assert!(!text.contains(&0));
                let bare = text.iter().enumerate().any(|(i, b)| *b == b'\n' && (i == 0 || text[i - 1] != b'\r'));
                assert!(!bare, "a bare LF in what is sent");
            }
        }
    }
    let (crlf, lf) = (lines::to_crlf(message), lines::crlf_to_lf(message));
    assert_eq!(lines::to_crlf(&crlf), crlf);
    let _ = (lines::crlf_to_lf(&lf), lines::sizes(message));
});
