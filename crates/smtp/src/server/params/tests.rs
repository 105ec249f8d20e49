use bytes::BytesMut;
use proptest::prelude::*;

use super::super::config::Role;
use super::super::event::TlsInfo;
use super::*;
use crate::client::{Capabilities, Command};

fn session(role: Role) -> (ServerConfig, Transaction) {
    let transaction = Transaction { extended: true, tls: Some(TlsInfo::default()), ..Transaction::default() };
    (ServerConfig::new(role, "mail.example.org"), transaction)
}

fn mail(text: &str) -> Result<MailParams, u16> {
    let (config, transaction) = session(Role::Submission);
    parse_mail(text, &Offer::new(&config, &transaction, true)).map_err(|r| r.code)
}

fn rcpt(text: &str) -> Result<RcptParams, u16> {
    let (config, transaction) = session(Role::Submission);
    parse_rcpt(text, &Offer::new(&config, &transaction, true)).map_err(|r| r.code)
}

#[test]
fn mail_parameters() {
    assert_eq!(mail(""), Ok(MailParams::default()));
    let all = " size=100 BODY=8bitmime SMTPUTF8 requiretls RET=hdrs ENVID=a+20b AUTH=x+2By@example.org BY=-5;NT HOLDFOR=60 MT-PRIORITY=-9";
    assert_eq!(
        mail(all),
        Ok(MailParams {
            size: Some(100),
            body: BodyType::EightBitMime,
            smtputf8: true,
            require_tls: true,
            ret: Some(Ret::Hdrs),
            envid: Some("a b".into()),
            auth: Some(Some("x+y@example.org".parse().unwrap())),
            by: Some(DeliverBy { seconds: -5, return_when_late: false, trace: true }),
            hold: Some(Hold::For(60)),
            priority: Some(-9),
        })
    );
    assert_eq!(mail("AUTH=<>").unwrap().auth, Some(None));
    assert_eq!(mail("HOLDUNTIL=2030-01-01T00:00:00Z").unwrap().hold, Some(Hold::Until(1_893_456_000)));
}

#[test]
fn refused_mail_parameters() {
    for (text, code) in [
        ("SIZE", 501),
        ("SIZE=", 501),
        ("SIZE=-1", 501),
        ("SIZE=1x", 501),
        ("SIZE=99999999999", 552),
        ("SIZE=99999999999999999999", 552),
        ("SIZE=999999999999999999999", 501),
        ("SIZE=1 SIZE=1", 501),
        ("BODY=9BIT", 501),
        ("BODY", 555),
        ("SMTPUTF8=1", 501),
        ("REQUIRETLS=yes", 501),
        ("RET=ALL", 501),
        ("RET", 501),
        ("ENVID=", 501),
        ("ENVID=a=b", 501),
        ("ENVID=+0D+0A", 501),
        ("AUTH=nobody", 501),
        ("AUTH=<", 501),
        ("BY=0;R", 501),
        ("BY=-1;R", 501),
        ("BY=1", 501),
        ("BY=1;X", 501),
        ("BY=1234567890;N", 501),
        ("HOLDFOR=1 HOLDUNTIL=2030-01-01T00:00:00Z", 501),
        ("HOLDFOR=99999999", 501),
        ("HOLDUNTIL=2130-01-01T00:00:00Z", 501),
        ("HOLDUNTIL=tomorrow", 501),
        ("MT-PRIORITY=10", 501),
        ("MT-PRIORITY=+1", 501),
        ("MT-PRIORITY=--1", 501),
        ("NOTIFY=NEVER", 555),
        ("X-FOO=bar", 555),
        ("=", 501),
        ("a_b=c", 501),
        ("é=1", 501),
    ] {
        assert_eq!(mail(text), Err(code), "{text}");
    }
    let long = format!("ENVID={}", "a".repeat(101));
    assert_eq!(mail(&long), Err(501));
}

#[test]
fn what_is_not_offered_is_unknown() {
    let (mut config, mut transaction) = session(Role::Mta);
    for text in ["AUTH=<>", "BY=1;R", "HOLDFOR=1", "MT-PRIORITY=1"] {
        assert_eq!(parse_mail(text, &Offer::new(&config, &transaction, false)).unwrap_err().code, 555, "{text}");
    }
    transaction.tls = None;
    assert_eq!(parse_mail("REQUIRETLS", &Offer::new(&config, &transaction, false)).unwrap_err().code, 555);
    config.extensions.chunking = false;
    assert_eq!(parse_mail("BODY=BINARYMIME", &Offer::new(&config, &transaction, false)).unwrap_err().code, 501);
    transaction.extended = false;
    assert_eq!(parse_mail("SIZE=1", &Offer::new(&config, &transaction, false)).unwrap_err().code, 555);
    assert_eq!(parse_rcpt("NOTIFY=NEVER", &Offer::new(&config, &transaction, false)).unwrap_err().code, 555);
}

