//! Messages that need something of the host: 8 bits, UTF-8 addresses, size, TLS, a deadline.

use pillarbox_smtp::{BodyType, DeliverBy};

use super::{MAIL, world};
use crate::testing::{Script, brief, deliver, envelope};

#[tokio::test]
async fn eight_bit_text_is_kept_or_converted() {
    let body = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\u{fc}n\r\n";
    let mut one = envelope("a@me.test", &["b@example.test"]);
    one.body = BodyType::EightBitMime;
    let (_dns, sink, relay) = world(Script::with(&["8BITMIME"])).await;
    deliver(&relay, one.clone(), body).await;
    assert_eq!(sink.taken()[0].body, body.as_bytes());
    assert_eq!(sink.taken()[0].mail, "MAIL FROM:<a@me.test> BODY=8BITMIME");
    let (_dns, sink, relay) = world(Script::with(&["PIPELINING"])).await;
    let (outcomes, _) = deliver(&relay, one, body).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    let taken = String::from_utf8(sink.taken()[0].body.clone()).unwrap();
    assert!(taken.is_ascii() && taken.contains("gr=C3=BCn"), "{taken}");
}

#[tokio::test]
async fn binary_mail_goes_by_bdat_or_is_converted() {
    let body =
        b"MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\na\nb\0c\r".to_vec();
    let mut one = envelope("a@me.test", &["b@example.test"]);
    one.body = BodyType::BinaryMime;
    for pipelining in [true, false] {
        let all = ["8BITMIME", "CHUNKING", "BINARYMIME", "PIPELINING"];
        let (_dns, sink, relay) = world(Script::with(&all[..if pipelining { 4 } else { 3 }])).await;
        let (outcomes, _) = deliver(&relay, one.clone(), body.clone()).await;
        assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
        assert_eq!(sink.taken()[0].body, body);
        assert_eq!(sink.taken()[0].mail, "MAIL FROM:<a@me.test> BODY=BINARYMIME");
    }
    let (_dns, sink, relay) = world(Script::with(&["8BITMIME", "CHUNKING", "PIPELINING"])).await;
    let (outcomes, _) = deliver(&relay, one, body).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
    let taken = String::from_utf8(sink.taken()[0].body.clone()).unwrap();
    assert!(taken.contains("base64") && taken.contains("YQpiAGMN"), "{taken}");
}

#[tokio::test]
async fn utf8_addresses_need_smtputf8_at_the_host() {
    let header = "Subject: gr\u{fc}n\r\n\r\nx\r\n";
    let with = ["8BITMIME", "SMTPUTF8", "PIPELINING"];
    let mut one = envelope("a@me.test", &["b@example.test", "\u{fc}@example.test"]);
    one.smtputf8 = true;
    one.body = BodyType::EightBitMime;
    let (_dns, sink, relay) = world(Script::with(&with)).await;
    let (outcomes, _) = deliver(&relay, one.clone(), header).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"; 2]);
    assert_eq!(sink.taken()[0].mail, "MAIL FROM:<a@me.test> BODY=8BITMIME SMTPUTF8");
    assert_eq!(sink.taken()[0].body, header.as_bytes());
    // Without it: the ASCII recipient gets an ASCII header, the other a report.
    let (_dns, sink, relay) = world(Script::with(&["8BITMIME"])).await;
    let (outcomes, _) = deliver(&relay, one.clone(), header).await;
    assert_eq!(brief(&outcomes)[0], "relayed 250 2.0.0 Ok");
    assert!(brief(&outcomes)[1].starts_with("failed 550 5.6.7 "), "{:?}", brief(&outcomes));
    assert!(sink.taken()[0].body.is_ascii());
    // A sender that cannot be written is nobody to answer to.
    one.from = "\u{fc}@me.test".parse().unwrap();
    let (_dns, sink, relay) = world(Script::with(&["8BITMIME"])).await;
    let (outcomes, _) = deliver(&relay, one, header).await;
    assert!(brief(&outcomes).iter().all(|o| o.starts_with("failed 550 5.6.7 ")), "{:?}", brief(&outcomes));
    assert!(sink.heard("MAIL").is_empty());
}

#[tokio::test]
async fn what_is_too_large_is_known_before_it_is_sent() {
    let (_dns, sink, relay) = world(Script::with(&["SIZE 10"])).await;
    let (outcomes, _) = deliver(&relay, envelope("a@me.test", &["b@example.test"]), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("failed 552 5.3.4 "), "{:?}", brief(&outcomes));
    assert!(sink.heard("MAIL").is_empty());
}

#[tokio::test]
async fn requiretls_is_refused_rather_than_downgraded() {
    let mut one = envelope("a@me.test", &["b@example.test"]);
    one.require_tls = true;
    let (_dns, sink, relay) = world(Script::with(&["REQUIRETLS"])).await;
    let (outcomes, _) = deliver(&relay, one, MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("failed 550 5.7.30 "), "{:?}", brief(&outcomes));
    assert!(sink.heard("MAIL").is_empty());
}

#[tokio::test]
async fn deadlines_and_priorities_are_passed_on() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut one = envelope("a@me.test", &["b@example.test"]);
    one.received = now - 60_000;
    one.by = Some(DeliverBy { seconds: 1_000_000, return_when_late: true, trace: false });
    one.priority = 4;
    let (_dns, sink, relay) = world(Script::with(&["DELIVERBY 60", "MT-PRIORITY"])).await;
    deliver(&relay, one.clone(), MAIL).await;
    let mail = sink.taken()[0].mail.clone();
    let seconds: i64 = mail.split("BY=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((999_000..=999_940).contains(&seconds), "{mail}");
    assert!(mail.ends_with(";R MT-PRIORITY=4"), "{mail}");
    // A host that promises nothing may not have it; in mode N it may.
    let (_dns, _sink, relay) = world(Script::usual()).await;
    let (outcomes, _) = deliver(&relay, one.clone(), MAIL).await;
    assert!(brief(&outcomes)[0].starts_with("failed 554 5.3.3 "), "{:?}", brief(&outcomes));
    one.by = Some(DeliverBy { seconds: 5, return_when_late: false, trace: false });
    let (outcomes, _) = deliver(&relay, one, MAIL).await;
    assert_eq!(brief(&outcomes), ["relayed 250 2.0.0 Ok"]);
}
