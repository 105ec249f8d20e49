//! DKIM keys over time: DNS records to publish, and replacing keys with an overlap so that no signature is ever without its record.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pillarbox_directory::{Change, Directory, DirectoryError, DkimKeyRecord, DomainRecord};
use pillarbox_smtp::Domain;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::keys::{self, ED25519, KeyError, rfc3339};

/// How long the record of a retired key stays in DNS: mail in queues and mailboxes elsewhere is still verified with it.
const AFTERLIFE: time::Duration = time::Duration::days(14);

/// What a rotation did.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Records to publish now, as `(name, TXT)`.
    pub publish: Vec<(String, String)>,
    /// When the new keys begin to sign, RFC 3339 UTC.
    pub active_from: String,
    /// Selectors that sign until then.
    pub retiring: Vec<String>,
    /// Names whose records may leave DNS now.
    pub remove: Vec<String>,
}

/// Why keys were not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// Not a domain we host.
    #[error("{0} is not a domain of this server")]
    NoDomain(Domain),
    /// A key cannot be made or stored.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The worker that makes keys died.
    #[error("the keys could not be made")]
    Worker,
}

/// The DNS records of a domain's keys at `now`, as `(name, TXT)`: those that sign, will sign, or signed lately.
pub fn records(domain: &DomainRecord, now: OffsetDateTime) -> Vec<(String, String)> {
    domain.dkim.iter().filter(|key| !is_over(key, now)).map(|key| (name(&domain.name, key), record(key))).collect()
}

/// `selector._domainkey.domain`.
fn name(domain: &Domain, key: &DkimKeyRecord) -> String {
    format!("{}._domainkey.{domain}", key.selector)
}

/// RFC 6376 §3.6.1.
fn record(key: &DkimKeyRecord) -> String {
    let kind = if key.algorithm == ED25519 { "ed25519" } else { "rsa" };
    format!("v=DKIM1; k={kind}; p={}", key.public)
}

/// Whether a key signs at `now`.
pub(crate) fn signs(key: &DkimKeyRecord, now: OffsetDateTime) -> bool {
    let after = |text: &Option<String>| text.as_deref().map(|t| parse(t).is_some_and(|at| at <= now));
    after(&key.active_from).unwrap_or(true) && !after(&key.retired).unwrap_or(false)
}

/// Whether a key's record is of no use any more.
fn is_over(key: &DkimKeyRecord, now: OffsetDateTime) -> bool {
    key.retired.as_deref().and_then(parse).is_some_and(|at| at + AFTERLIFE < now)
}

fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Makes new keys that begin to sign after `overlap` (time for DNS to learn them), until which the old ones go on. Keys whose afterlife
/// is over are forgotten. The private halves go to STATE/dkim, or into the directory where `state` is `None`.
pub async fn rotate(
    directory: &dyn Directory,
    state: Option<&Path>,
    domain: &Domain,
    overlap: Duration,
    now: OffsetDateTime,
) -> Result<Rotation, RotateError> {
    let mut record = directory.domain(domain).await?.ok_or_else(|| RotateError::NoDomain(domain.clone()))?;
    let existing = Arc::new(record.dkim.clone());
    let folder = state.map(Path::to_owned);
    let owner = domain.clone();
    let made = tokio::task::spawn_blocking(move || -> Result<_, KeyError> {
        // A domain that was removed and added again left its old keys' files behind; they are not written over, nor are their names used
        // for other keys.
        let known = |name: &str| existing.iter().any(|key| key.selector.eq_ignore_ascii_case(name));
        let left = |name: &str| folder.as_deref().is_some_and(|folder| keys::path(folder, &owner, name).exists());
        let mut keys = keys::generate_unless(&|name| known(name) || left(name), now)?;
        for key in &mut keys {
            match &folder {
                Some(folder) => keys::store(folder, &owner, key)?,
                None => key.record.private_pem = Some(key.private_pem.to_string()),
            }
        }
        Ok(keys)
    });
    let made = made.await.map_err(|_| RotateError::Worker)??;

    let active = rfc3339(now + overlap);
    let mut fresh: Vec<DkimKeyRecord> =
        made.into_iter().map(|key| DkimKeyRecord { active_from: Some(active.clone()), ..key.record }).collect();
    let publish = fresh.iter().map(|key| (name(domain, key), self::record(key))).collect();
    let remove = record.dkim.iter().filter(|key| is_over(key, now)).map(|key| name(domain, key)).collect();
    record.dkim.retain(|key| !is_over(key, now));
    let mut retiring = Vec::new();
    for key in record.dkim.iter_mut().filter(|key| key.retired.is_none()) {
        key.retired = Some(active.clone());
        retiring.push(key.selector.clone());
    }
    fresh.append(&mut record.dkim);
    record.dkim = fresh;
    directory.apply(vec![Change::PutDomain(record)]).await?;
    Ok(Rotation { publish, active_from: active, retiring, remove })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(active_from: Option<&str>, retired: Option<&str>) -> DkimKeyRecord {
        DkimKeyRecord {
            selector: "s".into(),
            algorithm: ED25519.into(),
            public: "AAAA".into(),
            private_pem: None,
            created: "2026-01-01T00:00:00Z".into(),
            active_from: active_from.map(Into::into),
            retired: retired.map(Into::into),
        }
    }

    #[test]
    fn a_key_signs_between_its_times_and_its_record_outlives_it() {
        let at = |day: u8| parse(&format!("2026-03-{day:02}T00:00:00Z")).unwrap();
        let rotated = key(Some("2026-03-05T00:00:00Z"), Some("2026-03-10T00:00:00Z"));
        for (day, expected) in [(4, false), (5, true), (9, true), (10, false)] {
            assert_eq!(signs(&rotated, at(day)), expected, "{day}");
        }
        assert!(signs(&key(None, None), at(1)));
        let mut domain =
            DomainRecord { name: "example.org".parse().unwrap(), created: String::new(), deliver_to: None, dkim: vec![rotated] };
        assert_eq!(records(&domain, at(20)), [("s._domainkey.example.org".into(), "v=DKIM1; k=ed25519; p=AAAA".into())]);
        assert_eq!(records(&domain, at(25)), []);
        domain.dkim.clear();
        assert_eq!(records(&domain, at(20)), []);
    }
}
