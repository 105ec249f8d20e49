//! Signing mail that leaves: DKIM-Signature fields with every active key of the sender's domain, and ARC sets on what is forwarded.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pillarbox_config::Config;
use pillarbox_directory::{Directory, DirectoryError, DomainRecord};
use pillarbox_message::header::split;
use pillarbox_smtp::Domain;
use quick_cache::sync::Cache;
use time::OffsetDateTime;

use super::keys::{self, SigningKey};
use super::{body_hash, fold_base64, fold_names, relaxed_field, rotate, signed_fields};
use crate::arc;

/// Domains whose keys are kept ready.
const DOMAINS: usize = 4_096;
/// Bodies above this many octets are hashed on the blocking pool.
const LARGE: usize = 256 * 1024;

/// Why a message could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The directory cannot be asked.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// No active key of the domain can be used; the message may leave unsigned, or wait.
    #[error(transparent)]
    Key(#[from] keys::KeyError),
    /// The cryptographic library failed, or the worker died.
    #[error("the message could not be signed")]
    Failed,
}

/// Keys of one domain, ready to sign.
pub(crate) struct Keys {
    /// The directory's generation they were read at.
    generation: u64,
    record: DomainRecord,
    /// By position in `record.dkim`.
    keys: Arc<[Option<SigningKey>]>,
}

/// Signs with the keys that the directory names.
pub struct Signer {
    directory: Arc<dyn Directory>,
    state: PathBuf,
    hostname: String,
    cache: Cache<Domain, Arc<Keys>>,
}

impl Signer {
    /// Keys from the directory, private halves from STATE/dkim where the directory has none.
    pub fn new(config: &Config, directory: Arc<dyn Directory>) -> Arc<Self> {
        Arc::new(Self { directory, state: config.paths.state.clone(), hostname: config.hostname.clone(), cache: Cache::new(DOMAINS) })
    }

    /// The DKIM-Signature fields to put before `message`, one for each active key of `domain` (RSA and Ed25519 side by side, RFC 8463 §3).
    /// `None`: not a domain of ours, or one without keys. The message must be as it will be sent: nothing but trace fields is added after.
    pub async fn sign(&self, domain: &Domain, message: Bytes) -> Result<Option<Vec<u8>>, SignError> {
        self.sign_at(domain, message, OffsetDateTime::now_utc()).await
    }

    /// The same at a given time, which goes into `t=` and decides which keys are active.
    pub async fn sign_at(&self, domain: &Domain, message: Bytes, now: OffsetDateTime) -> Result<Option<Vec<u8>>, SignError> {
        let Some(keys) = self.keys(domain).await? else { return Ok(None) };
        if keys.active(now).next().is_none() {
            return Ok(None);
        }
        on_pool(message.len() > LARGE, move || sign_with(&keys, &message, now)).await?.map(Some)
    }

    /// The ARC set (RFC 8617) to put before a message that `domain` forwards. `None` when there is nothing to seal: no RSA key, no
    /// Authentication-Results of ours in it, or a chain that is broken or full already.
    pub async fn seal(&self, domain: &Domain, message: Bytes) -> Result<Option<Vec<u8>>, SignError> {
        self.seal_at(domain, message, OffsetDateTime::now_utc()).await
    }

    /// The same at a given time.
    pub async fn seal_at(&self, domain: &Domain, message: Bytes, now: OffsetDateTime) -> Result<Option<Vec<u8>>, SignError> {
        let Some(keys) = self.keys(domain).await? else { return Ok(None) };
        let hostname = self.hostname.clone();
        on_pool(message.len() > LARGE, move || {
            // Ed25519 is defined for DKIM; ARC verifiers in the field know RSA.
            let Some((selector, key)) = keys.active(now).find(|(_, key)| matches!(key, SigningKey::Rsa(_))) else { return Ok(None) };
            let sealer = arc::Sealer {
                hostname: &hostname,
                domain: keys.record.name.as_str(),
                selector,
                algorithm: key.algorithm(),
                key: &|octets| key.sign(octets),
                headers: None,
            };
            sealer.seal(&message, now.unix_timestamp()).map_err(|arc::SealError::Sign| SignError::Failed)
        })
        .await?
    }

