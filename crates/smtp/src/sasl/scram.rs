//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; channel binding `tls-exporter`, RFC 9266).
//!
//! Passwords are prepared with SASLprep (RFC 4013). One that SASLprep refuses (unassigned or prohibited characters) is used as it
//! is, octet for octet, as PostgreSQL and Dovecot do: refusing a password that PLAIN accepts would only puzzle its owner.

mod client;
mod server;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use client::ScramClient;
pub use server::{ClientFirst, ScramServer};

use crate::secret::Secret;

/// PBKDF2 rounds of newly derived keys; RFC 7677 §4 asks for 4096 at least.
pub const DEFAULT_ITERATIONS: u32 = 10_000;
/// Fewest rounds that a client of ours goes along with: a server that asks for one wants the password guessed.
const MIN_ITERATIONS: u32 = 4096;
/// Most rounds that a client of ours goes along with, so that a server cannot burn its time.
const MAX_ITERATIONS: u32 = 1_000_000;
/// Longest message of either side that is looked at, octets.
const MAX_MESSAGE: usize = 8192;

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message is not what RFC 5802 §7 allows.
    #[error("a SCRAM message is malformed")]
    Malformed,
    /// A mandatory extension (`m=`) that nobody knows.
    #[error("a SCRAM extension is not supported")]
    Extension,
    /// The nonce is not the one of this exchange.
    #[error("the SCRAM nonce does not match")]
    Nonce,
    /// Too few or too many rounds.
    #[error("the SCRAM iteration count is out of bounds")]
    Iterations,
    /// The TLS channel is not the one the other side sees, or binding was left out where both have it.
    #[error("the SCRAM channel binding does not match")]
    Binding,
    /// Wrong password, or on the client's side: the server does not know it.
    #[error("the SCRAM proof does not match")]
    Proof,
}

impl ScramError {
    /// The same as the message, for places that want static text.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "a SCRAM message is malformed",
            Self::Extension => "a SCRAM extension is not supported",
            Self::Nonce => "the SCRAM nonce does not match",
            Self::Iterations => "the SCRAM iteration count is out of bounds",
            Self::Binding => "the SCRAM channel binding does not match",
            Self::Proof => "the SCRAM proof does not match",
        }
    }
}

/// What a server keeps instead of the password (RFC 5802 §3). Not enough to log in with, enough to guess at, so not printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    /// Random per user.
    pub salt: Vec<u8>,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// H(ClientKey).
    pub stored_key: [u8; 32],
    /// HMAC(SaltedPassword, "Server Key").
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Derives the keys of a password: `iterations` rounds of PBKDF2 (a few milliseconds; not for the reactor).
    pub fn derive(password: &Secret, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        let stored_key = Sha256::digest(hmac(salted.as_ref(), &[b"Client Key"])).into();
        let server_key = hmac(salted.as_ref(), &[b"Server Key"]);
        Self { salt: salt.to_vec(), iterations, stored_key, server_key }
    }

    /// [`Keys::derive`] with a fresh salt and [`DEFAULT_ITERATIONS`].
    pub fn generate(password: &Secret) -> Self {
        let mut salt = [0u8; 16];
        rand::rng().fill_bytes(&mut salt);
        Self::derive(password, &salt, DEFAULT_ITERATIONS)
    }

    /// Keys for a user that does not exist or has none: always the same for the same name, so that a stranger cannot tell such
    /// a user by asking twice, and matched by no password. `installation_key` is random, made once, and kept secret.
    pub fn decoy(installation_key: &[u8; 32], username: &str) -> Self {
        let part = |label: &[u8]| hmac(installation_key, &[label, b"\0", username.as_bytes()]);
        let salt = part(b"salt").get(..16).map(<[u8]>::to_vec).unwrap_or_default();
        Self { salt, iterations: DEFAULT_ITERATIONS, stored_key: part(b"stored"), server_key: part(b"server") }
    }
}

