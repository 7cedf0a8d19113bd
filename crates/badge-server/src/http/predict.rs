//! `/predict` as text-embeddings-inference has it, and `/classify` as infinity does.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use badge_tasks::Example;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::{Details, Score};
use super::observation::Arrival;
use super::terms::CommonFields;
use super::{App, Failure, answers, body};
use crate::queue::Outcome;
use crate::refusal::Refusal;
use crate::request;
use crate::scoring::Activation;
use crate::server::Server;
use crate::settings::PairForm;
use crate::steering::Witness;

/// The body of `/predict`.
#[derive(Debug, Deserialize)]
pub(crate) struct PredictFields {
    inputs: Written,
    #[serde(default)]
    raw_scores: bool,
    function_to_apply: Option<Activation>,
    top_k: Option<usize>,
    /// The same two as huggingface_hub writes them.
    parameters: Option<Parameters>,
    /// Everything that is known of each answer.
    #[serde(default)]
    details: bool,
    /// What every exit said, among the details.
    #[serde(default)]
    trace: bool,
    #[serde(flatten)]
    common: CommonFields,
}

/// What huggingface_hub's client says beside `inputs`, always, if only with an empty object: by this
/// it is known, for it reads the answer to one text as the only one of a batch.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Parameters {
    function_to_apply: Option<Activation>,
    top_k: Option<usize>,
}

/// `inputs` as they are written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "`inputs` is a string, a pair of strings [string, string], a batch of mixed \
                 strings and pairs [[string], [string, string], ...], or an object with `text` \
                 and `text_pair`, or a list of these"
)]
enum Written {
    One(Text),
    List(Vec<WrittenItem>),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Named {
        text: String,
        text_pair: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum WrittenItem {
    Text(Text),
    Strings(Vec<String>),
}

/// `inputs` as they are meant.
#[derive(Debug, Clone, PartialEq)]
struct Inputs {
    texts: Vec<Example>,
    /// Whether the answer is a list of answers.
    is_batch: bool,
    /// Whether two strings were taken for a pair, which clients may not have meant.
    is_flat_pair: bool,
}

impl Written {
    fn read(self, form: PairForm) -> Result<Inputs, Refusal> {
        let one = |text| Inputs {
            texts: vec![text],
            is_batch: false,
            is_flat_pair: false,
        };
        let items = match self {
            Self::One(text) => return Ok(one(text.into())),
            Self::List(items) => items,
        };
        if items.is_empty() {
            return Err(Refusal::Empty("inputs"));
        }
        if form == PairForm::Tei {
            // As there: one string in a list is that string, two are a pair.
            match items.as_slice() {
                [WrittenItem::Text(Text::Plain(text))] => return Ok(one(Example::of_text(text))),
                [
                    WrittenItem::Text(Text::Plain(text)),
                    WrittenItem::Text(Text::Plain(pair)),
                ] => {
                    return Ok(Inputs {
                        is_flat_pair: true,
                        ..one(Example::of_pair(text, pair))
                    });
                }
                _ => {}
            }
        }
        let texts = items.into_iter().map(WrittenItem::read);
        Ok(Inputs {
            texts: texts.collect::<Result<_, _>>()?,
            is_batch: true,
            is_flat_pair: false,
        })
    }
}

impl WrittenItem {
    fn read(self) -> Result<Example, Refusal> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Strings(mut strings) => match (strings.pop(), strings.pop(), strings.pop()) {
                (Some(text), None, None) => Ok(Example::of_text(text)),
                (Some(pair), Some(text), None) => Ok(Example::of_pair(text, pair)),
                (None, ..) => Err(Refusal::Empty("inputs")),
                _ => Err(Refusal::Validation(format!(
                    "`inputs`: an item has {} strings; it is a text or a pair",
                    strings.len() + 3
                ))),
            },
        }
    }
}

impl From<Text> for Example {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(text) => Self::of_text(text),
            Text::Named { text, text_pair } => match text_pair {
                None => Self::of_text(text),
                Some(pair) => Self::of_pair(text, pair),
            },
        }
    }
}

