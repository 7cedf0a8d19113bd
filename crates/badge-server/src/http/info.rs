//! What is served: `/info`, and `/`, which does what the model is for.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use badge_core::config::ProblemType;
use serde_json::{Map, Value, json};

use super::{App, Failure, predict, rerank};
use crate::model::Model;

/// `GET /info`.
pub(crate) async fn info(State(server): App) -> Result<Json<Value>, Failure> {
    let model = server.catalog.model(None)?;
    let (settings, limits) = (&server.settings.model, &server.settings.limits);
    let facts = &model.facts;
    let models = server.catalog.models();
    let names: Vec<_> = models.iter().map(|m| m.source.name.as_str()).collect();
    Ok(Json(json!({
        "model_id": model.source.name,
        "model_sha": null,
        "model_dtype": facts.precision,
        "served_model_name": model.source.name,
        "model_type": model_type(&model),
        "max_concurrent_requests": settings.concurrent_requests_max,
        "max_input_length": facts.length_max,
        "max_batch_tokens": settings.batch_tokens_max,
        "max_batch_requests": settings.batch_requests_max,
        "max_client_batch_size": limits.client_batch_max,
        "auto_truncate": limits.auto_truncate,
        "tokenization_workers": server.settings.tokenization_workers,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
        "compute_path": format!("cpu-{}-{}", facts.precision, facts.instruction_set),
        "num_layers": facts.config.backbone.blocks,
        "exits": facts.config.exits().exits,
        "policy": model.station.points.current_policy().spec().to_string(),
        "models": names,
    })))
}

/// `{"classifier"|"reranker": {"id2label", "label2id"}}`.
fn model_type(model: &Model) -> Value {
    let labels = model.facts.config.head.labels.iter().enumerate();
    let id2label: Map<_, _> = (labels.clone())
        .map(|(id, label)| (id.to_string(), Value::from(label.as_str())))
        .collect();
    let label2id: Map<_, _> = labels.map(|(id, l)| (l.clone(), Value::from(id))).collect();
    let kind = if is_ranker(model) {
        "reranker"
    } else {
        "classifier"
    };
    json!({kind: {"id2label": id2label, "label2id": label2id}})
}

/// Whether ranking is what the model is for: it has one output, and no meaning of its own.
fn is_ranker(model: &Model) -> bool {
    let facts = &model.facts;
    facts.config.head.problem == ProblemType::Regression
        && facts.activation != crate::scoring::Activation::None
}

/// `POST /` and `POST /invocations`: what the model is for.
pub(crate) async fn by_task(state: App, request: Request) -> Result<Response, Failure> {
    let State(server) = &state;
    let model = server.catalog.model(None)?;
    if is_ranker(&model) {
        rerank::rerank(state, request).await
    } else {
        predict::predict(state, request).await
    }
}
