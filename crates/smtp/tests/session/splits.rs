//! However the octets are cut into segments, the session says and does the same.

use pillarbox_smtp::server::{BareLineEnds, Role};
use proptest::prelude::*;

use crate::driver::{Driver, config};

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    said: String,
    events: Vec<String>,
    messages: Vec<Vec<u8>>,
    closed: bool,
}

/// Turns: what the client sends before it waits for an answer (after DATA and in AUTH it must wait, whatever the segments).
fn run(role: Role, normalise: bool, turns: &[Vec<u8>], cuts: &[usize]) -> Outcome {
    let mut config = config(role);
    if normalise {
        config.bare_line_ends = BareLineEnds::Normalise;
    }
    let mut driver = Driver::new(config);
    for turn in turns {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (turn.len() + 1)).chain([0, turn.len()]).collect();
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            driver.feed(&turn[pair[0]..pair[1]]);
        }
    }
    Outcome { said: String::from_utf8(driver.said).unwrap(), events: driver.events, messages: driver.messages, closed: driver.closed }
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let fixed = [
        "EHLO x\r\n",
        "HELO y\r\n",
        "LHLO z\r\n",
        "MAIL FROM:<a@b.example>\r\n",
        "MAIL FROM:<a@b.example> BODY=BINARYMIME SIZE=20\r\n",
        "RCPT TO:<a@example.org>\r\n",
        "RCPT TO:<unknown@example.org> NOTIFY=NEVER\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "VRFY a\r\n",
        "BLORT\n",
        "QUIT\r\n",
        "MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\n",
        "AUTH LOGIN YW5u\r\nYW5u\r\n",
        "AUTH PLAIN AGFubkBleGFtcGxlLm9yZwBzZWNyZXQ=\r\n",
        "GET / HTTP/1.0\r\n",
        "\r\n",
        "\0\r\n",
    ];
    let chunk = (proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'\r'), Just(b'\n'), Just(b'.')], 0..12), any::<bool>())
        .prop_map(|(octets, last)| [format!("BDAT {}{}\r\n", octets.len(), if last { " LAST" } else { "" }).as_bytes(), &octets].concat());
    prop_oneof![4 => proptest::sample::select(fixed.to_vec()).prop_map(|s| s.as_bytes().to_vec()), 1 => chunk]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    "((a|b){0,3}(\r\n|\r\n|\r\n|\r\n|\r|\n|\0|\\.|\r\n\\.)){0,8}".prop_map(|body| [body.as_bytes(), b"\r\n.\r\n"].concat())
}

fn turns() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let group = proptest::collection::vec(command(), 1..6).prop_map(|commands| vec![commands.concat()]);
    let message = (body(), proptest::collection::vec(command(), 0..3))
        .prop_map(|(body, after)| vec![b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n".to_vec(), [body, after.concat()].concat()]);
    let starttls = Just(vec![b"STARTTLS\r\n".to_vec()]);
    let hello = Just(vec![b"EHLO x\r\nLHLO x\r\n".to_vec()]);
    proptest::collection::vec(prop_oneof![3 => group, 3 => message, 1 => starttls, 2 => hello], 1..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn any_split_gives_the_same_session(
        turns in turns(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        role in proptest::sample::select(vec![Role::Mta, Role::Submission, Role::SubmissionTls, Role::Lmtp]),
        normalise in any::<bool>(),
    ) {
        prop_assert_eq!(run(role, normalise, &turns, &[]), run(role, normalise, &turns, &cuts));
    }

    #[test]
    fn any_octets_are_survived_and_answered_in_printable_lines(
        octets in proptest::collection::vec(any::<u8>(), 0..300),
        role in proptest::sample::select(vec![Role::Mta, Role::SubmissionTls, Role::Lmtp]),
    ) {
        let mut driver = Driver::new(config(role));
        driver.feed(&octets);
        driver.feed(b"\r\n");
        prop_assert!(driver.said.ends_with(b"\r\n"));
        prop_assert!(driver.said.iter().all(|b| (b' '..=b'~').contains(b) || b"\r\n".contains(b)));
    }
}

#[test]
fn octet_by_octet_a_whole_session() {
    let turns: Vec<Vec<u8>> = [
        &b"EHLO client.example\r\nMAIL FROM:<a@b.example> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<a@example.org>\r\nDATA\r\n"[..],
        b"Subject: x\r\n\r\n..dots\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nBDAT 4\r\nab\r\nBDAT 0 LAST\r\nQUIT\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let every: Vec<usize> = (0..200).collect();
    let whole = run(Role::Mta, false, &turns, &[]);
    assert_eq!(whole.messages.len(), 2);
    assert_eq!(run(Role::Mta, false, &turns, &every), whole);
}
