//! The export's text: what `pillarbox export` prints and `pillarbox apply` reads.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pillarbox_config::units::ByteSize;
use pillarbox_smtp::{Domain, Mailbox, printable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::records::{
    AliasAddress, AliasRecord, AppPassword, Change, CredentialRecord, DkimKeyRecord, DomainRecord, Quota, ScramKeys, UserRecord, Vacation,
};
use crate::store::DirectoryError;

/// Version of the text; a newer one is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Why a text is not an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Not TOML, an unknown key, or a bad value. The line itself is not shown: it may hold a secret.
    #[error("the file is not a directory export: line {line}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Written by a newer program.
    #[error("the file was written by a newer Pillarbox (version {0}, this program knows {FORMAT_VERSION}); upgrade this program")]
    Newer(u32),
    /// A value that TOML allows and the directory does not.
    #[error("{0}")]
    Value(String),
    /// The directory does not answer, or refuses.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The file cannot be written.
    #[error("the export cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// All that an export holds.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    version: u32,
    /// Commits of the database when this was written; only in the file that is kept beside it.
    #[serde(default)]
    revision: Option<u64>,
    #[serde(default)]
    settings: BTreeMap<String, Base64Text>,
    #[serde(default)]
    domain: Vec<DomainEntry>,
    #[serde(default)]
    user: Vec<UserEntry>,
    #[serde(default)]
    alias: Vec<AliasEntry>,
}

/// A domain as the export writes it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DomainEntry {
    name: Domain,
    #[serde(default)]
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deliver_to: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dkim: Vec<DkimKeyRecord>,
}

/// A user with its credentials as the export writes it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserEntry {
    address: Mailbox,
    #[serde(default)]
    created: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    suspended: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quota: Option<QuotaText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    logins: Vec<Mailbox>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vacation: Option<Vacation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scram: Option<ScramKeys>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    app_password: Vec<AppPassword>,
}

/// An alias as the export writes it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasEntry {
    address: AliasAddress,
    targets: Vec<Mailbox>,
    #[serde(default)]
    created: String,
}

/// `"none"`, octets, or a size such as `"2G"`.
#[derive(Clone, Copy)]
struct QuotaText(Quota);

impl Serialize for QuotaText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Quota::None => s.serialize_str("none"),
            // TOML integers are signed; a quota beyond is written as text.
            Quota::Bytes(n) => match i64::try_from(n) {
                Ok(n) => s.serialize_i64(n),
                Err(_) => s.serialize_str(&n.to_string()),
            },
        }
    }
}

impl<'de> Deserialize<'de> for QuotaText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(d)? {
            Form::Number(n) => Ok(Self(Quota::Bytes(n))),
            Form::Text(text) => parse_quota(&text).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// Reads `"none"` or a size.
pub(crate) fn parse_quota(text: &str) -> Result<Quota, String> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(Quota::None);
    }
    text.parse::<ByteSize>().map(|size| Quota::Bytes(size.bytes()))
}

/// Octets as base64.
#[derive(Clone)]
struct Base64Text(Vec<u8>);

impl Serialize for Base64Text {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        BASE64.decode(String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}

impl DomainEntry {
    pub(crate) fn new(record: DomainRecord) -> Self {
        Self { name: record.name, created: record.created, deliver_to: record.deliver_to, dkim: record.dkim }
    }

    fn record(self) -> DomainRecord {
        DomainRecord { name: self.name, created: self.created, deliver_to: self.deliver_to, dkim: self.dkim }
    }
}

impl UserEntry {
    pub(crate) fn new(user: UserRecord, credential: Option<CredentialRecord>) -> Self {
        let credential = credential.unwrap_or_default();
        Self {
            address: user.address,
            created: user.created,
            suspended: user.suspended,
            quota: user.quota.map(QuotaText),
            name: user.name,
            logins: user.logins,
            password: credential.password,
            vacation: user.vacation,
            scram: credential.scram,
            app_password: credential.app,
        }
    }

    fn records(self) -> (UserRecord, CredentialRecord) {
        let user = UserRecord {
            address: self.address,
            created: self.created,
            suspended: self.suspended,
            quota: self.quota.map(|q| q.0),
            logins: self.logins,
            vacation: self.vacation,
            name: self.name,
        };
        (user, CredentialRecord { password: self.password, scram: self.scram, app: self.app_password })
    }
}

impl AliasEntry {
    pub(crate) fn new(record: AliasRecord) -> Self {
        Self { address: record.address, targets: record.targets, created: record.created }
    }

