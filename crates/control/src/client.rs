//! The client: the daemon's socket, or the same router in this process when no daemon runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tower::ServiceExt;

use crate::error::{ApiError, Wrapped};

/// Longest wait for an answer to an ordinary question.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest answer that is read into memory, octets.
const ANSWER: usize = 1 << 30;

/// Where the API answers.
#[derive(Clone)]
pub struct Client {
    via: Via,
}

#[derive(Clone)]
enum Via {
    Socket(PathBuf),
    Router(Router),
}

/// Why there was no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The API's own refusal.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The socket is there, but not for this user.
    #[error("{path} does not let you in: be root, the daemon's user or a member of the group pillarbox")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// Nobody answers.
    #[error("the daemon does not answer on {path}: {why}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// An answer that makes no sense, or none at all.
    #[error("the daemon's answer cannot be read: {0}")]
    Garbled(String),
}

/// Signs that stand for themselves in a path segment or a query value.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// A path segment or query value, escaped.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

impl Client {
    /// Tries the daemon's socket. `Ok(None)`: no daemon runs there.
    pub async fn daemon(socket: &Path) -> Result<Option<Self>, ClientError> {
        match UnixStream::connect(socket).await {
            Ok(_) => Ok(Some(Self { via: Via::Socket(socket.to_path_buf()) })),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(ClientError::Denied { path: socket.to_path_buf() }),
            Err(e) => Err(ClientError::Unreachable { path: socket.to_path_buf(), why: e.to_string() }),
        }
    }

    /// Asks a router of this process.
    pub fn in_process(router: Router) -> Self {
        Self { via: Via::Router(router) }
    }

    /// Whether a daemon answers, not this process.
    pub fn is_daemon(&self) -> bool {
        matches!(self.via, Via::Socket(_))
    }

    /// GET, a JSON answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, Body::empty(), PATIENCE).await
    }

    /// A request with a JSON body and a JSON answer.
    pub async fn send<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: &B) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Garbled(e.to_string()))?;
        self.json(method, path, Body::from(body), PATIENCE).await
    }

    /// A request without a body whose answer says nothing but that it was done.
    pub async fn done(&self, method: Method, path: &str) -> Result<(), ClientError> {
        let response = self.call(method, path, Body::empty(), PATIENCE).await?;
        self.bytes(response).await.map(drop)
    }

    /// A request with any body (a text, a stream) and a JSON answer, waited for as long as `patience`.
    pub async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body, patience: Duration) -> Result<T, ClientError> {
        let response = self.call(method, path, body, patience).await?;
        let bytes = self.bytes(response).await?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|e| ClientError::Garbled(pillarbox_smtp::printable(e.to_string().as_bytes())))
    }

    /// GET, the answer as text.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.call(Method::GET, path, Body::empty(), PATIENCE).await?;
        let bytes = self.bytes(response).await?;
        String::from_utf8(bytes.into()).map_err(|_| ClientError::Garbled("it is not UTF-8".into()))
    }

    /// GET, the answer as it comes.
    pub async fn stream(&self, path: &str) -> Result<Body, ClientError> {
        Ok(self.call(Method::GET, path, Body::empty(), PATIENCE).await?.into_body())
    }

    /// A request with a JSON body, the answer as it comes. Its beginning is waited for as long as any answer.
    pub async fn stream_of<B: Serialize>(&self, method: Method, path: &str, body: &B) -> Result<Body, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Garbled(e.to_string()))?;
        Ok(self.call(method, path, Body::from(body), PATIENCE).await?.into_body())
    }

    /// Sends a request and returns a positive response; a refusal becomes [`ClientError::Api`].
    async fn call(&self, method: Method, path: &str, body: Body, patience: Duration) -> Result<Response<Body>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|e| ClientError::Garbled(e.to_string()))?;
        let response = match tokio::time::timeout(patience, self.exchange(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(self.unreachable(format!("no answer within {} s", patience.as_secs()))),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.bytes(response).await?;
        match serde_json::from_slice::<Wrapped>(&bytes) {
            Ok(wrapped) => Err(ClientError::Api(wrapped.error)),
            Err(_) if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Err(ApiError::usage("the request is too long").into()),
            Err(_) => Err(ClientError::Garbled(format!("status {status}"))),
        }
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        match &self.via {
            Via::Router(router) => match router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
            Via::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| self.unreachable(e.to_string()))?;
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unreachable(e.to_string()))?;
                tokio::spawn(async move {
                    // The error shows where the response or its body is read.
                    let _ = connection.await;
                });
                let response = sender.send_request(request).await.map_err(|e| self.unreachable(e.to_string()))?;
                Ok(response.map(Body::new))
            }
        }
    }

    async fn bytes(&self, response: Response<Body>) -> Result<Bytes, ClientError> {
        let body = http_body_util::Limited::new(response.into_body(), ANSWER);
        let body = body.collect().await.map_err(|e| self.unreachable(e.to_string()))?;
        Ok(body.to_bytes())
    }

    fn unreachable(&self, why: String) -> ClientError {
        match &self.via {
            Via::Socket(path) => ClientError::Unreachable { path: path.clone(), why },
            Via::Router(_) => ClientError::Garbled(why),
        }
    }
}
