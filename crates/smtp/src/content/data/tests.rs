use proptest::prelude::*;

use super::*;

fn rules() -> ContentRules {
    ContentRules { max_size: 0, max_line: 1000, bare_line_ends: BareLineEnds::Refuse, nul: NulPolicy::Refuse }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// Content, what was left over.
    Message(Vec<u8>, Vec<u8>),
    Spoilt(Abort, bool),
    Unfinished,
}

fn run(rules: ContentRules, parts: &[&[u8]]) -> Outcome {
    let (mut decoder, mut input, mut content) = (DataDecoder::new(rules), BytesMut::new(), Vec::new());
    for (at, part) in parts.iter().enumerate() {
        input.extend_from_slice(part);
        loop {
            match decoder.decode(&mut input) {
                Decoded::NeedInput => break,
                Decoded::Content(bytes) => {
                    assert!(!bytes.is_empty());
                    content.extend_from_slice(&bytes);
                }
                Decoded::End => {
                    assert_eq!(decoder.received(), content.len() as u64);
                    input.extend(parts[at + 1..].concat());
                    return Outcome::Message(content, input.to_vec());
                }
                Decoded::Aborted { why, must_close } => return Outcome::Spoilt(why, must_close),
            }
        }
    }
    Outcome::Unfinished
}

/// The same outcome at every split in two and octet by octet.
fn at_every_split(rules: ContentRules, bytes: &[u8]) -> Outcome {
    let whole = run(rules, &[bytes]);
    for cut in 0..=bytes.len() {
        assert_eq!(run(rules, &[&bytes[..cut], &bytes[cut..]]), whole, "{:?} cut at {cut}", bytes.escape_ascii().to_string());
    }
    let octets: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(run(rules, &octets), whole, "{:?} octet by octet", bytes.escape_ascii().to_string());
    whole
}

fn message(content: &[u8], rest: &[u8]) -> Outcome {
    Outcome::Message(content.to_vec(), rest.to_vec())
}

#[test]
fn dots_are_undone_and_what_follows_stays() {
    for (wire, content, rest) in [
        (&b".\r\n"[..], &b""[..], &b""[..]),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n"),
        (b"..a\r\n...\r\n.b\r\n.\r\n.\r\n", b".a\r\n..\r\nb\r\n", b".\r\n"),
        (b"\r\n\r\n.\r\n", b"\r\n\r\n", b""),
        (b"a.\r\n.\r\n", b"a.\r\n", b""),
    ] {
        assert_eq!(at_every_split(rules(), wire), message(content, rest), "{wire:?}");
    }
    assert_eq!(at_every_split(rules(), b"a\r\n."), Outcome::Unfinished);
    assert_eq!(at_every_split(rules(), b"a\r\n.\r"), Outcome::Unfinished);
}

