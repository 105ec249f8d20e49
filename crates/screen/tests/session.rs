//! A client's way through the screen: lists, rates, sender domains, SPF, DKIM and DMARC together, greylisting, forged results.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use pillarbox_config::{Config, Dnsbl, Rate};
use pillarbox_directory::{Directory, MemoryDirectory};
use pillarbox_screen::{Action, Notice, UserRates};
use pillarbox_smtp::{EnhancedCode, MailParams, Reply, ReversePath};
use support::dns::Script;
use support::session::{World, config, stored};

const CLIENT: &str = "198.51.100.7";
const FROM: &str = "alice@example.net";
const MESSAGE: &str = "From: Alice <alice@example.net>\nTo: bob@example.org\nSubject: hello\n\nbody\n";

/// `example.net` with an MX, an SPF record that names [`CLIENT`], and a DMARC policy.
fn example_net(policy: &str) -> impl FnOnce(&mut Script) {
    let policy = policy.to_owned();
    move |script| {
        script.mx("example.net", 10, "mx.example.net").a("mx.example.net", CLIENT);
        script.txt("example.net", "v=spf1 ip4:198.51.100.7 -all");
        script.txt("_dmarc.example.net", &format!("v=DMARC1; p={policy}; rua=mailto:dmarc@example.net"));
    }
}

fn codes(reply: &Reply) -> (u16, Option<EnhancedCode>) {
    (reply.code, reply.enhanced)
}

fn zone(zone: &str, action: &str) -> Dnsbl {
    Dnsbl { zone: zone.into(), action: action.into(), codes: vec![], score: 3.0 }
}

#[tokio::test]
async fn good_mail_passes_with_its_results() {
    let world = World::new(&config(|_| {}), example_net("reject")).await;
    let verdict = world.send(CLIENT, FROM, MESSAGE).await.unwrap();
    assert_eq!((verdict.action.clone(), verdict.dmarc, verdict.score), (Action::Accept, Some("pass"), 0.0));
    assert!(stored(&verdict, MESSAGE).starts_with(
        "X-Pillarbox-Verdict: accept, score=0.0 required=6.0\nAuthentication-Results: mx.example.org;\n\tspf=pass smtp.mailfrom=example.net;\n\tdkim=none;\n\
         \tdmarc=pass (p=reject) header.from=example.net\nFrom: Alice"
    ));
}

#[tokio::test]
async fn dmarc_policies_are_done() {
    let world = World::new(&config(|_| {}), example_net("reject")).await;
    let Action::Reject(reply) = world.send("203.0.113.9", FROM, MESSAGE).await.unwrap().action else { unreachable!() };
    assert_eq!(codes(&reply), (550, Some(EnhancedCode(5, 7, 1))));
    let world = World::new(&config(|_| {}), example_net("quarantine")).await;
    assert_eq!(world.send("203.0.113.9", FROM, MESSAGE).await.unwrap().action, Action::Junk);
    let world = World::new(&config(|_| {}), example_net("none")).await;
    let verdict = world.send("203.0.113.9", FROM, MESSAGE).await.unwrap();
    assert_eq!((verdict.action, verdict.dmarc), (Action::Accept, Some("fail")));
    assert_eq!(verdict.score, 3.5, "SPF fail and DMARC fail: {:?}", verdict.why);
    let world = World::new(&config(|screen| screen.dmarc = "report-only".into()), example_net("reject")).await;
    assert_eq!(world.send("203.0.113.9", FROM, MESSAGE).await.unwrap().action, Action::Accept);
    let world = World::new(&config(|screen| screen.dmarc = "off".into()), example_net("reject")).await;
    assert_eq!(world.send("203.0.113.9", FROM, MESSAGE).await.unwrap().dmarc, None);
}

