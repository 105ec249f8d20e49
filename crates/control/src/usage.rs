//! What a mailbox holds, for listings.

use std::io::Read;
use std::path::Path;

use pillarbox_smtp::Mailbox;

use crate::admin::Admin;

/// Longest `maildirsize` that is read; Dovecot and the LDA rewrite it from 5120 octets.
const LONGEST: u64 = 64 * 1024;

/// Octets that a user's mailbox holds: from the daemon's account of it, or without a daemon as its `maildirsize` says; 0 where neither is known.
pub(crate) async fn used_bytes(admin: &Admin, user: &Mailbox) -> u64 {
    if let Some(quota) = &admin.quota {
        return quota.used(user).await.map(|usage| usage.bytes).unwrap_or(0);
    }
    let (mail, user) = (admin.config().paths.mail.clone(), user.clone());
    tokio::task::spawn_blocking(move || read(&mail, &user).unwrap_or(0)).await.unwrap_or(0)
}

fn read(mail: &Path, user: &Mailbox) -> Option<u64> {
    let path = mail.join(pillarbox_lda::maildir::maildir_path(user).ok()?).join("maildirsize");
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(sum(&text))
}

/// Maildir++: the first line is the quota, each further one `octets messages`, either possibly negative.
fn sum(text: &str) -> u64 {
    let octets = text.lines().skip(1).filter_map(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    u64::try_from(octets.fold(0i64, i64::saturating_add)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_maildirsize_adds_up() {
        assert_eq!(super::sum("1000S\n500 2\n-200 -1\nrubbish\n"), 300);
        assert_eq!(super::sum("1000S\n-5 0\n"), 0);
        assert_eq!(super::sum(""), 0);
    }
}
