//! DATA content: the same outcome however it is cut, and nothing but clean text comes out.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pillarbox_fuzz::{assert_text, seeded, segments};
use pillarbox_smtp::content::{ContentRules, DataDecoder, Decoded};
use pillarbox_smtp::server::{Abort, BareLineEnds, NulPolicy};

#[derive(Debug, PartialEq)]
enum Outcome {
    Message(Vec<u8>, usize),
    Spoilt(Abort, bool),
    Unfinished,
}

fn run(rules: ContentRules, parts: &[&[u8]]) -> Outcome {
    let (mut decoder, mut input, mut content, mut fed) = (DataDecoder::new(rules), BytesMut::new(), Vec::new(), 0);
    for part in parts {
        input.extend_from_slice(part);
        fed += part.len();
        loop {
            match decoder.decode(&mut input) {
                Decoded::NeedInput => break,
                Decoded::Content(octets) => content.extend_from_slice(&octets),
                // Where in the wire the end was, whatever had been read by then.
                Decoded::End => return Outcome::Message(content, fed - input.len()),
                Decoded::Aborted { why, must_close } => return Outcome::Spoilt(why, must_close),
            }
        }
        assert!(input.len() <= part.len() + 3);
    }
    Outcome::Unfinished
}

fuzz_target!(|input: &[u8]| {
    let (choice, rest) = seeded(input);
    let (seed, wire) = seeded(rest);
    let rules = ContentRules {
        max_size: if choice & 1 == 0 { 0 } else { 50 },
        max_line: if choice & 2 == 0 { 200 } else { 10 },
        bare_line_ends: if choice & 4 == 0 { BareLineEnds::Refuse } else { BareLineEnds::Normalise },
        nul: NulPolicy::Refuse,
    };
    let whole = run(rules, &[wire]);
    assert_eq!(run(rules, &segments(wire, seed)), whole);
    assert_eq!(run(rules, &segments(wire, 1)), whole);
    if let Outcome::Message(content, end) = &whole {
        assert_text(content);
        assert!(wire[..*end].ends_with(b".\r\n"));
    }
});
