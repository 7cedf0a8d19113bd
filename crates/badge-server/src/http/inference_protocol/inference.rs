//! What the protocol asks of a model and is answered, whichever way it comes: tensors and parameters
//! in, tensors out.

use std::sync::Arc;

use axum::http::HeaderMap;
use badge_core::controller::Class;
use badge_tasks::{Encoding, Example};
use serde::Deserialize;

use super::tensor::{Data, InputTensor, OutputTensor};
use crate::http::answers;
use crate::http::observation::Arrival;
use crate::http::terms::CommonFields;
use crate::model::Model;
use crate::operating_points::PolicyTerms;
use crate::queue::Outcome;
use crate::refusal::Refusal;
use crate::request::{self, Input};
use crate::server::Server;

/// The one version that a model has.
pub(in crate::http) const VERSION: &str = "1";

/// What the server can do beyond the protocol's core.
pub(in crate::http) const EXTENSIONS: [&str; 4] = [
    "schedule_policy",
    "model_repository",
    "binary_tensor_data",
    "early_exit",
];

/// The name of the form in which models lie on the disk.
pub(in crate::http) const PLATFORM: &str = "badge_safetensors";

/// A tensor that a model takes or gives: name, datatype and shape, -1 for what varies.
pub(in crate::http) type Described = (&'static str, &'static str, Vec<i64>);

/// The tensors that a model takes.
pub(in crate::http) fn takes() -> [Described; 2] {
    ["text", "text_pair"].map(|name| (name, "BYTES", vec![-1]))
}

/// The tensors that a model gives.
pub(in crate::http) fn gives(model: &Model) -> [Described; 6] {
    let classes = model.facts.config.head.outputs() as i64;
    [
        ("label", "BYTES", vec![-1]),
        ("label_id", "INT64", vec![-1]),
        ("probabilities", "FP32", vec![-1, classes]),
        ("logits", "FP32", vec![-1, classes]),
        ("exit_layer", "INT32", vec![-1]),
        ("confidence", "FP32", vec![-1]),
    ]
}

/// The model of this name, which has one version.
///
/// # Errors
/// When there is no such model or version.
pub(in crate::http) fn find(
    server: &Server,
    name: &str,
    version: Option<&str>,
) -> Result<Arc<Model>, Refusal> {
    let model = server.catalog.model(Some(name))?;
    match version {
        None | Some(VERSION) => Ok(model),
        Some(version) => Err(Refusal::UnknownModel {
            model: format!("{name} version {version}"),
            known: format!("{name} version {VERSION}"),
        }),
    }
}

/// Whether requests of a model are welcome.
pub(in crate::http) fn is_ready(server: &Server, model: &Model) -> bool {
    model.station.is_alive() && !server.is_draining()
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub(in crate::http) struct Inference {
    pub(in crate::http) parameters: Parameters,
    pub(in crate::http) inputs: Vec<InputTensor>,
    /// The outputs, or nothing for all but the logits.
    pub(in crate::http) outputs: Vec<WantedOutput>,
}

/// What it is answered.
#[derive(Debug)]
pub(in crate::http) struct Inferred {
    /// The policy that was run.
    pub(in crate::http) policy: String,
    /// The outputs, each with whether it is to go out as bytes.
    pub(in crate::http) outputs: Vec<(OutputTensor, bool)>,
    /// Where the time went.
    pub(in crate::http) headers: HeaderMap,
}

impl Inference {
    /// Has a model answer; `headers` and `arrival` are the request's.
    ///
    /// # Errors
    /// Names the tensor or parameter that is wrong, or says why there is no answer.
    pub(in crate::http) async fn answer(
        &self,
        server: &Server,
        model: &Arc<Model>,
        headers: &HeaderMap,
        arrival: &Arrival,
    ) -> Result<Inferred, Refusal> {
        let inputs = inputs(&self.inputs, model)?;
        let count_max = server.settings.limits.client_batch_max;
        if inputs.len() > count_max {
            return Err(Refusal::Validation(format!(
                "batch size {} > maximum allowed batch size {count_max}",
                inputs.len()
            )));
        }
        let policy = self.parameters.policy();
        let terms = CommonFields::of_policy(policy.clone());
        let terms = terms.terms(headers, &server.settings.limits, arrival)?;
        let choice = model.station.points.choose(&policy, None)?;
        let inputs = inputs.into_iter();
        let inputs = inputs.map(|input| (input, choice.clone())).collect();
        let outcomes = request::answer(model, &server.tokenization, inputs, &terms).await?;
        Ok(Inferred {
            outputs: wanted(self, model, &outcomes)?,
            headers: answers::headers(model, &outcomes, 0, arrival),
            policy: outcomes[0].answer.policy().spec().to_string(),
        })
    }
}

/// What a request says about how it is to be treated: Triton's names, and ours.
#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::http) struct Parameters {
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
pub(in crate::http) struct WantedOutput {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
}

impl WantedOutput {
    /// An output in the form in which the request came.
    pub(in crate::http) fn of(name: String) -> Self {
        Self {
            name,
            parameters: OutputParameters::default(),
        }
    }
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
    asked: &Inference,
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
    let all = asked.parameters.binary_data_output;
    if asked.outputs.is_empty() {
        let tensors = ALL
            .into_iter()
            .map(|name| Ok((output(name, model, outcomes)?, all)));
        return tensors.collect();
    }
    let one = |wanted: &WantedOutput| {
        let as_bytes = wanted.parameters.binary_data.unwrap_or(all);
        Ok((output(&wanted.name, model, outcomes)?, as_bytes))
    };
    asked.outputs.iter().map(one).collect()
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
