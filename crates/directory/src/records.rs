//! What the directory keeps: domains, users, aliases and their credentials, as versioned JSON values.

use pillarbox_smtp::{AddressError, Domain, LocalPart, Mailbox};
use serde::{Deserialize, Serialize};

/// A domain we host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// Its name.
    pub name: Domain,
    /// When it was added, RFC 3339 UTC.
    pub created: String,
    /// "maildir", "lmtp:…"; `None`: as configured.
    #[serde(default)]
    pub deliver_to: Option<String>,
    /// DKIM keys, newest first; the private halves are files in STATE/dkim or, with PostgreSQL, kept there.
    #[serde(default)]
    pub dkim: Vec<DkimKeyRecord>,
}

/// A DKIM key of a domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DkimKeyRecord {
    /// Selector.
    pub selector: String,
    /// "rsa-sha256" or "ed25519-sha256".
    pub algorithm: String,
    /// Public key as the `p=` value.
    pub public: String,
    /// PKCS#8 PEM of the private key, when it is kept in the directory; otherwise it is `STATE/dkim/DOMAIN/SELECTOR.pem`.
    #[serde(default)]
    pub private_pem: Option<String>,
    /// When it was made, RFC 3339 UTC.
    pub created: String,
    /// Signs from this time on (an overlap period lets DNS learn it first).
    #[serde(default)]
    pub active_from: Option<String>,
    /// No longer signs; its record may leave DNS after this.
    #[serde(default)]
    pub retired: Option<String>,
}

/// A user: a mailbox with credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRecord {
    /// The address, as it was added.
    pub address: Mailbox,
    /// When it was added, RFC 3339 UTC.
    pub created: String,
    /// Logins refused, and mail as `mailbox.suspended` says.
    #[serde(default)]
    pub suspended: bool,
    /// Octets; `None`: the configured default.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// Further names that may log in as this user.
    #[serde(default)]
    pub logins: Vec<Mailbox>,
    /// Vacation reply.
    #[serde(default)]
    pub vacation: Option<Vacation>,
    /// Display name for generated mail.
    #[serde(default)]
    pub name: Option<String>,
}

impl UserRecord {
    /// A user as most are added: the configured quota, no further names, no vacation reply.
    pub fn new(address: Mailbox, created: String) -> Self {
        Self { address, created, suspended: false, quota: None, logins: Vec::new(), vacation: None, name: None }
    }
}

/// What accepting mail for a user needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// The address, as it was added.
    pub address: Mailbox,
    /// Mail as `mailbox.suspended` says.
    pub suspended: bool,
    /// Its own quota; `None`: the configured default.
    pub quota: Option<Quota>,
}

impl Addressee {
    /// A user of whom nothing else is to be known, and who was added under the folded form of this address.
    pub(crate) fn plain(address: &Mailbox) -> Result<Self, AddressError> {
        let folded = address.local.key();
        let local = if folded == address.local.as_str() { address.local.clone() } else { LocalPart::new(&folded)? };
        Ok(Self { address: Mailbox::new(local, address.domain.clone()), suspended: false, quota: None })
    }
}

impl From<UserRecord> for Addressee {
    fn from(user: UserRecord) -> Self {
        Self { address: user.address, suspended: user.suspended, quota: user.quota }
    }
}

/// A user's own quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// No bound, whatever the default.
    None,
    /// So many octets.
    Bytes(u64),
}

/// A vacation reply (RFC 3834, RFC 5230).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vacation {
    /// Subject of the reply.
    pub subject: String,
    /// Text of the reply, UTF-8.
    pub text: String,
    /// First day, `YYYY-MM-DD` UTC.
    #[serde(default)]
    pub from: Option<String>,
    /// Last day, `YYYY-MM-DD` UTC, included.
    #[serde(default)]
    pub until: Option<String>,
}

