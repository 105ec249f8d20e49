//! SIZE, SMTPUTF8, DSN and the parameters of the other extensions, as seen from the wire.

use pillarbox_smtp::server::{NulPolicy, Role};

use crate::driver::{Driver, config, dialog};

fn with_ehlo(script: &str) -> String {
    let ehlo = "S: 250-mail.example.org\nS: 250-SIZE 1000\nS: 250-PIPELINING\nS: 250-8BITMIME\nS: 250-SMTPUTF8\nS: 250-CHUNKING\nS: 250-BINARYMIME\nS: 250-DSN\nS: 250-ENHANCEDSTATUSCODES\nS: 250-STARTTLS\nS: 250 LIMITS RCPTMAX=3\n";
    format!("C: EHLO x\n{ehlo}{script}")
}

#[test]
fn size() {
    let driver = dialog(
        config(Role::Mta),
        &with_ehlo(&format!(
            "C: MAIL FROM:<a@b.example> SIZE=1001
             S: 552 5.3.4 *
             C: MAIL FROM:<a@b.example> SIZE=1000
             S: 250 2.1.0 *
             C: RCPT TO:<a@example.org>
             S: 250 2.1.5 *
             C: DATA
             S: 354 *
             {}C: .
             S: 552 5.3.4 *
             C: MAIL FROM:<a@b.example>
             S: 250 2.1.0 *",
            "C: 0123456789012345678901234567890123456789\n".repeat(30)
        )),
    );
    assert!(driver.messages.is_empty());
    assert_eq!(driver.saw("MessageAborted { why: TooLarge }"), 1);
}

#[test]
fn utf8_addresses() {
    let driver = dialog(
        config(Role::Mta),
        &with_ehlo(
            "C: MAIL FROM:<müller@b.example>
             S: 553 5.6.7 *
             C: MAIL FROM:<a@b.example>
             S: 250 2.1.0 *
             C: RCPT TO:<müller@example.org>
             S: 553 5.6.7 *
             C: RSET
             S: 250 2.0.0 *
             C: MAIL FROM:<müller@bücher.example> SMTPUTF8 BODY=8BITMIME
             S: 250 2.1.0 *
             C: RCPT TO:<用户@example.org>
             S: 250 2.1.5 *",
        ),
    );
    let transaction = driver.session.transaction();
    assert_eq!(transaction.from.as_ref().unwrap().to_string(), "müller@xn--bcher-kva.example");
    assert_eq!(transaction.protocol(Role::Mta), "UTF8SMTP");
}

#[test]
fn dsn() {
    let driver = dialog(
        config(Role::Mta),
        &with_ehlo(
            "C: MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ314159
             S: 250 2.1.0 *
             C: RCPT TO:<a@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B@example.org
             S: 250 2.1.5 *
             C: RCPT TO:<b@example.org> NOTIFY=NEVER
             S: 250 2.1.5 *
             C: RCPT TO:<c@example.org> NOTIFY=NEVER,SUCCESS
             S: 501 5.5.4 *",
        ),
    );
    let transaction = driver.session.transaction();
    assert_eq!(transaction.params.envid.as_deref(), Some("QQ314159"));
    assert_eq!(transaction.recipients.len(), 2);
    assert_eq!(transaction.recipients[0].1.orcpt.as_ref().unwrap().address, "Bob+@example.org");
}

#[test]
fn protocol_names() {
    let mut driver = Driver::new(config(Role::SubmissionTls));
    assert_eq!(driver.session.transaction().protocol(Role::SubmissionTls), "SMTP");
    driver.feed(b"EHLO x\r\nAUTH PLAIN AGFubkBleGFtcGxlLm9yZwBzZWNyZXQ=\r\n");
    assert_eq!(driver.session.transaction().protocol(Role::SubmissionTls), "ESMTPSA");
}

#[test]
fn extensions_that_are_off() {
    let mut bare = config(Role::Mta);
    bare.extensions.pipelining = false;
    bare.extensions.chunking = false;
    bare.extensions.eight_bit_mime = false;
    bare.extensions.dsn = false;
    bare.extensions.enhanced_status_codes = false;
    bare.extensions.limits = false;
    bare.tls_available = false;
    let driver = dialog(
        bare,
        "C: EHLO x
         S: 250-mail.example.org
         S: 250 SIZE 1000
         C: MAIL FROM:<a@b.example> BODY=8BITMIME
         S: 555 *
         C: MAIL FROM:<a@b.example> RET=FULL
         S: 555 *
         C: MAIL FROM:<a@b.example> SMTPUTF8
         S: 555 *
         C: MAIL FROM:<a@b.example>
         S: 250 Sender accepted
         C: RCPT TO:<a@example.org>
         S: 250 *
         C: BDAT 6 LAST
         C: QUIT
         S: 502 *
         C: STARTTLS
         S: 454 *",
    );
    assert_eq!(driver.saw("Quit"), 0, "the octets of a refused chunk are not commands");
}

#[test]
fn nul_and_long_lines_in_data() {
    let message = |body: &str| {
        with_ehlo(&format!("C: MAIL FROM:<>\nC: RCPT TO:<a@example.org>\nC: DATA\nS: 250 *\nS: 250 *\nS: 354 *\nC: {body}\nC: .\n"))
    };
    dialog(config(Role::Mta), &format!("{}S: 550 5.6.0 *\nC: NOOP\nS: 250 *", message("a\0b")));
    dialog(config(Role::Mta), &format!("{}S: 550 5.6.0 *\nC: NOOP\nS: 250 *", message(&"x".repeat(101))));
    let mut lenient = config(Role::Mta);
    lenient.nul = NulPolicy::Accept;
    assert_eq!(dialog(lenient, &format!("{}S: 250 *", message("a\0b"))).messages, [b"a\0b\r\n"]);
}
