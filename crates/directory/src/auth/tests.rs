//! Logins, case by case, with hashes cheap enough for a test.

use super::*;
use crate::clock::ManualClock;
use crate::memory::MemoryDirectory;
use crate::records::{AppPassword, ScramKeys};
use crate::suite::{build, user_record};

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
const OTHER: Argon2Cost = Argon2Cost { memory_kib: 128, iterations: 1, parallelism: 1 };

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

struct World {
    directory: Arc<MemoryDirectory>,
    authenticator: Authenticator,
    clock: ManualClock,
    app: Secret,
}

impl World {
    async fn with(policy: AuthPolicy) -> Self {
        let clock = ManualClock::at(1_700_000_000);
        let directory = Arc::new(MemoryDirectory::with_clock(Arc::new(clock.clone())));
        let mut bob = user_record("bob@example.org");
        bob.logins = vec![mailbox("robert@example.org")];
        let app = password::app_password();
        let credential = CredentialRecord {
            password: Some(password::hash(&secret("right"), &CHEAP).unwrap()),
            scram: Some(ScramKeys::generate(&secret("right"))),
            app: vec![AppPassword {
                label: "phone".into(),
                hash: password::hash(&app, &APP_PASSWORD_COST).unwrap(),
                created: "2026-01-01T00:00:00Z".into(),
                last_used: None,
            }],
        };
        build(directory.as_ref(), &["example.org"])
            .await
            .put(Change::PutUser(bob))
            .await
            .put(Change::PutCredential(mailbox("bob@example.org"), credential))
            .await
            .user("new@example.org")
            .await;
        let authenticator = Authenticator::with_clock(Arc::clone(&directory) as Arc<dyn Directory>, policy, Arc::new(clock.clone()));
        Self { directory, authenticator, clock, app }
    }

    async fn new() -> Self {
        Self::with(AuthPolicy { cost: CHEAP, ..Default::default() }).await
    }

    async fn check(&self, login: &str, password: &str) -> AuthOutcome {
        self.authenticator.check(login, &secret(password), None).await
    }

    async fn ok(&self, login: &str, password: &str) -> bool {
        matches!(self.check(login, password).await, AuthOutcome::Ok(user) if user.address == mailbox("bob@example.org"))
    }

    /// Waits for what a login does behind the client's back.
    async fn until(&self, done: impl Fn(&CredentialRecord) -> bool) -> CredentialRecord {
        let mut watch = self.directory.watch();
        loop {
            let credential = self.directory.credential(&mailbox("bob@example.org")).await.unwrap().unwrap();
            if done(&credential) {
                return credential;
            }
            watch.changed().await.unwrap();
        }
    }
}

#[tokio::test]
async fn right_and_wrong() {
    let world = World::new().await;
    for login in ["bob@example.org", "BOB@Example.ORG", "robert@example.org"] {
        assert!(world.ok(login, "right").await, "{login}");
    }
    for (login, password) in [
        ("bob@example.org", "wrong"),
        ("bob@example.org", ""),
        ("bob@example.org", "right\0"),
        ("bob@example.org", "unfit"),
        ("new@example.org", "right"),
        ("nobody@example.org", "right"),
        ("bob@elsewhere.example", "right"),
        ("bob", "right"),
        ("", "right"),
        ("\u{1b}[31m@", "x"),
    ] {
        assert_eq!(world.check(login, password).await, AuthOutcome::Bad, "{login:?} {password:?}");
    }
    let long = "x".repeat(100_000);
    assert_eq!(world.check("bob@example.org", &long).await, AuthOutcome::Bad);
}

#[tokio::test]
async fn a_default_domain_completes_short_names() {
    let policy = AuthPolicy { cost: CHEAP, default_domain: Some("example.org".parse().unwrap()), ..Default::default() };
    let world = World::with(policy).await;
    assert!(world.ok("bob", "right").await && world.ok("robert", "right").await);
}

#[tokio::test]
async fn what_changes_counts_at_once() {
    let world = World::new().await;
    let bob = mailbox("bob@example.org");
    assert!(world.ok("bob@example.org", "right").await);
    assert!(world.ok("bob@example.org", world.app.expose()).await);
    let mut credential = world.until(|c| c.app[0].last_used.is_some()).await;
    assert_eq!(credential.app[0].last_used.as_deref(), Some("2023-11-14T00:00:00Z"));

    credential.password = Some(password::hash(&secret("changed"), &CHEAP).unwrap());
    credential.app.clear();
    world.directory.apply(vec![Change::PutCredential(bob.clone(), credential)]).await.unwrap();
    assert_eq!(world.check("bob@example.org", "right").await, AuthOutcome::Bad);
    assert_eq!(world.check("bob@example.org", world.app.expose()).await, AuthOutcome::Bad);
    assert!(world.ok("bob@example.org", "changed").await);

    let mut user = world.directory.user(&bob).await.unwrap().unwrap();
    user.suspended = true;
    world.directory.apply(vec![Change::PutUser(user)]).await.unwrap();
    assert_eq!(world.check("bob@example.org", "changed").await, AuthOutcome::Bad);
}

