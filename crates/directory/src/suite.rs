//! One test-suite for every store: what a `Directory` promises, asked of each implementation in the same words.
//!
//! [`run`] takes an empty directory on a [`ManualClock`] and panics where a promise is broken.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use pillarbox_smtp::{Domain, Mailbox};

use crate::clock::ManualClock;
use crate::records::{
    Addressee, AliasAddress, AliasRecord, AppPassword, Change, CredentialRecord, DomainRecord, Quota, UserRecord, Vacation,
};
use crate::store::{Directory, DirectoryError};

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn alias_address(text: &str) -> AliasAddress {
    text.parse().unwrap()
}

/// A domain record.
pub fn domain_record(name: &str) -> DomainRecord {
    DomainRecord { name: domain(name), created: "2026-01-01T00:00:00Z".into(), deliver_to: None, dkim: vec![] }
}

/// A user record.
pub fn user_record(address: &str) -> UserRecord {
    UserRecord::new(mailbox(address), "2026-01-01T00:00:00Z".into())
}

/// An alias record; `@domain` is the catch-all.
pub fn alias_record(address: &str, targets: &[&str]) -> AliasRecord {
    AliasRecord {
        address: alias_address(address),
        targets: targets.iter().map(|t| mailbox(t)).collect(),
        created: "2026-01-01T00:00:00Z".into(),
    }
}

/// Fills a directory for a test, one record after another.
pub struct Build<'a>(&'a dyn Directory);

/// Begins with these domains.
pub async fn build<'a>(directory: &'a dyn Directory, domains: &[&str]) -> Build<'a> {
    directory.apply(domains.iter().map(|d| Change::PutDomain(domain_record(d))).collect()).await.unwrap();
    Build(directory)
}

impl Build<'_> {
    /// Adds a user.
    pub async fn user(self, address: &str) -> Self {
        self.put(Change::PutUser(user_record(address))).await
    }

    /// Adds an alias.
    pub async fn alias(self, address: &str, targets: &[&str]) -> Self {
        self.put(Change::PutAlias(alias_record(address, targets))).await
    }

    /// Makes any change.
    pub async fn put(self, change: Change) -> Self {
        self.0.apply(vec![change]).await.unwrap();
        self
    }
}

/// Everything. The directory must be empty.
pub async fn run(directory: &dyn Directory, clock: &ManualClock) {
    records(directory).await;
    folding(directory).await;
    addressees(directory).await;
    rules(directory).await;
    logins(directory).await;
    pages(directory).await;
    conditional(directory).await;
    large(directory).await;
    state(directory, clock).await;
}

/// A change in a few words; its own `Debug` shows nothing, since it may hold secrets.
fn describe(change: &Change) -> String {
    match change {
        Change::PutDomain(d) => format!("put domain {}", d.name),
        Change::RemoveDomain(d) => format!("remove domain {d}"),
        Change::PutUser(u) => format!("put user {}", u.address),
        Change::RemoveUser(u) => format!("remove user {u}"),
        Change::PutAlias(a) => format!("put alias {}", a.address),
        Change::RemoveAlias(a) => format!("remove alias {a}"),
        Change::PutCredential(a, _) | Change::UpgradePassword { address: a, .. } | Change::TouchAppPassword { address: a, .. } => {
            format!("credential of {a}")
        }
    }
}

async fn refused(directory: &dyn Directory, changes: Vec<Change>) -> String {
    let words = format!("{:?}", changes.iter().map(describe).collect::<Vec<_>>());
    match directory.apply(changes).await {
        Err(DirectoryError::Refused(why)) => why,
        other => panic!("should have been refused: {words}: {other:?}"),
    }
}

