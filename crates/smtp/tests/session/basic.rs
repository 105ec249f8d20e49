//! RFC 5321: the commands and their order.

use pillarbox_smtp::server::{Event, Role};

use crate::driver::{config, dialog};

#[test]
fn the_textbook_dialogue() {
    let driver = dialog(
        config(Role::Mta),
        "S: 220 mail.example.org ESMTP Pillarbox
         C: HELO client.example
         S: 250 mail.example.org
         C: MAIL FROM:<smith@client.example>
         S: 250 Sender accepted
         C: RCPT TO:<jones@example.org>
         S: 250 Recipient accepted
         C: DATA
         S: 354 *
         C: Subject: x
         C:
         C: ..dot
         C: .
         S: 250 Accepted as id
         C: QUIT
         S: 221 mail.example.org closing connection
         X",
    );
    assert_eq!(driver.messages, [b"Subject: x\r\n\r\n.dot\r\n"]);
    assert_eq!(driver.events.last().map(String::as_str), Some("Quit"));
}

#[test]
fn ehlo_offers_and_codes_are_enhanced() {
    dialog(
        config(Role::Mta),
        "C: EHLO client.example
         S: 250-mail.example.org
         S: 250-SIZE 1000
         S: 250-PIPELINING
         S: 250-8BITMIME
         S: 250-SMTPUTF8
         S: 250-CHUNKING
         S: 250-BINARYMIME
         S: 250-DSN
         S: 250-ENHANCEDSTATUSCODES
         S: 250-STARTTLS
         S: 250 LIMITS RCPTMAX=3
         C: MAIL FROM:<>
         S: 250 2.1.0 Sender accepted
         C: RCPT TO:<unknown@example.org>
         S: 550 5.1.1 <unknown@example.org>: no such user here
         C: RCPT TO:<Postmaster>
         S: 250 2.1.5 Recipient accepted
         C: RSET
         S: 250 2.0.0 Ok
         C: NOOP with words
         S: 250 2.0.0 Ok
         C: VRFY jones
         S: 252 2.0.0 *
         C: EXPN list
         S: 502 5.5.1 *
         C: HELP
         S: 214-2.0.0 This is the mail server mail.example.org
         S: 214-2.0.0 Commands: EHLO HELO STARTTLS MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT
         S: 214 2.0.0 Questions go to postmaster@mail.example.org",
    );
}

#[test]
fn helo_clients_get_single_lines_without_codes() {
    dialog(
        config(Role::Mta),
        "C: HELO client.example
         S: 250 mail.example.org
         C: HELP
         S: 214 This is the mail server mail.example.org; Commands: *
         C: MAIL FROM:<a@client.example> SIZE=10
         S: 555 A parameter *
         C: BLORT
         S: 500 Unknown command*",
    );
}

#[test]
fn order() {
    dialog(
        config(Role::Mta),
        "C: MAIL FROM:<a@b.example>
         S: 503 5.5.1 Say EHLO first
         C: EHLO
         S: 501 5.5.4 Syntax: EHLO hostname
         C: EHLO two words
         S: 501 5.5.4 *
         C: HELO x
         S: 250 mail.example.org
         C: RCPT TO:<a@example.org>
         S: 503 Say MAIL first
         C: DATA
         S: 503 Say MAIL first
         C: MAIL FROM:<a@b.example>
         S: 250 *
         C: MAIL FROM:<a@b.example>
         S: 503 A transaction is open already*
         C: DATA
         S: 503 Say RCPT first
         C: RCPT TO:<unknown@example.org>
         S: 550 *
         C: DATA
         S: 554 No valid recipients
         C: RCPT TO:<a@example.org>
         S: 250 *
         C: RSET
         S: 250 *
         C: DATA
         S: 503 Say MAIL first
         C: LHLO x
         S: 500 This is SMTP*
         C: MAIL FROM:<banned@b.example>
         S: 550 No
         C: RCPT TO:<a@example.org>
         S: 503 *",
    );
}

#[test]
fn ehlo_in_the_middle_resets() {
    let driver = dialog(
        config(Role::Mta),
        "C: HELO x
         S: 250 *
         C: MAIL FROM:<a@b.example>
         S: 250 *
         C: HELO y
         S: 250 *
         C: RCPT TO:<a@example.org>
         S: 503 *",
    );
    assert_eq!(driver.saw("Reset"), 1);
    assert_eq!(driver.session.transaction().helo.as_ref().unwrap().as_str(), "y");
}

