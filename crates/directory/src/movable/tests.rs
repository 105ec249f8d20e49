//! Moving between stores while they are written to.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock::ManualClock;
use crate::export::render;
use crate::state::{FOREVER, SETTINGS};
use crate::suite::{alias_record, build, domain_record, user_record};
use crate::{DkimKeyRecord, SledDirectory};

/// Takes private keys out of records, as a move to files does.
struct Strip;

#[async_trait::async_trait]
impl Adapt for Strip {
    async fn domain(&self, mut record: DomainRecord) -> Result<DomainRecord> {
        record.dkim.iter_mut().for_each(|key| key.private_pem = None);
        Ok(record)
    }
}

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

fn sled(folder: &tempfile::TempDir, name: &str) -> Place {
    Place::Sled(folder.path().join(name))
}

async fn open(place: &Place) -> Arc<Movable> {
    Movable::new(place.open(&DirectoryConfig::default()).await.unwrap(), place.clone())
}

async fn migrate(movable: &Movable, to: &Place, replace: bool) -> Result<Transferred> {
    movable.migrate(to, &DirectoryConfig::default(), replace, Arc::new(Strip), Arc::new(|_, _| {})).await
}

#[tokio::test]
async fn it_keeps_what_every_store_promises() {
    let clock = ManualClock::at(1_000_000);
    let memory = crate::MemoryDirectory::with_clock(Arc::new(clock.clone()));
    crate::suite::run(Movable::new(Arc::new(memory), Place::Postgres("postgres://none".into())).as_ref(), &clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_during_a_move_are_in_both_and_nobody_notices_the_switch() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (sled(&folder, "here"), sled(&folder, "there"));
    let movable = open(&here).await;
    let mut domain = domain_record("example.org");
    domain.dkim.push(DkimKeyRecord {
        selector: "s".into(),
        algorithm: "ed25519-sha256".into(),
        public: "p".into(),
        private_pem: Some("secret".into()),
        created: String::new(),
        active_from: None,
        retired: None,
    });
    movable.apply(vec![Change::PutDomain(domain)]).await.unwrap();
    for batch in 0..10 {
        let users = (0..300).map(|n| Change::PutUser(user_record(&format!("u{batch}-{n}@example.org"))));
        movable.apply(users.collect()).await.unwrap();
    }
    movable.state_put(SETTINGS, b"srs-secret", b"s", FOREVER).await.unwrap();
    movable.state_put("greylist", b"k", b"v", Duration::from_secs(60)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (movable, stop) = (Arc::clone(&movable), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut n = 0u32;
            while !stop.load(Ordering::SeqCst) || n < 20 {
                let mut named = user_record(&format!("w{}@example.org", n % 7));
                // A login name that wanders from user to user.
                named.logins = vec![mailbox("wanderer@example.org")];
                let mut bare = user_record(&format!("w{}@example.org", (n + 6) % 7));
                bare.name = Some(n.to_string());
                movable.apply(vec![Change::PutUser(bare), Change::PutUser(named)]).await.unwrap();
                movable.apply(vec![Change::PutAlias(alias_record(&format!("a{n}@example.org"), &["w0@example.org"]))]).await.unwrap();
                movable.apply(vec![Change::RemoveUser(mailbox(&format!("u0-{}@example.org", n % 300)))]).await.unwrap();
                n += 1;
            }
            n
        })
    };
    let mover = (Arc::clone(&movable), there.clone());
    let done = tokio::spawn(async move { migrate(&mover.0, &mover.1, false).await }).await.unwrap().unwrap();
    assert!(done.users > 2500 && done.state >= 2, "{done:?}");
    assert_eq!(movable.mirror().await, Some(there.clone()));
    stop.store(true, Ordering::SeqCst);
    assert!(writer.await.unwrap() >= 20);
    let before = movable.inner();
    let mut news = movable.watch();
    news.mark_unchanged();
    let generation = movable.generation();
    movable.switch(&there).await.unwrap();
    news.changed().await.unwrap();
    assert!(movable.generation() > generation && *news.borrow() == movable.generation());
    assert_eq!(movable.place(), there);
    assert_eq!(movable.domain(&"example.org".parse().unwrap()).await.unwrap().unwrap().dkim[0].private_pem, None, "adapted");
    // All else is alike, to the last change.
    let strip = |text: String| text.lines().filter(|l| !l.contains("private_pem")).collect::<Vec<_>>().join("\n");
    assert_eq!(strip(render(movable.as_ref()).await.unwrap()), strip(render(before.as_ref()).await.unwrap()));
    assert_eq!(movable.state_get("greylist", b"k").await.unwrap().as_deref(), Some(b"v".as_slice()));
    movable.apply(vec![Change::PutUser(user_record("after@example.org"))]).await.unwrap();
    assert!(before.user(&mailbox("after@example.org")).await.unwrap().is_none(), "the old place is left alone");
    news.changed().await.unwrap();
    drop(before);
    assert!(here.open(&DirectoryConfig::default()).await.is_ok(), "the old store is closed");
}

#[tokio::test]
async fn what_cannot_be_moved_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (sled(&folder, "here"), sled(&folder, "there"));
    let movable = open(&here).await;
    build(movable.as_ref(), &["example.org"]).await.user("bob@example.org").await;
    assert!(matches!(movable.switch(&there).await, Err(DirectoryError::Refused(_))), "nothing was moved");
    assert!(matches!(migrate(&movable, &here, true).await, Err(DirectoryError::Refused(_))), "onto itself");
    {
        let other = there.open(&DirectoryConfig::default()).await.unwrap();
        build(other.as_ref(), &["old.example"]).await.user("x@old.example").await.alias("y@old.example", &["x@old.example"]).await;
    }
    assert!(matches!(migrate(&movable, &there, false).await, Err(DirectoryError::Occupied { domains: 1, .. })));
    let done = migrate(&movable, &there, true).await.unwrap();
    assert_eq!(done, Transferred { domains: 1, users: 1, aliases: 0, state: 0, removed: 3 });
    // Someone else's program spoils the copy: the next change does not fit, and the switch is refused until it is made anew.
    let mirror = match &*movable.stage.read().await {
        Stage::Mirrored(mirror) => Arc::clone(&mirror.directory),
        _ => panic!("no mirror"),
    };
    mirror.apply(vec![Change::RemoveUser(mailbox("bob@example.org")), Change::RemoveDomain("example.org".parse().unwrap())]).await.unwrap();
    movable.apply(vec![Change::PutUser(user_record("eve@example.org"))]).await.unwrap();
    assert!(movable.health().unwrap_err().contains("missed a change"));
    assert!(movable.switch(&there).await.is_err());
    drop(mirror);
    movable.forget_mirror().await;
    migrate(&movable, &there, true).await.unwrap();
    movable.switch(&there).await.unwrap();
    assert!(movable.health().is_ok());
    assert!(movable.user(&mailbox("eve@example.org")).await.unwrap().is_some());
    assert!(SledDirectory::open(folder.path().join("here")).is_ok());
}
