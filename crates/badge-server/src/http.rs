//! The routes: what comes in over HTTP and what goes out.
//!
//! [`app`] serves inference and everything that may be read by anyone; [`admin`] changes things
//! and belongs on a listener of its own, as does [`grpc`](grpc()), which speaks HTTP/2.

mod access;
mod admin;
mod answers;
mod body;
mod failure;
mod grpc;
mod health;
mod inference_protocol;
mod info;
mod observation;
mod page;
mod policy;
mod predict;
mod rerank;
mod terms;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::refusal::Refusal;
use crate::server::Server;
use failure::{Failure, Form};

/// What every handler is given of the server.
type App = axum::extract::State<Arc<Server>>;

/// All routes of the main listener.
pub fn app(server: Arc<Server>) -> Router {
    let inference = Router::new()
        .route("/predict", post(predict::predict))
        .route("/classify", post(predict::classify))
        .route("/rerank", post(rerank::rerank))
        .route("/v1/rerank", post(rerank::jina))
        .route("/v2/rerank", post(rerank::cohere))
        .route("/tokenize", post(tokens::tokenize))
        .route("/decode", post(tokens::decode))
        .route("/v2/models/{model}/infer", post(inference_protocol::infer))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(inference_protocol::infer),
        )
        .route("/", post(info::by_task))
        .route("/invocations", post(info::by_task))
        .route_layer(from_fn_with_state(Arc::clone(&server), access::check_key));
    let open = Router::new()
        .route("/", get(page::home))
        .route("/docs", get(page::docs))
        .route("/api-doc/openapi.json", get(page::openapi))
        .route("/info", get(info::info))
        .merge(health_routes())
        .merge(policy_routes())
        .merge(protocol_routes());
    let cors = cors(&server.settings.cors_allow_origin);
    finish(inference.merge(open), server).layer(cors)
}

/// All routes of the admin listener.
pub fn admin(server: Arc<Server>) -> Router {
    let routes = Router::new()
        .route("/v1/policy", put(policy::change).patch(policy::change))
        .route("/v2/repository/index", post(admin::index))
        .route("/v2/repository/models/{model}/load", post(admin::load))
        .route("/v2/repository/models/{model}/unload", post(admin::unload))
        .route("/admin/reload", post(admin::reload))
        .route("/admin/drain", post(admin::drain))
        .merge(policy_routes())
        .route_layer(from_fn_with_state(Arc::clone(&server), admin::check_token));
    finish(routes.merge(health_routes()), server)
}

/// All methods of the gRPC listener.
pub fn grpc(server: Arc<Server>) -> Router {
    let unknown = async || Failure::new(Refusal::UnknownMethod, Form::Grpc);
    grpc::methods(Arc::clone(&server))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(CatchPanicLayer::custom(failure::of_panic_in_grpc))
        .layer(from_fn_with_state(
            Arc::clone(&server),
            observation::observe_call,
        ))
        .with_state(server)
}

fn health_routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/health", get(health::health))
        .route("/healthz", get(health::live))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/ping", get(health::health))
        .route("/metrics", get(health::metrics))
}

fn policy_routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/v1/policy", get(policy::read))
        .route("/v1/policy/frontier", get(policy::frontier))
        .route("/v1/status", get(policy::status))
}

/// What anyone may ask of the Open Inference Protocol.
fn protocol_routes() -> Router<Arc<Server>> {
    let metadata = || get(inference_protocol::model_metadata);
    let ready = || get(inference_protocol::model_ready);
    Router::new()
        .route("/v2", get(inference_protocol::server_metadata))
        .route("/v2/health/live", get(inference_protocol::live))
        .route("/v2/health/ready", get(inference_protocol::ready))
        .route("/v2/models", get(inference_protocol::models))
        .route("/v2/models/{model}", metadata())
        .route("/v2/models/{model}/versions/{version}", metadata())
        .route("/v2/models/{model}/ready", ready())
        .route("/v2/models/{model}/versions/{version}/ready", ready())
}

/// What all routes have in common.
fn finish(routes: Router<Arc<Server>>, server: Arc<Server>) -> Router {
    routes
        .fallback(async || Failure::new(Refusal::UnknownRoute, Form::Native))
        .method_not_allowed_fallback(async || Failure::new(Refusal::WrongMethod, Form::Native))
        .layer(CatchPanicLayer::custom(failure::of_panic))
        .layer(from_fn_with_state(
            Arc::clone(&server),
            observation::observe,
        ))
        .with_state(server)
}

/// Which pages of other origins may call.
fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new().allow_methods(Any).allow_headers(Any);
    if origins.is_empty() {
        return layer.allow_origin(Any);
    }
    let origins = origins.iter().filter_map(|o| HeaderValue::from_str(o).ok());
    layer.allow_origin(AllowOrigin::list(origins))
}
