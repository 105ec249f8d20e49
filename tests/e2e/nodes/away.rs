//! The database stops under load, and comes back. `scripts/torture --database-away SECONDS` keeps it away for longer and prints figures.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pillarbox_testkit::load::MARK;
use pillarbox_testkit::{Load, Postgres};

use super::{ALICE, node, until};
use crate::post::{code, letter, login, login_code, rcpt, stderr, transmit};

/// For how long the database is away at least; by default only until enough mail was taken meanwhile.
fn pause() -> Duration {
    let seconds = std::env::var("PILLARBOX_DATABASE_AWAY").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

#[tokio::test]
async fn known_users_are_served_while_it_is_away_and_nobody_is_let_in_by_mistake() {
    let Some(mut server) = Postgres::start().await else { return };
    let daemon = node(&server, 1).start().await;
    daemon.add_user(ALICE, "wonderland").await;
    daemon.add_user("bob@example.test", "builder").await;
    daemon.add_user("eve@example.test", "apple").await;
    assert_eq!(login_code(&daemon, ALICE, "wonderland").await, "235");
    assert_eq!(rcpt(&daemon, "bob@example.test").await.code(), "250");
    assert_eq!(rcpt(&daemon, "nobody@example.test").await.code(), "550");
    let mut load = Load::new(daemon.address("smtp"), ALICE, 1_000_000);
    load.sessions = 5;
    let run = load.start();
    run.reached(50).await;

    server.stop().await;
    daemon.log_line("database is away").await;
    let (before, since) = (run.acknowledged().len(), Instant::now());
    let mut asked = 0;
    while asked == 0 || since.elapsed() < pause() {
        asked += 1;
        assert_eq!(rcpt(&daemon, "bob@example.test").await.code(), "250", "known");
        for unknown in ["nobody@example.test", "never-asked@example.test"] {
            // It may have been added meanwhile, for all that this node knows.
            assert_eq!(rcpt(&daemon, unknown).await.code(), "451", "{unknown}");
        }
        assert_eq!(login_code(&daemon, ALICE, "wonderland").await, "235", "known");
    }
    assert_eq!(login_code(&daemon, ALICE, "looking-glass").await, "535");
    let (mut session, _) = login(&daemon, ALICE, "wonderland").await;
    let letter = letter(ALICE, "bob@example.test", "meanwhile");
    assert_eq!(transmit(&mut session, ALICE, &["bob@example.test"], letter.as_bytes()).await.code(), "250", "and may send");
    for (user, password) in [("eve@example.test", "apple"), ("nobody@example.test", "x")] {
        assert_eq!(login_code(&daemon, user, password).await, "454", "{user} may be anybody");
    }
    let refused = daemon.try_admin(&["user", "add", "new@example.test", "--generate"], "").await;
    assert!(code(&refused) == 1 && !stderr(&refused).is_empty(), "{}", stderr(&refused));
    let status = daemon.try_admin(&["status"], "").await;
    assert_eq!(code(&status), 1, "the operator is told");
    run.reached(before + 100).await;
    let (meanwhile, away) = (run.acknowledged().len() - before, since.elapsed());

    server.run().await;
    let since = Instant::now();
    daemon.log_line("database is back").await;
    until("the next change", async || {
        let added = daemon.try_admin(&["user", "add", "new@example.test", "--generate", "--if-missing"], "").await;
        Some(()).filter(|()| code(&added) == 0)
    })
    .await;
    let until_written = since.elapsed();
    assert_eq!(rcpt(&daemon, "new@example.test").await.code(), "250");
    assert_eq!(rcpt(&daemon, "nobody@example.test").await.code(), "550");
    assert_eq!(login_code(&daemon, "eve@example.test", "apple").await, "235");
    run.reached(run.acknowledged().len() + 50).await;
    run.stop();
    let (acknowledged, failures) = run.finish().await;
    assert_eq!(failures, Vec::<String>::new(), "no session noticed");
    until("an empty queue", async || {
        let status = daemon.admin_json(&["status"]).await;
        Some(()).filter(|()| status["queue"]["messages"] == 0)
    })
    .await;
    let mut copies: HashMap<String, usize> = HashMap::new();
    for message in daemon.mailbox(ALICE).messages {
        *copies.entry(message.header(MARK)).or_default() += 1;
    }
    let lost = acknowledged.iter().filter(|mark| !copies.contains_key(*mark)).count();
    let doubled = copies.values().filter(|n| **n > 1).count();
    println!(
        "{:.1} s without a database: {} messages acknowledged before, {meanwhile} meanwhile, {} after; lost {lost}, doubled {doubled}; \
         {asked} times known users were served and logged in, unknown ones put off; changes taken again {:.1} s after its return",
        away.as_secs_f64(),
        before,
        acknowledged.len() - before - meanwhile,
        until_written.as_secs_f64(),
    );
    assert_eq!((lost, doubled), (0, 0));
    assert_eq!(daemon.mailbox("bob@example.test").messages.len(), 1);
    assert_eq!(code(&daemon.try_admin(&["status"], "").await), 0);
}
