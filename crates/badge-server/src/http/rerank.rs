//! Ranking texts by how well they answer a query: `/rerank`, and Jina's and Cohere's routes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use badge_core::config::ProblemType;
use badge_tasks::Example;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::Form;
use super::observation::Arrival;
use super::predict::{characters, check_texts};
use super::terms::CommonFields;
use super::{App, Failure, answers, body};
use crate::model::Model;
use crate::queue::Outcome;
use crate::refusal::Refusal;
use crate::request;
use crate::scoring::{Activation, descending};
use crate::server::Server;

/// The body of `/rerank`.
#[derive(Debug, Deserialize)]
pub(crate) struct RerankFields {
    query: String,
    texts: Vec<String>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    return_text: bool,
    #[serde(flatten)]
    common: CommonFields,
}

/// The body of `/v1/rerank` and `/v2/rerank`.
#[derive(Debug, Deserialize)]
pub(crate) struct DocumentFields {
    query: String,
    documents: Vec<Document>,
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
    #[serde(flatten)]
    common: CommonFields,
}

/// A document: a text, or an object that holds one.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "a document is a string or an object with `text`"
)]
enum Document {
    Plain(String),
    Object { text: String },
}

impl Document {
    fn into_text(self) -> String {
        match self {
            Self::Plain(text) | Self::Object { text } => text,
        }
    }
}

/// A query with what is to be ranked.
struct Ranking<'a> {
    query: &'a str,
    texts: &'a [String],
    common: &'a CommonFields,
    activation: Activation,
}

/// What came of it: indices of texts with their scores, the best first.
struct Ranked {
    order: Vec<(usize, f32)>,
    model: Arc<Model>,
    outcomes: Vec<Outcome>,
    headers: HeaderMap,
}

/// One text of the answer of `/rerank`.
#[derive(Debug, Serialize)]
struct Rank<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    score: f32,
}

/// One document of the answers of `/v1/rerank` and `/v2/rerank`.
#[derive(Debug, Serialize)]
struct Relevance {
    index: usize,
    #[serde(rename = "relevance_score")]
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Value>,
}

/// The answers of `/v1/rerank` and `/v2/rerank`, which share most.
#[derive(Debug, Serialize)]
struct Documents<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'static str>,
    model: &'a str,
    results: Vec<Relevance>,
    usage: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
}

impl<'a> Documents<'a> {
    fn new(ranked: &'a Ranked, results: Vec<Relevance>) -> Self {
        Self {
            id: None,
            object: None,
            model: &ranked.model.source.name,
            results,
            usage: answers::usage(&ranked.outcomes),
            created: None,
            meta: None,
        }
    }
}

/// `POST /rerank`.
pub(crate) async fn rerank(State(server): App, request: Request) -> Result<Response, Failure> {
    let arrival = Arrival::of(&request);
    let headers = request.headers().clone();
    let fields: RerankFields = body::json(request, &server.settings.limits).await?;
    if fields.texts.is_empty() {
        return Err(Refusal::Empty("texts").into());
    }
    let model = server.catalog.model(fields.common.model.as_deref())?;
    let ranking = Ranking {
        query: &fields.query,
        texts: &fields.texts,
        common: &fields.common,
        activation: if fields.raw_scores {
            Activation::None
        } else {
            Activation::Sigmoid
        },
    };
    let ranked = ranking.run(&server, model, (&headers, &arrival)).await?;
    let rank = |(index, score): (usize, f32)| Rank {
        index,
        text: fields.return_text.then(|| fields.texts[index].as_str()),
        score,
    };
    let body: Vec<_> = ranked.order.into_iter().map(rank).collect();
    Ok((ranked.headers, Json(body)).into_response())
}

/// `POST /v1/rerank`.
pub(crate) async fn jina(State(server): App, request: Request) -> Result<Response, Failure> {
    let arrival = Arrival::of(&request);
    let answered = documents(&server, request, arrival).await;
    let (ranked, results) = answered.map_err(Form::Jina.of())?;
    let body = Documents {
        object: Some("rerank"),
        created: Some(answers::seconds_since_1970()),
        ..Documents::new(&ranked, results)
    };
    Ok((ranked.headers.clone(), Json(body)).into_response())
}