async fn records(directory: &dyn Directory) {
    let before = directory.generation();
    let mut watch = directory.watch();
    watch.mark_unchanged();
    let mut user = user_record("bob@example.org");
    user.vacation =
        Some(Vacation { subject: "Away — ünïcode".into(), text: "line\nline".into(), from: None, until: Some("2026-02-01".into()) });
    let credential = CredentialRecord {
        password: Some("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$3Zlmc2ZzZnNkZnNkZnNkZnNkZnM".into()),
        scram: None,
        app: vec![AppPassword { label: "phone".into(), hash: "x".into(), created: "2026-01-01T00:00:00Z".into(), last_used: None }],
    };
    directory
        .apply(vec![
            // Order inside a batch does not matter: the domain comes last.
            Change::PutUser(user.clone()),
            Change::PutCredential(user.address.clone(), credential.clone()),
            Change::PutAlias(alias_record("info@example.org", &["bob@example.org", "far@elsewhere.example"])),
            Change::PutDomain(domain_record("example.org")),
        ])
        .await
        .unwrap();
    watch.changed().await.unwrap();
    assert!(directory.generation() > before);
    assert_eq!(directory.domain(&domain("example.org")).await.unwrap(), Some(domain_record("example.org")));
    assert_eq!(directory.user(&user.address).await.unwrap(), Some(user.clone()));
    assert!(directory.credential(&user.address).await.unwrap() == Some(credential));
    assert_eq!(directory.counts(&domain("example.org")).await.unwrap(), (1, 1));
    let alias = directory.alias(&alias_address("info@example.org")).await.unwrap().unwrap();
    assert_eq!(alias.targets.len(), 2);
    assert_eq!(directory.aliases_to(&mailbox("far@elsewhere.example")).await.unwrap(), vec![alias]);

    // Replacing counts once and moves the index.
    directory.apply(vec![Change::PutAlias(alias_record("info@example.org", &["bob@example.org"]))]).await.unwrap();
    assert_eq!(directory.aliases_to(&mailbox("far@elsewhere.example")).await.unwrap(), vec![]);
    assert_eq!(directory.counts(&domain("example.org")).await.unwrap(), (1, 1));

    directory
        .apply(vec![
            Change::RemoveDomain(domain("example.org")),
            Change::RemoveUser(user.address.clone()),
            Change::RemoveAlias(alias_address("info@example.org")),
        ])
        .await
        .unwrap();
    assert!(directory.credential(&user.address).await.unwrap().is_none(), "credentials go with the user");
    assert!(directory.domains().await.unwrap().is_empty() && directory.users(None, None, 9).await.unwrap().is_empty());
    assert!(directory.aliases_to(&user.address).await.unwrap().is_empty());
    assert_eq!(directory.counts(&domain("example.org")).await.unwrap(), (0, 0));
}

async fn folding(directory: &dyn Directory) {
    build(directory, &["xn--bcher-kva.example"]).await.user("Jörg@bücher.example").await;
    // Another case, and the umlaut in two code points.
    for twin in ["jörg@BÜCHER.example", "JO\u{308}RG@xn--bcher-kva.example"] {
        assert_eq!(directory.user(&mailbox(twin)).await.unwrap().unwrap().address, mailbox("Jörg@bücher.example"), "{twin}");
    }
    directory.apply(vec![Change::PutUser(user_record("JÖRG@bücher.example"))]).await.unwrap();
    assert_eq!(directory.counts(&domain("bücher.example")).await.unwrap().0, 1, "the same user");
    directory
        .apply(vec![Change::RemoveUser(mailbox("jörg@bücher.example")), Change::RemoveDomain(domain("bücher.example"))])
        .await
        .unwrap();
}