    fn record(self) -> AliasRecord {
        AliasRecord { address: self.address, targets: self.targets, created: self.created }
    }
}

/// Reads an export.
///
/// # Errors
/// When it is not TOML, has an unknown key, a malformed address, an unusable password hash, or comes from a newer program.
pub fn parse(text: &str) -> Result<Content, ExportError> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    match toml::from_str::<Content>(text) {
        Ok(content) if content.version <= FORMAT_VERSION => content.checked(),
        Ok(content) => Err(ExportError::Newer(content.version)),
        // A newer text may hold keys that this program does not know: say that, rather than name the key.
        Err(error) => match toml::from_str::<OnlyVersion>(text) {
            Ok(only) if only.version > FORMAT_VERSION => Err(ExportError::Newer(only.version)),
            _ => {
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
                let line = before.matches('\n').count().saturating_add(1);
                Err(ExportError::Syntax { line, message: printable(error.message().as_bytes()) })
            }
        },
    }
}

impl Content {
    fn checked(self) -> Result<Self, ExportError> {
        for user in &self.user {
            for hash in user.password.iter().chain(user.app_password.iter().map(|a| &a.hash)) {
                crate::password::check_stored(hash)
                    .map_err(|why| ExportError::Value(format!("the password of {} cannot be used: {why}", user.address)))?;
            }
        }
        Ok(self)
    }

    /// Domains, then users with their credentials, then aliases.
    pub fn records(self) -> (Vec<DomainRecord>, Vec<(UserRecord, CredentialRecord)>, Vec<AliasRecord>) {
        (
            self.domain.into_iter().map(DomainEntry::record).collect(),
            self.user.into_iter().map(UserEntry::records).collect(),
            self.alias.into_iter().map(AliasEntry::record).collect(),
        )
    }

    /// The changes that put everything into an empty directory, in an order that any prefix of may be applied.
    pub fn changes(self) -> Vec<Change> {
        let (domains, users, aliases) = self.records();
        let mut changes = Vec::new();
        changes.extend(domains.into_iter().map(Change::PutDomain));
        for (user, credential) in users {
            let address = user.address.clone();
            changes.push(Change::PutUser(user));
            changes.push(Change::PutCredential(address, credential));
        }
        changes.extend(aliases.into_iter().map(Change::PutAlias));
        changes
    }

    /// Commits of the database when this was written, where it says so.
    pub(crate) fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// Secrets and settings by name.
    pub fn settings(&self) -> Vec<(String, Vec<u8>)> {
        self.settings.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
    }
}

/// The revision in a text's first lines, without reading the rest: it is asked for at every start.
pub(crate) fn revision(text: &str) -> Option<u64> {
    let head = text.lines().take_while(|line| !line.starts_with('['));
    head.filter_map(|line| line.strip_prefix("revision = ")).find_map(|number| number.trim().parse().ok())
}

/// The first lines of an export: version, revision and settings.
pub(crate) fn head(revision: Option<u64>, settings: Vec<(String, Vec<u8>)>) -> Result<String, ExportError> {
    #[derive(Serialize)]
    struct Head {
        version: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        settings: BTreeMap<String, Base64Text>,
    }
    let settings = settings.into_iter().map(|(name, value)| (name, Base64Text(value))).collect();
    let head = to_toml(&Head { version: FORMAT_VERSION, revision, settings })?;
    Ok(format!(
        "# All domains, users, aliases and credentials of this Pillarbox; `pillarbox apply FILE` puts them back.\n\
         # Keep it private: it holds password hashes and secrets.\n\n{head}"
    ))
}

/// One `[[domain]]`, `[[user]]` or `[[alias]]`, with an empty line before it.
pub(crate) fn block<T: Serialize>(table: &'static str, entry: &T) -> Result<String, ExportError> {
    let text = to_toml(&BTreeMap::from([(table, [entry])]))?;
    Ok(format!("\n{text}"))
}

fn to_toml<T: Serialize>(value: &T) -> Result<String, ExportError> {
    toml::to_string(value).map_err(|e| ExportError::Value(format!("the directory holds what TOML cannot write: {e}")))
}
