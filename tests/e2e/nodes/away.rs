//! The database stops under load, and comes back.

use std::time::Duration;

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
    let before = run.acknowledged().len();
    let end = tokio::time::Instant::now() + pause();
    assert_eq!(rcpt(&daemon, "bob@example.test").await.code(), "250", "known");
    for unknown in ["nobody@example.test", "never-asked@example.test"] {
        // It may have been added meanwhile, for all that this node knows.
        assert_eq!(rcpt(&daemon, unknown).await.code(), "451", "{unknown}");
    }
    assert_eq!(login_code(&daemon, ALICE, "wonderland").await, "235", "known");
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
    tokio::time::sleep_until(end).await;
    run.reached(before + 100).await;

    server.run().await;
    daemon.log_line("database is back").await;
    until("the next change", async || {
        let added = daemon.try_admin(&["user", "add", "new@example.test", "--generate", "--if-missing"], "").await;
        Some(()).filter(|()| code(&added) == 0)
    })
    .await;
    assert_eq!(rcpt(&daemon, "new@example.test").await.code(), "250");
    assert_eq!(rcpt(&daemon, "nobody@example.test").await.code(), "550");
    assert_eq!(login_code(&daemon, "eve@example.test", "apple").await, "235");
    run.reached(run.acknowledged().len() + 50).await;
    run.stop();
    let (acknowledged, failures) = run.finish().await;
    assert_eq!(failures, Vec::<String>::new(), "no session noticed");
    assert_eq!(daemon.mail(ALICE, acknowledged.len()).await.len(), acknowledged.len());
    assert_eq!(code(&daemon.try_admin(&["status"], "").await), 0);
}
