//! The Open Inference Protocol over gRPC, and gRPC's health check.
//!
//! Every method takes one message and gives one, so a call is a POST whose body is five bytes and a
//! message, and whose answer ends with a code behind its body. That little is done here rather than
//! by a framework: bodies, keys, refusals, metrics and traces are those of all other routes.

mod conversion;
mod framing;
mod messages;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::routing::post;

use super::failure::Form;
use super::inference_protocol::inference::{self, EXTENSIONS, PLATFORM, VERSION, gives, takes};
use super::{App, Failure, access};
use crate::model::Model;
use crate::refusal::Refusal;
use crate::server::Server;
use framing::{Answer, Call};
pub(super) use framing::{code, refused};
use messages::{
    HealthCheckRequest, HealthCheckResponse, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse, ServingStatus,
};

type Answered<A> = Result<Answer<A>, Failure>;

/// The protocol's service, as health checks name it.
const SERVICE: &str = "inference.GRPCInferenceService";

/// The methods, as paths of HTTP.
pub(super) fn methods(server: Arc<Server>) -> Router<Arc<Server>> {
    let path = |method: &str| format!("/{SERVICE}/{method}");
    let inference = Router::new()
        .route(&path("ModelInfer"), post(model_infer))
        .route_layer(from_fn_with_state(server, access::check_grpc_key));
    Router::new()
        .route(&path("ServerLive"), post(server_live))
        .route(&path("ServerReady"), post(server_ready))
        .route(&path("ModelReady"), post(model_ready))
        .route(&path("ServerMetadata"), post(server_metadata))
        .route(&path("ModelMetadata"), post(model_metadata))
        .route("/grpc.health.v1.Health/Check", post(health_check))
        .merge(inference)
}

async fn server_live(
    State(server): App,
    _: Call<ServerLiveRequest>,
) -> Answered<ServerLiveResponse> {
    let live = server.catalog.is_ready();
    Ok(Answer::of(ServerLiveResponse { live }))
}

async fn server_ready(
    State(server): App,
    _: Call<ServerReadyRequest>,
) -> Answered<ServerReadyResponse> {
    let ready = server.is_ready();
    Ok(Answer::of(ServerReadyResponse { ready }))
}

async fn model_ready(
    State(server): App,
    Call { message, .. }: Call<ModelReadyRequest>,
) -> Answered<ModelReadyResponse> {
    let model = find(&server, &message.name, &message.version)?;
    let ready = inference::is_ready(&server, &model);
    Ok(Answer::of(ModelReadyResponse { ready }))
}

async fn server_metadata(_: Call<ServerMetadataRequest>) -> Answered<ServerMetadataResponse> {
    Ok(Answer::of(ServerMetadataResponse {
        name: "badge".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }))
}

async fn model_metadata(
    State(server): App,
    Call { message, .. }: Call<ModelMetadataRequest>,
) -> Answered<ModelMetadataResponse> {
    let model = find(&server, &message.name, &message.version)?;
    Ok(Answer::of(ModelMetadataResponse {
        name: message.name,
        versions: vec![VERSION.to_owned()],
        platform: PLATFORM.to_owned(),
        inputs: takes().map(Into::into).to_vec(),
        outputs: gives(&model).map(Into::into).to_vec(),
    }))
}

async fn model_infer(
    State(server): App,
    call: Call<ModelInferRequest>,
) -> Answered<ModelInferResponse> {
    let Call {
        mut message,
        headers,
        arrival,
    } = call;
    let model = find(&server, &message.model_name, &message.model_version)?;
    let as_bytes = !message.raw_input_contents.is_empty();
    let (name, id) = (
        std::mem::take(&mut message.model_name),
        std::mem::take(&mut message.id),
    );
    let inference = message.read().map_err(Form::Grpc.of())?;
    let inferred = inference.answer(&server, &model, &headers, &arrival).await;
    let mut inferred = inferred.map_err(Form::Grpc.of())?;
    let headers = std::mem::take(&mut inferred.headers);
    let mut message = ModelInferResponse::written(inferred, as_bytes);
    message.model_name = name;
    VERSION.clone_into(&mut message.model_version);
    message.id = id;
    Ok(Answer { message, headers })
}

/// `Check` of gRPC's health service: of the server as a whole, or of the protocol's service.
async fn health_check(
    State(server): App,
    Call { message, .. }: Call<HealthCheckRequest>,
) -> Answered<HealthCheckResponse> {
    let service = message.service;
    if !["", SERVICE].contains(&service.as_str()) {
        let refusal = Refusal::UnknownService {
            service,
            known: SERVICE,
        };
        return Err(Failure::new(refusal, Form::Grpc));
    }
    let status = if server.is_ready() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    let status = status.into();
    Ok(Answer::of(HealthCheckResponse { status }))
}

/// A model by name and version, of which an empty one means any.
fn find(server: &Server, name: &str, version: &str) -> Result<Arc<Model>, Failure> {
    let version = Some(version).filter(|version| !version.is_empty());
    inference::find(server, name, version).map_err(Form::Grpc.of())
}
