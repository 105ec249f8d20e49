//! BDAT content, and BDAT commands with what follows them, in a session.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pillarbox_fuzz::{Driver, assert_text, seeded, segments};
use pillarbox_smtp::content::{ChunkCheck, ContentRules};
use pillarbox_smtp::server::{Abort, BareLineEnds, NulPolicy, Role};

fn run(rules: ContentRules, binary: bool, parts: &[&[u8]]) -> Result<Vec<u8>, Abort> {
    let mut check = ChunkCheck::new(rules, binary);
    let mut out = Vec::new();
    for part in parts {
        out.extend(check.take(Bytes::copy_from_slice(part)).unwrap_or_default());
    }
    out.extend(check.finish()?.unwrap_or_default());
    Ok(out)
}

fuzz_target!(|input: &[u8]| {
    let (choice, rest) = seeded(input);
    let (seed, octets) = seeded(rest);
    let rules = ContentRules {
        max_size: 0,
        max_line: 200,
        bare_line_ends: if choice & 1 == 0 { BareLineEnds::Refuse } else { BareLineEnds::Normalise },
        nul: NulPolicy::Refuse,
    };
    let binary = choice & 2 != 0;
    let whole = run(rules, binary, &[octets]);
    assert_eq!(run(rules, binary, &segments(octets, seed)), whole);
    match whole {
        Ok(content) if binary => assert_eq!(content, octets),
        Ok(content) => assert_text(&content),
        Err(_) => assert!(!binary),
    }
    // The same octets as commands: `BDAT n` and chunks, however wrong.
    let mut driver = Driver::new(Role::Mta);
    driver.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nBDAT 3\r\na\r\nBDAT ");
    segments(octets, seed).into_iter().for_each(|segment| driver.feed(segment));
});
