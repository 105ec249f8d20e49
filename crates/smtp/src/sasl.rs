//! SASL (RFC 4422) as SMTP uses it (RFC 4954): the mechanisms' names and messages, for both sides.

pub mod plain;
pub mod scram;

use rand::Rng as _;

/// The mechanisms we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Never standardised, still what some clients know best.
    Login,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677 with channel binding (RFC 9266 `tls-exporter`).
    ScramSha256Plus,
}

impl Mechanism {
    /// All, weakest first.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::ScramSha256, Self::ScramSha256Plus];

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// Finds a mechanism by its name, in any case. `None` for those we do not know.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name().eq_ignore_ascii_case(name))
    }
}

/// 144 bits from the operating system's generator, printable and without a comma, as SCRAM wants its nonces.
pub fn random_nonce() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut rng = rand::rng();
    (0..24).map(|_| char::from(ALPHABET.get(rng.random_range(0..64usize)).copied().unwrap_or(b'A'))).collect()
}
