//! The Open Inference Protocol (v2) over REST, with real tensors, as JSON or as bytes.

mod tensor;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use badge_core::controller::Class;
use badge_tasks::{Encoding, Example};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::Form;
use super::observation::Arrival;
use super::terms::CommonFields;
use super::{App, Failure, answers, body};
use crate::model::Model;
use crate::operating_points::PolicyTerms;
use crate::queue::Outcome;
use crate::refusal::Refusal;
use crate::request::{self, Input};
use crate::server::Server;
use tensor::{Data, InputTensor, OutputTensor, WrittenTensor};

/// Where the JSON ends and the tensors' bytes begin.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The one version that a model has.
const VERSION: &str = "1";

/// A path that names a model, and perhaps a version.
#[derive(Debug, Deserialize)]
pub(crate) struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn find(&self, server: &Server) -> Result<Arc<Model>, Failure> {
        let model = server.catalog.model(Some(&self.model));
        let model = model.map_err(Form::Protocol.of())?;
        match self.version.as_deref() {
            None | Some(VERSION) => Ok(model),
            Some(version) => Err(Form::Protocol.of()(Refusal::UnknownModel {
                model: format!("{} version {version}", self.model),
                known: format!("{} version {VERSION}", self.model),
            })),
        }
    }
}

/// `GET /v2`.
pub(crate) async fn server_metadata() -> Json<Value> {
    Json(json!({
        "name": "badge",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": [
            "schedule_policy", "model_repository", "binary_tensor_data", "early_exit",
        ],
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

/// `GET /v2/models/{model}/ready`.
pub(crate) async fn model_ready(
    State(server): App,
    Path(path): Path<ModelPath>,
) -> Result<Response, Failure> {
    let model = path.find(&server)?;
    let is_ready = model.station.is_alive() && !server.is_draining();
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
    let classes = model.facts.config.head.outputs();
    let tensor = |name: &str, datatype: &str, shape: &[i64]| json!({"name": name, "datatype": datatype, "shape": shape});
    Ok(Json(json!({
        "name": path.model,
        "versions": [VERSION],
        "platform": "badge_safetensors",
        "inputs": [
            tensor("text", "BYTES", &[-1]),
            tensor("text_pair", "BYTES", &[-1]),
        ],
        "outputs": [
            tensor("label", "BYTES", &[-1]),
            tensor("label_id", "INT64", &[-1]),
            tensor("probabilities", "FP32", &[-1, classes as i64]),
            tensor("logits", "FP32", &[-1, classes as i64]),
            tensor("exit_layer", "INT32", &[-1]),
            tensor("confidence", "FP32", &[-1]),
        ],
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

/// What a request says about how it is to be treated: Triton's names, and ours.
#[derive(Debug, Clone, Default, Deserialize)]
struct Parameters {
    /// 1 is the highest; 0 stands for the default.
    priority: Option<u64>,
    /// Microseconds.
    timeout: Option<u64>,
    policy: Option<String>,
    speedup: Option<f64>,
    min_accuracy: Option<f64>,
    max_layer: Option<usize>,
    #[serde(default)]
    binary_data_output: bool,
}

/// An output that is asked for.
#[derive(Debug, Clone, Deserialize)]
struct WantedOutput {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
}

impl Parameters {
    fn policy(&self) -> PolicyTerms {
        PolicyTerms {
            spec: self.policy.clone(),
            speedup: self.speedup,
            min_accuracy: self.min_accuracy,
            max_depth: self.max_layer,
            deadline_ms: self.timeout.filter(|us| *us > 0).map(|us| us as f64 / 1e3),
            priority: Some(match self.priority.unwrap_or(0) {
                0 | 2 => Class::Normal,
                1 => Class::High,
                _ => Class::Batch,
            }),
        }
    }
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
    let inputs = inputs(&fields.inputs, model)?;
    let count_max = server.settings.limits.client_batch_max;
    if inputs.len() > count_max {
        return Err(Refusal::Validation(format!(
            "batch size {} > maximum allowed batch size {count_max}",
            inputs.len()
        )));
    }
    let policy = fields.parameters.policy();
    let terms = CommonFields::of_policy(policy.clone());
    let terms = terms.terms(&headers, &server.settings.limits, arrival)?;
    let choice = model.station.points.choose(&policy, None)?;
    let inputs = inputs.into_iter();
    let inputs = inputs.map(|input| (input, choice.clone())).collect();
    let outcomes = request::answer(model, &server.tokenization, inputs, &terms).await?;
    let outputs = wanted(&fields, model, &outcomes)?;
    let headers = answers::headers(model, &outcomes, 0, arrival);
    let policy = outcomes[0].answer.policy().spec().to_string();
    let document = InferAnswer {
        model_name: name,
        model_version: VERSION,
        id: fields.id,
        parameters: json!({"policy": policy}),
        outputs: Vec::with_capacity(outputs.len()),
    };
    Ok(write(document, outputs, headers))
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

/// The texts or ids that the tensors hold.
fn inputs(tensors: &[InputTensor], model: &Model) -> Result<Vec<Input>, Refusal> {
    let named = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
    if let Some(ids) = named("input_ids") {
        return token_inputs(ids, named("attention_mask"), named("token_type_ids"), model);
    }
    let wrong = |problem: &str| Refusal::Validation(format!("`inputs`: {problem}"));
    let first = tensors.iter().find(|tensor| tensor.name != "text_pair");
    let first = first.ok_or_else(|| wrong("there is no tensor of texts"))?;
    let texts = first.texts()?;
    let rows = match first.shape[..] {
        [n] | [n, 1] => texts.into_iter().take(n).map(Example::of_text).collect(),
        [_, 2] => pairs(
            texts
                .chunks_exact(2)
                .map(|pair| (pair[0].clone(), pair[1].clone())),
        ),
        _ => {
            return Err(wrong(
                "texts have the shape [n], [n, 1] or, as pairs, [n, 2]",
            ));
        }
    };
    let rows: Vec<Example> = match named("text_pair") {
        None => rows,
        Some(second) => {
            let second = second.texts()?;
            if second.len() != rows.len() || rows.iter().any(|row| row.pair.is_some()) {
                return Err(wrong(
                    "`text_pair` has one text for each of the other tensor",
                ));
            }
            pairs(rows.into_iter().map(|row| row.text).zip(second))
        }
    };
    if rows.is_empty() {
        return Err(Refusal::Empty("inputs"));
    }
    if rows
        .iter()
        .any(|row| row.text.is_empty() && row.pair.is_none())
    {
        return Err(Refusal::Empty("inputs"));
    }
    Ok(rows.into_iter().map(Input::Text).collect())
}

fn pairs(pairs: impl Iterator<Item = (String, String)>) -> Vec<Example> {
    pairs
        .map(|(text, pair)| Example::of_pair(text, pair))
        .collect()
}

/// Rows of ids, cut to what the mask keeps.
fn token_inputs(
    ids: &InputTensor,
    mask: Option<&InputTensor>,
    types: Option<&InputTensor>,
    model: &Model,
) -> Result<Vec<Input>, Refusal> {
    let wrong = |problem: String| Refusal::Validation(format!("`inputs`: {problem}"));
    let [rows, columns] = ids.shape[..] else {
        return Err(wrong("`input_ids` has the shape [n, s]".to_owned()));
    };
    let values = ids.integers()?;
    let beside = |tensor: Option<&InputTensor>, default: i64| match tensor {
        None => Ok(vec![default; values.len()]),
        Some(tensor) if tensor.shape == ids.shape => tensor.integers(),
        Some(tensor) => {
            let name = &tensor.name;
            Err(wrong(format!(
                "`{name}` has another shape than `input_ids`"
            )))
        }
    };
    let (mask, types) = (beside(mask, 1)?, beside(types, 0)?);
    let backbone = &model.facts.config.backbone;
    let id = |value: i64, end: usize, what: &str| {
        let id = u32::try_from(value).ok().filter(|id| (*id as usize) < end);
        id.ok_or_else(|| wrong(format!("{value} is no {what}; they lie in 0..{end}")))
    };
    // Not with room for as many rows as the shape claims: rows without columns need no values.
    let mut inputs = Vec::new();
    for row in 0..rows {
        let range = row * columns..(row + 1) * columns;
        let mut encoding = Encoding {
            ids: Vec::new(),
            type_ids: Vec::new(),
        };
        for place in range.filter(|place| mask[*place] != 0) {
            encoding
                .ids
                .push(id(values[place], backbone.vocabulary, "token id")?);
            let type_id = id(types[place], backbone.token_types, "segment id")?;
            encoding.type_ids.push(type_id);
        }
        let (length, length_max) = (encoding.len(), model.facts.length_max);
        if !(1..=length_max).contains(&length) {
            let problem = format!("row {row} has {length} tokens; there may be 1 to {length_max}");
            return Err(wrong(problem));
        }
        inputs.push(Input::Ids(encoding));
    }
    if inputs.is_empty() {
        return Err(Refusal::Empty("inputs"));
    }
    Ok(inputs)
}

/// The outputs that are asked for, or all but the logits; with whether they go out as bytes.
fn wanted(
    fields: &InferFields,
    model: &Model,
    outcomes: &[Outcome],
) -> Result<Vec<(OutputTensor, bool)>, Refusal> {
    const ALL: [&str; 5] = [
        "label",
        "label_id",
        "probabilities",
        "exit_layer",
        "confidence",
    ];
    let all = fields.parameters.binary_data_output;
    if fields.outputs.is_empty() {
        let tensors = ALL
            .into_iter()
            .map(|name| Ok((output(name, model, outcomes)?, all)));
        return tensors.collect();
    }
    let one = |wanted: &WantedOutput| {
        let as_bytes = wanted.parameters.binary_data.unwrap_or(all);
        Ok((output(&wanted.name, model, outcomes)?, as_bytes))
    };
    fields.outputs.iter().map(one).collect()
}

fn output(name: &str, model: &Model, outcomes: &[Outcome]) -> Result<OutputTensor, Refusal> {
    let facts = &model.facts;
    let labels = &facts.config.head.labels;
    let scores = |outcome: &Outcome| facts.activation.scores(&outcome.answer.logits);
    let best = |outcome: &Outcome| crate::scoring::descending(&outcome.answer.logits)[0];
    let n = outcomes.len();
    let (shape, data) = match name {
        "label" => {
            let texts = outcomes.iter().map(|outcome| labels[best(outcome)].clone());
            (vec![n], Data::Bytes(texts.collect()))
        }
        "label_id" => {
            let ids = outcomes.iter().map(|outcome| best(outcome) as i64);
            (vec![n], Data::Int64(ids.collect()))
        }
        "probabilities" => {
            let values = outcomes.iter().flat_map(scores).collect();
            (vec![n, labels.len()], Data::Fp32(values))
        }
        "logits" => {
            let logits = outcomes
                .iter()
                .flat_map(|outcome| outcome.answer.logits.clone());
            (vec![n, labels.len()], Data::Fp32(logits.collect()))
        }
        "exit_layer" => {
            let depths = outcomes.iter().map(|outcome| outcome.answer.depth.0 as i32);
            (vec![n], Data::Int32(depths.collect()))
        }
        "confidence" => {
            let confidence = |outcome| scores(outcome)[best(outcome)];
            (
                vec![n],
                Data::Fp32(outcomes.iter().map(confidence).collect()),
            )
        }
        _ => {
            let problem = "there are label, label_id, probabilities, logits, exit_layer and \
                           confidence";
            return Err(Refusal::Validation(format!(
                "`outputs`: no `{name}`; {problem}"
            )));
        }
    };
    Ok(OutputTensor {
        name: name.to_owned(),
        shape,
        data,
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
