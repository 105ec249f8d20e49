//! The certificate verifier that TLSA records drive (RFC 7672 §3, RFC 7671 §5).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha512};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Matching, Selector, TlsaRecord, TlsaSet, Usage};

/// Intermediates looked at; a host that sends more is not served better.
const MAX_CHAIN: usize = 10;

/// Accepts a chain when it matches one of the records.
#[derive(Debug)]
pub struct DaneVerifier {
    set: Arc<TlsaSet>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl DaneVerifier {
    /// For the records of one host.
    pub fn new(set: Arc<TlsaSet>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { set, algorithms }
    }

    /// DANE-TA(2): a certificate of the chain, or one given whole in the record, is the trust anchor; dates and names count.
    fn chains_to_anchor(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        for record in self.set.records.iter().filter(|r| r.usage == Usage::TrustAnchor) {
            for certificate in intermediates.iter().take(MAX_CHAIN).filter(|c| matches(record, c)) {
                // A certificate that webpki cannot read as an anchor vouches for nothing.
                let _ = roots.add(certificate.clone().into_owned());
            }
            if record.selector == Selector::Certificate && record.matching == Matching::Exact {
                let _ = roots.add(CertificateDer::from(record.data.clone()));
            }
        }
        if roots.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, self.algorithms.all)?;
        let names = self.set.names.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok());
        let mut last = Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        for name in names {
            last = verify_server_name(&parsed, &name);
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// Whether a record's association data matches a certificate (RFC 6698 §2.1).
fn matches(record: &TlsaRecord, certificate: &CertificateDer<'_>) -> bool {
    let selected: &[u8] = match record.selector {
        Selector::Certificate => certificate.as_ref(),
        Selector::PublicKey => match X509Certificate::from_der(certificate.as_ref()) {
            Ok((_, parsed)) => parsed.tbs_certificate.subject_pki.raw,
            Err(_) => return false,
        },
    };
    match record.matching {
        Matching::Exact => selected == record.data,
        Matching::Sha256 => Sha256::digest(selected).as_slice() == record.data,
        Matching::Sha512 => Sha512::digest(selected).as_slice() == record.data,
    }
}

impl ServerCertVerifier for DaneVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = |record: &&TlsaRecord| record.usage == Usage::EndEntity;
        if self.set.records.iter().filter(own).any(|record| matches(record, end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        if self.set.records.iter().any(|record| record.usage == Usage::TrustAnchor) {
            self.chains_to_anchor(end_entity, intermediates, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
