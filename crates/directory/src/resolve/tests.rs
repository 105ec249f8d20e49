//! What becomes of mail, case by case.

use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::memory::MemoryDirectory;
use crate::records::Change;
use crate::suite::{Build, build, user_record};

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

async fn directory() -> MemoryDirectory {
    let directory = MemoryDirectory::new();
    let mut gone = user_record("gone@example.org");
    gone.suspended = true;
    build(&directory, &["example.org", "other.example", "catch.example"])
        .await
        .user("Bob@example.org")
        .await
        .user("bob+exact@example.org")
        .await
        .user("ann@example.org")
        .await
        .put(Change::PutUser(gone))
        .await
        .alias("info@example.org", &["bob@example.org", "ann@example.org", "far@elsewhere.example"])
        .await
        .alias("chain@example.org", &["info@example.org", "bob@example.org"])
        .await
        .alias("ann@example.org", &["ann@example.org", "ann@home.example"])
        .await
        .alias("a@example.org", &["b@example.org"])
        .await
        .alias("b@example.org", &["a@example.org"])
        .await
        .alias("mixed@example.org", &["a@example.org", "bob@example.org", "gone@example.org", "nobody@example.org"])
        .await
        .alias("old@example.org", &["gone@example.org"])
        .await
        .alias("own@example.org", &["bob+lists@example.org"])
        .await
        .alias("@catch.example", &["bob@example.org"])
        .await;
    directory
}

