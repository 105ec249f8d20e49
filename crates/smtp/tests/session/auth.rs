//! RFC 4954: AUTH with each mechanism, and everything that can go wrong in it.

use bytes::BytesMut;
use pillarbox_smtp::client::{SaslClient, SaslProgress};
use pillarbox_smtp::server::{Role, ServerConfig};
use pillarbox_smtp::{Mechanism, ReplyParser, Secret};

use crate::driver::{Driver, EXPORTER, config, dialog};

/// In TLS, EHLO said; the reply to it is passed over.
fn ready(config: ServerConfig) -> Driver {
    let mut driver = Driver::new(config);
    driver.feed(b"EHLO x\r\n");
    driver
}

fn ask(driver: &mut Driver, line: &str) -> String {
    String::from_utf8(driver.feed(format!("{line}\r\n").as_bytes())).unwrap()
}

#[test]
fn plain_and_login_in_every_form() {
    // ann@example.org / secret
    for lines in [
        &["AUTH PLAIN AGFubkBleGFtcGxlLm9yZwBzZWNyZXQ="][..],
        &["auth plain", "AGFubkBleGFtcGxlLm9yZwBzZWNyZXQ="],
        &["AUTH LOGIN", "YW5uQGV4YW1wbGUub3Jn", "c2VjcmV0"],
        &["AUTH LOGIN YW5uQGV4YW1wbGUub3Jn", "c2VjcmV0"],
    ] {
        let mut driver = ready(config(Role::SubmissionTls));
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            assert!(ask(&mut driver, line).starts_with("334 "), "{lines:?}");
        }
        assert!(ask(&mut driver, last).starts_with("235 2.7.0 "), "{lines:?}");
        assert!(ask(&mut driver, "AUTH LOGIN").starts_with("503 5.5.1 "));
    }
    let mut driver = ready(config(Role::SubmissionTls));
    assert_eq!(ask(&mut driver, "AUTH LOGIN"), "334 VXNlcm5hbWU6\r\n");
    assert_eq!(ask(&mut driver, "YW5u"), "334 UGFzc3dvcmQ6\r\n");
    assert_eq!(ask(&mut driver, "AUTH"), "501 5.5.2 This is not the base64 of what the mechanism asks for\r\n");
}

#[test]
fn every_failure_has_its_code() {
    for (lines, code) in [
        (&["AUTH PLAIN AGFubkBleGFtcGxlLm9yZwB3cm9uZw=="][..], "535 5.7.8 "),
        (&["AUTH PLAIN AG5vYm9keQB3cm9uZw=="], "535 5.7.8 "),
        (&["AUTH PLAIN ="], "501 5.5.2 "),
        (&["AUTH PLAIN AAAA"], "501 5.5.2 "),
        (&["AUTH PLAIN !!!!"], "501 5.5.2 "),
        (&["AUTH PLAIN YQ"], "501 5.5.2 "),
        (&["AUTH PLAIN", "*"], "501 5.7.0 "),
        (&["AUTH LOGIN", "YW5u", "*"], "501 5.7.0 "),
        (&["AUTH LOGIN", ""], "501 5.5.2 "),
        (&["AUTH CRAM-MD5"], "504 5.5.4 "),
        (&["AUTH"], "501 5.5.4 "),
        (&["AUTH PLAIN a b"], "501 5.5.4 "),
        (&["AUTH SCRAM-SHA-256 AAAA"], "501 5.5.2 "),
        (&["AUTH SCRAM-SHA-256", "*"], "501 5.7.0 "),
        // "y,,": could bind, was told that we cannot, though we can.
        (&["AUTH SCRAM-SHA-256 eSwsbj11LHI9eA=="], "535 5.7.8 "),
        (&["AUTH SCRAM-SHA-256-PLUS biwsbj11LHI9eA=="], "535 5.7.8 "),
        (&["MAIL FROM:<a@b.example>"], "530 5.7.0 "),
        (&["NOOP", "BDAT 0 LAST"], "530 5.7.0 "),
    ] {
        let mut driver = ready(config(Role::SubmissionTls));
        let said = lines.iter().map(|line| ask(&mut driver, line)).last().unwrap();
        assert!(said.starts_with(code), "{lines:?} gave {said}");
        assert!(driver.session.transaction().identity.is_none() && !driver.closed);
    }
}

