//! HTTP and HTTPS, off unless listened on: the MTA-STS policy, autoconfiguration of mail programs, ACME's http-01 answers, /healthz;
//! metrics on a listener of their own.

mod autoconfig;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::RwLock;
use pillarbox_ingest::Ingest;
use pillarbox_ingest::admission::Admission;
use pillarbox_ingest::listener::{Accepted, Listener};
use pillarbox_smtp::Domain;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::info::Running;

/// Connections served at once.
const CONNECTIONS: usize = 512;
/// Longest wait for a handshake and for a request's header, where `limits.command_timeout` is not shorter; a connection lives four times as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest head of a request.
const HEAD: usize = 16 * 1024;
/// Largest request body; an autodiscover request has a few hundred octets.
const BODY: usize = 64 * 1024;

/// Answers to ACME's http-01 challenges by token (RFC 8555 §8.3).
#[derive(Debug, Clone, Default)]
pub(crate) struct Challenges(Arc<RwLock<HashMap<String, String>>>);

impl Challenges {
    pub(crate) fn set(&self, token: &str, answer: &str) {
        self.0.write().insert(token.to_owned(), answer.to_owned());
    }

    pub(crate) fn clear(&self, token: &str) {
        self.0.write().remove(token);
    }

    fn get(&self, token: &str) -> Option<String> {
        self.0.read().get(token).cloned()
    }
}

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) running: Arc<Running>,
    pub(crate) challenges: Challenges,
}

/// The public pages.
pub(crate) fn public(site: Site) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/.well-known/mta-sts.txt", get(mta_sts))
        .route("/.well-known/acme-challenge/{token}", get(acme))
        .route("/.well-known/autoconfig/mail/config-v1.1.xml", get(thunderbird))
        .route("/mail/config-v1.1.xml", get(thunderbird))
        .route("/autodiscover/autodiscover.xml", post(outlook))
        .route("/Autodiscover/Autodiscover.xml", post(outlook))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(site)
}

/// The metrics page.
pub(crate) fn metrics(handle: PrometheusHandle) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let handle = handle.clone();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()) }
        }),
    )
}

/// What all listeners for HTTP share: the bounds on connections, and TLS where it is wanted.
#[derive(Clone)]
pub(crate) struct Web {
    ingest: Arc<Ingest>,
    admission: Arc<Admission>,
    shutdown: CancellationToken,
    tls: bool,
}

impl Web {
    pub(crate) fn new(ingest: Arc<Ingest>, shutdown: CancellationToken) -> Self {
        Self { ingest, admission: Arc::default(), shutdown, tls: false }
    }

    /// The same, TLS first.
    pub(crate) fn over_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// Serves a router on one listener until shut-down, with bounds on connections and their life.
    pub(crate) async fn serve(self, listener: Listener, router: Router) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return,
            };
            match accepted {
                Ok(Accepted::Tcp(stream, peer)) => self.admit(stream, Some(peer.ip()), &router),
                Ok(Accepted::Unix(stream)) => self.admit(stream, None, &router),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Begins one connection, unless too many are open; then it is closed without a word.
    fn admit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, client: Option<IpAddr>, router: &Router) {
        let settings = self.ingest.settings();
        let limits = &settings.config.limits;
        let Ok(place) = self.admission.enter(client, CONNECTIONS.min(limits.connections), limits.connections_per_client) else { return };
        let (tls, patience, router) = (self.tls, PATIENCE.min(limits.command_timeout), router.clone());
        tokio::spawn(async move {
            if !tls {
                converse(stream, router, patience).await;
            } else if let Ok(Ok(stream)) = tokio::time::timeout(patience, settings.acceptor().accept(stream)).await {
                converse(stream, router, patience).await;
            }
            drop(place);
        });
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router, patience: Duration) {
    let service = hyper_util::service::TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(patience)
        .max_headers(64)
        .max_buf_size(HEAD)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
    let _ = tokio::time::timeout(patience * 4, connection).await;
}

async fn healthz(State(site): State<Site>) -> Response {
    match site.running.is_healthy() {
        true => (StatusCode::OK, "ok\n").into_response(),
        // What is wrong is for the operator's eyes (`pillarbox status`), not for whoever reaches this port.
        false => (StatusCode::SERVICE_UNAVAILABLE, "not healthy; see pillarbox status\n").into_response(),
    }
}

async fn acme(State(site): State<Site>, Path(token): Path<String>) -> Response {
    match site.challenges.get(&token) {
        Some(answer) => ([(header::CONTENT_TYPE, "application/octet-stream")], answer).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The host that was asked for, in lower case and without its port.
fn host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    Some(name.to_ascii_lowercase())
}

/// A hosted domain whose `label.` name was asked for.
async fn hosted(site: &Site, name: &str) -> Option<Domain> {
    let domain = Domain::new(name).ok()?;
    site.running.directory.domain(&domain).await.ok().flatten().map(|record| record.name)
}

/// RFC 8461 §3.2. `enforce` only while the certificate is one that others can verify: a strict policy over a self-signed one
/// would turn all mail away.
async fn mta_sts(State(site): State<Site>, headers: HeaderMap) -> Response {
    let host = host(&headers).unwrap_or_default();
    let Some(name) = host.strip_prefix("mta-sts.") else { return StatusCode::NOT_FOUND.into_response() };
    if hosted(&site, name).await.is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let config = site.running.config.load();
    let verifiable = site.running.certificates.infos().iter().any(|c| {
        !c.self_signed && c.not_after > time::OffsetDateTime::now_utc() && c.names.iter().any(|n| n.eq_ignore_ascii_case(&config.hostname))
    });
    let mode = if verifiable { "enforce" } else { "testing" };
    let text = format!("version: STSv1\r\nmode: {mode}\r\nmx: {}\r\nmax_age: 604800\r\n", config.hostname);
    ([(header::CONTENT_TYPE, "text/plain")], text).into_response()
}

async fn thunderbird(State(site): State<Site>, Query(query): Query<HashMap<String, String>>, headers: HeaderMap) -> Response {
    let by_address = query.get("emailaddress").and_then(|a| a.rsplit_once('@')).map(|(_, domain)| domain.to_owned());
    let by_host = host(&headers).map(|h| h.strip_prefix("autoconfig.").unwrap_or(&h).to_owned());
    for name in by_address.into_iter().chain(by_host) {
        if let Some(domain) = hosted(&site, &name).await {
            let config = site.running.config.load();
            let text = autoconfig::thunderbird(domain.as_str(), &config.hostname);
            return ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], text).into_response();
        }
    }
    StatusCode::NOT_FOUND.into_response()
}

async fn outlook(State(site): State<Site>, request: Request) -> Response {
    let Ok(body) = axum::body::to_bytes(request.into_body(), BODY).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let Some(address) = autoconfig::requested_address(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    if hosted(&site, address.domain.as_str()).await.is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let config = site.running.config.load();
    let text = autoconfig::outlook(&address, &config.hostname);
    ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], text).into_response()
}