/// What RCPT asks says the same as the record, at once after each change, whatever the user was before.
async fn addressees(directory: &dyn Directory) {
    build(directory, &["bücher.example"]).await;
    let plain = user_record("jörg@bücher.example");
    let suspended = UserRecord { suspended: true, ..plain.clone() };
    let own_quota = UserRecord { quota: Some(Quota::Bytes(5)), ..plain.clone() };
    let spelt = UserRecord { address: mailbox("Jörg@bücher.example"), ..plain.clone() };
    let away = Vacation { subject: "Away".into(), text: "until Monday".into(), from: None, until: None };
    let busy = UserRecord { logins: vec![mailbox("j@old.example")], vacation: Some(away), name: Some("Jörg".into()), ..plain.clone() };
    let long = UserRecord { name: Some("x".repeat(20_000)), ..plain.clone() };
    let ask = async |address: &str| directory.addressee(&mailbox(address)).await.unwrap();
    for user in [&plain, &suspended, &plain, &own_quota, &spelt, &suspended, &busy, &long, &spelt, &plain] {
        assert_eq!(ask("nobody@bücher.example").await, None);
        directory.apply(vec![Change::PutUser(user.clone())]).await.unwrap();
        for twin in ["jörg@bücher.example", "JÖRG@BÜCHER.example", "jo\u{308}rg@xn--bcher-kva.example"] {
            assert_eq!(ask(twin).await, Some(Addressee::from(user.clone())), "{twin}");
        }
        // An alias of the same name is a thing of its own.
        let alias = AliasAddress::Mailbox(plain.address.clone());
        assert_eq!(directory.alias(&alias).await.unwrap(), None);
        let record = alias_record("Jörg@bücher.example", &["far@elsewhere.example"]);
        directory.apply(vec![Change::PutAlias(record.clone())]).await.unwrap();
        assert_eq!(directory.alias(&alias).await.unwrap(), Some(record));
        directory.apply(vec![Change::RemoveAlias(alias.clone())]).await.unwrap();
        assert_eq!(directory.alias(&alias).await.unwrap(), None);
        assert_eq!(ask("jörg@bücher.example").await, Some(Addressee::from(user.clone())));
    }
    for n in 0..2 {
        directory.apply(vec![Change::RemoveUser(plain.address.clone())]).await.unwrap();
        assert_eq!(ask("jörg@bücher.example").await, None);
        if n == 0 {
            directory.apply(vec![Change::PutUser(suspended.clone())]).await.unwrap();
        }
    }
    directory.apply(vec![Change::RemoveDomain(domain("bücher.example"))]).await.unwrap();
}

async fn rules(directory: &dyn Directory) {
    let why = refused(directory, vec![Change::PutUser(user_record("bob@nowhere.example"))]).await;
    assert!(why.contains("bob@nowhere.example"), "{why}");
    refused(directory, vec![Change::PutAlias(alias_record("x@nowhere.example", &["a@b.example"]))]).await;
    build(directory, &["example.org"]).await.user("bob@example.org").await;
    refused(directory, vec![Change::PutCredential(mailbox("eve@example.org"), CredentialRecord::default())]).await;
    refused(directory, vec![Change::PutAlias(alias_record("x@example.org", &[]))]).await;
    refused(directory, vec![Change::PutAlias(alias_record("x@example.org", &["X@example.org"]))]).await;
    refused(directory, vec![Change::RemoveDomain(domain("example.org"))]).await;
    // All or nothing: the first change of a refused batch leaves no trace.
    let generation = directory.generation();
    refused(directory, vec![Change::PutUser(user_record("ann@example.org")), Change::PutUser(user_record("x@nowhere.example"))]).await;
    assert!(directory.user(&mailbox("ann@example.org")).await.unwrap().is_none());
    assert_eq!(directory.generation(), generation);
    // A user whose alias lists itself keeps a copy.
    directory.apply(vec![Change::PutAlias(alias_record("bob@example.org", &["bob@example.org"]))]).await.unwrap();
    directory
        .apply(vec![
            Change::RemoveAlias(alias_address("bob@example.org")),
            Change::RemoveUser(mailbox("bob@example.org")),
            Change::RemoveDomain(domain("example.org")),
        ])
        .await
        .unwrap();
    // Removing what is not there is no error.
    directory.apply(vec![Change::RemoveUser(mailbox("bob@example.org")), Change::RemoveDomain(domain("example.org"))]).await.unwrap();
}

