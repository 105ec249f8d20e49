//! DKIM keys: making them, keeping them in files, reading them back.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox_directory::DkimKeyRecord;
use pillarbox_smtp::Domain;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

/// `a=` of RSA signatures.
pub const RSA: &str = "rsa-sha256";
/// `a=` of Ed25519 signatures (RFC 8463).
pub const ED25519: &str = "ed25519-sha256";

/// Why a key cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library refused.
    #[error("the {0} key cannot be made")]
    Generate(&'static str),
    /// Neither PKCS#8 nor PKCS#1, or no key that DKIM knows.
    #[error("the DKIM key {selector} of {domain} cannot be read: {why}")]
    Parse {
        /// Whose key.
        domain: Domain,
        /// Which one.
        selector: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Its file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A key just made: what the directory keeps, and the private half.
pub struct NewKey {
    /// For `DomainRecord.dkim`; `private_pem` is empty until the caller decides where the private half lives.
    pub record: DkimKeyRecord,
    /// PKCS#8 PEM.
    pub private_pem: Zeroizing<String>,
}

/// A private key, ready to sign.
pub enum SigningKey {
    /// RSA, at least 1024 bits.
    Rsa(RsaKeyPair),
    /// Ed25519.
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.algorithm())
    }
}

/// Makes an RSA-2048 and an Ed25519 key for a domain, named after the day so that a reader of the zone sees their age. Selectors in
/// `existing` are never used again. Takes a tenth of a second or so: not for the reactor.
pub fn generate_keys(existing: &[DkimKeyRecord], now: OffsetDateTime) -> Result<Vec<NewKey>, KeyError> {
    generate_unless(&|name| existing.iter().any(|key| key.selector.eq_ignore_ascii_case(name)), now)
}

/// The same with selectors that are not `taken`.
pub(super) fn generate_unless(taken: &dyn Fn(&str) -> bool, now: OffsetDateTime) -> Result<Vec<NewKey>, KeyError> {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate("RSA"))?;
    let rsa_der: Pkcs8V1Der<'_> = rsa.as_der().map_err(|_| KeyError::Generate("RSA"))?;
    let rsa_public: PublicKeyX509Der<'_> = rsa.public_key().as_der().map_err(|_| KeyError::Generate("RSA"))?;
    let ed = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate("Ed25519"))?;
    let ed_der = ed.to_pkcs8v1().map_err(|_| KeyError::Generate("Ed25519"))?;
    let new = |tag: &str, algorithm: &str, public: &[u8], private: &[u8]| NewKey {
        record: DkimKeyRecord {
            selector: selector(taken, now, tag),
            algorithm: algorithm.to_owned(),
            public: STANDARD.encode(public),
            private_pem: None,
            created: rfc3339(now),
            active_from: None,
            retired: None,
        },
        private_pem: pem(private),
    };
    Ok(vec![new("r", RSA, rsa_public.as_ref(), rsa_der.as_ref()), new("e", ED25519, ed.public_key().as_ref(), ed_der.as_ref())])
}

/// `p20260131r`, with a letter more for each further key of the day.
fn selector(taken: &dyn Fn(&str) -> bool, now: OffsetDateTime, tag: &str) -> String {
    let date = now.date();
    let base = format!("p{:04}{:02}{:02}{tag}", date.year(), u8::from(date.month()), date.day());
    if !taken(&base) {
        return base;
    }
    (2..).map(|n: u32| format!("{base}{n}")).find(|name| !taken(name)).unwrap_or(base)
}

/// RFC 3339 UTC to the second.
pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    let utc = at.to_offset(time::UtcOffset::UTC);
    utc.replace_nanosecond(0).unwrap_or(utc).format(&Rfc3339).unwrap_or_default()
}

fn pem(der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 64));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

/// `STATE/dkim/<domain>/<selector>.pem`.
pub fn path(state: &Path, domain: &Domain, selector: &str) -> PathBuf {
    state.join("dkim").join(domain.as_str()).join(format!("{selector}.pem"))
}

