//! The public keys of the certificates that lie on disk, for TLSA records (RFC 6698, RFC 7671 §5.1: 3 1 1).

use std::io::BufReader;
use std::path::{Path, PathBuf};

use pillarbox_config::Config;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of the leaf's SubjectPublicKeyInfo in lower-case hex; `None` when the file is no PEM certificate.
pub fn spki_sha256(pem: &[u8]) -> Option<String> {
    let (_, pem) = x509_parser::pem::Pem::read(std::io::Cursor::new(pem)).ok().map(|(pem, read)| (read, pem))?;
    of_der(&pem.contents)
}

fn of_der(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let digest = Sha256::digest(certificate.tbs_certificate.subject_pki.raw);
    Some(digest.iter().map(|b| format!("{b:02x}")).collect())
}

/// The file with the certificate that is served for the hostname: the configured one, the one ordered by ACME, or the self-signed one.
pub fn certificate_file(config: &Config) -> PathBuf {
    if !config.tls.certificate.as_os_str().is_empty() {
        return config.tls.certificate.clone();
    }
    let folder = config.paths.state.join("tls");
    let acme = folder.join("acme/certificate.pem");
    if config.tls.acme.is_some() && acme.is_file() { acme } else { folder.join("self-signed.pem") }
}

/// What a certificate file says of itself.
pub(super) struct OnDisk {
    pub(super) spki_sha256: String,
    /// Its issuer is another than its subject.
    pub(super) signed_by_other: bool,
}

/// Reads the leaf of a certificate file.
pub(super) fn read(path: &Path) -> Option<OnDisk> {
    let reader = BufReader::new(std::fs::File::open(path).ok()?);
    let pem = x509_parser::pem::Pem::iter_from_reader(reader).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    let signed_by_other = certificate.subject() != certificate.issuer();
    Some(OnDisk { spki_sha256: of_der(&pem.contents)?, signed_by_other })
}
