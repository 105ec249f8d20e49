//! PLAIN (RFC 4616) and LOGIN, the server's side: octets to names and passwords.

use crate::secret::Secret;

/// Longest user name or password taken, octets.
pub const MAX_FIELD: usize = 1024;

/// What a PLAIN message holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainMessage {
    /// Whom to act as; empty: the same.
    pub authzid: String,
    /// Who logs in.
    pub authcid: String,
    /// With what.
    pub password: Secret,
}

/// Splits `authzid NUL authcid NUL password`. `None` unless there are exactly two NULs, a user and a password, all UTF-8 and of
/// bounded length.
pub fn parse_plain(message: &[u8]) -> Option<PlainMessage> {
    let mut parts = message.split(|b| *b == 0);
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let authzid = if authzid.is_empty() { String::new() } else { parse_login_name(authzid)? };
    Some(PlainMessage { authzid, authcid: parse_login_name(authcid)?, password: parse_login_password(password)? })
}

/// A user name as LOGIN's first answer gives it: UTF-8, not empty, without control characters.
pub fn parse_login_name(octets: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(octets).ok()?;
    (!name.is_empty() && name.len() <= MAX_FIELD && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// A password as LOGIN's second answer gives it: UTF-8, not empty, without NUL.
pub fn parse_login_password(octets: &[u8]) -> Option<Secret> {
    let password = std::str::from_utf8(octets).ok()?;
    (!password.is_empty() && password.len() <= MAX_FIELD && !password.contains('\0')).then(|| Secret::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_nul_rules() {
        let parsed = parse_plain(b"\0bob\0pass word").unwrap();
        assert_eq!((parsed.authzid.as_str(), parsed.authcid.as_str(), parsed.password.expose()), ("", "bob", "pass word"));
        assert_eq!(parse_plain(b"ann\0bob\0x").unwrap().authzid, "ann");
        for bad in [&b""[..], b"bob", b"bob\0x", b"\0bob\0x\0", b"\0\0x", b"\0bob\0", b"\0b\nb\0x", b"\0\xff\0x", b"a\0b\0c\0d"] {
            assert_eq!(parse_plain(bad), None, "{bad:?}");
        }
        assert_eq!(parse_plain(&[b"\0".as_slice(), &[b'a'; MAX_FIELD + 1], b"\0x"].concat()), None);
    }

    proptest! {
        #[test]
        fn any_octets(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(parsed) = parse_plain(&bytes) {
                let again = [parsed.authzid.as_bytes(), b"\0", parsed.authcid.as_bytes(), b"\0", parsed.password.as_bytes()].concat();
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
