//! One HTTPS request with bounds on everything: for MTA-STS policies (RFC 8461 §3.3) and TLS reports (RFC 8460 §5.4).
//!
//! Certificates are verified, redirects are not followed, addresses come from our own resolver and never from denied networks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::dns::hosts::is_denied;
use crate::dns::{Resolver, interleave};
use crate::reach;
use crate::session::io_reason;
use crate::tls::{TlsClients, result_type, server_name};

/// The whole exchange takes no longer (RFC 8461 §3.3 suggests a minute).
const TOTAL: Duration = Duration::from_secs(60);
/// One address gets so long to answer.
const CONNECT: Duration = Duration::from_secs(15);
/// Addresses tried.
const ADDRESSES: usize = 4;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpsError {
    /// The name has no usable address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The certificate is not valid for the name; with the `result-type` of RFC 8460 §4.3.
    #[error("the certificate of {host} is not accepted: {why}")]
    Certificate {
        /// Whose.
        host: String,
        /// Why.
        why: String,
        /// `certificate-expired` and the like.
        result: &'static str,
    },
    /// Network and protocol failures, in plain words.
    #[error("{0}")]
    Failed(String),
}

/// What to ask.
pub(crate) struct Ask<'a> {
    /// A DNS name.
    pub(crate) host: &'a str,
    /// TCP port.
    pub(crate) port: u16,
    /// Path with its leading slash.
    pub(crate) path: &'a str,
    /// For POST: content type and content.
    pub(crate) post: Option<(&'static str, Bytes)>,
    /// Most octets of an answer.
    pub(crate) limit: usize,
}

/// The answer.
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) content: Bytes,
}

/// With what to ask.
pub(crate) struct Means<'a> {
    pub(crate) resolver: &'a Resolver,
    pub(crate) tls: &'a TlsClients,
    pub(crate) deny: &'a [ipnet::IpNet],
}

/// Asks once.
pub(crate) async fn ask(means: &Means<'_>, ask: Ask<'_>) -> Result<Told, HttpsError> {
    match timeout(TOTAL, exchange(means, ask)).await {
        Ok(result) => result,
        Err(_) => Err(HttpsError::Failed("no answer in time".into())),
    }
}

async fn exchange(means: &Means<'_>, ask: Ask<'_>) -> Result<Told, HttpsError> {
    let (v4, v6) = tokio::join!(means.resolver.ipv4(ask.host), means.resolver.ipv6(ask.host));
    let v4 = v4.records().map(|o| o.records.clone()).unwrap_or_default();
    let v6 = v6.records().map(|o| o.records.clone()).unwrap_or_default();
    let addresses = interleave(&v4, &v6, true).into_iter().filter(|&ip| !is_denied(means.deny, ip)).take(ADDRESSES);
    let addresses: Vec<IpAddr> = addresses.collect();
    let attempts = addresses.iter().map(|&ip| reach::tcp(SocketAddr::new(ip, ask.port), None, CONNECT));
    let mut reached = reach::first(attempts.collect(), reach::HEAD_START).await;
    match (reached.first, reached.failed.pop()) {
        (Some((_, stream)), _) => speak(means, ask, stream).await,
        (None, Some((n, error))) => {
            let ip = addresses.get(n).map(IpAddr::to_string).unwrap_or_default();
            Err(HttpsError::Failed(format!("{ip}: {}", io_reason(&error))))
        }
        (None, None) => Err(HttpsError::NoAddress(ask.host.to_owned())),
    }
}

async fn speak(means: &Means<'_>, ask: Ask<'_>, stream: TcpStream) -> Result<Told, HttpsError> {
    let failed = |e: &dyn std::fmt::Display| HttpsError::Failed(pillarbox_smtp::printable(e.to_string().as_bytes()));
    let name = server_name(ask.host, None).ok_or_else(|| failed(&"the host's name cannot stand in a certificate"))?;
    let stream = TlsConnector::from(means.tls.https()).connect(name, stream).await.map_err(|error| {
        match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(inner @ rustls::Error::InvalidCertificate(_)) => {
                let why = pillarbox_smtp::printable(inner.to_string().as_bytes());
                HttpsError::Certificate { host: ask.host.to_owned(), why, result: result_type(inner) }
            }
            _ => failed(&error),
        }
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let driver = tokio::spawn(connection);
    let result = async {
        let mut request = Request::builder().uri(ask.path).header(HOST, ask.host).header(USER_AGENT, "Pillarbox");
        let content = match ask.post {
            Some((kind, content)) => {
                request = request.method("POST").header(CONTENT_TYPE, kind);
                content
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(content)).map_err(|e| failed(&e))?;
        let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let content = Limited::new(response.into_body(), ask.limit).collect().await;
        let content = content.map_err(|_| failed(&"the answer is larger than allowed, or broke off"))?.to_bytes();
        Ok(Told { status, content_type, content })
    };
    let result = result.await;
    driver.abort();
    result
}
