//! RFC 2033: LHLO, and one answer a recipient.

use pillarbox_smtp::server::Role;

use crate::driver::{config, dialog};

const LHLO: &str = "C: LHLO x
    S: 250-mail.example.org
    S: 250-SIZE 1000
    S: 250-PIPELINING
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-CHUNKING
    S: 250-BINARYMIME
    S: 250-DSN
    S: 250-ENHANCEDSTATUSCODES
    S: 250 LIMITS RCPTMAX=3
    C: MAIL FROM:<>
    C: RCPT TO:<a@example.org>
    C: RCPT TO:<unknown@example.org>
    C: RCPT TO:<b@example.org>
    S: 250 2.1.0 *
    S: 250 2.1.5 *
    S: 550 5.1.1 *
    S: 250 2.1.5 *\n";

#[test]
fn one_answer_a_recipient() {
    let script = format!(
        "S: 220 mail.example.org LMTP Pillarbox
         C: EHLO x
         S: 500 5.5.1 This is LMTP*
         C: HELO x
         S: 500 5.5.1 This is LMTP*
         C: MAIL FROM:<>
         S: 503 5.5.1 Say LHLO first
         {LHLO}C: DATA
         S: 354 *
         C: hello
         C: .
         S: 250 2.1.5 a@example.org accepted as id
         S: 250 2.1.5 b@example.org accepted as id
         C: QUIT
         S: 221 2.0.0 *
         X"
    );
    let driver = dialog(config(Role::Lmtp), &script);
    assert_eq!(driver.messages, [b"hello\r\n"]);
    assert_eq!(driver.saw("MessageEnd"), 1);
}

#[test]
fn failures_are_answered_once_a_recipient_too() {
    let long = "C: x\n".repeat(400);
    dialog(config(Role::Lmtp), &format!("{LHLO}C: DATA\nS: 354 *\n{long}C: .\nS: 552 5.3.4 *\nS: 552 5.3.4 *\nC: NOOP\nS: 250 2.0.0 Ok"));
    dialog(config(Role::Lmtp), &format!("{LHLO}C: BDAT 4 LAST\nC: a\u{7f}\nS: 250 2.1.5 *\nS: 250 2.1.5 *"));
    dialog(
        config(Role::Lmtp),
        &format!("{LHLO}C: BDAT 2000 LAST\nC: {}\nS: 552 5.3.4 *\nS: 552 5.3.4 *\nC: NOOP\nS: 250 *", "x".repeat(1998)),
    );
}