#[test]
fn a_pipelined_group_is_answered_in_order_and_at_once() {
    let driver = dialog(
        config(Role::Mta),
        "C: HELO x
         S: 250 *
         C: MAIL FROM:<a@b.example>
         C: RCPT TO:<a@example.org>
         C: RCPT TO:<unknown@example.org>
         C: RCPT TO:<full@example.org>
         C: DATA
         S: 250 Sender accepted
         S: 250 Recipient accepted
         S: 550 *
         S: 452 *
         S: 354 *
         C: x
         C: .
         C: MAIL FROM:<b@b.example>
         C: RCPT TO:<unknown@example.org>
         C: DATA
         C: RSET
         C: QUIT
         S: 250 Accepted as id
         S: 250 Sender accepted
         S: 550 *
         S: 554 No valid recipients
         S: 250 Ok
         S: 221 *
         X",
    );
    assert_eq!(driver.messages.len(), 1);
}

#[test]
fn syntax() {
    dialog(
        config(Role::Mta),
        "C: EHLO x
         S: 250-mail.example.org
         S: 250-SIZE 1000
         S: 250-PIPELINING
         S: 250-8BITMIME
         S: 250-SMTPUTF8
         S: 250-CHUNKING
         S: 250-BINARYMIME
         S: 250-DSN
         S: 250-ENHANCEDSTATUSCODES
         S: 250-STARTTLS
         S: 250 LIMITS RCPTMAX=3
         C: MAIL FROM:a@b.example
         S: 250 2.1.0 *
         C: RCPT TO:bob
         S: 501 5.1.3 *
         C: RCPT TO:<@a.example,@b.example:bob@example.org>
         S: 250 2.1.5 *
         C: RSET
         S: 250 2.0.0 *
         C: MAIL FROM:<bob>
         S: 501 5.1.7 *
         C: MAIL FROM:<a@b.example> FOO=bar
         S: 555 5.5.4 *
         C: MAIL FROM:<a@b.example> SIZE=x
         S: 501 5.5.4 *
         C: MAIL <a@b.example>
         S: 501 5.5.4 Syntax: MAIL FROM:<address>
         C: QUIT now
         S: 501 5.5.4 QUIT takes no argument
         C: ETRN example.org
         S: 502 5.5.1 *",
    );
}

#[test]
fn a_refused_message_leaves_a_usable_session() {
    let driver = dialog(
        config(Role::Mta),
        "C: HELO x
         S: 250 *
         C: MAIL FROM:<a@b.example>
         C: RCPT TO:<a@example.org>
         C: DATA
         S: 250 *
         S: 250 *
         S: 354 *
         C: REFUSE
         C: .
         S: 554 Content refused
         C: MAIL FROM:<a@b.example>
         C: RCPT TO:<a@example.org>
         C: DATA
         S: 250 *
         S: 250 *
         S: 354 *
         C: fine
         C: .
         S: 250 Accepted as id",
    );
    assert_eq!(driver.messages.len(), 2);
}

#[test]
fn http_is_turned_away_and_what_it_posts_is_not_read() {
    let driver = dialog(
        config(Role::Mta),
        "C: POST / HTTP/1.1
         C: Host: mail.example.org
         C: EHLO x
         C: MAIL FROM:<a@b.example>
         S: 554 5.5.0 This is a mail server, not a web server*
         X",
    );
    assert_eq!(driver.saw("Helo"), 0);
}

#[test]
fn a_421_of_the_driver_closes() {
    dialog(
        config(Role::Mta),
        "C: HELO x
         S: 250 *
         C: MAIL FROM:<a@b.example>
         C: RCPT TO:<421@example.org>
         C: NOOP
         S: 250 *
         S: 421 *
         X",
    );
}

#[test]
fn events_want_replies_or_not() {
    assert!(Event::DataStart.wants_reply() && Event::MessageEnd.wants_reply());
    assert!(!Event::Reset.wants_reply() && !Event::Quit.wants_reply() && !Event::Vrfy(String::new()).wants_reply());
}

#[test]
fn open_relay_syntaxes_reach_the_driver_as_what_they_are() {
    for (written, seen) in [
        ("<x%evil.example@example.org>", "<x%evil.example@example.org>"),
        ("<evil.example!x@example.org>", "<evil.example!x@example.org>"),
        ("<@example.org:x@evil.example>", "<x@evil.example>"),
        ("<x@evil.example.>", "<x@evil.example>"),
        ("<\"x@evil.example\"@example.org>", "<\"x@evil.example\"@example.org>"),
    ] {
        let script = format!("C: HELO x\nS: 250 *\nC: MAIL FROM:<>\nS: 250 *\nC: RCPT TO:{written}\nS: 250 *");
        let driver = dialog(config(Role::Mta), &script);
        let wanted = format!("Rcpt {{ path: Mailbox({seen})");
        assert!(driver.events.iter().any(|e| e.starts_with(&wanted)), "{written}: {:?}", driver.events);
    }
}
