//! A refusal in the form that each family of routes gives its errors.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::grpc;
use crate::refusal::Refusal;

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Failure {
    refusal: Refusal,
    form: Form,
}

/// The families of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// text-embeddings-inference: `{"error", "error_type"}`.
    Native,
    /// Jina: `{"detail"}`.
    Jina,
    /// Cohere: `{"message"}`.
    Cohere,
    /// The Open Inference Protocol: `{"error"}`.
    Protocol,
    /// gRPC: a code and a message in headers.
    Grpc,
}

impl Failure {
    pub(crate) fn new(refusal: Refusal, form: Form) -> Self {
        Self { refusal, form }
    }
}

impl Form {
    /// Puts a refusal into this form.
    pub(crate) fn of(self) -> impl Fn(Refusal) -> Failure {
        move |refusal| Failure::new(refusal, self)
    }

    fn body(self, refusal: &Refusal) -> Value {
        let message = refusal.to_string();
        match self {
            Self::Native => json!({"error": message, "error_type": refusal.kind()}),
            Self::Jina => json!({"detail": message}),
            Self::Cohere => json!({"message": message}),
            Self::Protocol | Self::Grpc => json!({"error": message}),
        }
    }

    fn status(self, refusal: &Refusal) -> StatusCode {
        match (self, refusal) {
            // An engine that fails is the server's fault wherever no peer says otherwise.
            (Self::Protocol | Self::Grpc, Refusal::Backend(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            (Self::Protocol | Self::Grpc, Refusal::Validation(_) | Refusal::Unsupported(_)) => {
                StatusCode::BAD_REQUEST
            }
            _ => refusal.status(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal, Form::Native)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { refusal, form } = self;
        let status = form.status(&refusal);
        let mut response = match form {
            Form::Grpc => grpc::refused(&refusal),
            _ => (status, Json(form.body(&refusal))).into_response(),
        };
        let headers = response.headers_mut();
        if let Some(wait) = refusal.retry_after() {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            let ms = HeaderValue::from(wait.as_millis() as u64);
            headers.insert(HeaderName::from_static("x-retry-after-ms"), ms);
        }
        if refusal == Refusal::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        let kind = refusal.kind();
        response.extensions_mut().insert(Told { kind, status });
        response
    }
}

/// A refusal beside its answer, for log and metrics: gRPC's answers all have the status 200.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) kind: &'static str,
    pub(crate) status: StatusCode,
}

/// What a caller of gRPC hears when a handler panics.
pub(crate) fn of_panic_in_grpc(payload: Box<dyn Any + Send>) -> Response {
    let status = of_panic(payload).status();
    let kind = "Backend";
    let mut response = grpc::refused(&Refusal::Backend("the server made a mistake".to_owned()));
    response.extensions_mut().insert(Told { kind, status });
    response
}

/// What a caller hears when a handler panics; the log has the rest.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands over what the handler panicked with"
)]
pub(crate) fn of_panic(payload: Box<dyn Any + Send>) -> Response {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    tracing::error!(
        panic = text.unwrap_or("of an unknown kind"),
        "a handler panicked"
    );
    let body = json!({"error": "the server made a mistake", "error_type": "Backend"});
    (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
}
