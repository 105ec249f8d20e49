//! Who may send as whom (RFC 6409 §6.1): a user's own addresses, the aliases that lead to it, and what a catch-all brings it.

use std::collections::HashSet;

use pillarbox_smtp::Mailbox;

use crate::records::{AliasAddress, UserRecord};
use crate::store::{Directory, Result};

/// Bounds as in resolution: addresses looked at for one question.
const MAX_VISITS: usize = 1000;

/// Whether `user` may send as `sender`, with `+` as the delimiter.
///
/// # Errors
/// When the directory does not answer.
pub async fn may_send_as(directory: &dyn Directory, user: &Mailbox, sender: &Mailbox) -> Result<bool> {
    may_send_as_with(directory, "+", user, sender).await
}

/// Whether `user` may send as `sender`: its own address or login name, with or without a detail; an alias from which it gets mail, over
/// any number of other aliases; an address that is nobody's, in a domain whose catch-all leads to it. A forwarding set up for another
/// user does not make that user's address ours.
///
/// # Errors
/// When the directory does not answer.
pub async fn may_send_as_with(directory: &dyn Directory, delimiter: &str, user: &Mailbox, sender: &Mailbox) -> Result<bool> {
    let Some(user) = directory.user(user).await? else { return Ok(false) };
    let mut waiting = vec![sender.clone()];
    let mut seen = HashSet::new();
    while let Some(address) = waiting.pop() {
        if seen.len() >= MAX_VISITS || !seen.insert(address.key()) {
            continue;
        }
        if owns(&user, &address) {
            return Ok(true);
        }
        if !directory.has_domain(&address.domain).await? {
            continue;
        }
        let base = address.split_detail(delimiter).map(|(base, _)| base);
        let mut known = false;
        for name in std::iter::once(&address).chain(&base) {
            if owns(&user, name) {
                return Ok(true);
            }
            // Another user's address, forwarded or not, is that user's; so is another user's login name.
            if directory.user_by_login(name).await?.is_some() {
                known = true;
                break;
            }
            if let Some(alias) = directory.alias(&AliasAddress::Mailbox(name.clone())).await? {
                waiting.extend(alias.targets);
                known = true;
                break;
            }
        }
        if !known && let Some(alias) = directory.alias(&AliasAddress::CatchAll(address.domain.clone())).await? {
            waiting.extend(alias.targets);
        }
    }
    Ok(false)
}

fn owns(user: &UserRecord, address: &Mailbox) -> bool {
    user.address.same_as(address) || user.logins.iter().any(|login| login.same_as(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryDirectory;
    use crate::suite::build;

    async fn directory() -> MemoryDirectory {
        let directory = MemoryDirectory::new();
        build(&directory, &["example.org", "other.example"])
            .await
            .user("alice@example.org")
            .await
            .user("bob@example.org")
            .await
            .alias("team@example.org", &["alice@example.org", "far@elsewhere.example"])
            .await
            .alias("all@example.org", &["team@example.org"])
            .await
            .alias("bob@example.org", &["bob@example.org", "alice@example.org"])
            .await
            .alias("viabob@example.org", &["bob@example.org"])
            .await
            .alias("a@example.org", &["b@example.org"])
            .await
            .alias("b@example.org", &["a@example.org"])
            .await
            .alias("@other.example", &["alice+other@example.org"])
            .await;
        directory
    }

    #[tokio::test]
    async fn who_may_send_as_whom() {
        let directory = directory().await;
        let ask = async |user: &str, sender: &str| may_send_as(&directory, &user.parse().unwrap(), &sender.parse().unwrap()).await.unwrap();
        for sender in [
            "alice@example.org",
            "ALICE+shop@example.org",
            "team@example.org",
            "team+x@example.org",
            "all@example.org",
            "anything@other.example",
        ] {
            assert!(ask("alice@example.org", sender).await, "{sender}");
        }
        for sender in
            ["bob@example.org", "viabob@example.org", "nobody@example.org", "a@example.org", "far@elsewhere.example", "x@gone.example"]
        {
            assert!(!ask("alice@example.org", sender).await, "{sender}");
        }
        assert!(ask("bob@example.org", "viabob@example.org").await && ask("bob@example.org", "bob@example.org").await);
        assert!(!ask("bob@example.org", "team@example.org").await && !ask("bob@example.org", "x@other.example").await);
        assert!(!ask("gone@example.org", "gone@example.org").await);
    }
}
