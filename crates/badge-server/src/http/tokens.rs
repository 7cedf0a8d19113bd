//! `/tokenize` and `/decode`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use badge_tasks::tokenizer::{SpecialTokens, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, Failure, body};
use crate::metrics::Shed;
use crate::model::Model;
use crate::refusal::Refusal;
use crate::server::Server;

/// The body of `/tokenize`.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenizeFields {
    inputs: OneOrMany<String>,
    #[serde(default = "yes")]
    add_special_tokens: bool,
    model: Option<String>,
}

/// The body of `/decode`.
#[derive(Debug, Deserialize)]
pub(crate) struct DecodeFields {
    ids: Ids,
    #[serde(default = "yes")]
    skip_special_tokens: bool,
    model: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`inputs` is a string or a list of strings")]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`ids` is a list of token ids, or a list of such lists"
)]
enum Ids {
    One(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

fn yes() -> bool {
    true
}

/// `POST /tokenize`.
pub(crate) async fn tokenize(State(server): App, request: Request) -> Result<Json<Value>, Failure> {
    let fields: TokenizeFields = body::json(request, &server.settings.limits).await?;
    let texts = match fields.inputs {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(Refusal::Empty("inputs").into());
    }
    check_count(&server, texts.len())?;
    let model = server.catalog.model(fields.model.as_deref())?;
    let special = if fields.add_special_tokens {
        SpecialTokens::Keep
    } else {
        SpecialTokens::Skip
    };
    let (count, served) = (texts.len(), Arc::clone(&model));
    let work = move || {
        let tokens = |text: &String| {
            let tokens = model.tokenizer.tokens(text, special)?;
            Ok(tokens.iter().map(written).collect::<Value>())
        };
        texts.iter().map(tokens).collect::<Result<Value, Refusal>>()
    };
    Ok(Json(elsewhere((&server, &served), count, work).await?))
}

fn written(token: &Token) -> Value {
    json!({
        "id": token.id,
        "text": token.text,
        "special": token.place.is_none(),
        "start": token.place.map(|(start, _)| start),
        "stop": token.place.map(|(_, stop)| stop),
    })
}

/// `POST /decode`.
pub(crate) async fn decode(State(server): App, request: Request) -> Result<Json<Value>, Failure> {
    let fields: DecodeFields = body::json(request, &server.settings.limits).await?;
    let rows = match fields.ids {
        Ids::One(ids) => vec![ids],
        Ids::Many(rows) => rows,
    };
    if rows.is_empty() || rows.iter().any(Vec::is_empty) {
        return Err(Refusal::Empty("ids").into());
    }
    check_count(&server, rows.len())?;
    let model = server.catalog.model(fields.model.as_deref())?;
    let special = if fields.skip_special_tokens {
        SpecialTokens::Skip
    } else {
        SpecialTokens::Keep
    };
    let (count, served) = (rows.len(), Arc::clone(&model));
    let work = move || {
        let text = |ids: &Vec<u32>| Ok(Value::from(model.tokenizer.decode(ids, special)?));
        rows.iter().map(text).collect::<Result<Value, Refusal>>()
    };
    Ok(Json(elsewhere((&server, &served), count, work).await?))
}

fn check_count(server: &Server, count: usize) -> Result<(), Refusal> {
    let count_max = server.settings.limits.client_batch_max;
    if count > count_max {
        return Err(Refusal::Validation(format!(
            "batch size {count} > maximum allowed batch size {count_max}"
        )));
    }
    Ok(())
}

/// Runs work of a tokeniser on its own threads, for so many texts of those that may be on their way.
async fn elsewhere(
    (server, model): (&Server, &Model),
    texts: usize,
    work: impl FnOnce() -> Result<Value, Refusal> + Send + 'static,
) -> Result<Value, Refusal> {
    let places = u32::try_from(texts).unwrap_or(u32::MAX);
    let Ok(room) = Arc::clone(&model.room).try_acquire_many_owned(places) else {
        model.station.metrics.shed(texts, Shed::Concurrency, false);
        let retry_after = model.time_to_clear();
        return Err(Refusal::Overloaded { retry_after });
    };
    let (reply, receiver) = tokio::sync::oneshot::channel();
    server.tokenization.spawn(move || {
        // A caller that has gone costs nothing.
        if !reply.is_closed() {
            let _ = reply.send(work());
        }
        drop(room);
    });
    let failed = |_| Err(Refusal::Backend("the tokeniser failed".to_owned()));
    receiver.await.unwrap_or_else(failed)
}