/// Writes the private half to its file (0600, in folders 0700), durably: after this a power cut does not lose it. Blocks.
pub fn store(state: &Path, domain: &Domain, key: &NewKey) -> Result<(), KeyError> {
    let path = path(state, domain, &key.record.selector);
    let write = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(state);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(key.private_pem.as_bytes())?;
        file.sync_all()?;
        for folder in path.ancestors().skip(1).take(3) {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| KeyError::File { path: path.clone(), source })
}

/// Reads the private half, from the record or from its file. Blocks.
pub fn load(state: &Path, domain: &Domain, record: &DkimKeyRecord) -> Result<SigningKey, KeyError> {
    let pem = match &record.private_pem {
        Some(pem) => Zeroizing::new(pem.clone()),
        None => {
            let path = path(state, domain, &record.selector);
            Zeroizing::new(fs::read_to_string(&path).map_err(|source| KeyError::File { path, source })?)
        }
    };
    SigningKey::from_pem(&pem).map_err(|why| KeyError::Parse { domain: domain.clone(), selector: record.selector.clone(), why })
}

impl SigningKey {
    /// Reads PKCS#8 or PKCS#1 PEM, such as OpenDKIM and rspamd write.
    pub fn from_pem(pem: &str) -> Result<Self, &'static str> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "it is no PEM private key")?;
        let rsa = match &der {
            PrivateKeyDer::Pkcs8(der) => {
                if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()) {
                    return Ok(Self::Ed25519(key));
                }
                RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            }
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err("it is neither an RSA nor an Ed25519 key"),
        };
        let rsa = rsa.map_err(|_| "it is neither an Ed25519 key nor an RSA key of 2048 to 8192 bits")?;
        if rsa.public_modulus_len() < 128 {
            return Err("an RSA key under 1024 bits is not believed by anyone (RFC 8301)");
        }
        Ok(Self::Rsa(rsa))
    }

    /// The `a=` value.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => RSA,
            Self::Ed25519(_) => ED25519,
        }
    }

    /// Signs canonicalised octets. `None` only when the library fails.
    pub(crate) fn sign(&self, data: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature).ok()?;
                Some(signature)
            }
            // RFC 8463 §3: the signature is over the SHA-256 hash.
            Self::Ed25519(key) => Some(key.sign(digest::digest(&digest::SHA256, data).as_ref()).as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_survive_their_files() {
        let state = tempfile::tempdir().unwrap();
        let domain: Domain = "example.org".parse().unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_767_225_600).unwrap();
        let keys = generate_keys(&[], now).unwrap();
        for key in &keys {
            store(state.path(), &domain, key).unwrap();
            let file = path(state.path(), &domain, &key.record.selector);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(load(state.path(), &domain, &key.record).unwrap().algorithm(), key.record.algorithm);
            assert!(store(state.path(), &domain, key).is_err(), "a key file is never overwritten");
        }
        let names: Vec<_> = keys.iter().map(|k| k.record.selector.as_str()).collect();
        assert_eq!(names, ["p20260101r", "p20260101e"]);
        let records: Vec<_> = keys.into_iter().map(|k| k.record).collect();
        assert_eq!(generate_keys(&records, now).unwrap()[0].record.selector, "p20260101r2");
        assert_eq!(records[1].public.len(), 44);
    }

    #[test]
    fn what_is_no_key_is_named() {
        let domain: Domain = "example.org".parse().unwrap();
        let record = DkimKeyRecord {
            selector: "s".into(),
            algorithm: RSA.into(),
            public: String::new(),
            private_pem: Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".into()),
            created: String::new(),
            active_from: None,
            retired: None,
        };
        let error = load(Path::new("/nonexistent"), &domain, &record).unwrap_err().to_string();
        assert!(error.contains("example.org") && error.contains('s'), "{error}");
    }
}