async fn logins(directory: &dyn Directory) {
    let with = |address: &str, logins: &[&str]| {
        let mut user = user_record(address);
        user.logins = logins.iter().map(|l| mailbox(l)).collect();
        Change::PutUser(user)
    };
    build(directory, &["example.org"])
        .await
        .put(with("bob@example.org", &["robert@example.org", "b@old.example"]))
        .await
        .user("eve@example.org")
        .await;
    let login = async |name: &str| directory.user_by_login(&mailbox(name)).await.unwrap().map(|u| u.address.to_string());
    for name in ["BOB@example.org", "Robert@example.org", "b@old.example"] {
        assert_eq!(login(name).await.as_deref(), Some("bob@example.org"), "{name}");
    }
    for taken in ["robert@example.org", "bob@example.org"] {
        let why = refused(directory, vec![with("eve@example.org", &[taken])]).await;
        assert!(why.contains(taken), "{why}");
    }
    refused(directory, vec![Change::PutUser(user_record("robert@example.org"))]).await;
    // A name may change hands in one batch, in either order.
    directory.apply(vec![with("eve@example.org", &["robert@example.org"]), with("bob@example.org", &[])]).await.unwrap();
    assert_eq!(login("robert@example.org").await.as_deref(), Some("eve@example.org"));
    assert_eq!(login("b@old.example").await, None);
    directory.apply(vec![with("eve@example.org", &[]), with("bob@example.org", &["robert@example.org"])]).await.unwrap();
    assert_eq!(login("robert@example.org").await.as_deref(), Some("bob@example.org"));
    // Whoever is given it and loses it again within a batch does not take it along, whether kept or removed.
    for last in [with("eve@example.org", &[]), Change::RemoveUser(mailbox("eve@example.org"))] {
        directory.apply(vec![with("eve@example.org", &["robert@example.org"]), last]).await.unwrap();
        assert_eq!(login("robert@example.org").await.as_deref(), Some("bob@example.org"));
    }
    let both = vec![with("bob@example.org", &["robert@example.org"]), with("eve@example.org", &["robert@example.org"])];
    assert!(refused(directory, both).await.contains("robert@example.org"));
    directory.apply(vec![with("eve@example.org", &[])]).await.unwrap();
    directory.apply(vec![Change::RemoveUser(mailbox("bob@example.org")), Change::RemoveUser(mailbox("eve@example.org"))]).await.unwrap();
    assert_eq!(login("robert@example.org").await, None);
    directory.apply(vec![Change::RemoveDomain(domain("example.org"))]).await.unwrap();
}

async fn pages(directory: &dyn Directory) {
    build(directory, &["b.example", "a.example", "a.example.com"]).await;
    let mut changes = Vec::new();
    for name in ["a.example", "a.example.com", "b.example"] {
        for n in 0..25 {
            changes.push(Change::PutUser(user_record(&format!("u{n:02}@{name}"))));
            changes.push(Change::PutAlias(alias_record(&format!("a{n:02}@{name}"), &["x@y.example"])));
        }
        changes.push(Change::PutAlias(alias_record(&format!("@{name}"), &["x@y.example"])));
    }
    directory.apply(changes).await.unwrap();
    let names: Vec<String> = directory.domains().await.unwrap().iter().map(|d| d.name.to_string()).collect();
    assert_eq!(names, ["a.example", "a.example.com", "b.example"]);
    for (of, total) in [(None, 75), (Some(domain("a.example")), 25), (Some(domain("gone.example")), 0)] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = directory.users(of.as_ref(), after.as_ref(), 7).await.unwrap();
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            after = Some(last.address.clone());
            seen.extend(page.into_iter().map(|u| u.address));
        }
        assert_eq!(seen.len(), total);
        let mut order: Vec<_> = seen.iter().map(|m| (m.domain.clone(), m.local.key())).collect();
        let listed = order.clone();
        order.sort();
        order.dedup();
        assert_eq!(order, listed, "in order, each once");
    }
    let all = directory.aliases(Some(&domain("a.example")), None, 100).await.unwrap();
    assert_eq!(all.len(), 26);
    assert_eq!(all.first().unwrap().address, AliasAddress::CatchAll(domain("a.example")), "the catch-all comes first");
    let rest = directory.aliases(Some(&domain("a.example")), Some(&alias_address("@a.example")), 2).await.unwrap();
    assert_eq!(rest.iter().map(|a| a.address.to_string()).collect::<Vec<_>>(), ["a00@a.example", "a01@a.example"]);
    assert_eq!(directory.aliases_to(&mailbox("x@y.example")).await.unwrap().len(), 78);
    let mut gone = Vec::new();
    for user in directory.users(None, None, 1000).await.unwrap() {
        gone.push(Change::RemoveUser(user.address));
    }
    for alias in directory.aliases(None, None, 1000).await.unwrap() {
        gone.push(Change::RemoveAlias(alias.address));
    }
    for d in directory.domains().await.unwrap() {
        gone.push(Change::RemoveDomain(d.name));
    }
    directory.apply(gone).await.unwrap();
    assert!(directory.aliases(None, None, 10).await.unwrap().is_empty());
}