#[tokio::test]
async fn a_remembered_verdict_needs_no_permit_and_expires() {
    let world = World::with(AuthPolicy { cost: CHEAP, parallel: 1, waiting: 0, ..Default::default() }).await;
    assert!(world.ok("bob@example.org", "right").await);
    assert_eq!(world.check("nobody@example.org", "x").await, AuthOutcome::Bad);
    let all = Arc::clone(&world.authenticator.permits).acquire_owned().await.unwrap();
    assert!(world.ok("bob@example.org", "right").await, "from memory");
    assert_eq!(world.check("nobody@example.org", "x").await, AuthOutcome::Bad, "from memory too: no difference to tell users by");
    assert_eq!(world.check("bob@example.org", "other").await, AuthOutcome::Busy);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.check("bob@example.org", "right").await, AuthOutcome::Busy, "no longer remembered");
    drop(all);
    assert!(world.ok("bob@example.org", "right").await);
}

#[tokio::test]
async fn a_password_tried_on_one_name_tells_nothing_about_another() {
    let world = World::with(AuthPolicy { cost: CHEAP, parallel: 1, waiting: 0, ..Default::default() }).await;
    assert_eq!(world.check("nobody@example.org", "x").await, AuthOutcome::Bad);
    // Without a permit no hash can be checked: whoever is answered otherwise was answered from memory, and so faster.
    let _all = Arc::clone(&world.authenticator.permits).acquire_owned().await.unwrap();
    for name in ["bob@example.org", "robert@example.org", "new@example.org", "none@example.org", "x@elsewhere.example", "no address"] {
        assert_eq!(world.check(name, "x").await, AuthOutcome::Busy, "{name}");
    }
    assert_eq!(world.check("NOBODY@example.org", "x").await, AuthOutcome::Bad, "the same name");
}

#[tokio::test]
async fn waiting_has_an_end() {
    let world = World::with(AuthPolicy { cost: CHEAP, parallel: 1, patience: Duration::ZERO, ..Default::default() }).await;
    let _ = world.authenticator.dummies().await;
    let _all = Arc::clone(&world.authenticator.permits).acquire_owned().await.unwrap();
    assert_eq!(world.check("bob@example.org", "right").await, AuthOutcome::Busy);
    assert_eq!(world.authenticator.waiting.load(Ordering::Acquire), 0);
}

#[tokio::test]
async fn foreign_hashes_are_made_new_at_the_next_login() {
    let world = World::with(AuthPolicy { cost: OTHER, ..Default::default() }).await;
    let bob = mailbox("bob@example.org");
    assert!(world.ok("bob@example.org", "right").await);
    world.until(|c| c.password.as_ref().is_some_and(|p| p.contains("m=128,"))).await;
    let stored = "{SHA512-CRYPT}$6$uaJ9xyGeegwapb14$9MHOeWuGy9H.1zeLIAigHzzrBHrpI69mBMPmtlw8chQvBIrrOqoAU4HDmSK5v5ydx5fRsIWUo/oCsubOFN4of/";
    let record = CredentialRecord { password: Some(stored.into()), ..Default::default() };
    world.directory.apply(vec![Change::PutCredential(bob, record)]).await.unwrap();
    assert_eq!(world.check("bob@example.org", "right").await, AuthOutcome::Bad);
    assert!(world.ok("bob@example.org", "pleaseletmein").await);
    world.until(|c| c.password.as_ref().is_some_and(|p| p.starts_with("$argon2id$v=19$m=128,"))).await;
    assert!(world.ok("bob@example.org", "pleaseletmein").await);
}

#[tokio::test]
async fn guessing_ends_and_says_when_to_come_back() {
    let world = World::new().await;
    let client = Some("192.0.2.9".parse().unwrap());
    for n in 0..10 {
        let outcome = world.authenticator.check("bob@example.org", &secret(&format!("guess{n}")), client).await;
        assert_eq!(outcome, AuthOutcome::Bad);
    }
    let blocked = AuthOutcome::Blocked { retry_after: Duration::from_secs(600) };
    assert_eq!(world.authenticator.check("bob@example.org", &secret("right"), client).await, blocked, "not even the right one");
    assert!(world.ok("bob@example.org", "right").await, "from elsewhere");
    world.clock.advance(Duration::from_secs(600));
    assert!(matches!(world.authenticator.check("bob@example.org", &secret("right"), client).await, AuthOutcome::Ok(_)));
}

