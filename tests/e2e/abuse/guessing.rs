//! Passwords tried one after the other: the same words and the same work for everybody, then slower, then not at all, then heard again.

use super::*;

/// One try; the code of the answer.
async fn try_login(daemon: &Daemon, source: Ipv4Addr, user: &str, password: &str) -> String {
    let mut client = submitting(daemon, source).await;
    client.line(&format!("AUTH PLAIN {}", plain(user, password))).await;
    client.reply().await.code().to_owned()
}

#[tokio::test]
async fn unknown_users_cost_the_same_work_and_get_the_same_words() {
    let daemon = started(builder().set("auth.failures_per_client", 1000)).await;
    daemon.add_user("gone@example.test", "suspended").await;
    daemon.admin(&["user", "suspend", "gone@example.test"]).await;
    daemon.admin(&["app-password", "add", "alice@example.test", "phone"]).await;
    let work = || counted(&daemon, "pillarbox_directory_hashes_checked_total", "");
    let mut seen = Vec::new();
    // Shaped like one of ours: it is held against app-passwords too.
    let app_like = "abcd-efgh-ijkm-nopq-rstu";
    for (n, (user, password)) in [
        ("alice@example.test", "wrong"),
        ("nobody@example.test", "wrong"),
        ("gone@example.test", "suspended"),
        ("x@elsewhere.test", "wrong"),
        ("no address", "wrong"),
    ]
    .into_iter()
    .enumerate()
    {
        for secret in [password, app_like] {
            let before = work().await;
            let mut client = submitting(&daemon, source(n as u32)).await;
            client.line(&format!("AUTH PLAIN {}", plain(user, secret))).await;
            let reply = client.reply().await.to_string();
            seen.push((secret == app_like, work().await - before, reply));
        }
    }
    for shaped in [false, true] {
        let of_shape: Vec<_> = seen.iter().filter(|(is, ..)| *is == shaped).collect();
        assert!(of_shape.windows(2).all(|pair| pair[0] == pair[1]), "{of_shape:?}");
        assert!(of_shape[0].1 >= 1 && of_shape[0].2.starts_with("535"), "{of_shape:?}");
    }
}

#[tokio::test]
async fn a_client_that_guesses_is_turned_away_for_a_while_and_nobody_else_is() {
    let daemon = started(builder().set("auth.failures_per_client", 3).set("auth.failure_window", "4s")).await;
    for n in 0..3 {
        assert_eq!(try_login(&daemon, source(0), "alice@example.test", &format!("guess{n}")).await, "535");
    }
    assert_eq!(try_login(&daemon, source(0), "alice@example.test", "wonderland").await, "421", "not even the right one");
    assert_eq!(try_login(&daemon, source(1), "alice@example.test", "wonderland").await, "235", "from elsewhere");
    assert_eq!(counted(&daemon, "pillarbox_directory_clients_blocked_total", "").await, 1);
    assert!(counted(&daemon, "pillarbox_ingest_logins_total", "blocked").await >= 1);
    // It expires: the same client is heard again.
    let again = async {
        while try_login(&daemon, source(0), "alice@example.test", "wonderland").await != "235" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(pillarbox_testkit::PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn an_account_under_attack_slows_down_and_its_owner_is_spared() {
    let daemon = started(builder()).await;
    let owner = Ipv4Addr::new(127, 0, 0, 50);
    assert_eq!(try_login(&daemon, owner, "alice@example.test", "wonderland").await, "235");
    // From many places, so that no client is turned away for itself; with each failure the pause doubles.
    let mut paused = false;
    for n in 0..60 {
        let code = try_login(&daemon, source(n), "alice@example.test", &format!("guess{n}")).await;
        assert!(code == "535" || code == "421", "{code}");
        paused |= code == "421";
    }
    assert!(paused, "sixty guesses were all heard");
    assert_eq!(try_login(&daemon, owner, "alice@example.test", "wonderland").await, "235", "where the owner was before");
    daemon.add_user("bob@example.test", "builder").await;
    assert_eq!(try_login(&daemon, source(100), "bob@example.test", "builder").await, "235", "another account");
}