#[tokio::test]
async fn a_subdomain_falls_under_its_organisation() {
    let world = World::new(&config(|_| {}), |script| {
        example_net("none; sp=reject")(script);
        script.a("sub.example.net", "203.0.113.1");
    })
    .await;
    let message = MESSAGE.replace("alice@example.net", "alice@sub.example.net");
    assert!(matches!(world.send("203.0.113.9", "", &message).await.unwrap().action, Action::Reject(_)));
    // Relaxed alignment: SPF of the organisation's domain speaks for its subdomain.
    assert_eq!(world.send(CLIENT, FROM, &message).await.unwrap().action, Action::Accept);
}

/// RFC 9989: names that do not exist, public suffixes, domains that are testing, and names of many labels.
#[tokio::test]
async fn the_policy_is_found_by_walking_up_the_tree() {
    let world = World::new(&config(|_| {}), |script| {
        script.txt("_dmarc.np.example", "v=DMARC1; p=none; sp=quarantine; np=reject").a("there.np.example", "192.0.2.1");
        script.txt("_dmarc.testing.example", "v=DMARC1; p=reject; t=y");
        // A public suffix that answers for those below it who say nothing.
        script.txt("_dmarc.bank", "v=DMARC1; p=reject; psd=y").a("one.bank", "192.0.2.1");
        script.mx("other.bank", 1, "mx.other.bank").txt("other.bank", "v=spf1 ip4:198.51.100.7 -all");
        // A domain that is an organisation of its own, though its parent has a record.
        script.txt("_dmarc.host.example", "v=DMARC1; p=none").txt("_dmarc.own.host.example", "v=DMARC1; p=reject; psd=n");
        script.mx("host.example", 1, "mx.host.example").txt("host.example", "v=spf1 ip4:198.51.100.7 -all");
    })
    .await;
    let send = async |envelope: &str, author: &str| {
        let message = MESSAGE.replace("alice@example.net", author);
        world.send(CLIENT, envelope, &message).await.unwrap().action
    };
    assert_eq!(send("", "a@np.example").await, Action::Accept);
    assert_eq!(send("", "a@there.np.example").await, Action::Junk, "sp");
    assert!(matches!(send("", "a@nowhere.np.example").await, Action::Reject(_)), "np");
    assert_eq!(send("", "a@testing.example").await, Action::Junk, "one step less than reject");
    assert!(matches!(send("", "a@one.bank").await, Action::Reject(_)), "the suffix's own policy");
    assert!(matches!(send("x@other.bank", "a@one.bank").await, Action::Reject(_)), "two banks are two organisations");
    assert!(matches!(send("x@host.example", "a@own.host.example").await, Action::Reject(_)), "psd=n parts it from its parent");
    assert_eq!(send("x@host.example", "a@sub.host.example").await, Action::Accept, "relaxed alignment within an organisation");
    let before = world.server.queries();
    assert!(matches!(send("", &format!("a@{}np.example", "x.".repeat(100))).await, Action::Reject(_)));
    assert!(world.server.queries() - before <= 12, "{} queries", world.server.queries() - before);
}

#[tokio::test]
async fn name_servers_that_fail_are_held_against_nobody() {
    let world = World::new(&config(|_| {}), |script| {
        for name in ["example.net", "_dmarc.example.net", "_dmarc.net"] {
            script.fails(name);
        }
    })
    .await;
    let verdict = world.send("203.0.113.9", FROM, MESSAGE).await.unwrap();
    assert_eq!((verdict.action.clone(), verdict.score, verdict.dmarc), (Action::Accept, 0.0, Some("temperror")), "{:?}", verdict.why);
    assert!(stored(&verdict, MESSAGE).contains("spf=temperror"));
}

