//! Password hashes: argon2id for new ones, and the schemes that users bring along from other servers.

mod generate;
mod scheme;
pub mod workers;

pub use generate::{app_password, looks_like_app_password, password};
pub(crate) use scheme::Stored;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use pillarbox_config::Argon2Cost;
use pillarbox_smtp::Secret;
use rand::RngCore;

/// Longest password in octets; longer ones are refused unhashed.
pub const MAX_PASSWORD: usize = 1024;

/// Cost of app-passwords. They are generated with over 100 bits of entropy, which no guessing exhausts at any cost, and a login may
/// have to try several: memory-hardness would only slow the owner down.
pub const APP_PASSWORD_COST: Argon2Cost = Argon2Cost { memory_kib: 1024, iterations: 1, parallelism: 1 };

/// Why a password or a hash is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing was given.
    #[error("the password is empty")]
    Empty,
    /// Over [`MAX_PASSWORD`].
    #[error("the password is longer than {MAX_PASSWORD} octets")]
    TooLong,
    /// A NUL or another control character: half of the clients cannot send it.
    #[error("the password holds a control character")]
    Control,
    /// `auth.argon2` asks for the impossible.
    #[error("auth.argon2 is impossible: {0}")]
    Cost(String),
    /// A scheme that is not known here.
    #[error(
        "the password scheme {0} is not supported; supported are ARGON2ID, ARGON2I, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, SSHA512, SSHA256, SSHA and, for import, PLAIN"
    )]
    Scheme(String),
    /// A malformed hash.
    #[error("the password hash is malformed: {0}")]
    Malformed(String),
    /// A hash whose parameters cost more than this server will spend on a stranger's guess.
    #[error("the password hash costs too much to check: {0}")]
    TooCostly(String),
}

/// Hashes a password with argon2id into a PHC string. Blocking: tens of milliseconds and `memory_kib` of memory.
///
/// # Errors
/// When the password is empty, too long or holds control characters, or the cost is impossible.
pub fn hash(password: &Secret, cost: &Argon2Cost) -> Result<String, PasswordError> {
    check_password(password)?;
    hash_unchecked(password.as_bytes(), cost)
}

pub(crate) fn hash_unchecked(password: &[u8], cost: &Argon2Cost) -> Result<String, PasswordError> {
    let params = Params::new(cost.memory_kib, cost.iterations, cost.parallelism, None).map_err(|e| PasswordError::Cost(e.to_string()))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut salt = [0u8; 16];
    rand::rng().fill_bytes(&mut salt);
    let cost = |e: &dyn std::fmt::Display| PasswordError::Cost(e.to_string());
    let mut out = [0u8; Params::DEFAULT_OUTPUT_LEN];
    workers::argon2(&argon2, password, &salt, &mut out).map_err(|e| cost(&e))?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params()).map_err(|e| cost(&e))?,
        salt: Some(Salt::new(&salt).map_err(|e| cost(&e))?),
        hash: Some(Output::new(&out).map_err(|e| cost(&e))?),
    };
    Ok(hash.to_string())
}

/// Whether a password may be set.
///
/// # Errors
/// When it is empty, too long or holds control characters.
pub fn check_password(password: &Secret) -> Result<(), PasswordError> {
    let text = password.expose();
    if text.is_empty() {
        Err(PasswordError::Empty)
    } else if text.len() > MAX_PASSWORD {
        Err(PasswordError::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(PasswordError::Control)
    } else {
        Ok(())
    }
}

/// Whether a stored string is a hash that a login can be checked against here.
///
/// # Errors
/// Names what is wrong with it.
pub fn check_stored(stored: &str) -> Result<(), PasswordError> {
    Stored::parse(stored).map(drop)
}

/// Whether `password` is the one behind `stored`. Blocking, bounded at 256 MiB and some seconds by [`check_stored`]'s rules.
///
/// # Errors
/// As [`check_stored`].
pub fn verify(stored: &str, password: &[u8]) -> Result<bool, PasswordError> {
    Ok(Stored::parse(stored)?.verify(password))
}

/// Whether a hash that matched should be replaced: another scheme, or argon2id with other parameters than are configured.
pub fn is_outdated(stored: &str, cost: &Argon2Cost) -> bool {
    Stored::parse(stored).map_or(true, |s| !s.is_argon2id_with(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 64, iterations: 1, parallelism: 1 };

    #[test]
    fn a_new_hash_verifies_and_is_current() {
        let stored = hash(&Secret::new("pässwörd"), &CHEAP).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        assert!(verify(&stored, "pässwörd".as_bytes()).unwrap());
        assert!(!verify(&stored, b"passw0rd").unwrap());
        assert!(verify(&format!("{{ARGON2ID}}{stored}"), "pässwörd".as_bytes()).unwrap());
        assert!(!is_outdated(&stored, &CHEAP));
        assert!(is_outdated(&stored, &Argon2Cost::default()));
    }

    #[test]
    fn unfit_passwords_are_not_hashed() {
        for (text, error) in
            [("", PasswordError::Empty), ("a\0b", PasswordError::Control), (&"x".repeat(MAX_PASSWORD + 1), PasswordError::TooLong)]
        {
            assert_eq!(hash(&Secret::new(text), &CHEAP).unwrap_err(), error);
        }
    }
}