/// `Hi(password, salt, i)` of RFC 5802 §2.2.
fn salted_password(password: &Secret, salt: &[u8], iterations: u32) -> zeroize::Zeroizing<[u8; 32]> {
    let prepared = prepare(password.expose());
    let mut out = zeroize::Zeroizing::new([0u8; 32]);
    // HMAC takes keys of any length, so this cannot fail.
    let result = pbkdf2::pbkdf2::<Hmac<Sha256>>(prepared.as_bytes(), salt, iterations.max(1), out.as_mut());
    debug_assert!(result.is_ok());
    if let Cow::Owned(mut text) = prepared {
        text.zeroize();
    }
    out
}

/// SASLprep, or the text itself where SASLprep refuses it.
fn prepare(text: &str) -> Cow<'_, str> {
    stringprep::saslprep(text).unwrap_or(Cow::Borrowed(text))
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length; an empty key stands in for the impossible failure and matches nothing.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key).or_else(|_| Hmac::<Sha256>::new_from_slice(&[])) else {
        return [0; 32];
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| a.get(at).copied().unwrap_or(0) ^ b.get(at).copied().unwrap_or(0))
}

/// The value of attribute `name` at the front of a comma-separated message, and what follows.
fn attribute(text: &str, name: char) -> Result<(&str, &str), ScramError> {
    let value = text.strip_prefix(name).and_then(|t| t.strip_prefix('=')).ok_or(ScramError::Malformed)?;
    Ok(value.split_once(',').unwrap_or((value, "")))
}

