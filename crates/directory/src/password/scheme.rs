//! Stored hashes, told apart by Dovecot's `{SCHEME}` or by their own prefix, with bounds on what checking one may cost.

use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version, password_hash::phc::PasswordHash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pillarbox_config::Argon2Cost;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::PasswordError;

/// Bounds for hashes made elsewhere: memory in KiB, memory times passes, bcrypt's exponent, sha-crypt's rounds.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_MEMORY_PASSES: u64 = 1024 * 1024;
const MAX_BCRYPT_COST: u32 = 15;
const MAX_SHA_ROUNDS: u32 = 1_000_000;

/// A stored hash, parsed.
pub(crate) enum Stored {
    Argon2(Box<PasswordHash>),
    Bcrypt(String),
    ShaCrypt(String),
    Salted(SaltedDigest, Vec<u8>),
    Plain(String),
}

/// The digests of `{SSHA…}`: digest, then salt.
#[derive(Clone, Copy)]
pub(crate) enum SaltedDigest {
    Sha1,
    Sha256,
    Sha512,
}

impl SaltedDigest {
    const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn of(self, parts: [&[u8]; 2]) -> Vec<u8> {
        let data = parts.concat();
        match self {
            Self::Sha1 => Sha1::digest(data).to_vec(),
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        }
    }
}

impl Stored {
    /// Parses `{SCHEME}hash`, or a bare hash that says what it is.
    pub(crate) fn parse(stored: &str) -> Result<Self, PasswordError> {
        let (scheme, hash) = match stored.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((scheme, hash)) => (scheme.to_ascii_uppercase(), hash),
            None => (String::new(), stored),
        };
        match scheme.as_str() {
            "PLAIN" | "CLEAR" | "CLEARTEXT" => return Ok(Self::Plain(hash.to_owned())),
            "SSHA" => return salted(SaltedDigest::Sha1, hash),
            "SSHA256" | "SSHA256.B64" => return salted(SaltedDigest::Sha256, hash),
            "SSHA512" | "SSHA512.B64" => return salted(SaltedDigest::Sha512, hash),
            "" | "ARGON2ID" | "ARGON2I" | "BLF-CRYPT" | "SHA512-CRYPT" | "SHA256-CRYPT" | "CRYPT" => {}
            _ => return Err(PasswordError::Scheme(pillarbox_smtp::printable(scheme.as_bytes()).to_string())),
        }
        // For these the hash itself says which it is, so that a wrong label does no harm.
        match hash.split('$').nth(1) {
            Some("argon2id" | "argon2i") => argon2(hash),
            Some("2a" | "2b" | "2x" | "2y") => bcrypt(hash),
            Some("5" | "6") => sha_crypt(hash),
            _ if scheme.is_empty() => Err(PasswordError::Malformed("it names no scheme".into())),
            _ => Err(PasswordError::Malformed(format!("it is not what {{{scheme}}} looks like"))),
        }
    }

    /// Whether this is the password. Blocking.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => argon2_matches(hash, password).unwrap_or(false),
            Self::Bcrypt(hash) => ::bcrypt::verify(password, hash).unwrap_or(false),
            Self::ShaCrypt(hash) => match ::sha_crypt::PasswordHashRef::new(hash) {
                Ok(hash) => ::sha_crypt::ShaCrypt::default().verify_password(password, hash).is_ok(),
                Err(_) => false,
            },
            Self::Salted(digest, bytes) => match bytes.split_at_checked(digest.len()) {
                Some((expected, salt)) => digest.of([password, salt]).ct_eq(expected).into(),
                None => false,
            },
            Self::Plain(text) => text.as_bytes().ct_eq(password).into(),
        }
    }

    pub(crate) fn is_argon2id_with(&self, cost: &Argon2Cost) -> bool {
        let Self::Argon2(hash) = self else { return false };
        hash.algorithm.as_str() == "argon2id"
            && Params::try_from(hash.as_ref())
                .is_ok_and(|p| (p.m_cost(), p.t_cost(), p.p_cost()) == (cost.memory_kib, cost.iterations, cost.parallelism))
    }
}

/// `None` for what no hash can be computed by.
fn argon2_matches(hash: &PasswordHash, password: &[u8]) -> Option<bool> {
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = hash.version.map_or(Some(Version::default()), |version| Version::try_from(version).ok())?;
    let argon2 = Argon2::new(algorithm, version, Params::try_from(hash).ok()?);
    let expected = hash.hash.as_ref()?.as_bytes();
    let mut out = vec![0; expected.len()];
    super::workers::argon2(&argon2, password, hash.salt.as_ref()?.as_ref(), &mut out).ok()?;
    Some(out.as_slice().ct_eq(expected).into())
}

fn argon2(hash: &str) -> Result<Stored, PasswordError> {
    let malformed = |e: &dyn std::fmt::Display| PasswordError::Malformed(e.to_string());
    let hash = PasswordHash::new(hash).map_err(|e| malformed(&e))?;
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(PasswordError::Malformed("salt or hash is missing".into()));
    }
    let params = Params::try_from(&hash).map_err(|e| malformed(&e))?;
    let work = u64::from(params.m_cost()).saturating_mul(u64::from(params.t_cost()));
    if params.m_cost() > MAX_MEMORY_KIB || work > MAX_MEMORY_PASSES || params.p_cost() > 64 {
        return Err(PasswordError::TooCostly(format!("{} KiB, {} passes", params.m_cost(), params.t_cost())));
    }
    Ok(Stored::Argon2(Box::new(hash)))
}