/// The answer of `/predict`. Scores are written as the f32 that they are, so no detour by a tree
/// of values, which knows f64 alone.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Predictions {
    One(Item),
    Batch(Vec<Item>),
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Item {
    Scores(Vec<Score>),
    Details(Box<Details>),
}

/// `POST /predict`.
pub(crate) async fn predict(State(server): App, request: Request) -> Result<Response, Failure> {
    let arrival = Arrival::of(&request);
    let headers = request.headers().clone();
    let fields: PredictFields = body::json(request, &server.settings.limits).await?;
    let inputs = fields.inputs.read(server.settings.limits.pair_form)?;
    check_texts(&server, &inputs.texts)?;
    let characters = characters(&inputs.texts);
    let model = server.catalog.model(fields.common.model.as_deref())?;
    let terms = fields
        .common
        .terms(&headers, &server.settings.limits, &arrival)?;
    let policy = fields.common.policy();
    let mut witnesses = Vec::new();
    let mut texts = Vec::with_capacity(inputs.texts.len());
    for text in inputs.texts {
        let witness = fields.trace.then(Witness::default);
        witnesses.extend(witness.clone());
        texts.push((text.into(), model.station.points.choose(&policy, witness)?));
    }
    let outcomes = request::answer(&model, &server.tokenization, texts, &terms).await?;
    let (has_parameters, parameters) = (fields.parameters.is_some(), fields.parameters);
    let parameters = parameters.unwrap_or_default();
    let top = fields.top_k.or(parameters.top_k);
    let activation = match fields.function_to_apply.or(parameters.function_to_apply) {
        Some(activation) => activation,
        None if fields.raw_scores => Activation::None,
        None => model.facts.activation,
    };
    let item = |(index, outcome): (usize, &Outcome)| {
        let logits = &outcome.answer.logits;
        let scores = answers::scores(&model.facts, logits, activation, top);
        if fields.details || fields.trace {
            let witness = witnesses.get(index);
            Item::Details(Box::new(Details::new(&model, outcome, scores, witness)))
        } else {
            Item::Scores(scores)
        }
    };
    let mut items: Vec<_> = outcomes.iter().enumerate().map(item).collect();
    let answer = if inputs.is_batch || has_parameters {
        Predictions::Batch(items)
    } else {
        Predictions::One(items.swap_remove(0))
    };
    let mut headers = answers::headers(&model, &outcomes, characters, &arrival);
    if inputs.is_flat_pair {
        headers.insert(
            HeaderName::from_static("x-deprecation"),
            HeaderValue::from_static("pair-as-flat-list"),
        );
    }
    Ok((headers, Json(answer)).into_response())
}

/// The body of `/classify`.
#[derive(Debug, Deserialize)]
pub(crate) struct ClassifyFields {
    input: Vec<String>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(flatten)]
    common: CommonFields,
}

/// The answer of `/classify`.
#[derive(Debug, Serialize)]
struct Classified<'a> {
    object: &'static str,
    data: Vec<Vec<Score>>,
    model: &'a str,
    usage: Value,
    created: u64,
}

/// `POST /classify`.
pub(crate) async fn classify(State(server): App, request: Request) -> Result<Response, Failure> {
    let arrival = Arrival::of(&request);
    let headers = request.headers().clone();
    let fields: ClassifyFields = body::json(request, &server.settings.limits).await?;
    let texts: Vec<_> = fields.input.into_iter().map(Example::of_text).collect();
    if texts.is_empty() {
        return Err(Refusal::Empty("input").into());
    }
    check_texts(&server, &texts)?;
    let characters = characters(&texts);
    let model = server
        .catalog
        .model_or_first(fields.common.model.as_deref())?;
    let terms = fields
        .common
        .terms(&headers, &server.settings.limits, &arrival)?;
    let choice = model.station.points.choose(&fields.common.policy(), None)?;
    let texts = texts.into_iter();
    let texts = texts.map(|text| (text.into(), choice.clone())).collect();
    let outcomes = request::answer(&model, &server.tokenization, texts, &terms).await?;
    let activation = if fields.raw_scores {
        Activation::None
    } else {
        model.facts.activation
    };
    let data = outcomes
        .iter()
        .map(|outcome| answers::scores(&model.facts, &outcome.answer.logits, activation, None))
        .collect();
    let headers = answers::headers(&model, &outcomes, characters, &arrival);
    let body = Classified {
        object: "classify",
        data,
        model: &model.source.name,
        usage: answers::usage(&outcomes),
        created: answers::seconds_since_1970(),
    };
    Ok((headers, Json(body)).into_response())
}