/// The outcome in one line: `bob@example.org`, `bob@example.org/folder`, `-> far@x by y`.
async fn ask(directory: &MemoryDirectory, policy: &ResolvePolicy, rcpt: &str) -> String {
    let resolution = resolve(directory, policy, &mailbox(rcpt)).await.unwrap();
    assert!(!resolution.steps.is_empty(), "{rcpt} was resolved without a word");
    match resolution.outcome {
        Resolved::Deliver(targets) => {
            let words = targets.into_iter().map(|target| match target {
                Target::Mailbox { user, folder: None } => user.to_string(),
                Target::Mailbox { user, folder: Some(folder) } => format!("{user}/{folder}"),
                Target::Remote { address, forwarded_by } => format!("-> {address} by {forwarded_by}"),
            });
            words.collect::<Vec<_>>().join(", ")
        }
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn addresses_go_where_they_should() {
    let directory = directory().await;
    for (rcpt, expected) in [
        ("bob@example.org", "Bob@example.org"),
        ("BOB@EXAMPLE.ORG", "Bob@example.org"),
        ("bob+shop@example.org", "Bob@example.org/shop"),
        ("bob+@example.org", "Bob@example.org"),
        ("bob+exact@example.org", "bob+exact@example.org"),
        ("nobody@example.org", "Unknown"),
        ("+shop@example.org", "Unknown"),
        ("x@elsewhere.example", "NotOurs"),
        (
            "info@example.org",
            "Bob@example.org, ann@example.org, -> ann@home.example by ann@example.org, -> far@elsewhere.example by info@example.org",
        ),
        (
            "chain@example.org",
            "Bob@example.org, ann@example.org, -> ann@home.example by ann@example.org, -> far@elsewhere.example by info@example.org",
        ),
        // A forwarding keeps the copy that it lists; a detail goes along.
        ("ann@example.org", "ann@example.org, -> ann@home.example by ann@example.org"),
        ("ann+x@example.org", "ann@example.org/x, -> ann+x@home.example by ann@example.org"),
        (
            "info+x@example.org",
            "Bob@example.org/x, ann@example.org/x, -> ann+x@home.example by ann@example.org, -> far+x@elsewhere.example by info@example.org",
        ),
        // A target with a detail of its own keeps that.
        ("own+y@example.org", "Bob@example.org/lists"),
        ("a@example.org", "Loop"),
        ("a+x@example.org", "Loop"),
        ("mixed@example.org", "Bob@example.org"),
        ("gone@example.org", "Suspended"),
        ("gone+x@example.org", "Suspended"),
        ("old@example.org", "Suspended"),
        ("anything@catch.example", "Bob@example.org"),
        ("postmaster@catch.example", "Bob@example.org"),
        // No open relay in any old syntax: these are local parts and nobody's.
        ("user%elsewhere.example@example.org", "Unknown"),
        ("elsewhere.example!user@example.org", "Unknown"),
        ("\"x@elsewhere.example\"@example.org", "Unknown"),
        ("x@[192.0.2.1]", "NotOurs"),
    ] {
        assert_eq!(ask(&directory, &ResolvePolicy::default(), rcpt).await, expected, "{rcpt}");
    }
    let plain = ResolvePolicy { delimiter: String::new(), ..Default::default() };
    assert_eq!(ask(&directory, &plain, "bob+shop@example.org").await, "Unknown");
}

#[tokio::test]
async fn held_users_are_named_beside_those_who_get_their_mail() {
    let directory = directory().await;
    let resolution = resolve(&directory, &ResolvePolicy::default(), &mailbox("mixed@example.org")).await.unwrap();
    assert_eq!(resolution.suspended, vec![mailbox("gone@example.org")]);
    let kinds: Vec<_> = resolution.steps.iter().map(|s| s.text.as_str()).collect();
    assert!(kinds.contains(&"a@example.org leads back to itself: this branch is left out"), "{kinds:#?}");
    assert!(kinds.contains(&"there is no user or alias nobody@example.org"), "{kinds:#?}");
    let json = serde_json::to_value(&resolution.steps).unwrap();
    assert_eq!(json[0]["step"], "hosted");
    assert_eq!(json[0]["text"], "example.org is a domain of this server");
}

#[tokio::test]
async fn postmaster_and_abuse_always_reach_someone() {
    let directory = directory().await;
    let first = {
        let mut user = user_record("zoe@example.org");
        user.created = "2020-01-01T00:00:00Z".into();
        user
    };
    directory.apply(vec![Change::PutUser(first)]).await.unwrap();
    let policy = ResolvePolicy {
        hostname: Some("mail.example.org".parse().unwrap()),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ..Default::default()
    };
    for rcpt in [
        "postmaster@example.org",
        "Abuse@example.org",
        "POSTMASTER@[192.0.2.1]",
        "postmaster@mail.example.org",
        "abuse@mail.example.org",
        // A domain without users falls back to the one that stands for this host.
        "postmaster@other.example",
    ] {
        assert_eq!(ask(&directory, &policy, rcpt).await, "zoe@example.org", "{rcpt}");
    }
    for rcpt in ["postmaster@[192.0.2.2]", "postmaster@mail.elsewhere.example", "bob@[192.0.2.1]", "bob@mail.example.org"] {
        assert_eq!(ask(&directory, &policy, rcpt).await, "NotOurs", "{rcpt}");
    }
    let named = ResolvePolicy { postmaster: Some(mailbox("ann@example.org")), ..policy.clone() };
    assert!(ask(&directory, &named, "postmaster@other.example").await.starts_with("ann@example.org"));
    build(&directory, &[]).await.alias("postmaster@example.org", &["bob@example.org"]).await;
    for rcpt in ["postmaster@example.org", "abuse@example.org", "postmaster@other.example"] {
        assert_eq!(ask(&directory, &policy, rcpt).await, "Bob@example.org", "{rcpt}");
    }
    // An alias that reaches nobody does not swallow them.
    build(&directory, &[]).await.alias("postmaster@example.org", &["gone@example.org"]).await;
    assert_eq!(ask(&directory, &policy, "postmaster@example.org").await, "zoe@example.org");
}

#[tokio::test]
async fn expansion_is_bounded() {
    let directory = MemoryDirectory::new();
    let mut b = build(&directory, &["example.org"]).await.user("end@example.org").await;
    for n in 0..25 {
        let next = if n == 24 { "end@example.org".into() } else { format!("c{}@example.org", n + 1) };
        b = b.alias(&format!("c{n}@example.org"), &[&next]).await;
    }
    let remote: Vec<String> = (0..600).map(|n| format!("u{n}@elsewhere.example")).collect();
    let more: Vec<String> = (600..1200).map(|n| format!("u{n}@elsewhere.example")).collect();
    let as_str = |list: &[String]| list.iter().map(|s| s.as_str().to_owned()).collect::<Vec<_>>();
    let (remote, more) = (as_str(&remote), as_str(&more));
    let _: Build<'_> = b
        .alias("half@example.org", &remote.iter().map(String::as_str).collect::<Vec<_>>())
        .await
        .alias("rest@example.org", &more.iter().map(String::as_str).collect::<Vec<_>>())
        .await
        .alias("all@example.org", &["half@example.org", "rest@example.org"])
        .await;
    let policy = ResolvePolicy::default();
    assert_eq!(ask(&directory, &policy, "c0@example.org").await, "TooMany");
    assert_eq!(ask(&directory, &policy, "c5@example.org").await, "end@example.org");
    assert_eq!(ask(&directory, &policy, "c5+x@example.org").await, "end@example.org/x");
    assert_eq!(ask(&directory, &policy, "half@example.org").await.matches("->").count(), 600);
    assert_eq!(ask(&directory, &policy, "all@example.org").await, "TooMany");
}

#[tokio::test]
async fn reports_to_rewritten_senders_are_led_back() {
    let directory = directory().await;
    let srs = Arc::new(Srs::load(&directory).await.unwrap());
    let policy = ResolvePolicy::default().with_srs(Arc::clone(&srs));
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let ours = "example.org".parse().unwrap();
    let long = format!("{}@sender.example", "l".repeat(60));
    for sender in ["joe@sender.example", long.as_str()] {
        let out = srs.rewrite(&directory, &mailbox(sender), &ours, now).await.unwrap();
        let back = resolve_at(&directory, &policy, &out, now).await.unwrap();
        assert_eq!(back.outcome, Resolved::Deliver(vec![Target::Remote { address: mailbox(sender), forwarded_by: out.clone() }]));
    }
    let forged = mailbox("SRS0=AAAAAA=AA=victim.example=spam@example.org");
    assert_eq!(resolve_at(&directory, &policy, &forged, now).await.unwrap().outcome, Resolved::Unknown);
    assert_eq!(ask(&directory, &policy, "SRS0=AAAAAA=AA=victim.example=spam@catch.example").await, "Unknown", "not even by a catch-all");
    assert_eq!(ask(&directory, &policy, "SRS0=AAAAAA=AA=victim.example=spam@elsewhere.example").await, "NotOurs");
}

#[tokio::test]
async fn a_directory_that_is_away_is_no_unknown_user() {
    let directory = directory().await;
    directory.set_away(Some("test"));
    assert!(resolve(&directory, &ResolvePolicy::default(), &mailbox("bob@example.org")).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the aliases, resolution ends, keeps its bounds, and names no target twice.
    #[test]
    fn any_web_of_aliases_is_resolved(edges in prop::collection::vec((0u8..12, prop::collection::vec((0u8..16, any::<bool>()), 1..5)), 0..16), start in 0u8..12) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = MemoryDirectory::new();
            let mut b = build(&directory, &["example.org"]).await.user("n1@example.org").await.user("n2@example.org").await;
            for (from, to) in &edges {
                let targets: Vec<String> =
                    to.iter().map(|(n, detail)| format!("n{n}{}@{}", if *detail { "+d" } else { "" }, if *n > 12 { "far.example" } else { "example.org" })).collect();
                let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
                if targets.iter().any(|t| *t != format!("n{from}@example.org")) {
                    b = b.alias(&format!("n{from}@example.org"), &targets).await;
                }
            }
            let policy = ResolvePolicy { max_targets: 30, ..Default::default() };
            let resolution = resolve(&directory, &policy, &mailbox(&format!("n{start}@example.org"))).await.unwrap();
            if let Resolved::Deliver(targets) = resolution.outcome {
                assert!(!targets.is_empty() && targets.len() <= 30);
                let unique: HashSet<String> = targets.iter().map(|t| match t {
                    Target::Mailbox { user, .. } => user.to_string(),
                    Target::Remote { address, .. } => address.to_string(),
                }).collect();
                assert_eq!(unique.len(), targets.len());
            }
        });
    }
}