fn bcrypt(hash: &str) -> Result<Stored, PasswordError> {
    let malformed = || PasswordError::Malformed("not a bcrypt hash".into());
    let cost: u32 = hash.split('$').nth(2).and_then(|c| c.parse().ok()).ok_or_else(malformed)?;
    if cost > MAX_BCRYPT_COST {
        return Err(PasswordError::TooCostly(format!("bcrypt with cost {cost}")));
    }
    hash.parse::<::bcrypt::HashParts>().map_err(|_| malformed())?;
    Ok(Stored::Bcrypt(hash.to_owned()))
}

fn sha_crypt(hash: &str) -> Result<Stored, PasswordError> {
    let malformed = || PasswordError::Malformed("not a sha-crypt hash".into());
    let mut fields = hash.split('$').skip(2);
    let mut next = fields.next().ok_or_else(malformed)?;
    if let Some(rounds) = next.strip_prefix("rounds=") {
        let rounds: u32 = rounds.parse().map_err(|_| malformed())?;
        if rounds > MAX_SHA_ROUNDS {
            return Err(PasswordError::TooCostly(format!("{rounds} rounds of sha-crypt")));
        }
        next = fields.next().ok_or_else(malformed)?;
    }
    let digest = fields.next().ok_or_else(malformed)?;
    let length = if hash.starts_with("$5$") { 43 } else { 86 };
    if next.len() > 16 || digest.len() != length || fields.next().is_some() || ::sha_crypt::PasswordHashRef::new(hash).is_err() {
        return Err(malformed());
    }
    Ok(Stored::ShaCrypt(hash.to_owned()))
}

fn salted(digest: SaltedDigest, hash: &str) -> Result<Stored, PasswordError> {
    let bytes = BASE64.decode(hash).map_err(|_| PasswordError::Malformed("not base64".into()))?;
    if bytes.len() <= digest.len() || bytes.len() > digest.len() + 64 {
        return Err(PasswordError::Malformed("wrong length".into()));
    }
    Ok(Stored::Salted(digest, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::verify;

    /// Made with `doveadm pw` of Dovecot 2.3 and `openssl passwd`.
    #[test]
    fn other_servers_hashes_verify() {
        for stored in [
            "{BLF-CRYPT}$2y$05$5laOKfV8gn.RK30IZzqGmetxTxRIKobRH25eaA.BlGSElu1IsPUfq",
            "{SHA512-CRYPT}$6$uaJ9xyGeegwapb14$9MHOeWuGy9H.1zeLIAigHzzrBHrpI69mBMPmtlw8chQvBIrrOqoAU4HDmSK5v5ydx5fRsIWUo/oCsubOFN4of/",
            "{SHA256-CRYPT}$5$.sXxLVrfDcxXzkpS$O9at4CFsUiA1Aw1OPrbrcYMt5kB/yCwBOH2EY/BhQ/5",
            "{SSHA512}6ltT1cqq8X4s/dLoerYJhHxX3eFYY+ykvXY8RqgDG2B6z3PhYl+CVqX7LQvgUPxhZLaPB5O5Dlk2854Fbcdb2P7Zgaw=",
            "{SSHA256}i8FhjQNonqiJ6GkPAa46uu+n7jZste3rmBkZDlt6S6TakkB9",
            "{SSHA}HgWd47SL6AxwkgliL7rGoE448TGVw9G1",
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$8raEKFZH/UVzlV8lrugKMQ$0ta4+kwTY4rVl4lZSvNbXRj8vhdVlS8UhZQ08Wee950",
            "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$oYeAyQr/3vq6RFzix0rH7Q$T4oqGtII0Pu0JoSHbJq/cqrid1CeEPJRrb839VZ+zp0",
            "$6$saltstring$SqyhDWidy1FyYQvxJS0mCfscyB71Ni5Yi9UsukwaGkrvtN5uj8uxcQrCB9XRTz8SWHp08vMi14NTi36I1YPJR.",
            "{CRYPT}$5$saltstring$yHu4NCI8wZtVmEi4UlBewMEOd14T6b2X6goRY6eWJo7",
            "{PLAIN}pleaseletmein",
        ] {
            assert!(verify(stored, b"pleaseletmein").unwrap(), "{stored}");
            assert!(!verify(stored, b"pleaseletmeout").unwrap(), "{stored}");
            assert!(!verify(stored, b"").unwrap(), "{stored}");
        }
    }

    #[test]
    fn costly_or_malformed_hashes_are_refused() {
        for (stored, costly) in [
            ("$argon2id$v=19$m=1048576,t=2,p=1$c2FsdHNhbHRzYWx0$3Zlmc2ZzZnNkZnNkZnNkZnNkZnM", true),
            ("$argon2id$v=19$m=262144,t=100,p=1$c2FsdHNhbHRzYWx0$3Zlmc2ZzZnNkZnNkZnNkZnNkZnM", true),
            ("$2y$31$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe", true),
            ("$5$rounds=999999999$saltstring$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true),
            ("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0", false),
            ("{SSHA}AAAA", false),
            ("{BLF-CRYPT}hello", false),
            ("hello", false),
            ("", false),
        ] {
            match Stored::parse(stored) {
                Err(PasswordError::TooCostly(_)) => assert!(costly, "{stored}"),
                Err(PasswordError::Malformed(_)) => assert!(!costly, "{stored}"),
                Err(other) => panic!("{stored}: {other}"),
                Ok(_) => panic!("{stored} was taken"),
            }
        }
        assert!(matches!(Stored::parse("{DES-CRYPT}ab"), Err(PasswordError::Scheme(_))));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "(\\{[A-Z0-9-]{0,12}\\})?(\\$[a-z0-9=,./]{0,12}){0,6}.{0,20}") {
            let _ = Stored::parse(&text);
        }
    }
}
