//! The verbs, one after another.

use std::time::{Duration, UNIX_EPOCH};

use pillarbox_config::Argon2Cost;
use pillarbox_smtp::Secret;

use super::*;
use crate::memory::MemoryDirectory;
use crate::password::verify;
use crate::records::{AliasAddress, Quota, Vacation};
use crate::suite::build;

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };

fn now() -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

fn alias(text: &str) -> AliasAddress {
    text.parse().unwrap()
}

/// What went wrong, as one letter, for short tables.
fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(OpsError::NotFound(_)) => "not found",
        Err(OpsError::Exists(_)) => "exists",
        Err(OpsError::Refused(_)) => "refused",
        Err(OpsError::Directory(_)) => "directory",
    }
}

#[tokio::test]
async fn domains() {
    let d = MemoryDirectory::new();
    let name = "example.org".parse().unwrap();
    assert_eq!(add_domain(&d, &name, now()).await.unwrap().created, "2023-11-14T22:13:20Z");
    assert_eq!(kind(add_domain(&d, &name, now()).await), "exists");
    assert_eq!(kind(add_domain(&d, &"[192.0.2.1]".parse().unwrap(), now()).await), "refused");
    build(&d, &[]).await.user("bob@example.org").await.alias("@example.org", &["bob@example.org"]).await;
    assert_eq!(kind(remove_domain(&d, &name, false).await), "refused");
    assert_eq!(remove_domain(&d, &name, true).await.unwrap(), RemovedDomain { users: 1, aliases: 1 });
    assert_eq!(kind(remove_domain(&d, &name, true).await), "not found");
    assert!(d.users(None, None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn users() {
    let d = MemoryDirectory::new();
    build(&d, &["example.org"]).await;
    let bob = mailbox("bob@example.org");
    let new = |password: &str| NewUser::new(bob.clone(), Some(Secret::new(password)));
    assert_eq!(kind(add_user(&d, NewUser::new(mailbox("x@nowhere.example"), None), &CHEAP, now()).await), "not found");
    assert_eq!(kind(add_user(&d, new(""), &CHEAP, now()).await), "refused");
    add_user(&d, NewUser { scram: true, ..new("one") }, &CHEAP, now()).await.unwrap();
    assert_eq!(kind(add_user(&d, new("two"), &CHEAP, now()).await), "exists");
    let before = d.credential(&bob).await.unwrap().unwrap();
    assert!(verify(before.password.as_ref().unwrap(), b"one").unwrap() && before.scram.is_some());

    let (app, secret) = add_app_password(&d, &bob, " phone ", now()).await.unwrap();
    assert!(app.label == "phone" && verify(&app.hash, secret.as_bytes()).unwrap());
    assert_eq!(kind(add_app_password(&d, &bob, "phone", now()).await), "exists");
    assert_eq!(kind(add_app_password(&d, &bob, "a\nb", now()).await), "refused");
    set_password(&d, &bob, Secret::new("two"), &CHEAP, false).await.unwrap();
    let after = d.credential(&bob).await.unwrap().unwrap();
    assert!(verify(after.password.as_ref().unwrap(), b"two").unwrap() && after.app == vec![app]);
    assert!(after.scram.is_some() && after.scram != before.scram, "SCRAM keys follow the password");
    for n in 1..MAX_APP_PASSWORDS {
        add_app_password(&d, &bob, &format!("device {n}"), now()).await.unwrap();
    }
    assert_eq!(kind(add_app_password(&d, &bob, "one too many", now()).await), "refused");
    revoke_app_password(&d, &bob, "phone").await.unwrap();
    assert_eq!(kind(revoke_app_password(&d, &bob, "phone").await), "not found");
    assert_eq!(list_app_passwords(&d, &bob).await.unwrap().len(), MAX_APP_PASSWORDS - 1);

    let generation = d.generation();
    assert!(!set_suspended(&d, &bob, false).await.unwrap().suspended);
    assert_eq!(d.generation(), generation, "no change, no write");
    assert!(set_suspended(&d, &bob, true).await.unwrap().suspended);
    assert_eq!(set_quota(&d, &bob, Some(Quota::Bytes(1))).await.unwrap().quota, Some(Quota::Bytes(1)));
    assert_eq!(kind(add_login(&d, &bob, &mailbox("BOB@example.org")).await), "exists");
    assert_eq!(kind(add_login(&d, &bob, &mailbox("robert@example.org")).await), "ok");
    assert_eq!(kind(add_user(&d, NewUser::new(mailbox("robert@example.org"), None), &CHEAP, now()).await), "refused");
    assert_eq!(kind(remove_login(&d, &bob, &mailbox("robert@example.org")).await), "ok");
    assert_eq!(kind(remove_login(&d, &bob, &mailbox("robert@example.org")).await), "not found");
    let vacation = |from: Option<&str>, until: Option<&str>| Vacation {
        subject: "Away".into(),
        text: "Back soon".into(),
        from: from.map(Into::into),
        until: until.map(Into::into),
    };
    assert_eq!(kind(set_vacation(&d, &bob, vacation(Some("2026-02-30"), None)).await), "refused");
    assert_eq!(kind(set_vacation(&d, &bob, vacation(Some("2026-03-02"), Some("2026-03-01"))).await), "refused");
    assert_eq!(kind(set_vacation(&d, &bob, vacation(Some("2026-03-01"), Some("2026-03-01"))).await), "ok");
    assert_eq!(kind(clear_vacation(&d, &bob).await), "ok");
    assert_eq!(kind(clear_vacation(&d, &bob).await), "not found");
    for outcome in [set_quota(&d, &mailbox("no@example.org"), None).await, set_name(&d, &mailbox("no@example.org"), None).await] {
        assert_eq!(kind(outcome), "not found");
    }
}

#[tokio::test]
async fn a_removed_user_leaves_its_forwarding_and_names_who_still_points_there() {
    let d = MemoryDirectory::new();
    build(&d, &["example.org"])
        .await
        .user("bob@example.org")
        .await
        .user("ann@example.org")
        .await
        .alias("bob@example.org", &["bob@example.org", "bob@new.example"])
        .await
        .alias("ann@example.org", &["ann@example.org"])
        .await
        .alias("team@example.org", &["bob@example.org"])
        .await;
    let left = remove_user(&d, &mailbox("BOB@example.org")).await.unwrap();
    assert_eq!(left.aliases.iter().map(|a| a.address.to_string()).collect::<Vec<_>>(), ["team@example.org"]);
    assert_eq!(d.alias(&alias("bob@example.org")).await.unwrap().unwrap().targets, vec![mailbox("bob@new.example")]);
    remove_user(&d, &mailbox("ann@example.org")).await.unwrap();
    assert!(d.alias(&alias("ann@example.org")).await.unwrap().is_none());
    assert_eq!(kind(remove_user(&d, &mailbox("ann@example.org")).await), "not found");
}

#[tokio::test]
async fn aliases() {
    let d = MemoryDirectory::new();
    build(&d, &["example.org"]).await.user("bob@example.org").await;
    let add = async |address: &str, targets: &[&str]| {
        let targets: Vec<Mailbox> = targets.iter().map(|t| mailbox(t)).collect();
        add_alias(&d, &alias(address), &targets, now()).await
    };
    assert_eq!(kind(add("x@nowhere.example", &["bob@example.org"]).await), "not found");
    assert_eq!(kind(add("x@example.org", &[]).await), "refused");
    assert_eq!(kind(add("x@example.org", &["x@example.org"]).await), "refused");
    assert_eq!(add("info@example.org", &["bob@example.org"]).await.unwrap().targets.len(), 1);
    assert_eq!(kind(add("info@example.org", &["BOB@example.org"]).await), "exists");
    assert_eq!(add("info@example.org", &["bob@example.org", "far@elsewhere.example"]).await.unwrap().targets.len(), 2);
    assert_eq!(kind(add("a@example.org", &["b@example.org"]).await), "ok", "a target may be added later");
    assert_eq!(kind(add("b@example.org", &["a@example.org"]).await), "refused", "a loop");
    assert_eq!(kind(add("b@example.org", &["a@example.org", "bob@example.org"]).await), "ok");
    assert_eq!(kind(add("bob@example.org", &["bob@example.org"]).await), "ok", "a user keeps its copy");
    assert_eq!(kind(add("@example.org", &["bob@example.org"]).await), "ok");

    let remove = async |address: &str, targets: &[&str]| {
        let targets: Vec<Mailbox> = targets.iter().map(|t| mailbox(t)).collect();
        remove_alias(&d, &alias(address), &targets).await
    };
    assert_eq!(kind(remove("info@example.org", &["bob@example.org", "nobody@example.org"]).await), "not found");
    assert_eq!(d.alias(&alias("info@example.org")).await.unwrap().unwrap().targets.len(), 2, "nothing was changed");
    assert_eq!(remove("info@example.org", &["bob@example.org"]).await.unwrap().unwrap().targets.len(), 1);
    assert_eq!(remove("info@example.org", &["far@elsewhere.example"]).await.unwrap(), None);
    assert_eq!(kind(remove("info@example.org", &[]).await), "not found");
    assert_eq!(remove("@example.org", &[]).await.unwrap(), None);
}
