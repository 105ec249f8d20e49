//! TLS towards other hosts: one client configuration for each policy, sharing provider and session stores.
//!
//! A rustls certificate verifier gets no context, so the policy is in the configuration and not in the connection. Sessions
//! are resumed only under the very verifier that made them (rustls compares them), so sharing a store weakens nothing.

mod anyone;
mod name;

use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};

use crate::dane::{DaneVerifier, TlsaSet};
pub use name::server_name;

/// Sessions kept for resumption under each policy.
const SESSIONS: usize = 1024;
/// DANE configurations kept: one for each set of records and names.
const DANE_CONFIGS: usize = 256;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// `relay.ca_file` cannot be used.
    #[error("relay.ca_file {path}: {why}; it must hold certificates in PEM")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// rustls refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Rustls(String),
}

/// What a connection to one host demands of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// TLS where offered, with whatever certificate; plain text otherwise (RFC 7435).
    Opportunistic,
    /// TLS must be used, the certificate is not looked at: TLSA records exist and none is usable (RFC 7672 §2.2).
    Encrypted,
    /// The certificate must be valid for the host's name under a known authority.
    Verified(Reason),
    /// The certificate must match TLSA records (RFC 7672).
    Dane(Arc<TlsaSet>),
}

/// Who demands a verified certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// RFC 8461 in mode `enforce`.
    MtaSts,
    /// A smarthost in the configuration.
    Smarthost,
    /// The message itself (RFC 8689).
    RequireTls,
}

impl Policy {
    /// Whether plain text will do when TLS cannot be had.
    pub fn allows_plain(&self) -> bool {
        matches!(self, Self::Opportunistic)
    }

    /// Whether the peer is known for certain once TLS stands.
    pub fn authenticates(&self) -> bool {
        matches!(self, Self::Verified(_) | Self::Dane(_))
    }

    /// For logs and `pillarbox route`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opportunistic => "opportunistic",
            Self::Encrypted => "encrypted",
            Self::Verified(Reason::MtaSts) => "mta-sts",
            Self::Verified(Reason::Smarthost) => "verified",
            Self::Verified(Reason::RequireTls) => "requiretls",
            Self::Dane(_) => "dane",
        }
    }
}

/// The client configurations.
pub struct TlsClients {
    provider: Arc<CryptoProvider>,
    opportunistic: Arc<ClientConfig>,
    verified: Arc<ClientConfig>,
    https: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
    dane: quick_cache::sync::Cache<Arc<TlsaSet>, Arc<ClientConfig>>,
}

impl TlsClients {
    /// Loads the system's authorities and those in `ca_file` (empty path: none).
    pub fn new(ca_file: &Path) -> Result<Self, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            // A system without authorities of its own gets Mozilla's as compiled in.
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        if !ca_file.as_os_str().is_empty() {
            let bad = |why: String| TlsSetupError::CaFile { path: ca_file.display().to_string(), why };
            let mut found = 0;
            for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|e| bad(e.to_string()))? {
                roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
                found += 1;
            }
            if found == 0 {
                return Err(bad("no certificate in it".into()));
            }
        }
        Self::with_roots(roots)
    }

    /// The same with exactly these authorities.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, TlsSetupError> {
        let fail = |e: &dyn std::fmt::Display| TlsSetupError::Rustls(e.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(|e| fail(&e))?;
        let opportunistic = config(&provider, Arc::new(anyone::AcceptAnyone::new(&provider)))?;
        let verified = config(&provider, verifier.clone())?;
        let mut https = (*verified).clone();
        https.alpn_protocols = vec![b"http/1.1".to_vec()];
        let dane = quick_cache::sync::Cache::new(DANE_CONFIGS);
        Ok(Self { provider, opportunistic, verified, https: Arc::new(https), verifier, dane })
    }

    /// The configuration for a policy.
    pub fn config(&self, policy: &Policy) -> Result<Arc<ClientConfig>, TlsSetupError> {
        match policy {
            Policy::Opportunistic | Policy::Encrypted => Ok(self.opportunistic.clone()),
            Policy::Verified(_) => Ok(self.verified.clone()),
            Policy::Dane(set) => self.dane.get_or_insert_with(set, || {
                let verifier = DaneVerifier::new(set.clone(), self.provider.signature_verification_algorithms);
                config(&self.provider, Arc::new(verifier))
            }),
        }
    }

    /// For fetching MTA-STS policies and posting TLS reports.
    pub fn https(&self) -> Arc<ClientConfig> {
        self.https.clone()
    }

    /// Whether a chain that was accepted without looking would have passed verification for `name`.
    pub fn would_verify(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), rustls::Error> {
        use rustls::client::danger::ServerCertVerifier;
        let Some((end_entity, intermediates)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verifier.verify_server_cert(end_entity, intermediates, name, &[], UnixTime::now()).map(|_| ())
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| TlsSetupError::Rustls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
    Ok(Arc::new(config))
}

/// What failed in a handshake, in the words of RFC 8460 §4.3, and for people.
pub fn failure(error: &std::io::Error) -> (&'static str, String) {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => (result_type(error), error.to_string()),
        None => ("validation-failure", error.to_string()),
    }
}

/// The `result-type` of RFC 8460 §4.3 for a rustls error.
pub fn result_type(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as E;
    match error {
        rustls::Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. }) => "certificate-expired",
        rustls::Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. }) => "certificate-host-mismatch",
        rustls::Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => "certificate-not-trusted",
        _ => "validation-failure",
    }
}