/// Nonces are printable ASCII without a comma (RFC 5802 §7).
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// What `c=` must hold: the GS2 header, and the binding where `p=` was said.
fn binding_value(gs2_header: &str, binding: Option<&[u8]>) -> String {
    let mut value = gs2_header.as_bytes().to_vec();
    value.extend_from_slice(binding.unwrap_or(&[]));
    BASE64.encode(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7677 §3: user "user", password "pencil".
    #[test]
    fn the_example_of_rfc_7677() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let password = Secret::new("pencil");
        let mut client = ScramClient::new("user", "rOprNGfwEbeRWgbNEkqO", None, false);
        let first = client.first();
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let parsed = ClientFirst::parse(&first, false, false).unwrap();
        assert_eq!((parsed.username(), parsed.authzid()), ("user", ""));
        let keys = Keys::derive(&password, &salt, 4096);
        let mut server = ScramServer::new(parsed, keys, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", None);
        let challenge = server.first();
        assert_eq!(challenge, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = client.last(&challenge, &password).unwrap();
        assert_eq!(last, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let proof = server.last(&last).unwrap();
        assert_eq!(proof, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(client.verify(&proof), Ok(()));
        assert_eq!(client.verify("v=AAAA"), Err(ScramError::Proof));
        assert_eq!(client.verify("e=invalid-proof"), Err(ScramError::Proof));
    }

    fn run(
        user: &str,
        password: &str,
        known: &str,
        client_binding: Option<&[u8]>,
        server_binding: Option<&[u8]>,
    ) -> Result<(), ScramError> {
        let plus = client_binding.is_some();
        let password = Secret::new(password);
        let mut client = ScramClient::new(user, "cnonce", client_binding, plus);
        let first = ClientFirst::parse(&client.first(), plus, server_binding.is_some())?;
        assert_eq!(first.username(), prepare(user));
        let keys = Keys::derive(&Secret::new(known), b"salt", MIN_ITERATIONS);
        let mut server = ScramServer::new(first, keys, "snonce", server_binding.map(<[u8]>::to_vec));
        let last = client.last(&server.first(), &password)?;
        client.verify(&server.last(&last)?)
    }

    #[test]
    fn bindings_passwords_and_downgrades() {
        assert_eq!(run("a,b=c", "pw", "pw", None, None), Ok(()));
        assert_eq!(run("u", "pw", "PW", None, None), Err(ScramError::Proof));
        assert_eq!(run("u", "pw", "pw", Some(b"tls"), Some(b"tls")), Ok(()));
        assert_eq!(run("u", "pw", "pw", Some(b"tls"), Some(b"other")), Err(ScramError::Binding));
        // SASLprep: a soft hyphen is nothing, a non-breaking space is a space.
        assert_eq!(run("u", "I\u{ad}X\u{a0}y", "IX y", None, None), Ok(()));
        // A client that could bind but was told the server cannot, while the server offered it: someone edited the EHLO reply.
        let stripped = ScramClient::new("u", "n", None, true).first();
        assert!(stripped.starts_with("y,,"));
        assert_eq!(ClientFirst::parse(&stripped, false, true).err(), Some(ScramError::Binding));
        assert!(ClientFirst::parse(&stripped, false, false).is_ok());
    }

    #[test]
    fn malformed_messages() {
        for (text, plus) in [
            ("", false),
            ("n,,", false),
            ("n,,n=,r=x", false),
            ("n,,n=u", false),
            ("n,,n=u,r=", false),
            ("n,,n=u=41,r=x", false),
            ("x,,n=u,r=x", false),
            ("p=tls-unique,,n=u,r=x", true),
            ("p=tls-exporter,,n=u,r=x", false),
            ("n,,n=u,r=x", true),
            ("n,b=x,n=u,r=x", false),
            ("n,,m=ext,n=u,r=x", false),
            ("n,,n=u\n,r=x", false),
            ("n,,n=u,r=a\u{7f}", false),
        ] {
            assert!(ClientFirst::parse(text, plus, plus).is_err(), "{text:?}");
        }
        let with_authzid = ClientFirst::parse("n,a=boss=2Cx,n=u,r=x", false, false).unwrap();
        assert_eq!(with_authzid.authzid(), "boss,x");

        let keys = Keys::decoy(&[7; 32], "u");
        for last in ["", "c=biws", "c=biws,r=xs", "c=biws,r=xs,p=", "c=biws,r=xs,p=AAAA", "c=AAAA,r=xs,p=AAAA", "c=biws,r=other,p=AAAA"] {
            let first = ClientFirst::parse("n,,n=u,r=x", false, false).unwrap();
            assert!(ScramServer::new(first, keys.clone(), "s", None).last(last).is_err(), "{last:?}");
        }
        let password = Secret::new("p");
        for first in [
            "",
            "r=n",
            "r=other,s=AAAA,i=4096",
            "r=n,s=AAAA,i=4096",
            "r=nx,s=!,i=4096",
            "r=nx,s=AAAA,i=1",
            "r=nx,s=AAAA,i=99999999",
            "m=x,r=nx,s=AAAA,i=4096",
        ] {
            assert!(ScramClient::new("u", "n", None, false).last(first, &password).is_err(), "{first:?}");
        }
    }

    #[test]
    fn decoys_are_stable_and_differ() {
        let key = [1u8; 32];
        assert_eq!(Keys::decoy(&key, "a"), Keys::decoy(&key, "a"));
        assert_ne!(Keys::decoy(&key, "a").salt, Keys::decoy(&key, "b").salt);
        assert_ne!(Keys::decoy(&key, "a").salt, Keys::decoy(&[2; 32], "a").salt);
        assert_eq!(Keys::decoy(&key, "a").salt.len(), Keys::generate(&Secret::new("x")).salt.len());
        assert_eq!(Keys::decoy(&key, "a").iterations, Keys::generate(&Secret::new("x")).iterations);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn client_and_server_agree(user in "\\PC{1,20}", password in "\\PC{1,20}", binding in proptest::option::of(proptest::collection::vec(any::<u8>(), 32))) {
            prop_assume!(!prepare(&user).is_empty() && !prepare(&user).contains('\0'));
            let binding = binding.as_deref();
            prop_assert_eq!(run(&user, &password, &password, binding, binding), Ok(()));
            let wrong = format!("{password}x");
            prop_assert_eq!(run(&user, &wrong, &password, binding, binding), Err(ScramError::Proof));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,80}") {
            let _ = ClientFirst::parse(&text, false, false);
            let first = ClientFirst::parse("n,,n=u,r=x", false, false).unwrap();
            prop_assert!(ScramServer::new(first, Keys::decoy(&[0; 32], "u"), "s", None).last(&text).is_err());
            let mut client = ScramClient::new("u", "n", None, false);
            prop_assert!(client.last(&text, &Secret::new("p")).is_err());
            prop_assert!(client.verify(&text).is_err());
        }
    }
}
