//! The milter protocol against a filter that answers from a script: each answer, each change, each way to fail.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use pillarbox_config::{Config, Milter};
use pillarbox_screen::{Action, Verdict};
use pillarbox_smtp::{Reply, ReversePath};
use pillarbox_testkit::milter::{Behaviour, Milter as Fake};
use support::session::{World, config, stored, transaction};

const MESSAGE: &str = "From: a@example.org\nSubject: one\n two\nX-Old: yes\n\nbody\nof two lines\n";
const CLIENT: &str = "198.51.100.7";

/// A configuration that asks these filters and checks nothing itself.
fn asking(filters: &[&Fake], on_failure: &str) -> Config {
    config(|screen| {
        (screen.spf, screen.dkim, screen.arc) = (false, false, false);
        screen.milter = filters
            .iter()
            .map(|fake| Milter { address: fake.address.clone(), on_failure: on_failure.into(), timeout: Duration::from_secs(5) })
            .collect();
    })
}

async fn through(fake: &Fake) -> Result<Verdict, Reply> {
    World::new(&asking(&[fake], "tempfail"), |_| {}).await.send(CLIENT, "", MESSAGE).await
}

fn cstrings(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| text.bytes().chain([0])).collect()
}

fn indexed(index: u32, texts: &[&str]) -> Vec<u8> {
    [index.to_be_bytes().to_vec(), cstrings(texts)].concat()
}

#[tokio::test]
async fn a_filter_hears_the_whole_session_in_order() {
    let fake = Fake::unix(Behaviour { macros: vec![(2, "i {client_addr} {daemon_port}")], ..Behaviour::default() }).await;
    let world = World::new(&asking(&[&fake], "tempfail"), |_| {}).await;
    let mut session = world.session(CLIENT);
    session.connect().await.unwrap();
    session.helo("mx.example.net").await.unwrap();
    let verdict = transaction(&mut session, "a@example.org", MESSAGE).await.unwrap();
    assert_eq!(verdict.action, Action::Accept);
    assert!(verdict.header.is_none() && verdict.body.is_none());
    transaction(&mut session, "", MESSAGE).await.unwrap();
    session.quit().await;
    assert_eq!(fake.letters().trim_end_matches('Q'), "OCHMRTLLLLNBEMRTLLLLNBE");
    assert_eq!(fake.data(b'C'), "[198.51.100.7]|4\u{fffd}@198.51.100.7|");
    assert_eq!(fake.data(b'H'), "mx.example.net|");
    assert_eq!(fake.data(b'M'), "<a@example.org>|\n<>|");
    assert_eq!(fake.data(b'R'), "<bob@example.org>|\n<bob@example.org>|");
    assert!(fake.data(b'D').contains("Mi|Q1|{client_addr}|198.51.100.7|{daemon_port}|25|"), "{}", fake.data(b'D'));
    let headers = fake.data(b'L');
    let lines: Vec<_> = headers.lines().collect();
    assert_eq!(&lines[..5], ["Authentication-Results|mx.example.org; none|", "From|a@example.org|", "Subject|one", " two|", "X-Old|yes|"]);
    assert!(fake.data(b'B').starts_with("body\r\nof two lines\r\n"));
}

#[tokio::test]
async fn steps_that_are_switched_off_are_left_out() {
    // No connect, HELO, RCPT, body, end of header; headers and MAIL unanswered.
    let steps = 0x1 | 0x2 | 0x8 | 0x10 | 0x40 | 0x80 | 0x4000;
    let fake = Fake::inet(Behaviour { options: [6, 0, steps], ..Behaviour::default() }).await;
    assert_eq!(through(&fake).await.unwrap().action, Action::Accept);
    assert_eq!(fake.letters().trim_end_matches('Q'), "OMTLLLLE");
}

