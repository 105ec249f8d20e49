//! SMTP smuggling (CVE-2023-51764, -51765, -51766, -52354) and unauthorised pipelining: no input yields a message that was not sent.

use pillarbox_smtp::server::{Abort, BareLineEnds, NulPolicy, Role, ServerConfig};

use crate::driver::{Driver, config};

const ENDS: [&[u8]; 10] =
    [b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n"];

const SECOND: &[u8] = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nsecond\r\n.\r\nQUIT\r\n";

fn open(config: ServerConfig) -> Driver {
    let mut driver = Driver::new(config);
    driver.feed(b"EHLO x\r\n");
    driver.feed(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n");
    driver
}

#[test]
fn no_false_end_makes_a_second_message_at_any_split() {
    for end in ENDS {
        let wire = [b"Subject: one\r\n\r\nbody", end, SECOND].concat();
        for cut in 0..=wire.len() {
            let mut driver = open(config(Role::Mta));
            let said = [driver.feed(&wire[..cut]), driver.feed(&wire[cut..])].concat();
            assert_eq!(driver.saw("Mail {"), 1, "{end:?} cut at {cut}");
            assert!(driver.messages.is_empty(), "{end:?} cut at {cut}");
            assert!(said.starts_with(b"550 5."), "{end:?} cut at {cut}: {}", String::from_utf8_lossy(&said));
            assert!(driver.aborted(Abort::BareLineEnd) || driver.aborted(Abort::Nul));
        }
    }
}

#[test]
fn after_a_bare_line_end_the_session_is_over() {
    for end in ENDS.iter().filter(|end| !end.contains(&0)) {
        let mut driver = open(config(Role::Mta));
        driver.feed(&[b"body", *end, SECOND].concat());
        assert!(driver.closed, "{end:?}");
    }
}

#[test]
fn normalised_it_is_one_message() {
    for end in ENDS {
        let mut lenient = config(Role::Mta);
        (lenient.bare_line_ends, lenient.nul) = (BareLineEnds::Normalise, NulPolicy::Accept);
        let mut driver = open(lenient);
        driver.feed(&[b"body", end, SECOND].concat());
        assert_eq!((driver.messages.len(), driver.saw("Mail {")), (1, 1), "{end:?}");
        assert!(driver.messages[0].ends_with(b"second\r\n"));
    }
}

#[test]
fn octets_behind_data_before_354_end_the_session() {
    for behind in ["Subject: x\r\n\r\nbody\r\n.\r\n", "MAIL FROM:<evil@b.example>\r\n", "\r\n", "x"] {
        let mut driver = Driver::new(config(Role::Mta));
        driver.feed(b"HELO x\r\n");
        let said = driver.feed(format!("MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n{behind}").as_bytes());
        assert!(
            said.ends_with(b"503 Wait for 354 before sending the message; closing connection\r\n"),
            "{}",
            String::from_utf8_lossy(&said)
        );
        assert!(driver.closed && driver.messages.is_empty() && driver.saw("Mail {") == 1);
    }
}

/// The driver decided on 354, and before it was written more had come.
#[test]
fn octets_that_overtake_354_end_the_session() {
    use bytes::BytesMut;
    use pillarbox_smtp::replies;
    use pillarbox_smtp::server::{Event, ServerSession, Step};

    let mut session = ServerSession::new(std::sync::Arc::new(config(Role::Mta)));
    let mut input = BytesMut::from(&b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n"[..]);
    loop {
        match session.poll(&mut input) {
            Step::Event(Event::Helo { .. }) => session.accept_helo(),
            Step::Event(Event::DataStart) => break,
            Step::Event(event) if event.wants_reply() => session.reply(replies::ok()),
            step => panic!("{step:?}"),
        }
    }
    session.reply(replies::start_input());
    input.extend_from_slice(b"early\r\n.\r\n");
    assert_eq!(session.poll(&mut input), Step::Event(Event::MessageAborted { why: Abort::EarlyData }));
    assert_eq!(session.poll(&mut input), Step::Closed);
    assert!(session.output().ends_with(b"503 Wait for 354 before sending the message; closing connection\r\n"));
}

#[test]
fn bare_line_feeds_between_commands_are_taken_and_only_there() {
    let mut driver = Driver::new(config(Role::Mta));
    driver.feed(b"HELO x\nMAIL FROM:<>\nRCPT TO:<a@example.org>\nDATA\n");
    assert!(driver.said.ends_with(b"354 Send the message, then a line with a single dot\r\n"));
    assert!(driver.feed(b"hello\n.\n").starts_with(b"550 "));
    assert!(driver.closed && driver.messages.is_empty());
}