/// `POST /v2/rerank`.
pub(crate) async fn cohere(State(server): App, request: Request) -> Result<Response, Failure> {
    let arrival = Arrival::of(&request);
    let id = request.headers().get("x-request-id").cloned();
    let answered = documents(&server, request, arrival).await;
    let (ranked, results) = answered.map_err(Form::Cohere.of())?;
    let id = id
        .as_ref()
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let body = Documents {
        id: Some(id.unwrap_or_else(answers::new_id)),
        meta: Some(json!({
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
        })),
        ..Documents::new(&ranked, results)
    };
    Ok((ranked.headers.clone(), Json(body)).into_response())
}

async fn documents(
    server: &Server,
    request: Request,
    arrival: Arrival,
) -> Result<(Ranked, Vec<Relevance>), Refusal> {
    let headers = request.headers().clone();
    let fields: DocumentFields = body::json(request, &server.settings.limits).await?;
    if fields.documents.is_empty() {
        return Err(Refusal::Empty("documents"));
    }
    let documents = fields.documents.into_iter();
    let texts: Vec<_> = documents.map(Document::into_text).collect();
    // Clients put the names of the services that they were written for.
    let model = server
        .catalog
        .model_or_first(fields.common.model.as_deref())?;
    let ranking = Ranking {
        query: &fields.query,
        texts: &texts,
        common: &fields.common,
        activation: Activation::Sigmoid,
    };
    let ranked = ranking.run(server, model, (&headers, &arrival)).await?;
    let count = fields.top_n.unwrap_or(texts.len());
    let best = ranked.order.iter().take(count);
    let result = |(index, score): &(usize, f32)| Relevance {
        index: *index,
        score: *score,
        document: fields
            .return_documents
            .then(|| json!({"text": texts[*index]})),
    };
    let results = best.map(result).collect();
    Ok((ranked, results))
}

impl Ranking<'_> {
    async fn run(
        &self,
        server: &Server,
        model: Arc<Model>,
        (headers, arrival): (&HeaderMap, &Arrival),
    ) -> Result<Ranked, Refusal> {
        check_ranks(&model)?;
        let pair = |text: &String| Example::of_pair(self.query, text);
        let texts: Vec<_> = self.texts.iter().map(pair).collect();
        if self.query.is_empty() {
            return Err(Refusal::Empty("query"));
        }
        check_texts(server, &texts)?;
        let characters = characters(&texts);
        let terms = self
            .common
            .terms(headers, &server.settings.limits, arrival)?;
        let choice = model.station.points.choose(&self.common.policy(), None)?;
        let texts = texts.into_iter();
        let texts = texts.map(|text| (text.into(), choice.clone())).collect();
        let outcomes = request::answer(&model, &server.tokenization, texts, &terms).await?;
        let score =
            |outcome: &Outcome| self.activation.scores(&[margin(&outcome.answer.logits)])[0];
        let scores: Vec<_> = outcomes.iter().map(score).collect();
        let order = descending(&scores).into_iter();
        Ok(Ranked {
            order: order.map(|index| (index, scores[index])).collect(),
            headers: answers::headers(&model, &outcomes, characters, arrival),
            model,
            outcomes,
        })
    }
}

/// Refuses models whose answer is no order.
fn check_ranks(model: &Model) -> Result<(), Refusal> {
    let head = &model.facts.config.head;
    match (head.problem, head.outputs()) {
        (_, 1) | (ProblemType::SingleLabel, 2) => Ok(()),
        (_, labels) => Err(Refusal::Unsupported(format!(
            "model is not a re-ranker model: it has {labels} labels; one that ranks has one, or \
             two of which the second says yes"
        ))),
    }
}

/// One logit, or by how much the second of two leads: its sigmoid is the second's probability.
fn margin(logits: &[f32]) -> f32 {
    match logits {
        [no, yes] => yes - no,
        others => others[0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_labels_rank_by_the_probability_of_the_second() {
        let logits = [0.3_f32, 1.1];
        let probability = Activation::Softmax.scores(&logits)[1];
        let score = Activation::Sigmoid.scores(&[margin(&logits)])[0];
        assert!((probability - score).abs() < 1e-6);
        assert_eq!(margin(&[0.7]), 0.7);
    }
}
