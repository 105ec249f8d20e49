//! Certificates for tests: an authority of our own, and leaves that are right, expired, or wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

/// An authority with a root certificate of its own.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A leaf certificate with its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and those above it, PEM.
    pub certificate_pem: String,
    /// Its key, PKCS #8 PEM.
    pub key_pem: String,
    /// The certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its SubjectPublicKeyInfo, DER, as TLSA selector 1 wants it.
    pub spki_der: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
}

/// How long a leaf is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Validity {
    Now,
    Past,
    Future,
}

impl Default for CertificateAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl CertificateAuthority {
    /// A new authority, known to nobody.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Pillarbox test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The root certificate, PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The root certificate, DER.
    pub fn der(&self) -> Vec<u8> {
        self.certificate.der().as_ref().to_vec()
    }

    /// A good certificate for these names or addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.leaf(names, Validity::Now)
    }

    /// One that ended long ago.
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        self.leaf(names, Validity::Past)
    }

    /// One that is not valid yet.
    pub fn issue_future(&self, names: &[&str]) -> Issued {
        self.leaf(names, Validity::Future)
    }

    fn leaf(&self, names: &[&str], validity: Validity) -> Issued {
        let (params, key) = leaf_params(names, validity);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        issued(&certificate, &key, Some(&self.certificate))
    }

    /// A client configuration that trusts this authority alone.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        trusting(self.certificate.der().clone())
    }
}

/// A certificate that signed itself.
pub fn self_signed(names: &[&str]) -> Issued {
    let (params, key) = leaf_params(names, Validity::Now);
    let certificate = params.self_signed(&key).unwrap();
    issued(&certificate, &key, None)
}

fn leaf_params(names: &[&str], validity: Validity) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.distinguished_name.push(DnType::CommonName, names.first().cloned().unwrap_or_default());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = match validity {
        Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1)),
        Validity::Past => (date_time_ymd(2010, 1, 1), date_time_ymd(2011, 1, 1)),
        Validity::Future => (date_time_ymd(2088, 1, 1), date_time_ymd(2090, 1, 1)),
    };
    (params, KeyPair::generate().unwrap())
}

fn issued(certificate: &rcgen::Certificate, key: &KeyPair, above: Option<&rcgen::Certificate>) -> Issued {
    let chain: Vec<CertificateDer<'static>> = std::iter::once(certificate).chain(above).map(|c| c.der().clone()).collect();
    Issued {
        certificate_pem: std::iter::once(certificate).chain(above).map(rcgen::Certificate::pem).collect(),
        key_pem: key.serialize_pem(),
        certificate_der: certificate.der().as_ref().to_vec(),
        spki_der: key.subject_public_key_info(),
        chain,
        key_der: key.serialize_der(),
    }
}

impl Issued {
    /// A server configuration that presents it.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(self.chain.clone(), key).unwrap())
    }

    /// Writes `NAME.pem` and `NAME.key` into `folder` and returns their paths.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, &self.certificate_pem).unwrap();
        std::fs::write(&key, &self.key_pem).unwrap();
        (certificate, key)
    }

    /// SHA-256 of the public key: the data of a `TLSA 3 1 1` or `2 1 1` record (RFC 7672 §3.1).
    pub fn spki_sha256(&self) -> Vec<u8> {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.spki_der).as_ref().to_vec()
    }

    /// SHA-256 of the certificate: the data of a `TLSA x 0 1` record.
    pub fn certificate_sha256(&self) -> Vec<u8> {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate_der).as_ref().to_vec()
    }
}

/// A client configuration that trusts one authority alone, by its root certificate (PEM).
pub fn client_config_for(root_pem: &str) -> Arc<ClientConfig> {
    trusting(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap())
}

fn trusting(root: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A client configuration that believes any certificate.
pub fn trusting_client_config() -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.dangerous().with_custom_certificate_verifier(Arc::new(BelievesAnything)).with_no_client_auth())
}

/// The one provider that tests and daemon use.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct BelievesAnything;

impl ServerCertVerifier for BelievesAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
