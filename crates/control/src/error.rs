//! Why the API refused, as the server says it and the client hears it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pillarbox_directory::{DirectoryError, OpsError};
use serde::{Deserialize, Serialize};

/// The kinds that a program may act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request makes no sense (400).
    Usage,
    /// The peer may not speak (403).
    Denied,
    /// There is no such thing (404).
    NotFound,
    /// It exists already (409).
    Exists,
    /// It contradicts what is there or a rule (422).
    Refused,
    /// It cannot be done now (503).
    Unavailable,
}

/// A refusal: `{"error": {"kind": …, "message": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub kind: Kind,
    /// What failed, why, what to do; one line.
    pub message: String,
}

/// Shorthand.
pub type ApiResult<T> = Result<T, ApiError>;

#[derive(Serialize, Deserialize)]
pub(crate) struct Wrapped {
    pub(crate) error: ApiError,
}

impl ApiError {
    /// Of a kind, with its message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
    /// 400.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    /// 409.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(Kind::Exists, message)
    }
    /// 422.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }
    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }
}

impl Kind {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Usage => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Exists => StatusCode::CONFLICT,
            Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.kind.status(), Json(Wrapped { error: self })).into_response()
    }
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Refused(why) => Self::refused(why),
            occupied @ DirectoryError::Occupied { .. } => Self::exists(occupied.to_string()),
            other => Self::unavailable(other.to_string()),
        }
    }
}

impl From<OpsError> for ApiError {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::NotFound(why) => Self::not_found(why),
            OpsError::Exists(why) => Self::exists(why),
            OpsError::Refused(why) => Self::refused(why),
            OpsError::Directory(error) => error.into(),
        }
    }
}
