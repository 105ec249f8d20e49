//! Names of messages in a Maildir: unique, and the same each time the same message is stored for the same recipient.
//!
//! `<seconds>.M<microseconds>Q<queue id>R<recipient>.<host>,S=<octets>,W=<octets>`: time first, as readers sort by its numbers; then queue id and a
//! digest of the recipient, so that a replay after a crash finds its earlier work; then the host, with `/` and `:` written as the Maildir
//! specification asks. `S` is the file's size, `W` the size with CRLF line ends; Dovecot trusts both and need not open the file.

use std::sync::Arc;

use pillarbox_queue::QueueId;
use pillarbox_smtp::Mailbox;
use sha2::{Digest, Sha256};

/// How large a stored message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Octets of the file: `S=`.
    pub stored: u64,
    /// Octets with every line end as CRLF, as IMAP shows them: `W=`.
    pub virtual_size: u64,
}

/// A host name as part of a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLabel(Arc<str>);

/// The name of one message for one recipient, without its sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueName {
    /// All up to and with the dot before the host: what a search for earlier work compares.
    stem: String,
    host: HostLabel,
}

impl HostLabel {
    /// Escapes `/` as `\057` and `:` as `\072`, as the Maildir specification asks; anything else that is not a letter, digit, dot, hyphen or
    /// underscore becomes an underscore. An empty name becomes `localhost`.
    pub fn new(hostname: &str) -> Self {
        let mut label = String::with_capacity(hostname.len());
        for c in hostname.chars().take(128) {
            match c {
                '/' => label.push_str("\\057"),
                ':' => label.push_str("\\072"),
                c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => label.push(c),
                _ => label.push('_'),
            }
        }
        if label.is_empty() {
            label.push_str("localhost");
        }
        Self(label.into())
    }
}

impl UniqueName {
    /// The name for a message received at `received_ms` (milliseconds since the epoch) for `recipient`. `purpose` tells apart several
    /// messages of one queue id for one recipient: a folder wished for, a quota warning.
    pub fn new(id: QueueId, received_ms: u64, recipient: &Mailbox, purpose: &str, host: &HostLabel) -> Self {
        let mut digest = Sha256::new();
        digest.update(recipient.key().as_bytes());
        digest.update([0]);
        digest.update(purpose.as_bytes());
        let digest = digest.finalize();
        let mark = digest.iter().take(8).fold(0u64, |n, &octet| (n << 8) | u64::from(octet));
        let (seconds, micros) = (received_ms / 1000, received_ms % 1000 * 1000);
        Self { stem: format!("{seconds}.M{micros}Q{id}R{mark:016x}."), host: host.clone() }
    }

    /// A name from a stem made elsewhere (an import's own key). `stem` must hold no `/`, `:` or `,`; those become underscores.
    pub fn from_key(seconds: u64, key: &str, host: &HostLabel) -> Self {
        let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
        Self { stem: format!("{seconds}.{key}."), host: host.clone() }
    }

    /// The file name in `tmp/`.
    pub fn temporary(&self) -> String {
        format!("{}{}", self.stem, self.host.0)
    }

    /// The file name in `new/` or, with an info part added, in `cur/`.
    pub fn stored(&self, sizes: Sizes) -> String {
        format!("{}{},S={},W={}", self.stem, self.host.0, sizes.stored, sizes.virtual_size)
    }

    /// Whether a file name, with whatever host, sizes and flags, is this message's.
    pub fn matches(&self, file_name: &[u8]) -> bool {
        file_name.starts_with(self.stem.as_bytes())
    }
}

/// The `S=` of a file name.
pub fn size_in_name(file_name: &str) -> Option<u64> {
    let base = file_name.split(':').next()?;
    base.split(',').skip(1).find_map(|field| field.strip_prefix("S=")).and_then(|size| size.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(id: u64, recipient: &str, purpose: &str) -> UniqueName {
        UniqueName::new(QueueId(id), 1_700_000_000_042, &recipient.parse().unwrap(), purpose, &HostLabel::new("mail.example.org"))
    }

    #[test]
    fn a_name_reads_as_documented() {
        let stored = name(7, "bob@example.org", "").stored(Sizes { stored: 10, virtual_size: 12 });
        assert!(stored.starts_with("1700000000.M42000Q0000000000007R"), "{stored}");
        assert!(stored.ends_with(".mail.example.org,S=10,W=12"), "{stored}");
        assert_eq!(size_in_name(&stored), Some(10));
        assert_eq!(size_in_name(&format!("{stored}:2,S")), Some(10));
        assert_eq!(size_in_name("1.a.b:2,S=9"), None);
    }

    #[test]
    fn the_same_work_has_the_same_name_and_other_work_another() {
        assert_eq!(name(7, "Bob@example.org", ""), name(7, "bob@EXAMPLE.org", ""));
        assert_ne!(name(7, "bob@example.org", ""), name(8, "bob@example.org", ""));
        assert_ne!(name(7, "bob@example.org", ""), name(7, "eve@example.org", ""));
        assert_ne!(name(7, "bob@example.org", ""), name(7, "bob@example.org", "lists"));
    }

    #[test]
    fn hosts_that_attack_a_name_are_escaped() {
        assert_eq!(HostLabel::new("a/b:c,S=1\n\u{1b}").0.as_ref(), "a\\057b\\072c_S_1__");
        assert_eq!(HostLabel::new("").0.as_ref(), "localhost");
    }

    proptest! {
        #[test]
        fn names_match_themselves_whatever_was_appended(id: u64, at in 0u64..4_000_000_000_000, stored: u64, flags in "[A-Za-z]{0,8}", host in "\\PC{0,40}") {
            let name = UniqueName::new(QueueId(id), at, &"bob@example.org".parse().unwrap(), "", &HostLabel::new(&host));
            let file = format!("{}:2,{flags}", name.stored(Sizes { stored, virtual_size: stored }));
            prop_assert!(name.matches(file.as_bytes()));
            prop_assert_eq!(size_in_name(&file), Some(stored));
            prop_assert!(file.len() < 255 && !file.contains('/') && file.matches(':').count() == 1);
        }
    }
}