#[tokio::test]
async fn two_from_fields_are_refused_and_forged_results_removed() {
    let world = World::new(&config(|_| {}), example_net("reject")).await;
    let two = format!("From: eve@example.com\n{MESSAGE}");
    assert!(matches!(world.send(CLIENT, FROM, &two).await.unwrap().action, Action::Reject(_)));
    let forged = format!(
        "Authentication-Results: MX.example.org;\n\tdmarc=pass\nX-Pillarbox-Verdict: accept\nAuthentication-Results: else.example; spf=pass\n{MESSAGE}"
    );
    let verdict = world.send(CLIENT, FROM, &forged).await.unwrap();
    let stored = stored(&verdict, &forged);
    assert_eq!(stored.to_ascii_lowercase().matches("authentication-results: mx.example.org").count(), 1, "{stored}");
    assert_eq!(stored.matches("X-Pillarbox-Verdict").count(), 1);
    assert!(stored.contains("else.example"));
}

#[tokio::test]
async fn sender_domains_must_exist_and_take_mail() {
    let world = World::new(&config(|_| {}), |script| {
        script.mx("nomail.example", 0, ".").a("web.example", "192.0.2.1").txt("empty.example", "no address").fails("sick.example");
    })
    .await;
    let mail = async |from: &str| world.session(CLIENT).mail("Q1", &from.parse::<ReversePath>().unwrap(), &MailParams::default()).await;
    assert_eq!(codes(&mail("a@nomail.example").await.unwrap_err()), (550, Some(EnhancedCode(5, 7, 27))));
    assert_eq!(codes(&mail("a@nowhere.example").await.unwrap_err()), (550, Some(EnhancedCode(5, 1, 8))));
    assert_eq!(codes(&mail("a@empty.example").await.unwrap_err()), (550, Some(EnhancedCode(5, 1, 8))));
    for from in ["a@web.example", "a@sick.example", "a@[192.0.2.1]", "bob@example.org", ""] {
        mail(from).await.unwrap_or_else(|reply| unreachable!("{from}: {reply}"));
    }
}

#[tokio::test]
async fn block_lists_reject_score_and_yield_to_allow_lists() {
    let lists = |script: &mut Script| {
        example_net("none")(script);
        script.a("9.113.0.203.block.example", "127.0.0.4").txt("9.113.0.203.block.example", "see https://block.example/203.0.113.9");
        script.a("8.113.0.203.block.example", "127.255.255.254").a("7.113.0.203.block.example", "127.0.0.2");
        script.a("7.113.0.203.allow.example", "127.0.0.2");
        script.a("9.113.0.203.score.example", "127.0.0.2");
        script.a("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.block.example", "127.0.0.2");
    };
    let settings = config(|screen| screen.dnsbl = vec![zone("block.example", "reject"), zone("allow.example", "allow")]);
    let world = World::new(&settings, lists).await;
    for client in ["203.0.113.9", "2001:db8::2"] {
        let reply = world.send(client, FROM, MESSAGE).await.unwrap_err();
        assert_eq!(codes(&reply), (550, Some(EnhancedCode(5, 7, 1))));
        assert!(reply.lines[0].contains("block.example"), "{reply}");
    }
    let reply = world.send("203.0.113.9", FROM, MESSAGE).await.unwrap_err();
    assert!(reply.lines[0].ends_with("see https://block.example/203.0.113.9"), "{reply}");
    for client in ["203.0.113.8", "203.0.113.7", "127.0.0.1", CLIENT] {
        world.send(client, FROM, MESSAGE).await.unwrap_or_else(|reply| unreachable!("{client}: {reply}"));
    }
    // The postmaster is reached from listed addresses too.
    let mut session = world.session("203.0.113.9");
    session.connect().await.unwrap();
    session.mail("Q1", &ReversePath::Null, &MailParams::default()).await.unwrap();
    session.rcpt(&ReversePath::Null, &"Postmaster@example.org".parse().unwrap()).await.unwrap();
    assert!(session.rcpt(&ReversePath::Null, &"bob@example.org".parse().unwrap()).await.is_err());

    let world = World::new(&config(|screen| screen.dnsbl = vec![zone("score.example", "score")]), lists).await;
    let verdict = world.send("203.0.113.9", FROM, MESSAGE).await.unwrap();
    assert_eq!((verdict.action, verdict.score), (Action::Junk, 6.5), "{:?}", verdict.why);
    let strict = config(|screen| {
        screen.dnsbl = vec![zone("score.example", "score")];
        screen.reject_score = 6.0;
    });
    assert!(matches!(World::new(&strict, lists).await.send("203.0.113.9", FROM, MESSAGE).await.unwrap().action, Action::Reject(_)));
}

