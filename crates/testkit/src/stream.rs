//! One type for a connection before and after TLS.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A connection of any kind.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection of any kind, owned.
pub type BoxedIo = Box<dyn Io>;

/// What a handshake led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFacts {
    /// `TLSv1_3` or `TLSv1_2`.
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// The name that the client asked for (SNI), on the server's side.
    pub server_name: Option<String>,
    /// The server's certificate (DER), on the client's side.
    pub peer_certificate: Option<Vec<u8>>,
    /// The `tls-exporter` channel binding (RFC 9266), on the client's side.
    pub exporter: Option<Vec<u8>>,
}

/// Server side of a handshake.
pub async fn accept_tls(io: BoxedIo, config: Arc<rustls::ServerConfig>) -> io::Result<(BoxedIo, TlsFacts)> {
    let stream = TlsAcceptor::from(config).accept(io).await?;
    let connection = stream.get_ref().1;
    let facts = TlsFacts {
        version: connection.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default(),
        cipher: connection.negotiated_cipher_suite().map(|c| format!("{:?}", c.suite())).unwrap_or_default(),
        server_name: connection.server_name().map(str::to_owned),
        peer_certificate: None,
        exporter: None,
    };
    Ok((Box::new(stream), facts))
}

/// Client side of a handshake.
pub async fn connect_tls(io: BoxedIo, config: Arc<rustls::ClientConfig>, name: &str) -> io::Result<(BoxedIo, TlsFacts)> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, io).await?;
    let connection = stream.get_ref().1;
    let facts = TlsFacts {
        version: connection.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default(),
        cipher: connection.negotiated_cipher_suite().map(|c| format!("{:?}", c.suite())).unwrap_or_default(),
        server_name: None,
        peer_certificate: connection.peer_certificates().and_then(|c| c.first()).map(|c| c.as_ref().to_vec()),
        exporter: connection.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok(),
    };
    Ok((Box::new(stream), facts))
}