async fn conditional(directory: &dyn Directory) {
    build(directory, &["example.org"]).await.user("bob@example.org").await;
    let bob = mailbox("bob@example.org");
    let app = |last_used: Option<&str>| AppPassword {
        label: "phone".into(),
        hash: "h".into(),
        created: "2026-01-01T00:00:00Z".into(),
        last_used: last_used.map(str::to_owned),
    };
    let credential = |password: &str, app: Vec<AppPassword>| CredentialRecord { password: Some(password.into()), scram: None, app };
    directory.apply(vec![Change::PutCredential(bob.clone(), credential("one", vec![app(None)]))]).await.unwrap();
    let upgrade = |from: &str, to: &str| Change::UpgradePassword { address: bob.clone(), from: from.into(), to: to.into() };
    directory.apply(vec![upgrade("stale", "wrong")]).await.unwrap();
    assert!(directory.credential(&bob).await.unwrap() == Some(credential("one", vec![app(None)])));
    let touch = |label: &str| Change::TouchAppPassword { address: bob.clone(), label: label.into(), day: "2026-01-05T00:00:00Z".into() };
    directory.apply(vec![upgrade("one", "two"), touch("phone"), touch("gone")]).await.unwrap();
    assert!(directory.credential(&bob).await.unwrap() == Some(credential("two", vec![app(Some("2026-01-05T00:00:00Z"))])));
    directory.apply(vec![Change::RemoveUser(bob.clone()), Change::RemoveDomain(domain("example.org"))]).await.unwrap();
    directory.apply(vec![upgrade("two", "three"), touch("phone")]).await.unwrap();
    assert!(directory.credential(&bob).await.unwrap().is_none(), "a condition never brings a user back");
}