#[tokio::test]
async fn deny_and_allow_lists() {
    let denied =
        config(|screen| screen.deny = ["203.0.113.0/24", "bad.example.net", "eve@example.net", "@evil.example"].map(Into::into).to_vec());
    let world = World::new(&denied, example_net("none")).await;
    assert_eq!(world.send("203.0.113.9", FROM, MESSAGE).await.unwrap_err().code, 550);
    assert_eq!(world.send(CLIENT, "Eve@example.net", MESSAGE).await.unwrap_err().code, 550);
    assert_eq!(world.send(CLIENT, "x@evil.example", MESSAGE).await.unwrap_err().code, 550);
    let mut session = world.session(CLIENT);
    assert_eq!(session.helo("BAD.example.net").await.unwrap_err().code, 550);
    world.send(CLIENT, FROM, MESSAGE).await.unwrap();

    let allowed = config(|screen| screen.allow = ["203.0.113.0/24", "example.com"].map(Into::into).to_vec());
    let world = World::new(&allowed, |script| {
        example_net("reject")(script);
        script.txt("example.com", "v=spf1 ip4:192.0.2.1 -all").txt("_dmarc.example.com", "v=DMARC1; p=reject");
    })
    .await;
    let verdict = world.send("203.0.113.9", FROM, MESSAGE).await.unwrap();
    assert_eq!(verdict.action, Action::Accept);
    assert!(verdict.leaves_unchanged(), "never judged");
    // A domain on the list is believed unless SPF says that another speaks in its name.
    let message = MESSAGE.replace("example.net", "nowhere.example");
    assert_eq!(world.send("192.0.2.1", "a@example.com", &message).await.unwrap().why, ["sender is on the allow list"]);
    assert!(matches!(
        world.send("192.0.2.2", "a@example.com", &MESSAGE.replace("example.net", "example.com")).await.unwrap().action,
        Action::Reject(_)
    ));
}

#[tokio::test]
async fn rates_are_kept_per_sender_and_recipient() {
    let rate = |count| Rate { count, period: Duration::from_secs(3600) };
    let limited = config(|screen| (screen.sender_rate, screen.mailbox_rate) = (rate(2), rate(3)));
    let world = World::new(&limited, example_net("none")).await;
    world.send(CLIENT, FROM, MESSAGE).await.unwrap();
    world.send("203.0.113.9", FROM, MESSAGE).await.unwrap();
    // From whatever client it comes.
    let reply = world.send("203.0.113.10", FROM, MESSAGE).await.unwrap_err();
    assert_eq!(codes(&reply), (450, Some(EnhancedCode(4, 7, 1))), "{reply}");
    world.send(CLIENT, "eve@example.net", MESSAGE).await.unwrap();
    let reply = world.send(CLIENT, "", MESSAGE).await.unwrap_err();
    assert_eq!(codes(&reply), (450, Some(EnhancedCode(4, 2, 1))), "bob has had three: {reply}");
}

#[tokio::test]
async fn rates_are_kept_per_client() {
    let rate = |count| Rate { count, period: Duration::from_secs(3600) };
    let limited = config(|screen| (screen.connection_rate, screen.message_rate, screen.recipient_rate) = (rate(3), rate(2), rate(1)));
    let world = World::new(&limited, example_net("none")).await;
    world.send(CLIENT, FROM, MESSAGE).await.unwrap();
    assert_eq!(world.send(CLIENT, FROM, MESSAGE).await.unwrap_err().code, 450, "recipients");
    assert_eq!(world.send(CLIENT, FROM, MESSAGE).await.unwrap_err().code, 450, "messages");
    assert_eq!(world.send(CLIENT, FROM, MESSAGE).await.unwrap_err().code, 421, "connections");
    world.send("203.0.113.9", FROM, MESSAGE).await.unwrap();
}

