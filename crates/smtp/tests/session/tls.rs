//! RFC 3207 and RFC 8314: STARTTLS, what is offered when, and what must not cross the handshake.

use pillarbox_smtp::server::Role;

use crate::driver::{Driver, config, dialog};

const EHLO_TLS_SUBMISSION: &str = "S: 250-mail.example.org
    S: 250-SIZE 1000
    S: 250-PIPELINING
    S: 250-8BITMIME
    S: 250-SMTPUTF8
    S: 250-CHUNKING
    S: 250-BINARYMIME
    S: 250-DSN
    S: 250-ENHANCEDSTATUSCODES
    S: 250-REQUIRETLS
    S: 250-AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS
    S: 250-FUTURERELEASE 2592000 2099-12-31T23:59:59Z
    S: 250-DELIVERBY
    S: 250-MT-PRIORITY
    S: 250 LIMITS RCPTMAX=3\n";

#[test]
fn submission_wants_tls_then_a_login() {
    let script = format!(
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
         S: 250-FUTURERELEASE *
         S: 250-DELIVERBY
         S: 250-MT-PRIORITY
         S: 250 LIMITS RCPTMAX=3
         C: MAIL FROM:<ann@example.org>
         S: 530 5.7.0 Say STARTTLS first*
         C: VRFY ann
         S: 530 5.7.0 *
         C: AUTH PLAIN AGFubkBleGFtcGxlLm9yZwBzZWNyZXQ=
         S: 538 5.7.11 *
         C: STARTTLS
         S: 220 2.0.0 Ready to start TLS
         C: MAIL FROM:<ann@example.org>
         S: 530 5.7.0 Log in with AUTH first
         C: BDAT 4
         C: RST
         S: 530 5.7.0 Log in with AUTH first
         C: EHLO x
         {EHLO_TLS_SUBMISSION}
         C: STARTTLS
         S: 503 5.5.1 TLS is already in use
         C: AUTH PLAIN AGFubkBleGFtcGxlLm9yZwBzZWNyZXQ=
         S: 235 2.7.0 *
         C: MAIL FROM:<ann@example.org>
         S: 250 2.1.0 *"
    )
    // The chunk is `RST` with its CRLF cut to four octets, so that what follows is a command again.
    .replace("BDAT 4", "BDAT 5");
    let driver = dialog(config(Role::Submission), &script);
    assert_eq!(driver.handshakes, 1);
    assert!(driver.session.transaction().identity.is_some());
}

#[test]
fn implicit_tls() {
    dialog(config(Role::SubmissionTls), &format!("S: 220 mail.example.org ESMTP Pillarbox\nC: EHLO x\n{EHLO_TLS_SUBMISSION}"));
}

/// CVE-2011-0411: whatever follows STARTTLS in the clear ends the session and is never carried out.
#[test]
fn commands_behind_starttls_are_dropped() {
    for behind in ["RSET", "MAIL FROM:<a@b.example>", "EHLO y", "x"] {
        let driver = dialog(config(Role::Mta), &format!("C: HELO x\nS: 250 *\nC: STARTTLS\nC: {behind}\nS: 554 *\nX"));
        assert_eq!(driver.handshakes, 0);
        assert_eq!(driver.saw("Mail") + driver.saw("Reset") + driver.saw("Helo"), 1);
    }
}

#[test]
fn what_was_said_before_tls_is_forgotten() {
    let driver = dialog(
        config(Role::Mta),
        "C: HELO x
         S: 250 *
         C: MAIL FROM:<a@b.example>
         S: 250 *
         C: STARTTLS
         S: 220 Ready to start TLS
         C: RCPT TO:<a@example.org>
         S: 503 5.5.1 Say MAIL first
         C: MAIL FROM:<a@b.example>
         S: 503 5.5.1 Say EHLO first",
    );
    assert!(driver.session.transaction().helo.is_none() && driver.session.transaction().tls.is_some());
}

#[test]
fn without_tls_to_be_had() {
    let mut none = config(Role::Submission);
    none.tls_available = false;
    dialog(none, "C: STARTTLS\nS: 454 4.7.0 *\nC: MAIL FROM:<a@b.example>\nS: 530 5.7.0 *");
    let mut mta = config(Role::Mta);
    mta.tls_available = false;
    dialog(mta, "C: STARTTLS\nS: 454 4.7.0 *\nC: STARTTLS now\nS: 501 5.5.4 *");
}

#[test]
fn a_client_hello_on_a_plain_port_is_answered_and_closed() {
    let mut driver = Driver::new(config(Role::Mta));
    let said = driver.feed(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    assert!(said.starts_with(b"554 5.5.0") && driver.closed);
}