#[tokio::test]
async fn leading_space_is_kept_where_asked_for() {
    let fake = Fake::inet(
        Behaviour { options: [6, 0x1, 0x10_0000], ..Behaviour::default() }.answer(b'E', &[(b'h', b"X-New\0\tx\0"), (b'c', b"")]),
    )
    .await;
    let verdict = through(&fake).await.unwrap();
    assert!(fake.data(b'L').contains("X-Old| yes|"));
    assert!(stored(&verdict, MESSAGE).contains("\nX-New:\tx\n"));
}

#[tokio::test]
async fn each_refusal_at_each_step_becomes_the_right_reply() {
    for (command, letter, data, code) in [
        (b'C', b'r', &b""[..], 550),
        (b'H', b't', b"", 451),
        (b'M', b'r', b"", 550),
        (b'M', b'y', b"553 5.1.8 No such place\0", 553),
        (b'R', b't', b"", 451),
        (b'R', b'y', b"452 4.2.2 Later\0", 452),
    ] {
        let fake = Fake::inet(Behaviour::default().answer(command, &[(letter, data)])).await;
        let reply = through(&fake).await.unwrap_err();
        assert_eq!(reply.code, code, "{} {}", char::from(command), char::from(letter));
    }
    for (command, letter, data, code) in [
        (b'T', b'r', &b""[..], 550),
        (b'L', b'y', b"554 5.6.0 Odd field\0", 554),
        (b'N', b't', b"", 451),
        (b'B', b'r', b"", 550),
        (b'E', b'y', b"550 5.7.1 Spam\0", 550),
    ] {
        let fake = Fake::inet(Behaviour::default().answer(command, &[(letter, data)])).await;
        match through(&fake).await.unwrap().action {
            Action::Reject(reply) | Action::Defer(reply) => assert_eq!(reply.code, code, "{}", char::from(command)),
            other => unreachable!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn accept_ends_the_filters_interest_and_skip_the_body() {
    let all = Fake::inet(Behaviour::default().answer(b'C', &[(b'a', b"")])).await;
    assert_eq!(through(&all).await.unwrap().action, Action::Accept);
    assert_eq!(all.letters().trim_end_matches('Q'), "OC");
    let one = Fake::inet(Behaviour::default().answer(b'R', &[(b'a', b"")])).await;
    assert_eq!(through(&one).await.unwrap().action, Action::Accept);
    assert_eq!(one.letters().trim_end_matches(['A', 'Q']), "OCHMR");
    let skip = Fake::inet(Behaviour { options: [6, 0, 0x400], ..Behaviour::default() }.answer(b'B', &[(b's', b"")])).await;
    let world = World::new(&asking(&[&skip], "tempfail"), |_| {}).await;
    let long = format!("From: a@example.org\n\n{}", "0123456789abcdef\n".repeat(20_000));
    assert_eq!(world.send(CLIENT, "", &long).await.unwrap().action, Action::Accept);
    assert_eq!(skip.letters().matches('B').count(), 1);
}

#[tokio::test]
async fn discard_is_a_yes_that_drops_the_message() {
    for command in [b'M', b'R', b'T', b'E'] {
        let fake = Fake::inet(Behaviour::default().answer(command, &[(b'd', b"")])).await;
        assert_eq!(through(&fake).await.unwrap().action, Action::Discard, "{}", char::from(command));
    }
}

#[tokio::test]
async fn the_message_and_the_envelope_are_changed() {
    let packets: Vec<(u8, Vec<u8>)> = vec![
        (b'p', vec![]),
        (b'h', cstrings(&["X-Added", "last"])),
        (b'i', indexed(0, &["X-First", "first"])),
        (b'm', indexed(1, &["Subject", "three\n\tfour"])),
        (b'm', indexed(1, &["x-old", ""])),
        (b'+', cstrings(&["<carol@example.org>"])),
        (b'2', cstrings(&["<dave@example.org>", "NOTIFY=NEVER"])),
        (b'-', cstrings(&["<bob@example.org>"])),
        (b'e', cstrings(&["<bounce@example.net>", ""])),
        (b'b', b"new ".to_vec()),
        (b'p', vec![]),
        (b'b', b"body\r\n".to_vec()),
        (b'c', vec![]),
    ];
    let packets: Vec<_> = packets.iter().map(|(letter, data)| (*letter, data.as_slice())).collect();
    let fake = Fake::unix(Behaviour::default().answer(b'E', &packets)).await;
    let verdict = through(&fake).await.unwrap();
    assert_eq!(verdict.action, Action::Accept);
    assert_eq!(
        stored(&verdict, MESSAGE),
        "X-Pillarbox-Verdict: accept, score=0.0 required=6.0\nX-First: first\nAuthentication-Results: mx.example.org; none\n\
         From: a@example.org\nSubject: three\n\tfour\nX-Added: last\n\nnew body\n"
    );
    assert_eq!(verdict.add_recipients, ["carol@example.org".parse().unwrap(), "dave@example.org".parse().unwrap()]);
    assert_eq!(verdict.remove_recipients, ["bob@example.org".parse().unwrap()]);
    assert_eq!(verdict.change_from, Some("bounce@example.net".parse::<ReversePath>().unwrap()));
}

#[tokio::test]
async fn quarantine_and_spam_fields_mean_junk() {
    for packet in [(b'q', &b"looks bad\0"[..]), (b'h', b"X-Spam\0Yes\0"), (b'i', b"\0\0\0\0X-Spam-Flag\0YES\0")] {
        let fake = Fake::inet(Behaviour::default().answer(b'E', &[packet, (b'a', b"")])).await;
        let verdict = through(&fake).await.unwrap();
        assert_eq!(verdict.action, Action::Junk);
        assert!(verdict.why.iter().any(|why| why.contains("milter")), "{:?}", verdict.why);
    }
    // Not when it came with the message.
    let fake = Fake::inet(Behaviour::default()).await;
    let world = World::new(&asking(&[&fake], "tempfail"), |_| {}).await;
    assert_eq!(world.send(CLIENT, "", &format!("X-Spam: Yes\n{MESSAGE}")).await.unwrap().action, Action::Accept);
}

#[tokio::test]
async fn several_filters_see_what_those_before_them_left() {
    let first = Fake::inet(Behaviour::default().answer(b'E', &[(b'h', b"X-One\x001\0"), (b'c', b"")])).await;
    let second = Fake::unix(Behaviour::default().answer(b'E', &[(b'm', b"\0\0\0\x01X-One\x002\0"), (b'c', b"")])).await;
    let world = World::new(&asking(&[&first, &second], "tempfail"), |_| {}).await;
    let verdict = world.send(CLIENT, "", MESSAGE).await.unwrap();
    assert!(second.data(b'L').contains("X-One|1|"));
    assert!(stored(&verdict, MESSAGE).contains("\nX-One: 2\n"));
}

#[tokio::test]
async fn failures_count_as_configured() {
    let cases: Vec<(&str, Behaviour)> = vec![
        ("hangs up at connect", Behaviour { hangs_up: Some(b'C'), ..Behaviour::default() }),
        ("hangs up at the end", Behaviour { hangs_up: Some(b'E'), ..Behaviour::default() }),
        ("another protocol", Behaviour { garbage: Some((b'O', b"220 smtp ready\r\n".to_vec())), ..Behaviour::default() }),
        ("an unknown answer", Behaviour::default().answer(b'M', &[(b'Z', b"")])),
        ("an endless packet", Behaviour { garbage: Some((b'R', vec![0xff; 64])), ..Behaviour::default() }),
        ("a change too early", Behaviour::default().answer(b'R', &[(b'h', b"A\0b\0")])),
        ("a field of two lines' name", Behaviour::default().answer(b'E', &[(b'h', b"A: b\r\nC\0d\0"), (b'c', b"")])),
        ("a reply that is none", Behaviour::default().answer(b'M', &[(b'y', b"250 fine\0")])),
        ("an old version", Behaviour { options: [1, 0, 0], ..Behaviour::default() }),
        ("an endless body", {
            let piece = vec![b'x'; 60_000];
            let packets: Vec<(u8, &[u8])> = (0..200).map(|_| (b'b', piece.as_slice())).collect();
            Behaviour::default().answer(b'E', &packets)
        }),
        ("shut down", Behaviour::default().answer(b'T', &[(b'4', b"")])),
    ];
    for (name, behaviour) in cases {
        let fake = Fake::inet(behaviour.clone()).await;
        let refused = match through(&fake).await {
            Err(reply) => reply,
            Ok(Verdict { action: Action::Defer(reply), .. }) => reply,
            Ok(verdict) => unreachable!("{name}: {:?}", verdict.action),
        };
        assert_eq!(refused.code, 451, "{name}");
        let fake = Fake::inet(behaviour).await;
        let world = World::new(&asking(&[&fake], "accept"), |_| {}).await;
        let verdict = world.send(CLIENT, "", MESSAGE).await.unwrap();
        assert_eq!(verdict.action, Action::Accept, "{name}");
        assert!(verdict.header.is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_filter_that_is_not_there_or_says_nothing_is_not_waited_for_long() {
    let silent = Fake::inet(Behaviour { falls_silent: Some(b'M'), ..Behaviour::default() }).await;
    let mut config = asking(&[&silent], "accept");
    config.screen.milter[0].timeout = Duration::from_millis(50);
    config.screen.milter.push(Milter {
        address: "unix:/nonexistent/milter.sock".into(),
        on_failure: "accept".into(),
        timeout: Duration::from_secs(5),
    });
    let world = World::new(&config, |_| {}).await;
    assert_eq!(world.send(CLIENT, "", MESSAGE).await.unwrap().action, Action::Accept);
}

#[tokio::test]
async fn a_filter_that_failed_is_tried_again_at_the_next_message() {
    let fake = Fake::inet(Behaviour { hangs_up: Some(b'E'), ..Behaviour::default() }).await;
    let world = World::new(&asking(&[&fake], "accept"), |_| {}).await;
    let mut session = world.session(CLIENT);
    session.connect().await.unwrap();
    session.helo("mx.example.net").await.unwrap();
    for _ in 0..2 {
        assert_eq!(transaction(&mut session, "", MESSAGE).await.unwrap().action, Action::Accept);
    }
    assert_eq!(fake.letters().matches("OCHM").count(), 2);
}

#[tokio::test]
async fn users_mail_is_shown_only_where_that_is_configured() {
    for shown in [false, true] {
        let fake = Fake::inet(Behaviour::default().answer(b'E', &[(b'h', b"X-Seen\x001\0"), (b'c', b"")])).await;
        let mut config = asking(&[&fake], "tempfail");
        config.submission.milter = shown;
        let world = World::new(&config, |_| {}).await;
        let mut session = world.session(CLIENT);
        session.facts_mut().user = Some("bob@example.org".parse().unwrap());
        session.facts_mut().mechanism = Some("SCRAM-SHA-256");
        let verdict = transaction(&mut session, "bob@example.org", MESSAGE).await.unwrap();
        assert_eq!(stored(&verdict, MESSAGE).contains("X-Seen"), shown);
        assert!(!stored(&verdict, MESSAGE).contains("X-Pillarbox-Verdict"));
        assert_eq!(fake.data(b'D').contains("{auth_type}|SCRAM-SHA-256|{auth_authen}|bob@example.org|"), shown);
    }
}

#[tokio::test]
async fn reset_tells_the_filter() {
    let fake = Fake::inet(Behaviour::default()).await;
    let world = World::new(&asking(&[&fake], "tempfail"), |_| {}).await;
    let mut session = world.session(CLIENT);
    session.helo("mx.example.net").await.unwrap();
    session.mail("Q1", &ReversePath::Null, &Default::default()).await.unwrap();
    session.reset().await;
    transaction(&mut session, "", MESSAGE).await.unwrap();
    assert!(fake.letters().starts_with("OCHMAMRT"), "{}", fake.letters());
}