/// A user's secrets, apart from the user so that listings never touch them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct CredentialRecord {
    /// The main password: a PHC string, or a Dovecot `{SCHEME}` string that is upgraded at the next login.
    pub password: Option<String>,
    /// SCRAM-SHA-256 keys, only for users created with SCRAM switched on.
    #[serde(default)]
    pub scram: Option<ScramKeys>,
    /// App-passwords.
    #[serde(default)]
    pub app: Vec<AppPassword>,
}

/// RFC 5802 §3: what the server keeps.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramKeys {
    /// Base64.
    pub salt: String,
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// Base64.
    pub stored_key: String,
    /// Base64.
    pub server_key: String,
}

/// A password for one device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPassword {
    /// What the user calls the device.
    pub label: String,
    /// PHC string.
    pub hash: String,
    /// RFC 3339 UTC.
    pub created: String,
    /// RFC 3339 UTC, to the day.
    #[serde(default)]
    pub last_used: Option<String>,
}

/// An alias: one address, or a domain's catch-all, that stands for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRecord {
    /// What it stands for.
    pub address: AliasAddress,
    /// Where its mail goes; each may be a mailbox, another alias, or remote.
    pub targets: Vec<Mailbox>,
    /// When it was added, RFC 3339 UTC.
    pub created: String,
}

/// The left side of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AliasAddress {
    /// One address. A user's own address here means forwarding; the user among its targets keeps a copy.
    Mailbox(Mailbox),
    /// `@domain`: every address of the domain that is nothing else.
    CatchAll(Domain),
}

/// One change; several in one `apply` are durable together or not at all.
#[derive(Clone, PartialEq)]
pub enum Change {
    /// Adds or replaces.
    PutDomain(DomainRecord),
    /// Removes; users and aliases of it must be gone or go in the same batch.
    RemoveDomain(Domain),
    /// Adds or replaces.
    PutUser(UserRecord),
    /// Removes the user and its credentials. Mail stays.
    RemoveUser(Mailbox),
    /// Adds or replaces.
    PutCredential(Mailbox, CredentialRecord),
    /// Adds or replaces.
    PutAlias(AliasRecord),
    /// Removes.
    RemoveAlias(AliasAddress),
    /// Replaces the main password's hash if it is still `from`: an old scheme made new at a login must not undo a `passwd` made meanwhile.
    UpgradePassword {
        /// The user.
        address: Mailbox,
        /// The hash that was checked.
        from: String,
        /// The same password, hashed anew.
        to: String,
    },
    /// Notes the day of an app-password's last use, if that app-password is still there.
    TouchAppPassword {
        /// The user.
        address: Mailbox,
        /// The app-password.
        label: String,
        /// RFC 3339 UTC, to the day.
        day: String,
    },
}

impl AliasAddress {
    /// The domain that the alias belongs to.
    pub fn domain(&self) -> &Domain {
        match self {
            Self::Mailbox(m) => &m.domain,
            Self::CatchAll(d) => d,
        }
    }

    /// The folded form under which look-ups and comparisons file it.
    pub fn key(&self) -> String {
        match self {
            Self::Mailbox(m) => m.key(),
            Self::CatchAll(d) => format!("@{d}"),
        }
    }

    /// Whether both name the same alias once case and normalisation are folded.
    pub fn same_as(&self, other: &AliasAddress) -> bool {
        match (self, other) {
            (Self::Mailbox(a), Self::Mailbox(b)) => a.same_as(b),
            (Self::CatchAll(a), Self::CatchAll(b)) => a == b,
            _ => false,
        }
    }
}

impl std::fmt::Display for AliasAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mailbox(m) => m.fmt(f),
            Self::CatchAll(d) => write!(f, "@{d}"),
        }
    }
}

impl std::str::FromStr for AliasAddress {
    type Err = pillarbox_smtp::AddressError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('@') {
            Some(domain) => domain.parse().map(Self::CatchAll),
            None => text.parse().map(Self::Mailbox),
        }
    }
}

impl Serialize for AliasAddress {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AliasAddress {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! secret_debug {
    ($($type:ty),*) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($type), "(…)"))
            }
        }
    )*};
}
secret_debug!(CredentialRecord, ScramKeys, AppPassword, Change);