    /// The domain's keys, from memory while the directory has not changed.
    async fn keys(&self, domain: &Domain) -> Result<Option<Arc<Keys>>, SignError> {
        let generation = self.directory.generation();
        if let Some(keys) = self.cache.get(domain)
            && keys.generation == generation
        {
            return Ok(Some(keys));
        }
        let Some(record) = self.directory.domain(domain).await? else { return Ok(None) };
        if let Some(known) = self.cache.get(domain)
            && known.record.dkim == record.dkim
            && known.keys.iter().all(Option::is_some)
        {
            // Something else changed in the directory: the parsed keys stay.
            let keys = Arc::new(Keys { generation, record, keys: known.keys.clone() });
            self.cache.insert(domain.clone(), keys.clone());
            return Ok(Some(keys));
        }
        let state = self.state.clone();
        let keys = tokio::task::spawn_blocking(move || {
            let mut last = None;
            let keys: Vec<_> = record
                .dkim
                .iter()
                .map(|key| {
                    keys::load(&state, &record.name, key)
                        .inspect_err(
                            |error| tracing::error!(domain = %record.name, selector = key.selector, %error, "a DKIM key is unusable"),
                        )
                        .map_err(|error| last = Some(error))
                        .ok()
                })
                .collect();
            match last {
                Some(error) if keys.iter().all(Option::is_none) => Err(error),
                _ => Ok(Keys { generation, record, keys: keys.into() }),
            }
        });
        let keys = Arc::new(keys.await.map_err(|_| SignError::Failed)??);
        self.cache.insert(domain.clone(), keys.clone());
        Ok(Some(keys))
    }
}

impl Keys {
    /// Selector and key of those that sign at `now`.
    fn active(&self, now: OffsetDateTime) -> impl Iterator<Item = (&str, &SigningKey)> {
        self.record
            .dkim
            .iter()
            .zip(self.keys.iter())
            .filter(move |(record, _)| rotate::signs(record, now))
            .filter_map(|(record, key)| Some((record.selector.as_str(), key.as_ref()?)))
    }
}

/// Runs `work` here, or on the blocking pool when it is long.
async fn on_pool<T: Send + 'static>(long: bool, work: impl FnOnce() -> T + Send + 'static) -> Result<T, SignError> {
    if long { tokio::task::spawn_blocking(work).await.map_err(|_| SignError::Failed) } else { Ok(work()) }
}

fn sign_with(keys: &Keys, message: &[u8], now: OffsetDateTime) -> Result<Vec<u8>, SignError> {
    let (names, fields) = signed_fields(message);
    let mut canonical = Vec::with_capacity(2048);
    for field in &fields {
        relaxed_field(field.name, field.value, &mut canonical);
    }
    let body = message.get(split(message).body..).unwrap_or_default();
    let hash = STANDARD.encode(body_hash(body));
    let mut out = String::new();
    for (selector, key) in keys.active(now) {
        let mut value = format!(
            "v=1; a={}; c=relaxed/relaxed;\r\n\td={}; s={selector}; t={};\r\n\th=",
            key.algorithm(),
            keys.record.name,
            now.unix_timestamp()
        );
        fold_names(&names, 3, &mut value);
        value.push_str(";\r\n\tbh=");
        value.push_str(&hash);
        value.push_str(";\r\n\tb=");
        let mut signed = canonical.clone();
        relaxed_field(b"DKIM-Signature", value.as_bytes(), &mut signed);
        // The field itself is hashed without its final line end (RFC 6376 §3.7).
        signed.truncate(signed.len().saturating_sub(2));
        let signature = key.sign(&signed).ok_or(SignError::Failed)?;
        out.push_str("DKIM-Signature: ");
        out.push_str(&value);
        fold_base64(&STANDARD.encode(signature), 2, &mut out);
        out.push_str("\r\n");
    }
    Ok(out.into_bytes())
}