#[test]
fn rcpt_parameters() {
    assert_eq!(rcpt("NOTIFY=NEVER").unwrap().notify, Notify::NEVER);
    let both = rcpt("notify=success,DELAY ORCPT=RFC822;a+2Bb@example.org").unwrap();
    assert_eq!(both.notify, Notify { success: true, failure: false, delay: true, explicit: true });
    assert_eq!(both.orcpt, Some(OriginalRecipient { address_type: "rfc822".into(), address: "a+b@example.org".into() }));
    assert_eq!(rcpt("ORCPT=utf-8;\\x{E9}@x").unwrap().orcpt.unwrap().address, "é@x");
    for (text, code) in [
        ("NOTIFY", 501),
        ("NOTIFY=", 501),
        ("NOTIFY=NEVER,SUCCESS", 501),
        ("NOTIFY=SUCCESS,", 501),
        ("ORCPT=rfc822", 501),
        ("ORCPT=;a", 501),
        ("ORCPT=rfc822;", 501),
        ("ORCPT=rfc822;a=b", 501),
        ("ORCPT=rfc822;+0A", 501),
        ("SIZE=1", 555),
    ] {
        assert_eq!(rcpt(text), Err(code), "{text}");
    }
}

/// What the client's side writes, the server's side reads back.
mod round_trip {
    use super::*;

    fn capabilities() -> Capabilities {
        let lines = "h|SIZE|8BITMIME|CHUNKING|BINARYMIME|SMTPUTF8|DSN|REQUIRETLS|AUTH PLAIN|DELIVERBY|MT-PRIORITY|FUTURERELEASE 9 x";
        Capabilities::parse(&Reply::lines(250, None, lines.split('|')))
    }

    fn hold() -> impl Strategy<Value = Option<Hold>> {
        prop_oneof![
            Just(None),
            (1u64..1_000_000).prop_map(|s| Some(Hold::For(s))),
            (0u64..4_102_444_799).prop_map(|s| Some(Hold::Until(s)))
        ]
    }

    prop_compose! {
        fn mail_params()(
            size in proptest::option::of(0u64..50_000_000), body in 0..3, smtputf8 in any::<bool>(), require_tls in any::<bool>(),
            ret in 0..3, envid in proptest::option::of("[!-~]{1,33}"), auth in 0..3,
            by in proptest::option::of((1i64..999_999_999, any::<bool>(), any::<bool>())), hold in hold(), priority in proptest::option::of(-9i8..=9),
        ) -> MailParams {
            MailParams {
                size, smtputf8, require_tls, envid, hold, priority,
                body: [BodyType::SevenBit, BodyType::EightBitMime, BodyType::BinaryMime][body as usize],
                ret: [None, Some(Ret::Full), Some(Ret::Hdrs)][ret as usize],
                auth: [None, Some(None), Some(Some("a+b=c@example.org".parse().unwrap()))][auth as usize].clone(),
                by: by.map(|(seconds, return_when_late, trace)| DeliverBy { seconds, return_when_late, trace }),
            }
        }
    }

    proptest! {
        #[test]
        fn mail(params in mail_params()) {
            let mut out = BytesMut::new();
            let from = "x@example.org".parse().unwrap();
            Command::Mail { from: &from, params: &params, capabilities: &capabilities() }.write_to(&mut out);
            let text = std::str::from_utf8(&out).unwrap().trim_end();
            prop_assert_eq!(super::mail(text.strip_prefix("MAIL FROM:<x@example.org>").unwrap()), Ok(params));
        }

        #[test]
        fn rcpt(bits in 0u8..16, utf8 in any::<bool>(), raw in any::<bool>(), address in "[!-~é用]{1,20}") {
            let address_type = if utf8 { "utf-8" } else { "rfc822" }.to_owned();
            let explicit = bits & 8 != 0;
            let notify = if explicit { Notify { success: bits & 1 != 0, failure: bits & 2 != 0, delay: bits & 4 != 0, explicit } } else { Notify::default() };
            let params = RcptParams { notify, orcpt: Some(OriginalRecipient { address_type, address }) };
            let mut out = BytesMut::new();
            let to = "x@example.org".parse().unwrap();
            Command::Rcpt { to: &to, params: &params, capabilities: &capabilities(), smtputf8: raw }.write_to(&mut out);
            let text = std::str::from_utf8(&out).unwrap().trim_end();
            prop_assert_eq!(super::rcpt(text.strip_prefix("RCPT TO:<x@example.org>").unwrap()), Ok(params));
        }

        #[test]
        fn any_text(text in "\\PC{0,60}|([A-Z-]{2,9}(=[!-~]{0,9})? ){0,4}") {
            let _ = super::mail(&text);
            let _ = super::rcpt(&text);
        }
    }
}
