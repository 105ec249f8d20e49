//! Taking requests apart: bounded JSON bodies, path and query values, with refusals in the API's own form.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Kind};

/// Largest JSON body, octets.
const JSON_SIZE: usize = 1 << 20;
/// Largest body of `apply` and `import`, octets: a million users fit.
pub(crate) const TEXT_SIZE: usize = 1 << 30;
/// Longest time for a whole JSON body.
const JSON_TIME: Duration = Duration::from_secs(30);
/// Longest time for a whole text.
const TEXT_TIME: Duration = Duration::from_secs(600);

/// A JSON body of bounded size and time.
pub(crate) struct Json<T>(pub(crate) T);

/// A text body of bounded size and time.
pub(crate) struct Text(pub(crate) String);

/// A path value of any type that is read from text.
pub(crate) struct Named<T>(pub(crate) T);

/// Query values.
pub(crate) struct Asked<T>(pub(crate) T);

/// Text of a request as it may be shown.
pub(crate) fn shown(text: &str) -> String {
    pillarbox_smtp::printable(text.as_bytes())
}

async fn collect(request: Request, size: usize, time: Duration) -> Result<Bytes, ApiError> {
    let body = Limited::new(request.into_body(), size);
    match tokio::time::timeout(time, body.collect()).await {
        Err(_) => Err(ApiError::usage(format!("the request's body took longer than {} s", time.as_secs()))),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::usage(format!("the request's body is over {size} octets"))),
        Ok(Err(error)) => Err(ApiError::usage(format!("the request's body broke off: {}", shown(&error.to_string())))),
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = collect(request, JSON_SIZE, JSON_TIME).await?;
        let bad = |e: serde_json::Error| ApiError::usage(format!("the request's JSON: {}", shown(&e.to_string())));
        serde_json::from_slice(&body).map(Json).map_err(bad)
    }
}

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = collect(request, TEXT_SIZE, TEXT_TIME).await?;
        String::from_utf8(body.into()).map(Text).map_err(|_| ApiError::usage("the text is not UTF-8"))
    }
}

impl<S: Send + Sync, T> FromRequestParts<S> for Named<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|e| ApiError::usage(e.body_text()))?;
        text.parse().map(Named).map_err(|e: T::Err| ApiError::new(Kind::Usage, format!("{}: {e}", shown(&text))))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, state).await.map(|Query(q)| Asked(q)).map_err(|e| ApiError::usage(shown(&e.body_text())))
    }
}
