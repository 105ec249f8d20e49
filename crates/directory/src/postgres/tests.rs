//! The shared suite and what is PostgreSQL's own, against a real server in a temporary folder.

use pillarbox_testkit::Postgres;

use super::*;
use crate::clock::ManualClock;
use crate::suite::{self, build, user_record};

async fn connect(server: &Postgres, edit: impl FnOnce(&mut PostgresOptions)) -> PostgresDirectory {
    let mut options = PostgresOptions::from_config(&DirectoryConfig { url: server.url("postgres"), ..Default::default() });
    edit(&mut options);
    PostgresDirectory::connect(options).await.unwrap()
}

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

/// Waits for something that another connection brings about.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_server() {
    let Some(mut server) = Postgres::start().await else { return };
    server.sql("CREATE DATABASE suite").await;
    let clock = ManualClock::at(1_000_000);
    let url = server.url("suite");
    suite::run(&connect(&server, |o| (o.clock, o.url) = (Arc::new(clock.clone()), url)).await, &clock).await;
    registered(&server).await;
    as_configured(&server).await;
    several_nodes(&mut server).await;
}

/// The pool and the memory are as large as the configuration says, however much is asked at once.
async fn as_configured(server: &Postgres) {
    server.sql("CREATE DATABASE small").await;
    let url = server.url("small");
    let text = format!("[directory]\nbackend = \"postgres\"\nurl = \"{url}\"\nconnections = 3\ncache_memory = \"1M\"");
    let config = pillarbox_config::Config::from_text(&text, std::path::Path::new("test.toml"), []).unwrap();
    let small = PostgresDirectory::connect(PostgresOptions::from_config(&config.directory)).await.unwrap();
    let long = format!("{}.{}.{}.example", "a".repeat(60), "b".repeat(60), "c".repeat(60));
    let addresses: Vec<Mailbox> = (0..4000).map(|n| mailbox(&format!("{n}@{long}"))).collect();
    for some in addresses.chunks(100) {
        let found = futures::future::join_all(some.iter().map(|address| small.user(address))).await;
        assert!(found.into_iter().all(|user| user.unwrap().is_none()));
    }
    let (kept, limit) = (small.shared.cache.octets(), 1 << 20);
    assert!(kept > limit / 2 && kept <= limit, "{kept}");
    assert_eq!(server.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'small'").await, "4", "three, and one that listens");
}

async fn several_nodes(server: &mut Postgres) {
    // Both bring the schema up to date at once.
    let (one, two) = tokio::join!(connect(server, |_| {}), connect(server, |_| {}));
    build(&one, &["example.org"]).await.user("bob@example.org").await;
    let (bob, new) = (mailbox("bob@example.org"), mailbox("new@example.org"));
    until("the first user's arrival", async || two.user(&bob).await.unwrap().is_some()).await;

    // An absent row is remembered, and forgotten when it appears.
    assert!(two.user(&new).await.unwrap().is_none());
    let mut watch = two.watch();
    build(&one, &[]).await.user("new@example.org").await;
    until("the new user's arrival", async || two.user(&new).await.unwrap().is_some()).await;
    watch.changed().await.unwrap();
    assert!(one.user(&new).await.unwrap().is_some(), "on the node itself at once");

    // A change of a remembered row.
    let mut suspended = user_record("bob@example.org");
    suspended.suspended = true;
    two.apply(vec![Change::PutUser(suspended)]).await.unwrap();
    assert!(two.user(&bob).await.unwrap().unwrap().suspended);
    until("the suspension's arrival", async || one.user(&bob).await.unwrap().unwrap().suspended).await;

    // Rules and counters hold when both write at once.
    let adds = (0..20).map(|n| {
        let node = if n % 2 == 0 { &one } else { &two };
        let user = user_record(&format!("u{n}@example.org"));
        async move { node.apply(vec![Change::PutUser(user)]).await }
    });
    for added in futures::future::join_all(adds).await {
        added.unwrap();
    }
    until("the count", async || one.counts(&bob.domain).await.unwrap() == (22, 0) && two.counts(&bob.domain).await.unwrap() == (22, 0))
        .await;

    // State is one for all: of many, one is first.
    let tries = (0..10).map(|n| {
        let node = if n % 2 == 0 { &one } else { &two };
        async move { node.state_put_new("once", b"k", b"v", Duration::from_secs(60)).await.unwrap() }
    });
    assert_eq!(futures::future::join_all(tries).await.into_iter().filter(|won| *won).count(), 1);

    database_away(server, &one).await;
}

/// Known users are served, unknown ones are not said to be unknown, nothing is written; and all is well again afterwards.
async fn database_away(server: &mut Postgres, one: &PostgresDirectory) {
    let (bob, new) = (mailbox("bob@example.org"), mailbox("new@example.org"));
    let strict = connect(server, |o| o.serve_stale = Duration::ZERO).await;
    assert!(strict.user(&bob).await.unwrap().is_some());
    let (absent, robert) = (mailbox("absent@example.org"), mailbox("robert@example.org"));
    let mut named = user_record("new@example.org");
    named.logins = vec![robert.clone()];
    one.apply(vec![Change::PutUser(named)]).await.unwrap();
    let policy = crate::ResolvePolicy::from_config(&pillarbox_config::Config::default());
    let outcome = async |address: &Mailbox| crate::resolve(one, &policy, address).await.map(|resolution| resolution.outcome);
    for address in [&bob, &new, &absent] {
        let _ = outcome(address).await.unwrap();
    }
    for login in [&new, &robert] {
        assert!(one.user_by_login(login).await.unwrap().is_some());
    }
    server.stop().await;
    until("the loss", async || one.health().is_err() && strict.health().is_err()).await;
    assert!(one.user(&bob).await.unwrap().unwrap().suspended, "known");
    assert!(one.domain(&bob.domain).await.unwrap().is_some(), "known");
    assert!(matches!(outcome(&new).await, Ok(crate::Resolved::Deliver(_))), "that it has no alias is known too");
    assert_eq!(one.user_by_login(&robert).await.unwrap().unwrap().address, new, "by a further name");
    for address in [&absent, &mailbox("never-asked@example.org")] {
        assert!(matches!(one.user(address).await, Err(DirectoryError::Unavailable(_))), "{address}");
        assert!(matches!(one.user_by_login(address).await, Err(DirectoryError::Unavailable(_))), "{address}");
        assert!(outcome(address).await.is_err(), "{address}");
    }
    assert!(matches!(strict.user(&bob).await, Err(DirectoryError::Unavailable(_))), "stale for no time at all");
    assert!(matches!(one.apply(vec![Change::PutUser(user_record("lost@example.org"))]).await, Err(DirectoryError::Unavailable(_))));
    assert!(matches!(one.state_put_new("once", b"k2", b"v", Duration::from_secs(60)).await, Err(DirectoryError::Unavailable(_))));
    assert!(matches!(one.users(None, None, 10).await, Err(DirectoryError::Unavailable(_))));

    server.run().await;
    until("the return", async || one.health().is_ok()).await;
    assert!(one.user(&absent).await.unwrap().is_none());
    until("the next change", async || one.apply(vec![Change::PutUser(user_record("later@example.org"))]).await.is_ok()).await;
    let rows = {
        let client = one.shared.client().await.unwrap();
        client.query("SELECT address FROM pillarbox.users WHERE suspended", &[]).await.unwrap()
    };
    assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["bob@example.org"], "a view that people can read");
    {
        let client = one.shared.client().await.unwrap();
        client.execute("INSERT INTO pillarbox.migrations (version) VALUES (99)", &[]).await.unwrap();
    }
    let newer =
        PostgresDirectory::connect(PostgresOptions::from_config(&DirectoryConfig { url: server.url("postgres"), ..Default::default() }))
            .await;
    assert!(matches!(newer.err().unwrap(), DirectoryError::Newer { found: 99, known: 2 }));
}