#[test]
fn long_lines() {
    let mut driver = ready(config(Role::SubmissionTls));
    assert!(ask(&mut driver, &format!("AUTH PLAIN {}", "A".repeat(12_200))).starts_with("501 5.5.2"));
    assert!(ask(&mut driver, &format!("AUTH PLAIN {}", "A".repeat(13_000))).starts_with("500 5.5.2"));
    assert!(ask(&mut driver, "AUTH PLAIN").starts_with("334"));
    assert!(ask(&mut driver, &"A".repeat(100_000)).starts_with("500 5.5.6"));
    assert!(ask(&mut driver, "NOOP").starts_with("250"));
}

#[test]
fn auth_where_there_is_none() {
    dialog(config(Role::Mta), "C: HELO x\nS: 250 *\nC: AUTH PLAIN AAAA\nS: 502 *");
    let mut helo = Driver::new(config(Role::SubmissionTls));
    helo.feed(b"HELO x\r\n");
    assert!(ask(&mut helo, "AUTH PLAIN AAAA").starts_with("503 "));
}

#[test]
fn guessing_ends_with_421() {
    let mut driver = ready(config(Role::SubmissionTls));
    let said: Vec<String> = (0..11).map(|_| ask(&mut driver, "AUTH PLAIN AG5vYm9keQB3cm9uZw==")).collect();
    assert!(said[..10].iter().all(|s| s.starts_with("535") && !s.contains("421")));
    assert!(said[10].contains("\r\n421 4.7.0 ") && driver.closed);
}

/// Our client against our server, for every mechanism.
fn log_in(mechanism: Mechanism, user: &str, password: &str, binding: Option<&[u8]>) -> Result<(), String> {
    let mut driver = ready(config(Role::SubmissionTls));
    let mut client = SaslClient::new(mechanism, user, Secret::new(password), binding, "clientnonce");
    let mut out = BytesMut::new();
    client.start(&mut out);
    loop {
        let mut said = BytesMut::from(driver.feed(&out.split()).as_slice());
        let reply = ReplyParser::new().parse(&mut said).map_err(|e| e.to_string())?.ok_or("no reply")?;
        match client.reply(&reply, &mut out) {
            Ok(SaslProgress::Continue) => {}
            Ok(SaslProgress::Done) => {
                assert_eq!(driver.session.transaction().identity.as_ref().map(|i| i.mechanism), Some(mechanism));
                return Ok(());
            }
            Err(error) => {
                assert!(driver.session.transaction().identity.is_none());
                return Err(error.to_string());
            }
        }
    }
}

#[test]
fn client_and_server_agree_on_every_mechanism() {
    for mechanism in Mechanism::ALL {
        let binding = (mechanism == Mechanism::ScramSha256Plus).then_some(EXPORTER);
        assert_eq!(log_in(mechanism, "ann@example.org", "secret", binding), Ok(()), "{mechanism:?}");
        for (user, password) in [("ann@example.org", "wrong"), ("nobody@example.org", "secret")] {
            let error = log_in(mechanism, user, password, binding).unwrap_err();
            assert!(error.contains("535 5.7.8"), "{mechanism:?} {user}: {error}");
        }
    }
    let other = log_in(Mechanism::ScramSha256Plus, "ann@example.org", "secret", Some(b"a different channel")).unwrap_err();
    assert!(other.contains("535 5.7.8"), "{other}");
}

/// The careless driver of these tests accepts every ScramDone; only proof counts.
#[test]
fn an_unproven_login_is_never_accepted() {
    let mut driver = ready(config(Role::SubmissionTls));
    // n,,n=ann@example.org,r=x, then a proof of zeros.
    assert!(ask(&mut driver, "AUTH SCRAM-SHA-256 biwsbj1hbm5AZXhhbXBsZS5vcmcscj14").starts_with("334 "));
    // c=biws,r=xnonce,p=AAAA… (32 zero octets)
    let said = ask(&mut driver, "Yz1iaXdzLHI9eG5vbmNlLHA9QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQT0=");
    assert!(said.starts_with("535 5.7.8"), "{said}");
    assert_eq!(driver.saw("Auth(ScramDone { mechanism: ScramSha256, authzid: \"\", authcid: \"ann@example.org\", proven: false })"), 1);
}