#[tokio::test]
async fn strangers_wait_and_those_who_prove_themselves_do_not() {
    let grey = config(|screen| screen.greylist = true);
    let world = World::new(&grey, example_net("none")).await;
    assert_eq!(world.send(CLIENT, FROM, MESSAGE).await.unwrap().action, Action::Accept, "SPF passes");
    for _ in 0..2 {
        let Action::Defer(reply) = world.send("203.0.113.9", FROM, MESSAGE).await.unwrap().action else { unreachable!() };
        assert_eq!(codes(&reply), (451, Some(EnhancedCode(4, 7, 1))));
    }
    // Bob wrote to Alice once.
    let users = UserRates::new(&grey, world.directory.clone(), None);
    users.check(&"bob@example.org".parse().unwrap(), &FROM.parse().unwrap()).await.unwrap();
    assert_eq!(world.send("203.0.113.9", FROM, MESSAGE).await.unwrap().action, Action::Accept);
}

#[tokio::test]
async fn a_users_outbound_mail_is_capped_and_the_postmaster_told_once() {
    let directory = Arc::new(MemoryDirectory::new());
    let mut config = Config::default();
    config.submission.rate_per_user = Rate::per_hour(5);
    config.submission.new_recipients_per_user = Rate::per_hour(2);
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = told.clone();
    let users = UserRates::new(&config, directory, Some(Arc::new(move |notice| log.lock().unwrap().push(notice))));
    let user = "bob@example.org".parse().unwrap();
    let to = async |rcpt: &str| users.check(&user, &rcpt.parse().unwrap()).await.map_err(|reply| reply.code);
    assert_eq!(to("a@example.com").await, Ok(()));
    assert_eq!(to("b@example.com").await, Ok(()));
    assert_eq!(to("c@example.com").await, Err(450), "a third new one");
    assert_eq!(to("a@example.com").await, Ok(()), "known by now");
    assert_eq!(to("d@example.org").await, Ok(()), "a colleague is not new");
    for _ in 0..3 {
        assert_eq!(to("a@example.com").await, Err(450), "six in all");
    }
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(matches!(&told[0], Notice::UserOverLimit { limit: "submission.new_recipients_per_user", .. }));
    assert!(matches!(&told[1], Notice::UserOverLimit { limit: "submission.rate_per_user", rate, .. } if rate == "5/h"));
}

#[tokio::test]
async fn the_directory_being_away_stops_no_mail() {
    let grey = config(|screen| screen.greylist = true);
    let world = World::new(&grey, example_net("none")).await;
    world.directory.set_away(Some("power cut"));
    assert_eq!(world.send("203.0.113.9", FROM, MESSAGE).await.unwrap().action, Action::Accept);
    let users = UserRates::new(&grey, world.directory.clone(), None);
    users.check(&"bob@example.org".parse().unwrap(), &FROM.parse().unwrap()).await.unwrap();
}

