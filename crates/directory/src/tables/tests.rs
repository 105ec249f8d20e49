//! Whatever changes are made, indexes and counters tell the same as the records.

use std::collections::BTreeMap;

use pillarbox_smtp::Mailbox;
use proptest::prelude::*;

use crate::memory::MemoryDirectory;
use crate::records::{AliasAddress, Change};
use crate::store::Directory;
use crate::suite::{alias_record, domain_record, user_record};

fn domain(n: u8) -> String {
    format!("d{}.example", n % 3)
}

fn address(n: u8) -> String {
    format!("{}{}@{}", if n.is_multiple_of(2) { "n" } else { "N" }, n / 8, domain(n))
}

/// A change made of four small numbers.
fn change((kind, a, b, c): (u8, u8, u8, u8)) -> Change {
    let mailbox = |n: u8| -> Mailbox { address(n).parse().unwrap() };
    match kind % 7 {
        0 => Change::PutDomain(domain_record(&domain(a))),
        1 => Change::RemoveDomain(domain(a).parse().unwrap()),
        2 | 3 => {
            let mut user = user_record(&address(a));
            user.logins = (0..c % 3).map(|n| mailbox(b.wrapping_add(n * 8))).collect();
            Change::PutUser(user)
        }
        4 => Change::RemoveUser(mailbox(a)),
        5 => Change::PutAlias(alias_record(&if a > 200 { format!("@{}", domain(b)) } else { address(a) }, &[&address(b), &address(c)])),
        _ => Change::RemoveAlias(AliasAddress::Mailbox(mailbox(a))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn indexes_and_counters_follow_the_records(batches in prop::collection::vec(prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..6), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = MemoryDirectory::new();
            directory.apply((0..3).map(|n| Change::PutDomain(domain_record(&domain(n)))).collect()).await.unwrap();
            for batch in batches {
                // Some are refused, and then leave no trace.
                let _ = directory.apply(batch.into_iter().map(change).collect()).await;
                consistent(&directory).await;
            }
        });
    }
}

async fn consistent(directory: &MemoryDirectory) {
    let domains = directory.domains().await.unwrap();
    let users = directory.users(None, None, 10_000).await.unwrap();
    let aliases = directory.aliases(None, None, 10_000).await.unwrap();
    for n in 0..3 {
        let name = domain(n).parse().unwrap();
        let of_domain = users.iter().filter(|u| u.address.domain == name).count() as u64;
        let aliases = aliases.iter().filter(|a| *a.address.domain() == name).count() as u64;
        assert_eq!(directory.counts(&name).await.unwrap(), (of_domain, aliases));
        assert!(domains.iter().any(|d| d.name == name) || of_domain + aliases == 0, "members of a domain that is gone");
    }
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for user in &users {
        for login in std::iter::once(&user.address).chain(&user.logins) {
            let owner = owners.entry(login.key()).or_insert_with(|| user.address.key());
            assert_eq!(*owner, user.address.key(), "one name, two users");
        }
    }
    for n in 0..=255u8 {
        let mailbox: Mailbox = address(n).parse().unwrap();
        let owner = directory.user_by_login(&mailbox).await.unwrap().map(|u| u.address.key());
        assert_eq!(owner, owners.get(&mailbox.key()).cloned(), "{mailbox}");
        let pointing = aliases.iter().filter(|a| a.targets.iter().any(|t| t.same_as(&mailbox))).count();
        assert_eq!(directory.aliases_to(&mailbox).await.unwrap().len(), pointing, "{mailbox}");
    }
}
