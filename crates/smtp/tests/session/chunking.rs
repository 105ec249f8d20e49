//! RFC 3030: BDAT and BINARYMIME.

use pillarbox_smtp::server::{Abort, Role};

use crate::driver::{Driver, config};

fn open(params: &str) -> Driver {
    let mut driver = Driver::new(config(Role::Mta));
    driver.feed(b"EHLO x\r\n");
    driver.feed(format!("MAIL FROM:<>{params}\r\nRCPT TO:<a@example.org>\r\n").as_bytes());
    driver
}

fn say(driver: &mut Driver, octets: &[u8]) -> String {
    let said = String::from_utf8(driver.feed(octets)).unwrap();
    said.lines().map(|line| &line[..3]).collect::<Vec<_>>().join(" ")
}

#[test]
fn chunks_make_one_message() {
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 5\r\nab\r\ncBDAT 0\r\nBDAT 3 LAST\r\nd\r\n"), "250 250 250");
    assert_eq!(driver.messages, [b"ab\r\ncd\r\n"]);
    assert!(say(&mut driver, b"MAIL FROM:<>\r\n") == "250");
    assert_eq!(driver.saw("DataStart"), 1);
}

#[test]
fn an_empty_last_chunk_ends_the_message() {
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 3\r\na\r\nBDAT 0 LAST\r\n"), "250 250");
    assert_eq!(driver.messages, [b"a\r\n"]);
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 0 LAST\r\n"), "250");
    assert_eq!(driver.messages, [b""]);
}

#[test]
fn dots_mean_nothing_and_the_last_line_is_ended() {
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 8 LAST\r\na\r\n.\r\n..QUIT\r\n"), "250 221");
    assert_eq!(driver.messages, [b"a\r\n.\r\n..\r\n"]);
}

#[test]
fn binary_is_kept_and_cannot_come_by_data() {
    let mut driver = open(" BODY=BINARYMIME");
    assert_eq!(say(&mut driver, b"DATA\r\n"), "503");
    assert_eq!(say(&mut driver, b"BDAT 6 LAST\r\n\0\n\r\xff\rx"), "250");
    assert_eq!(driver.messages, [b"\0\n\r\xff\rx"]);
}

#[test]
fn text_is_held_to_the_rules_of_text() {
    for (chunks, why) in [
        (&b"BDAT 3 LAST\r\na\nb"[..], Abort::BareLineEnd),
        (b"BDAT 2 LAST\r\na\r", Abort::BareLineEnd),
        (b"BDAT 2\r\na\rBDAT 1 LAST\r\nx", Abort::BareLineEnd),
        (b"BDAT 3 LAST\r\na\0b", Abort::Nul),
    ] {
        let mut driver = open("");
        assert!(say(&mut driver, chunks).ends_with("550"), "{chunks:?}");
        assert!(driver.aborted(why) && driver.messages.is_empty() && !driver.closed);
        assert_eq!(say(&mut driver, b"MAIL FROM:<>\r\n"), "250");
    }
    // CR at the end of one chunk, LF at the beginning of the next: a line end like any other.
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 2\r\na\rBDAT 1 LAST\r\n\n"), "250 250");
}

#[test]
fn order() {
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 3\r\na\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nNOOP\r\n"), "250 503 503 503 250");
    assert_eq!(say(&mut driver, b"RSET\r\nBDAT 3 LAST\r\na\r\n"), "250 503");
    assert!(driver.messages.is_empty());
    let mut driver = open("");
    driver.feed(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<unknown@example.org>\r\n");
    assert_eq!(say(&mut driver, b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"), "554 250");
}

#[test]
fn after_a_failure_chunks_are_skipped_until_the_last() {
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 3\r\na\nbBDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\nNOOP\r\n"), "550 503 503 250");
    assert_eq!(driver.saw("MessageAborted"), 1);
    assert_eq!(say(&mut driver, b"MAIL FROM:<>\r\n"), "250");
}

#[test]
fn sizes_that_are_none() {
    let mut driver = open("");
    for size in ["-1", "18446744073709551616", "99999999999999999999999", "x", "", "1 2", "+1"] {
        assert_eq!(say(&mut driver, format!("BDAT {size}\r\n").as_bytes()), "501", "{size}");
    }
    assert!(!driver.closed && driver.saw("DataStart") == 0);
}

#[test]
fn a_chunk_over_the_limit_is_skipped_however_large() {
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 900\r\n"), "");
    assert_eq!(say(&mut driver, &b"x\r\n".repeat(300)), "250");
    assert_eq!(say(&mut driver, b"BDAT 101 LAST\r\n"), "");
    assert_eq!(say(&mut driver, &[b'x'; 101]), "552");
    assert!(driver.aborted(Abort::TooLarge) && driver.messages.is_empty());
    let mut driver = open("");
    assert_eq!(say(&mut driver, b"BDAT 18446744073709551615 LAST\r\n"), "");
    assert_eq!(say(&mut driver, &[b'x'; 100_000]), "");
    assert!(!driver.closed && driver.messages.is_empty());
}
