//! TLS as a server: the rustls configuration shared by all listeners, and what a session learns from a handshake.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::StoresServerSessions;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use crate::certificates::CertificateStore;

/// Builds the acceptor: TLS 1.2 and 1.3 (or 1.3 alone), no client certificates, tickets and a session cache for resumption.
pub fn acceptor(store: Arc<CertificateStore>, minimum_version: &str) -> Result<TlsAcceptor, rustls::Error> {
    let versions: &[&SupportedProtocolVersion] = match minimum_version {
        "1.3" => &[&rustls::version::TLS13],
        _ => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(4096) as Arc<dyn StoresServerSessions>;
    // Of two good ciphers ours decides, so that a client's odd taste, or a scanner, finds a settled order.
    config.ignore_client_order = true;
    // One ticket is enough for clients that reconnect; the default of two costs a second record a handshake.
    config.send_tls13_tickets = 1;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What a finished handshake says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// IANA's name without `TLS_`, or rustls' own.
    pub cipher: String,
    /// RFC 9266 `tls-exporter` binding, for SCRAM-SHA-256-PLUS.
    pub exporter: Option<Vec<u8>>,
}

/// Reads the facts of a connection whose handshake is done.
pub fn handshake_facts(connection: &rustls::ServerConnection) -> Handshake {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let cipher = connection
        .negotiated_cipher_suite()
        .map(|suite| format!("{:?}", suite.suite()).trim_start_matches("TLS13_").trim_start_matches("TLS_").to_owned())
        .unwrap_or_default();
    // RFC 9266 §4.2: with TLS 1.2 the exporter is safe only with the extended master secret, which rustls always asks for
    // but a peer may not grant; only 1.3 is offered for binding.
    let exporter = (version == "TLSv1.3")
        .then(|| connection.export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok())
        .flatten()
        .map(|key| key.to_vec());
    Handshake { version, cipher, exporter }
}