/// Refuses a request of too many texts, or of an empty one.
pub(crate) fn check_texts(server: &Server, texts: &[Example]) -> Result<(), Refusal> {
    let (count, count_max) = (texts.len(), server.settings.limits.client_batch_max);
    if count > count_max {
        return Err(Refusal::Validation(format!(
            "batch size {count} > maximum allowed batch size {count_max}"
        )));
    }
    let empty = |text: &Example| text.text.is_empty() && text.pair.is_none();
    if texts.iter().any(empty) {
        return Err(Refusal::Empty("inputs"));
    }
    Ok(())
}

/// Unicode scalar values of all texts.
pub(crate) fn characters(texts: &[Example]) -> usize {
    let of = |text: &str| text.chars().count();
    let both = |text: &Example| of(&text.text) + text.pair.as_deref().map_or(0, of);
    texts.iter().map(both).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, form: PairForm) -> Result<Inputs, Refusal> {
        let written: Written = serde_json::from_str(json).unwrap();
        written.read(form)
    }

    fn single(text: &str) -> Example {
        Example::of_text(text)
    }

    #[test]
    fn inputs_mean_what_they_mean_to_the_peer() {
        let pair = Example::of_pair("a", "b");
        for (json, texts, is_batch, is_flat_pair) in [
            (r#""a""#, vec![single("a")], false, false),
            (r#"["a"]"#, vec![single("a")], false, false),
            (r#"["a", "b"]"#, vec![pair.clone()], false, true),
            (
                r#"["a", "b", "c"]"#,
                ["a", "b", "c"].map(single).to_vec(),
                true,
                false,
            ),
            (r#"[["a"]]"#, vec![single("a")], true, false),
            (
                r#"[["a"], ["a", "b"]]"#,
                vec![single("a"), pair.clone()],
                true,
                false,
            ),
            (
                r#"{"text": "a", "text_pair": "b"}"#,
                vec![pair.clone()],
                false,
                false,
            ),
            (
                r#"[{"text": "a"}, {"text": "a", "text_pair": "b"}]"#,
                vec![single("a"), pair],
                true,
                false,
            ),
        ] {
            let expected = Inputs {
                texts,
                is_batch,
                is_flat_pair,
            };
            assert_eq!(read(json, PairForm::Tei).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn lists_of_strings_are_batches_where_the_server_says_so() {
        for (json, count) in [
            (r#"["a"]"#, 1),
            (r#"["a", "b"]"#, 2),
            (r#"["a", "b", "c"]"#, 3),
        ] {
            let inputs = read(json, PairForm::Batch).unwrap();
            assert_eq!(
                (inputs.texts.len(), inputs.is_batch),
                (count, true),
                "{json}"
            );
        }
    }

    #[test]
    fn other_inputs_are_refused() {
        assert_eq!(read("[]", PairForm::Tei), Err(Refusal::Empty("inputs")));
        assert_eq!(read("[[]]", PairForm::Tei), Err(Refusal::Empty("inputs")));
        let three = read(r#"[["a", "b", "c"]]"#, PairForm::Tei).unwrap_err();
        assert!(three.to_string().contains("3 strings"), "{three}");
        for json in ["1", "[1]", "[[1]]", "null", r#"{"txt": "a"}"#] {
            let error = serde_json::from_str::<Written>(json).unwrap_err();
            assert!(error.to_string().contains("a pair of strings"), "{error}");
        }
    }
}