/// Who may have a queue folder, and questions from node to node.
async fn registered(server: &Postgres) {
    let (here, there) = (connect(server, |_| {}).await, connect(server, |_| {}).await);
    let (one, two) = (here.registry().unwrap(), there.registry().unwrap());
    let entry = |id: &str, process: &str, place: &str| NodeEntry {
        id: id.into(),
        process: process.into(),
        name: format!("{id}.example"),
        place: place.into(),
        folder: format!("/{id}/queue"),
        version: "1".into(),
    };
    let (long, none) = (Duration::from_secs(60), Duration::ZERO);
    let why = |refused: Result<()>| match refused {
        Err(DirectoryError::Refused(why)) => why,
        other => panic!("should have been refused: {other:?}"),
    };
    let (a, b, c) = (entry("a", "1", "here"), entry("b", "2", "there"), entry("c", "3", "yonder"));
    for node in [&a, &b, &c] {
        one.enter(node, long, true).await.unwrap();
    }
    // Alive: nobody else has it, not even a copy of it elsewhere. A later run at the same place supersedes.
    assert!(why(two.claim("a", "b").await).contains("alive"));
    assert!(why(two.enter(&entry("a", "9", "a copy"), long, true).await).contains("run beside it"));
    let again = entry("a", "4", "here");
    two.enter(&again, long, true).await.unwrap();
    assert!(!one.beat(&a, long, 1, 1).await.unwrap(), "the earlier run has lost it");
    assert!(why(one.enter(&a, long, false).await).contains("run beside it"), "and does not take it back");
    assert!(one.beat(&again, none, 7, 9).await.unwrap());
    // Its lease has run out: exactly one of two who try gets it.
    let states = async |id: &str| one.nodes().await.unwrap().into_iter().find(|n| n.id == id).unwrap();
    assert_eq!((states("a").await.state, states("a").await.messages), (NodeState::Silent, 7));
    let (first, second) = tokio::join!(one.claim("a", "b"), two.claim("a", "c"));
    let (winner, loser) = if first.is_ok() { ("b", "c") } else { ("c", "b") };
    assert!(why(if first.is_ok() { second } else { first }).contains(&format!("{winner}.example is taking it over")));
    assert!(!one.beat(&again, long, 0, 0).await.unwrap(), "its own node learns of it");
    assert!(why(one.enter(&again, long, true).await).contains("taken over"));
    one.claim("a", winner).await.unwrap();
    assert!(!one.finish("a", loser).await.unwrap());
    // Whoever takes the winner's queue over inherits what it had begun.
    one.leave(if winner == "b" { &b } else { &c }, 0, 0).await.unwrap();
    one.claim(winner, loser).await.unwrap();
    assert!(one.finish(winner, loser).await.unwrap() && one.is_claimed_by("a", loser).await.unwrap());
    assert!(one.finish("a", loser).await.unwrap());
    assert!(why(two.claim("a", winner).await).contains("already"));
    assert!(why(two.claim("nobody", "c").await).contains("no node"));
    assert_eq!(states("a").await.state, NodeState::Evacuated);
    assert!(why(one.enter(&again, long, true).await).contains(&format!("{loser}.example")), "a revived node may not have it");

    // What will not come back can be taken out, but for what guards against old copies.
    assert!(why(one.remove("a").await).contains("taken over"));
    let (d, e) = (entry("d", "1", "d-place"), entry("e", "1", "e-place"));
    for entry in [&d, &e] {
        one.enter(entry, long, true).await.unwrap();
    }
    assert!(why(two.remove("d").await).contains("alive"));
    one.leave(&d, 0, 0).await.unwrap();
    two.remove("d").await.unwrap();
    assert!(why(two.remove("d").await).contains("no such node"));
    one.withdraw(&e).await.unwrap();
    assert!(one.nodes().await.unwrap().iter().all(|node| node.id != "d" && node.id != "e"));
    assert!(one.is(&one.clone()) && !one.is(&two));

    let answering = two.clone();
    let mut asked = two.asked();
    let answerer = tokio::spawn(async move {
        loop {
            asked.changed().await.unwrap();
            for (id, question) in answering.questions("q").await.unwrap() {
                answering.answer(&id, &format!("{question}!")).await.unwrap();
            }
        }
    });
    assert_eq!(one.ask("q", "how much", Duration::from_secs(30)).await.unwrap().as_deref(), Some("how much!"));
    answerer.abort();
    assert_eq!(one.ask("silent", "how much", Duration::from_millis(50)).await.unwrap(), None);
    assert_eq!(server.sql("SELECT count(*) FROM pillarbox.questions").await, "0");
}