/// Every way that ended a message early on some server (CVE-2023-51764, -51765, -51766, -52354), with a second message behind.
pub(super) const SMUGGLING: [&[u8]; 10] =
    [b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n"];

#[test]
fn smuggled_ends_never_end_a_message() {
    for end in SMUGGLING {
        let wire = [b"Subject: a\r\n\r\nbody", end, b"MAIL FROM:<x@y.example>\r\nDATA\r\nsecond\r\n.\r\n"].concat();
        let outcome = at_every_split(rules(), &wire);
        assert!(matches!(outcome, Outcome::Spoilt(Abort::BareLineEnd | Abort::Nul, _)), "{end:?}: {outcome:?}");
        let normalise = ContentRules { bare_line_ends: BareLineEnds::Normalise, nul: NulPolicy::Accept, ..rules() };
        let Outcome::Message(content, rest) = at_every_split(normalise, &wire) else { panic!("{end:?} must be one message") };
        assert!(rest.is_empty() && content.ends_with(b"second\r\n"), "{end:?}");
        assert_eq!(bare_line_ends(&content), 0, "{end:?}");
    }
}

fn bare_line_ends(content: &[u8]) -> usize {
    let cr = (0..content.len()).filter(|&i| content[i] == b'\r' && content.get(i + 1) != Some(&b'\n')).count();
    let lf = (0..content.len()).filter(|&i| content[i] == b'\n' && (i == 0 || content[i - 1] != b'\r')).count();
    cr + lf
}

#[test]
fn a_client_that_sends_bare_line_ends_hears_of_it_at_its_own_end() {
    assert_eq!(at_every_split(rules(), b"a\nb\n.\n"), Outcome::Spoilt(Abort::BareLineEnd, true));
    assert_eq!(at_every_split(rules(), b"a\rb\r.\rxx"), Outcome::Spoilt(Abort::BareLineEnd, true));
    assert_eq!(at_every_split(rules(), b".\n"), Outcome::Spoilt(Abort::BareLineEnd, true));
    assert_eq!(at_every_split(rules(), b"a\nb\r\n..\r\n.\r\n"), Outcome::Spoilt(Abort::BareLineEnd, true));
    assert_eq!(at_every_split(rules(), b"a\nb"), Outcome::Unfinished);
}

#[test]
fn limits() {
    let small = ContentRules { max_size: 4, ..rules() };
    assert_eq!(at_every_split(small, b"ab\r\n.\r\n"), message(b"ab\r\n", b""));
    assert_eq!(at_every_split(small, b"..b\r\n.\r\nx"), message(b".b\r\n", b"x"));
    assert_eq!(at_every_split(small, b"abc\r\n.\r\n"), Outcome::Spoilt(Abort::TooLarge, false));
    assert_eq!(at_every_split(small, b"abcde\n.\nx\r\n.\r\n"), Outcome::Spoilt(Abort::TooLarge, true));
    assert_eq!(at_every_split(small, b"ab\n\r\n.\r\n"), Outcome::Spoilt(Abort::BareLineEnd, true));
    let narrow = ContentRules { max_line: 3, ..rules() };
    assert_eq!(at_every_split(narrow, b"abc\r\n...c\r\n.\r\n"), message(b"abc\r\n..c\r\n", b""));
    assert_eq!(at_every_split(narrow, b"abcd\r\n.\r\n"), Outcome::Spoilt(Abort::LineTooLong, false));
    assert_eq!(at_every_split(rules(), b"a\0b\0\r\n.\r\n"), Outcome::Spoilt(Abort::Nul, false));
    let lenient = ContentRules { nul: NulPolicy::Accept, ..rules() };
    assert_eq!(at_every_split(lenient, b"a\0b\r\n.\r\n"), message(b"a\0b\r\n", b""));
}

fn any_rules() -> impl Strategy<Value = ContentRules> {
    (prop_oneof![Just(0u64), 1u64..20], 1usize..8, any::<bool>(), any::<bool>()).prop_map(|(max_size, max_line, normalise, nul)| {
        ContentRules {
            max_size,
            max_line,
            bare_line_ends: if normalise { BareLineEnds::Normalise } else { BareLineEnds::Refuse },
            nul: if nul { NulPolicy::Refuse } else { NulPolicy::Accept },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn every_split_gives_the_same(text in "((a|b){0,3}(\r\n|\r\n|\r\n|\r|\n|\0|\\.|\r\n\\.|\r\n\\.\r\n)){0,6}", rules in any_rules(), cuts in proptest::collection::vec(0usize..40, 0..5)) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        let whole = run(rules, &[bytes]);
        prop_assert_eq!(run(rules, &parts), whole.clone());
        if let Outcome::Message(content, _) = whole {
            prop_assert_eq!(bare_line_ends(&content), 0);
            prop_assert!(content.is_empty() || content.ends_with(b"\r\n"));
        }
    }

    #[test]
    fn what_a_client_sends_arrives(body in "((\\.|a|é){0,4}\r\n){0,6}", follow in "[A-Z\r\n]{0,9}") {
        let mut wire = BytesMut::new();
        let mut stuffer = crate::client::DotStuffer::new();
        stuffer.encode(body.as_bytes(), &mut wire);
        stuffer.finish(&mut wire);
        wire.extend_from_slice(follow.as_bytes());
        prop_assert_eq!(run(rules(), &[&wire]), message(body.as_bytes(), follow.as_bytes()));
    }
}
