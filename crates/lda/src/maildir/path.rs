//! From an address to a path below the mail folder: `<domain>/<localpart>/Maildir`, each part one safe file name.
//!
//! The local part is folded first (NFC, lower case: [`LocalPart::key`]), so that `Bob`, `bob` and the two Unicode spellings of
//! `josé` share a folder. What then could mean something to a file system, a shell, a passwd-file or Dovecot's `%variables` is
//! written as `=XX`, one for each octet: `/`, `=`, `%`, `:`, quotes, blanks, control characters, and a dot or hyphen in front.
//! The mapping is one to one, and no name it makes is `.`, `..`, hidden, or longer than a file name may be.

use std::path::{Path, PathBuf};

use pillarbox_smtp::{LocalPart, Mailbox};

/// The longest file name that Linux file systems take, in octets.
pub const MAX_NAME: usize = 255;

/// An address that no folder can be named after.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address is too long to name a folder after")]
pub struct UnstorableAddress;

/// The folder of a local part, as one file name.
///
/// # Errors
/// When the escaped name would be longer than [`MAX_NAME`].
pub fn local_component(local: &LocalPart) -> Result<String, UnstorableAddress> {
    let key = local.key();
    let mut name = String::with_capacity(key.len());
    for (at, c) in key.char_indices() {
        let plain = match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '+' | '~' => true,
            '.' | '-' => at > 0,
            c => !c.is_ascii() && c.is_alphanumeric(),
        };
        if plain {
            name.push(c);
        } else {
            let mut octets = [0; 4];
            for octet in c.encode_utf8(&mut octets).bytes() {
                name.push_str(&format!("={octet:02X}"));
            }
        }
    }
    if name.is_empty() || name.len() > MAX_NAME { Err(UnstorableAddress) } else { Ok(name) }
}

/// The Maildir of a user, relative to the mail folder: `example.org/bob/Maildir`.
///
/// # Errors
/// When the address is too long to name a folder after.
pub fn maildir_path(user: &Mailbox) -> Result<PathBuf, UnstorableAddress> {
    let mut path = home_path(user)?;
    path.push("Maildir");
    Ok(path)
}

/// The home of a user, relative to the mail folder: `example.org/bob`. What Dovecot is told as `home`.
///
/// # Errors
/// When the address is too long to name a folder after.
pub fn home_path(user: &Mailbox) -> Result<PathBuf, UnstorableAddress> {
    let domain = user.domain.as_str();
    // A `Domain` is labels of letters, digits, hyphens and underscores, or a literal in brackets: no slash, no leading dot.
    // The check keeps that true should the type ever grow more tolerant.
    if domain.is_empty() || domain.len() > MAX_NAME || domain.starts_with('.') || domain.contains(['/', '\0']) {
        return Err(UnstorableAddress);
    }
    Ok(Path::new(domain).join(local_component(&user.local)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn component(text: &str) -> String {
        local_component(&LocalPart::new(text).unwrap()).unwrap()
    }

    #[test]
    fn ordinary_names_stay_readable() {
        assert_eq!(component("Bob.Smith-2+list"), "bob.smith-2+list");
        assert_eq!(component("josé"), "josé");
        let user: Mailbox = "Bob@Example.ORG".parse().unwrap();
        assert_eq!(maildir_path(&user).unwrap(), Path::new("example.org/bob/Maildir"));
    }

    #[test]
    fn names_that_attack_a_path_become_harmless() {
        for (text, name) in [
            ("..", "=2E."),
            (".", "=2E"),
            ("a/../b", "a=2F..=2Fb"),
            ("a/b", "a=2Fb"),
            ("%2e%2e", "=252e=252e"),
            ("=2F", "=3D2f"),
            ("-rf", "=2Drf"),
            (".hidden", "=2Ehidden"),
            ("a b:c", "a=20b=3Ac"),
            ("`id`", "=60id=60"),
            ("a☃", "a=E2=98=83"),
        ] {
            assert_eq!(component(text), name, "{text}");
        }
    }

    #[test]
    fn the_two_spellings_of_a_name_share_a_folder() {
        assert_eq!(component("u\u{308}ber"), component("Über"));
    }

    #[test]
    fn address_literals_are_folders_too() {
        let user: Mailbox = "x@[IPv6:::1]".parse().unwrap();
        assert_eq!(home_path(&user).unwrap(), Path::new("[IPv6:::1]/x"));
    }

    proptest! {
        #[test]
        fn every_name_is_one_safe_component(text in "\\PC{1,20}") {
            let Ok(local) = LocalPart::new(&text) else { return Ok(()) };
            let name = local_component(&local).unwrap();
            prop_assert!(!name.contains(['/', '\0', ':', '%']) && !name.starts_with('.') && name.len() <= MAX_NAME);
            prop_assert!(!name.chars().any(|c| c.is_control() || c.is_whitespace()));
        }

        #[test]
        fn different_users_never_share_a_folder(a in "[-a-z./=%: é2F]{1,12}", b in "[-a-z./=%: é2F]{1,12}") {
            let (a, b) = (LocalPart::new(&a).unwrap(), LocalPart::new(&b).unwrap());
            prop_assert_eq!(a.key() == b.key(), local_component(&a).unwrap() == local_component(&b).unwrap());
        }
    }
}
