//! Replies of servers, the EHLO reply among them: the same however they are cut, printable, and stable when written again.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pillarbox_fuzz::{seeded, segments};
use pillarbox_smtp::client::Capabilities;
use pillarbox_smtp::{Reply, ReplyError, ReplyParser};

fn run(parts: &[&[u8]]) -> (Vec<Reply>, Option<ReplyError>) {
    let (mut parser, mut input, mut replies) = (ReplyParser::new(), BytesMut::new(), Vec::new());
    for part in parts {
        input.extend_from_slice(part);
        loop {
            match parser.parse(&mut input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

fuzz_target!(|input: &[u8]| {
    let (seed, wire) = seeded(input);
    let whole = run(&[wire]);
    assert_eq!(run(&segments(wire, seed)), whole);
    for reply in whole.0 {
        assert!(reply.lines.iter().all(|line| !line.chars().any(char::is_control)));
        let _ = (Capabilities::parse(&reply), reply.to_string(), reply.status());
        let mut out = BytesMut::new();
        reply.write_to(&mut out);
        let (again, error) = run(&[&out]);
        assert_eq!((again.len(), error), (1, None));
        assert_eq!(again[0].code, reply.code);
    }
});
