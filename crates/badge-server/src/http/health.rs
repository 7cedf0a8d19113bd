//! Whether the server lives, whether it is ready, and what it has counted.

use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{App, Failure};
use crate::refusal::Refusal;

/// `GET /health` and `GET /ping`: ready to answer, as text-embeddings-inference understands it.
pub(crate) async fn health(State(server): App) -> Result<StatusCode, Failure> {
    if server.is_ready() {
        Ok(StatusCode::OK)
    } else if server.is_draining() {
        Err(Refusal::NotReady("it is going away").into())
    } else {
        Err(Refusal::NotReady("a model does not answer").into())
    }
}

/// `GET /readyz`: the same.
pub(crate) async fn ready(state: App) -> Result<StatusCode, Failure> {
    health(state).await
}

/// `GET /livez` and `GET /healthz`: the process answers, and is better not started anew.
pub(crate) async fn live(State(server): App) -> Result<StatusCode, Failure> {
    if server.catalog.is_ready() {
        Ok(StatusCode::OK)
    } else {
        Err(Refusal::NotReady("a model does not answer").into())
    }
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(server): App) -> Response {
    let now = Instant::now();
    for model in server.catalog.models().iter() {
        model.station.refresh_metrics(now);
    }
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], server.metrics.text()).into_response()
}
