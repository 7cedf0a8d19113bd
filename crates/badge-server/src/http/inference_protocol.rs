//! The Open Inference Protocol (v2) over REST, with real tensors, as JSON or as bytes.

pub(super) mod inference;
pub(super) mod tensor;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::Form;
use super::observation::Arrival;
use super::{App, Failure, body};
use crate::model::Model;
use crate::refusal::Refusal;
use crate::server::Server;
use inference::{
    Described, EXTENSIONS, Inference, PLATFORM, Parameters, VERSION, WantedOutput, gives, takes,
};
use tensor::{InputTensor, OutputTensor, WrittenTensor};

/// Where the JSON ends and the tensors' bytes begin.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A path that names a model, and perhaps a version.
#[derive(Debug, Deserialize)]
pub(crate) struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn find(&self, server: &Server) -> Result<Arc<Model>, Failure> {
        let found = inference::find(server, &self.model, self.version.as_deref());
        found.map_err(Form::Protocol.of())
    }
}

/// `GET /v2`.
pub(crate) async fn server_metadata() -> Json<Value> {
    Json(json!({
        "name": "badge",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": EXTENSIONS,
    }))
}

/// `GET /v2/health/live`.
pub(crate) async fn live(State(server): App) -> Response {
    state(
        server.catalog.is_ready(),
        json!({"live": server.catalog.is_ready()}),
    )
}

/// `GET /v2/health/ready`. The protocol's own text calls the key `live`.
pub(crate) async fn ready(State(server): App) -> Response {
    let is_ready = server.is_ready();
    state(is_ready, json!({"live": is_ready, "ready": is_ready}))
}

fn state(is_good: bool, body: Value) -> Response {
    let status = if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

/// `GET /v2/models`: the names of all models, as KServe lists them.
pub(crate) async fn models(State(server): App) -> Json<Value> {
    Json(json!({"models": server.catalog.names()}))
}

/// `GET /v2/models/{model}/ready`.
pub(crate) async fn model_ready(
    State(server): App,
    Path(path): Path<ModelPath>,
) -> Result<Response, Failure> {
    let model = path.find(&server)?;
    let is_ready = inference::is_ready(&server, &model);
    Ok(state(
        is_ready,
        json!({"name": path.model, "ready": is_ready}),
    ))
}

/// `GET /v2/models/{model}`.
pub(crate) async fn model_metadata(
    State(server): App,
    Path(path): Path<ModelPath>,
) -> Result<Json<Value>, Failure> {
    let model = path.find(&server)?;
    let tensor = |(name, datatype, shape): Described| json!({"name": name, "datatype": datatype, "shape": shape});
    Ok(Json(json!({
        "name": path.model,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": takes().map(tensor),
        "outputs": gives(&model).map(tensor),
    })))
}

/// The JSON of an inference request.
#[derive(Debug, Deserialize)]
struct InferFields {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: Vec<InputTensor>,
    #[serde(default)]
    outputs: Vec<WantedOutput>,
}

/// `POST /v2/models/{model}/infer`.
pub(crate) async fn infer(
    State(server): App,
    Path(path): Path<ModelPath>,
    request: Request,
) -> Result<Response, Failure> {
    let model = path.find(&server)?;
    let answered = answer(&server, &path.model, &model, request).await;
    answered.map_err(Form::Protocol.of())
}

async fn answer(
    server: &Server,
    name: &str,
    model: &Arc<Model>,
    request: Request,
) -> Result<Response, Refusal> {
    let arrival = Arrival::of(&request);
    let headers = request.headers().clone();
    let bytes = body::read(request, &server.settings.limits).await?;
    let (json, rest) = parts(&headers, &bytes)?;
    let mut fields: InferFields = body::parse(json)?;
    tensor::attach(&mut fields.inputs, rest)?;
    let inference = Inference {
        parameters: fields.parameters,
        inputs: fields.inputs,
        outputs: fields.outputs,
    };
    let inferred = inference.answer(server, model, &headers, &arrival).await?;
    let document = InferAnswer {
        model_name: name,
        model_version: VERSION,
        id: fields.id,
        parameters: json!({"policy": inferred.policy}),
        outputs: Vec::with_capacity(inferred.outputs.len()),
    };
    Ok(write(document, inferred.outputs, inferred.headers))
}

/// The JSON of a body, and the bytes of tensors behind it.
fn parts<'a>(headers: &HeaderMap, bytes: &'a Bytes) -> Result<(&'a [u8], &'a [u8]), Refusal> {
    let Some(length) = headers.get(JSON_LENGTH) else {
        return Ok((bytes, &[]));
    };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or_else(|| {
            let bytes = bytes.len();
            Refusal::Validation(format!(
                "header Inference-Header-Content-Length: no length within the {bytes} bytes that \
                 came"
            ))
        })
}

/// The JSON of an answer.
#[derive(Debug, Serialize)]
struct InferAnswer<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: Value,
    outputs: Vec<WrittenTensor>,
}

/// The answer: JSON, and behind it the bytes of the tensors that go out as bytes.
fn write(
    mut document: InferAnswer<'_>,
    outputs: Vec<(OutputTensor, bool)>,
    mut headers: HeaderMap,
) -> Response {
    let mut rest = Vec::new();
    let tensors = outputs.into_iter().map(|(tensor, as_bytes)| {
        if as_bytes {
            tensor.written_beside(&mut rest)
        } else {
            tensor.written()
        }
    });
    document.outputs.extend(tensors);
    if rest.is_empty() {
        return (headers, Json(document)).into_response();
    }
    let mut bytes = serde_json::to_vec(&document).expect("its keys are strings");
    headers.insert(JSON_LENGTH, HeaderValue::from(bytes.len()));
    let form = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, form);
    bytes.append(&mut rest);
    (headers, bytes).into_response()
}