async fn large(directory: &dyn Directory) {
    build(directory, &["example.org"]).await;
    let targets: Vec<String> = (0..1000).map(|n| format!("someone-with-a-long-name-{n}@a-long-domain-name.example")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let record = alias_record("all@example.org", &targets);
    for _ in 0..2 {
        directory.apply(vec![Change::PutAlias(record.clone())]).await.unwrap();
        assert_eq!(directory.alias(&record.address).await.unwrap(), Some(record.clone()));
    }
    assert_eq!(directory.aliases(None, None, 9).await.unwrap(), vec![record.clone()]);
    directory.apply(vec![Change::RemoveAlias(record.address), Change::RemoveDomain(domain("example.org"))]).await.unwrap();
    let value = vec![7u8; 70_000];
    directory.state_put("large", b"k", &value, Duration::from_secs(60)).await.unwrap();
    assert_eq!(directory.state_get("large", b"k").await.unwrap(), Some(value.clone()));
    assert!(!directory.state_put_new("large", b"k", &value, Duration::from_secs(60)).await.unwrap());
    assert_eq!(directory.state_list("large").await.unwrap(), vec![(b"k".to_vec(), value)]);
    directory.state_remove("large", b"k").await.unwrap();
}

async fn state(directory: &dyn Directory, clock: &ManualClock) {
    let minute = Duration::from_secs(60);
    directory.state_put("grey", b"k\0\xff", b"v", minute).await.unwrap();
    assert_eq!(directory.state_get("grey", b"k\0\xff").await.unwrap().as_deref(), Some(b"v".as_slice()));
    assert_eq!(directory.state_get("gre", b"yk\0\xff").await.unwrap(), None, "tables do not run into each other");
    assert!(!directory.state_put_new("grey", b"k\0\xff", b"w", minute).await.unwrap());
    assert!(directory.state_put_new("grey", b"new", b"w", minute * 10).await.unwrap());
    assert_eq!(directory.state_list("grey").await.unwrap(), vec![(b"k\0\xff".to_vec(), b"v".to_vec()), (b"new".to_vec(), b"w".to_vec())]);
    assert_eq!(directory.state_add("rate", b"c", 3, minute).await.unwrap(), 3);
    assert_eq!(directory.state_add("rate", b"c", 4, minute).await.unwrap(), 7);
    directory.state_put("settings", b"secret", b"s", crate::state::FOREVER).await.unwrap();

    // What was counted elsewhere is counted on.
    directory.state_put("rate", b"moved", b"5", minute).await.unwrap();
    assert_eq!(directory.state_get("rate", b"moved").await.unwrap().as_deref(), Some(b"5".as_slice()));
    assert_eq!(directory.state_add("rate", b"moved", 2, minute).await.unwrap(), 7);
    directory.state_put("rate", b"text", b"007", minute).await.unwrap();
    assert_eq!(directory.state_get("rate", b"text").await.unwrap().as_deref(), Some(b"007".as_slice()));
    let (mut rows, mut after) = (Vec::new(), None::<(String, Vec<u8>)>);
    loop {
        let page = directory.state_page(after.as_ref().map(|(t, k)| (t.as_str(), k.as_slice())), 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some((last.table.clone(), last.key.clone()));
        rows.extend(page);
    }
    let mut names: Vec<_> = rows.iter().map(|r| (r.table.as_str(), r.key.as_slice(), r.value.as_slice(), r.keep)).collect();
    names.sort();
    let expected: [(&str, &[u8], &[u8], Duration); 6] = [
        ("grey", b"k\0\xff", b"v", minute),
        ("grey", b"new", b"w", minute * 10),
        ("rate", b"c", b"7", minute),
        ("rate", b"moved", b"7", minute),
        ("rate", b"text", b"007", minute),
        ("settings", b"secret", b"s", crate::state::FOREVER),
    ];
    assert_eq!(names, expected);

    clock.advance(minute);
    assert_eq!(directory.state_get("grey", b"k\0\xff").await.unwrap(), None, "expired");
    assert_eq!(directory.state_list("grey").await.unwrap().len(), 1);
    assert!(directory.state_put_new("grey", b"k\0\xff", b"again", minute).await.unwrap());
    assert_eq!(directory.state_get("grey", b"k\0\xff").await.unwrap().as_deref(), Some(b"again".as_slice()));
    assert_eq!(directory.state_add("rate", b"c", 1, minute).await.unwrap(), 1, "a counter starts anew");
    assert_eq!(directory.state_get("settings", b"secret").await.unwrap().as_deref(), Some(b"s".as_slice()));
    directory.state_remove("grey", b"new").await.unwrap();
    assert_eq!(directory.state_get("grey", b"new").await.unwrap(), None);

    // Of many who try at once, one is first.
    let tries = (0..16u8).map(|n| async move { directory.state_put_new("once", b"k", &[n], minute).await.unwrap() });
    let won = futures::future::join_all(tries).await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    let adds = (0..16).map(|_| directory.state_add("rate", b"many", 1, minute));
    let mut sums: Vec<u64> = futures::future::join_all(adds).await.into_iter().map(|n| n.unwrap()).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=16).collect::<Vec<u64>>());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn memory_store() {
        let clock = ManualClock::at(1_000_000);
        run(&crate::memory::MemoryDirectory::with_clock(Arc::new(clock.clone())), &clock).await;
    }

    #[tokio::test]
    async fn sled_store() {
        let clock = ManualClock::at(1_000_000);
        let folder = tempfile::tempdir().unwrap();
        let options = crate::SledOptions { clock: Arc::new(clock.clone()), ..Default::default() };
        run(&crate::SledDirectory::open_with(folder.path().join("directory.sled"), options).unwrap(), &clock).await;
    }
}