/// THREATS: an SPF record that asks for more than ten look-ups, loops, or is 64 KiB long.
#[tokio::test]
async fn spf_bombs_are_bounded() {
    let world = World::new(&config(|screen| screen.dmarc = "off".into()), |script| {
        for n in 0..30 {
            let includes: String = (1..9).map(|m| format!(" include:s{}.bomb.example", n * 8 + m)).collect();
            script.txt(&format!("s{n}.bomb.example"), &format!("v=spf1{includes} -all"));
        }
        script
            .a("s0.bomb.example", "192.0.2.1")
            .mx("loop.example", 1, "x.loop.example")
            .txt("loop.example", "v=spf1 include:loop.example -all");
        script.mx("long.example", 1, "x.long.example").txt("long.example", &format!("v=spf1 {} -all", "ip4:192.0.2.1 ".repeat(4000)));
        script.cname("cycle.example", "cycle2.example").cname("cycle2.example", "cycle.example");
        script.mx("many.example", 1, "m0.many.example").txt("many.example", "v=spf1 mx -all");
        for n in 0..1000 {
            script.mx("many.example", 2, &format!("m{n}.many.example"));
        }
    })
    .await;
    for (domain, result) in
        [("s0.bomb.example", "permerror"), ("loop.example", "permerror"), ("long.example", "fail"), ("many.example", "permerror")]
    {
        let before = world.server.queries();
        let verdict = world.send("203.0.113.9", &format!("a@{domain}"), MESSAGE).await.unwrap();
        assert!(
            String::from_utf8_lossy(&verdict.prepend).contains(&format!("spf={result} ")),
            "{domain}: {}",
            String::from_utf8_lossy(&verdict.prepend)
        );
        assert!(world.server.queries() - before < 40, "{domain}: {} queries", world.server.queries() - before);
    }
    let cycle = world.session(CLIENT).mail("Q1", &"a@cycle.example".parse().unwrap(), &MailParams::default()).await;
    assert_eq!(cycle.unwrap_err().code, 550, "a name that leads nowhere");
}

/// A report about our domain, from a sender who proves who it is, is kept; what others send us of ours is counted for their reports.
#[tokio::test]
async fn dmarc_reports_come_in_and_go_out() {
    let reporting = config(|screen| screen.dmarc_reports = true);
    let world = World::new(&reporting, |script| {
        example_net("none")(script);
        script.txt("_dmarc.example.com", "v=DMARC1; p=none; rua=mailto:r@elsewhere.example,mailto:dmarc@example.com");
    })
    .await;
    for _ in 0..3 {
        world.send(CLIENT, FROM, MESSAGE).await.unwrap();
    }
    world.send("203.0.113.9", "", &MESSAGE.replace("example.net", "example.com")).await.unwrap();
    let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let from = "postmaster@example.org".parse().unwrap();
    let due = async |day| {
        pillarbox_screen::reports::due(world.directory.as_ref(), &world.server.dns(), "mx.example.org", &from, day).await.unwrap()
    };
    assert!(due(today).await.is_empty(), "the day is not over");
    let reports = due(today + 1).await;
    let to: Vec<_> = reports.iter().map(|report| (report.domain.as_str().to_owned(), report.to.clone())).collect();
    // elsewhere.example did not agree to take reports about example.com (RFC 9990 §4).
    let expected = [("example.com", "dmarc@example.com"), ("example.net", "dmarc@example.net")];
    assert_eq!(to, expected.map(|(domain, to)| (domain.to_owned(), to.parse().unwrap())));
    assert!(due(today + 1).await.is_empty(), "each is made once");
    let parsed = pillarbox_screen::reports::parse(&reports[1].message).unwrap();
    assert_eq!((parsed.domain.as_str(), parsed.messages, parsed.passed), ("example.net", 3, 3));
    assert!(world.directory.state_list("dmarc_rows").await.unwrap().is_empty());

    let report = String::from_utf8(reports[1].message.clone()).unwrap();
    assert!(pillarbox_screen::reports::looks_like_report(report.as_bytes()), "{report}");
}

/// THREATS: name servers that never answer. Nobody waits for long, nothing is held against the sender, and soon nobody waits at all.
#[tokio::test]
async fn silent_name_servers_are_given_up() {
    let server = support::dns::Server::with(|script| {
        script.is_silent("example.net");
    })
    .await;
    let world = World::over(&config(|_| {}), server.impatient_dns(), server).await;
    let from: ReversePath = FROM.parse().unwrap();
    for _ in 0..5 {
        assert!(!world.screen.dns().is_down());
        world.session(CLIENT).mail("Q1", &from, &MailParams::default()).await.unwrap();
    }
    assert!(world.screen.dns().is_down());
    let verdict = world.send(CLIENT, FROM, MESSAGE).await.unwrap();
    assert_eq!((verdict.action, verdict.dmarc), (Action::Accept, Some("temperror")));
}
