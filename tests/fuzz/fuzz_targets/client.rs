//! What we send: whatever a body holds, the next hop reads one message with the same lines, by DATA and by BDAT.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pillarbox_fuzz::{seeded, segments};
use pillarbox_smtp::client::{DotStuffer, LineEnds};
use pillarbox_smtp::content::{ContentRules, DataDecoder, Decoded};
use pillarbox_smtp::server::{BareLineEnds, NulPolicy};

fuzz_target!(|input: &[u8]| {
    let (seed, body) = seeded(input);
    let (mut plain, mut wire) = (BytesMut::new(), BytesMut::new());
    let (mut ends, mut stuffer) = (LineEnds::new(), DotStuffer::new());
    for part in segments(body, seed) {
        ends.encode(part, &mut plain);
        stuffer.encode(part, &mut wire);
    }
    ends.finish(&mut plain);
    stuffer.finish(&mut wire);
    let rules = ContentRules { max_size: 0, max_line: usize::MAX, bare_line_ends: BareLineEnds::Refuse, nul: NulPolicy::Accept };
    let (mut decoder, mut read) = (DataDecoder::new(rules), Vec::new());
    loop {
        match decoder.decode(&mut wire) {
            Decoded::Content(octets) => read.extend_from_slice(&octets),
            Decoded::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(wire.is_empty(), "something is left behind the end");
    assert_eq!(read, plain);
    let letters = |octets: &[u8]| octets.iter().copied().filter(|b| !b"\r\n".contains(b)).collect::<Vec<u8>>();
    assert_eq!(letters(&read), letters(body));
});