#[tokio::test]
async fn an_account_under_attack_stays_open_to_its_owner() {
    let world = World::new().await;
    let owner = Some("198.51.100.1".parse().unwrap());
    assert!(matches!(world.authenticator.check("robert@example.org", &secret("right"), owner).await, AuthOutcome::Ok(_)));
    for n in 0..20 {
        let from = Some(format!("203.0.113.{n}").parse().unwrap());
        assert_eq!(world.authenticator.check("bob@example.org", &secret("guess"), from).await, AuthOutcome::Bad);
    }
    let stranger = Some("203.0.113.200".parse().unwrap());
    assert!(matches!(world.authenticator.check("bob@example.org", &secret("right"), stranger).await, AuthOutcome::Blocked { .. }));
    assert!(matches!(world.authenticator.check("bob@example.org", &secret("right"), owner).await, AuthOutcome::Ok(_)));
    // The same for a name that is nobody's.
    for n in 0..20 {
        let from = Some(format!("203.0.113.{}", 100 + n).parse().unwrap());
        assert_eq!(world.authenticator.check("nobody@example.org", &secret("guess"), from).await, AuthOutcome::Bad);
    }
    assert!(matches!(world.authenticator.check("nobody@example.org", &secret("guess"), stranger).await, AuthOutcome::Blocked { .. }));
}

#[tokio::test]
async fn a_restart_and_another_node_know_the_owner_and_the_guesser() {
    let policy = || AuthPolicy { cost: CHEAP, shared: true, ..Default::default() };
    let world = World::with(policy()).await;
    let (owner, guesser) = (Some("198.51.100.1".parse().unwrap()), Some("192.0.2.9".parse().unwrap()));
    assert!(matches!(world.authenticator.check("bob@example.org", &secret("right"), owner).await, AuthOutcome::Ok(_)));
    for _ in 0..10 {
        assert_eq!(world.authenticator.check("bob@example.org", &secret("guess"), guesser).await, AuthOutcome::Bad);
    }
    let told = async || {
        let known = world.directory.state_list("login-networks").await.unwrap().len();
        let failures = world.directory.state_list("login-failures").await.unwrap();
        known == 1 && failures.first().is_some_and(|(_, count)| count == b"10")
    };
    while !told().await {
        tokio::task::yield_now().await;
    }
    let clock = Arc::new(world.clock.clone());
    let other = Authenticator::with_clock(Arc::clone(&world.directory) as Arc<dyn Directory>, policy(), clock);
    assert!(matches!(other.check("bob@example.org", &secret("right"), guesser).await, AuthOutcome::Blocked { .. }));
    for n in 0..20 {
        let from = Some(format!("203.0.113.{n}").parse().unwrap());
        assert_eq!(other.check("bob@example.org", &secret("guess"), from).await, AuthOutcome::Bad);
    }
    let stranger = Some("203.0.113.200".parse().unwrap());
    assert!(matches!(other.check("bob@example.org", &secret("right"), stranger).await, AuthOutcome::Blocked { .. }));
    assert!(matches!(other.check("bob@example.org", &secret("right"), owner).await, AuthOutcome::Ok(_)));
}

#[tokio::test]
async fn a_directory_that_is_away_lets_nobody_in() {
    let world = World::new().await;
    assert!(world.ok("bob@example.org", "right").await);
    world.directory.set_away(Some("test"));
    assert_eq!(world.check("bob@example.org", "right").await, AuthOutcome::Unavailable);
    assert_eq!(world.check("nobody@example.org", "right").await, AuthOutcome::Unavailable);
}

#[tokio::test]
async fn scram_keys_are_real_for_some_and_steady_for_all() {
    let world = World::new().await;
    let keys = async |authenticator: &Authenticator, login: &str| match authenticator.scram_keys(login, None).await {
        ScramOutcome::Keys(keys) => keys,
        _ => panic!("no keys for {login}"),
    };
    let real = keys(&world.authenticator, "robert@example.org").await;
    let derived = pillarbox_smtp::sasl::scram::Keys::derive(&secret("right"), &real.salt, real.iterations);
    assert!(derived.stored_key == real.stored_key && derived.server_key == real.server_key);
    let restarted =
        Authenticator::with_clock(Arc::clone(&world.directory) as Arc<dyn Directory>, AuthPolicy::default(), Arc::new(world.clock.clone()));
    for login in ["nobody@example.org", "new@example.org", "no address"] {
        let (first, again) = (keys(&world.authenticator, login).await, keys(&restarted, login).await);
        assert!(first.salt == again.salt && first.salt != real.salt && first.iterations == real.iterations, "{login}");
        assert_eq!(world.authenticator.scram_done(login, None, true).await, AuthOutcome::Bad, "a decoy proves nothing");
    }
    assert!(matches!(world.authenticator.scram_done("bob@example.org", None, true).await, AuthOutcome::Ok(_)));
    let client = Some("192.0.2.9".parse().unwrap());
    for _ in 0..10 {
        assert_eq!(world.authenticator.scram_done("bob@example.org", client, false).await, AuthOutcome::Bad);
    }
    assert!(matches!(world.authenticator.scram_keys("bob@example.org", client).await, ScramOutcome::Blocked { .. }));
}
