//! What a client may not do forever.

use pillarbox_smtp::server::Role;

use crate::driver::{Driver, config, dialog};

#[test]
fn errors() {
    let mut few = config(Role::Mta);
    few.limits.protocol_errors = 2;
    dialog(few, "C: A\nC: B\nC: C\nC: NOOP\nS: 500 5.5.1 *\nS: 500 5.5.1 *\nS: 421 4.7.0 Too many errors*\nX");
}

#[test]
fn idle_commands() {
    let mut driver = Driver::new(config(Role::Mta));
    let mut count = 0;
    while !driver.closed && count < 1000 {
        driver.feed(b"NOOP\r\n");
        count += 1;
    }
    assert_eq!(count, 111, "a hundred are free, ten more count as errors, the next one closes");
    assert!(driver.said.ends_with(b"421 4.7.0 Too many errors; closing connection\r\n"));
}

#[test]
fn recipients() {
    let mut driver = Driver::new(config(Role::Mta));
    driver.feed(b"HELO x\r\nMAIL FROM:<>\r\n");
    let said = String::from_utf8(driver.feed(&b"RCPT TO:<a@example.org>\r\n".repeat(5))).unwrap();
    let codes: Vec<&str> = said.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "452", "452"]);
    assert!(!driver.closed);
}

#[test]
fn refused_recipients() {
    let mut driver = Driver::new(config(Role::Mta));
    driver.feed(b"HELO x\r\nMAIL FROM:<>\r\n");
    driver.feed(&b"RCPT TO:<unknown@example.org>\r\n".repeat(300));
    assert!(driver.closed);
    assert_eq!(driver.saw("Rcpt"), 101);
    assert!(driver.said.ends_with(b"421 Too many refused recipients in one session; closing connection\r\n"));
}

#[test]
fn transactions() {
    let mut one = config(Role::Mta);
    one.limits.transactions = Some(1);
    let mut driver = Driver::new(one);
    assert!(driver.feed(b"EHLO x\r\n").ends_with(b"250 LIMITS RCPTMAX=3 MAILMAX=1\r\n"));
    driver.feed(b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n");
    driver.feed(b".\r\n");
    assert!(driver.feed(b"MAIL FROM:<>\r\n").starts_with(b"421 4.7.0 ") && driver.closed);
}

#[test]
fn an_endless_line_takes_no_memory() {
    let mut driver = Driver::new(config(Role::Mta));
    for _ in 0..100 {
        assert_eq!(driver.feed(&[b'x'; 10_000]), b"");
    }
    assert!(driver.feed(b"\r\nNOOP\r\n").starts_with(b"500 5.5.2 The command line is too long\r\n250 "));
}

#[test]
fn control_characters_in_commands() {
    for line in [&b"NOOP\0\r\n"[..], b"NO\x1b[2JOP\r\n", b"HELO a\x07b\r\n", b"NOOP \xff\xfe\r\n", b"MAIL FROM:<a\rb@c.example>\r\n"] {
        let mut driver = Driver::new(config(Role::Mta));
        let said = driver.feed(line);
        assert!(said.starts_with(b"500 5.5.2 "), "{line:?}");
        assert!(said.iter().all(|b| (b' '..=b'~').contains(b) || b"\r\n".contains(b)));
    }
}

#[test]
fn helo_names() {
    for (name, ok) in
        [("client.example", true), ("[192.0.2.1]", true), ("[IPv6:::1]", true), ("under_score", true), ("a;b", true), ("\u{202e}x", false)]
    {
        let mut driver = Driver::new(config(Role::Mta));
        let said = driver.feed(format!("HELO {name}\r\n").as_bytes());
        assert_eq!(said.starts_with(b"250"), ok, "{name}");
    }
    let mut driver = Driver::new(config(Role::Mta));
    assert!(driver.feed(format!("HELO {}\r\n", "a".repeat(256)).as_bytes()).starts_with(b"501"));
}

#[test]
fn what_follows_a_refused_mail_in_a_group_is_no_fault() {
    let mut driver = Driver::new(config(Role::Mta));
    driver.feed(b"EHLO x\r\n");
    let group = [b"MAIL FROM:<banned@b.example>\r\n", b"RCPT TO:<a@example.org>\r\n".repeat(50).as_slice(), b"DATA\r\n"].concat();
    let said = String::from_utf8(driver.feed(&group)).unwrap();
    assert!(!driver.closed && said.lines().count() == 52 && said.lines().skip(1).all(|line| line.starts_with("503 5.5.1 ")));
    // And so with chunks behind a refused message.
    let mut driver = Driver::new(config(Role::Mta));
    driver.feed(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n");
    let said = String::from_utf8(driver.feed(&[b"BDAT 2\r\n\n\n".repeat(40).as_slice(), b"BDAT 0 LAST\r\n"].concat())).unwrap();
    assert!(!driver.closed && said.starts_with("550 ") && said.lines().skip(1).all(|line| line.starts_with("503 ")));
}

#[test]
fn a_list_with_dead_members_gets_through() {
    let mut many = config(Role::Mta);
    many.limits.recipients = 1000;
    let mut driver = Driver::new(many);
    driver.feed(b"HELO x\r\nMAIL FROM:<>\r\n");
    driver.feed(&b"RCPT TO:<unknown@example.org>\r\nRCPT TO:<a@example.org>\r\n".repeat(300));
    assert!(!driver.closed);
    assert_eq!(driver.session.transaction().recipients.len(), 300);
}

#[test]
fn knocking_without_tls_ends_too() {
    let mut driver = Driver::new(config(Role::Submission));
    driver.feed(b"EHLO x\r\n");
    driver.feed(&b"MAIL FROM:<a@b.example>\r\n".repeat(200));
    assert!(driver.closed && driver.saw("Mail {") == 0);
}

/// Ten thousand idle connections must not weigh: what a session holds besides its buffers is bounded.
#[test]
fn a_session_is_small() {
    assert!(size_of::<pillarbox_smtp::server::ServerSession>() <= 1024, "{}", size_of::<pillarbox_smtp::server::ServerSession>());
}
