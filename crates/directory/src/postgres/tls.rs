//! The connection's security: none, or rustls with the certificate verified. Nothing in between, since an unverified certificate
//! protects nobody's passwords.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::PostgresOptions;
use crate::store::{DirectoryError, Result};

/// Makes TLS connections where the URL asks for them.
#[derive(Clone)]
pub(super) struct Connector(Option<Arc<ClientConfig>>);

/// Reads the URL.
pub(super) fn configure(options: &PostgresOptions) -> Result<(Config, Connector)> {
    let (url, root) = take_parameter(&options.url, "sslrootcert");
    // The URL itself is not repeated: it may hold a password.
    let mut config: Config = url.parse().map_err(|e| DirectoryError::Refused(format!("directory.url is malformed: {}", cause(&e))))?;
    config.connect_timeout(options.patience);
    config.keepalives_idle(std::time::Duration::from_secs(30));
    if config.get_application_name().is_none() {
        config.application_name("pillarbox");
    }
    if config.get_ssl_mode() != SslMode::Require {
        config.ssl_mode(SslMode::Disable);
        return Ok((config, Connector(None)));
    }
    let refused = |e: &dyn std::fmt::Display| DirectoryError::Refused(format!("directory.url: TLS cannot be set up: {e}"));
    let mut roots = RootCertStore::empty();
    match root {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(&path).map_err(|e| refused(&e))? {
                roots.add(certificate.map_err(|e| refused(&e))?).map_err(|e| refused(&e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| refused(&e))?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    Ok((config, Connector(Some(Arc::new(tls)))))
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Takes a query parameter out of a URL that the driver does not know.
fn take_parameter(url: &str, name: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut value = None;
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| match pair.split_once('=') {
            Some((key, found)) if key == name => {
                value = Some(found.to_owned());
                false
            }
            _ => true,
        })
        .collect();
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (url, value)
}

/// A TLS session over the driver's socket.
pub(super) struct Stream<S>(tokio_rustls::client::TlsStream<S>);

/// One connection about to be made.
pub(super) struct Handshake {
    config: Option<Arc<ClientConfig>>,
    host: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Stream<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        Ok(Handshake { config: self.0.clone(), host: host.to_owned() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let config = self.config.ok_or_else(|| io::Error::other("TLS was not asked for"))?;
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            TlsConnector::from(config).connect(name, stream).await.map(Stream)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> PostgresOptions {
        PostgresOptions::from_config(&pillarbox_config::DirectoryConfig { url: url.into(), ..Default::default() })
    }

    #[test]
    fn tls_is_verified_or_off() {
        for (url, tls) in [
            ("postgres://u:p@db.example/x", false),
            ("postgres://u:p@db.example/x?sslmode=prefer", false),
            ("postgres://u:p@db.example/x?sslmode=require", true),
        ] {
            let (_, connector) = configure(&options(url)).unwrap();
            assert_eq!(connector.0.is_some(), tls, "{url}");
        }
        assert!(configure(&options("postgres://u:p@db.example/x?sslmode=require&sslrootcert=/nonexistent")).is_err());
        let error = configure(&options("postgres://u:hunter2@db.example/x?bogus=1")).err().unwrap().to_string();
        assert!(error.contains("bogus") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_parameter_is_taken_out() {
        assert_eq!(take_parameter("p://h/d?a=1&x=/f&b=2", "x"), ("p://h/d?a=1&b=2".into(), Some("/f".into())));
        assert_eq!(take_parameter("p://h/d?x=/f", "x"), ("p://h/d".into(), Some("/f".into())));
        assert_eq!(take_parameter("p://h/d", "x"), ("p://h/d".into(), None));
    }
}
