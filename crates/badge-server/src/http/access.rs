//! Who may call.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::failure::{Failure, Form};
use crate::refusal::Refusal;
use crate::settings::Secret;

/// Lets a request pass that knows the key, if there is one.
pub(crate) async fn check_key(State(server): App, request: Request, next: Next) -> Response {
    if knows(request.headers(), server.settings.api_key.as_ref()) {
        return next.run(request).await;
    }
    Failure::from(Refusal::Unauthorized).into_response()
}

/// The same for gRPC, whose metadata are headers.
pub(crate) async fn check_grpc_key(State(server): App, request: Request, next: Next) -> Response {
    if knows(request.headers(), server.settings.api_key.as_ref()) {
        return next.run(request).await;
    }
    Failure::new(Refusal::Unauthorized, Form::Grpc).into_response()
}

/// Whether the headers hold the key.
pub(crate) fn knows(headers: &HeaderMap, key: Option<&Secret>) -> bool {
    let Some(key) = key else {
        return true;
    };
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    given.is_some_and(|(scheme, given)| {
        scheme.eq_ignore_ascii_case("bearer") && key.is(given.trim())
    })
}
