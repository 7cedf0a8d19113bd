//! Bodies: read within limits, and understood or refused with one sentence.

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::refusal::Refusal;
use crate::settings::Limits;

/// The bytes of a body.
///
/// # Errors
/// When it is too large, too slow or breaks off.
pub(crate) async fn read(request: Request, limits: &Limits) -> Result<Bytes, Refusal> {
    let bytes_max = limits.payload_max;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > bytes_max) {
        return Err(Refusal::PayloadTooLarge { bytes_max });
    }
    // One byte more tells what is too large from what breaks off.
    let body = to_bytes(request.into_body(), bytes_max);
    match timeout(limits.body_timeout, body).await {
        Err(_) => Err(Refusal::SlowBody(limits.body_timeout)),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error);
            let too_large = source.is_some_and(|source| source.to_string().contains("limit"));
            Err(if too_large {
                Refusal::PayloadTooLarge { bytes_max }
            } else {
                Refusal::Validation(format!("the body broke off: {error}"))
            })
        }
    }
}

/// The value of a JSON body, whatever its `Content-Type` says.
///
/// # Errors
/// As [`read`], and with line and column for what is not the JSON that is wanted.
pub(crate) async fn json<T: DeserializeOwned>(
    request: Request,
    limits: &Limits,
) -> Result<T, Refusal> {
    parse(&read(request, limits).await?)
}

/// The value of JSON bytes.
///
/// # Errors
/// With line and column for what is not the JSON that is wanted.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::Validation(format!("the body is not as expected: {error}")))
}
