//! Why a request is not answered, and in which words of HTTP.

use std::time::Duration;

use axum::http::StatusCode;
use thiserror::Error;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Error)]
pub(crate) enum Refusal {
    /// Nothing to answer.
    #[error("`{0}` cannot be empty")]
    Empty(&'static str),
    /// A body or a value that cannot be used.
    #[error("{0}")]
    Validation(String),
    /// A text of which the tokeniser makes nothing.
    #[error("{0}")]
    Tokenizer(String),
    /// A body that is too large.
    #[error("the body is larger than {bytes_max} bytes (--payload-limit)")]
    PayloadTooLarge { bytes_max: usize },
    /// A body that does not arrive.
    #[error("the body did not arrive within {} seconds", .0.as_secs())]
    SlowBody(Duration),
    /// No key, or not the right one.
    #[error("this route asks for `Authorization: Bearer KEY`")]
    Unauthorized,
    /// More work than can be done in time.
    #[error("Model is overloaded")]
    Overloaded { retry_after: Duration },
    /// The deadline has passed.
    #[error("the deadline passed before the model could answer")]
    Expired,
    /// The server is going away, or not yet there.
    #[error("the server is not ready: {0}")]
    NotReady(&'static str),
    /// A model that is not served here.
    #[error("there is no model `{model}`; there are {known}")]
    UnknownModel { model: String, known: String },
    /// A message in a form that is not spoken here.
    #[error("{0}")]
    Encoding(&'static str),
    /// A service of gRPC whose health nobody here knows.
    #[error("there is no service `{service}`; there is {known}")]
    UnknownService {
        service: String,
        known: &'static str,
    },
    /// A method of gRPC that is not served here.
    #[error("there is no such method")]
    UnknownMethod,
    /// A path that leads nowhere.
    #[error("there is no such route; /docs lists them")]
    UnknownRoute,
    /// A path that wants another method.
    #[error("this route takes another method; /docs lists them")]
    WrongMethod,
    /// Something that the model cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The engine has failed.
    #[error("{0}")]
    Backend(String),
}

impl Refusal {
    /// The word for it in answers and metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Empty(_) => "Empty",
            Self::Validation(_)
            | Self::PayloadTooLarge { .. }
            | Self::SlowBody(_)
            | Self::Encoding(_)
            | Self::WrongMethod
            | Self::UnknownMethod
            | Self::UnknownRoute => "Validation",
            Self::UnknownModel { .. } | Self::UnknownService { .. } => "NotFound",
            Self::Tokenizer(_) => "Tokenizer",
            Self::Unauthorized => "Unauthorized",
            Self::Overloaded { .. } => "Overloaded",
            Self::Expired => "Timeout",
            Self::NotReady(_) => "Unhealthy",
            Self::Unsupported(_) | Self::Backend(_) => "Backend",
        }
    }

    /// The status on the routes of text-embeddings-inference.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Empty(_) => StatusCode::BAD_REQUEST,
            Self::Validation(_) | Self::Tokenizer(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Expired => StatusCode::GATEWAY_TIMEOUT,
            Self::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnknownModel { .. }
            | Self::UnknownService { .. }
            | Self::UnknownMethod
            | Self::UnknownRoute => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unsupported(_) | Self::Backend(_) => StatusCode::FAILED_DEPENDENCY,
        }
    }

    /// How long the caller had better wait before trying again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } => Some(*retry_after),
            Self::NotReady(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl From<badge_tasks::Error> for Refusal {
    /// What a text is refused for.
    fn from(error: badge_tasks::Error) -> Self {
        match error {
            badge_tasks::Error::TooLong { tokens, max_length } => Self::Validation(format!(
                "`inputs` must have less than {} tokens. Given: {tokens}",
                max_length + 1
            )),
            error => Self::Tokenizer(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_status_and_its_word() {
        let wait = Duration::from_secs(3);
        for (refusal, status, kind) in [
            (Refusal::Empty("inputs"), 400, "Empty"),
            (Refusal::Validation(String::new()), 422, "Validation"),
            (Refusal::Tokenizer(String::new()), 422, "Tokenizer"),
            (Refusal::PayloadTooLarge { bytes_max: 1 }, 413, "Validation"),
            (Refusal::SlowBody(wait), 408, "Validation"),
            (Refusal::Encoding("gzip"), 415, "Validation"),
            (Refusal::Unauthorized, 401, "Unauthorized"),
            (Refusal::Overloaded { retry_after: wait }, 429, "Overloaded"),
            (Refusal::Expired, 504, "Timeout"),
            (Refusal::NotReady("draining"), 503, "Unhealthy"),
            (
                Refusal::UnknownModel {
                    model: "a".to_owned(),
                    known: "b".to_owned(),
                },
                404,
                "NotFound",
            ),
            (
                Refusal::UnknownService {
                    service: "a".to_owned(),
                    known: "b",
                },
                404,
                "NotFound",
            ),
            (Refusal::UnknownMethod, 404, "Validation"),
            (Refusal::UnknownRoute, 404, "Validation"),
            (Refusal::WrongMethod, 405, "Validation"),
            (Refusal::Unsupported(String::new()), 424, "Backend"),
            (Refusal::Backend(String::new()), 424, "Backend"),
        ] {
            assert_eq!(
                (refusal.status().as_u16(), refusal.kind()),
                (status, kind),
                "{refusal}"
            );
        }
    }
}
