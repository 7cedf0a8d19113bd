//! Outcomes as answers: scores with labels, details, and headers that say where time went.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use badge_core::exit::Depth;
use serde::Serialize;
use serde_json::{Value, json};

use super::observation::Arrival;
use crate::model::{Facts, Model};
use crate::queue::Outcome;
use crate::scoring::{Activation, descending};
use crate::steering::{Testimony, Witness};

/// One label's score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Score {
    pub(crate) score: f32,
    pub(crate) label: String,
}

/// Labels with the scores of logits, the greatest first.
pub(crate) fn scores(
    facts: &Facts,
    logits: &[f32],
    activation: Activation,
    top: Option<usize>,
) -> Vec<Score> {
    ranked(facts, &activation.scores(logits), top)
}

fn ranked(facts: &Facts, scores: &[f32], top: Option<usize>) -> Vec<Score> {
    let labels = &facts.config.head.labels;
    let order = descending(scores).into_iter();
    order
        .take(top.unwrap_or(scores.len()))
        .map(|index| Score {
            score: scores[index],
            label: labels[index].clone(),
        })
        .collect()
}

/// Everything that is known of one answer: `details` of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Details {
    predictions: Vec<Score>,
    exit: ExitDetails,
    usage: Value,
    timing_us: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    exits: Option<Vec<Said>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ExitDetails {
    layer: Depth,
    num_layers: usize,
    confidence: f32,
    policy: String,
    reason: String,
}

/// What one exit said on the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Said {
    layer: Depth,
    predictions: Vec<Score>,
    reason: String,
}

impl Details {
    pub(crate) fn new(
        model: &Model,
        outcome: &Outcome,
        predictions: Vec<Score>,
        witness: Option<&Witness>,
    ) -> Self {
        let facts = &model.facts;
        let answer = &outcome.answer;
        let confidence = facts.activation.scores(&answer.logits).into_iter();
        Self {
            predictions,
            exit: ExitDetails {
                layer: answer.depth,
                num_layers: facts.config.backbone.blocks,
                confidence: confidence.fold(f32::NEG_INFINITY, f32::max),
                policy: answer.policy().spec().to_string(),
                reason: answer.reason().to_string(),
            },
            usage: json!({"tokens": outcome.tokens}),
            timing_us: json!({
                "tokenize": outcome.tokenization.as_micros() as u64,
                "queue": outcome.queue.as_micros() as u64,
                "compute": outcome.compute.as_micros() as u64,
            }),
            exits: witness.map(|witness| {
                let said = |testimony| Said::new(facts, testimony);
                witness.take().into_iter().map(said).collect()
            }),
        }
    }
}

impl Said {
    fn new(facts: &Facts, testimony: Testimony) -> Self {
        let scores = facts.activation.scores_of(&testimony.prediction);
        Self {
            layer: testimony.depth,
            predictions: ranked(facts, &scores, None),
            reason: testimony.reason,
        }
    }
}

/// Headers about outcomes: text-embeddings-inference's, which count whole milliseconds, and finer
/// ones.
pub(crate) fn headers(
    model: &Model,
    outcomes: &[Outcome],
    characters: usize,
    arrival: &Arrival,
) -> HeaderMap {
    let count = outcomes.len().max(1) as u32;
    let mean = |of: fn(&Outcome) -> Duration| outcomes.iter().map(of).sum::<Duration>() / count;
    let tokenization = mean(|outcome| outcome.tokenization);
    let queue = mean(|outcome| outcome.queue);
    let compute = mean(|outcome| outcome.compute);
    let total = arrival.at.elapsed();
    let tokens: usize = outcomes.iter().map(|outcome| outcome.tokens).sum();
    let facts = &model.facts;
    let level = model.station.points.promise().level;
    let ms = |duration: Duration| duration.as_millis().to_string();
    let us = |duration: Duration| duration.as_micros().to_string();
    let exact = |duration: Duration| format!("{:.3}", duration.as_secs_f64() * 1e3);
    let depth = |outcome: &Outcome| outcome.answer.depth;
    let (exit_name, exit) = match outcomes {
        [one] => ("x-exit-layer", depth(one).to_string()),
        many => ("x-exit-layers-mean", mean_depth(many.iter().map(depth))),
    };
    let fields = [
        (
            "x-compute-type",
            format!("cpu-{}-{}", facts.precision, facts.instruction_set),
        ),
        ("x-compute-time", ms(compute)),
        ("x-compute-characters", characters.to_string()),
        ("x-compute-tokens", tokens.to_string()),
        ("x-total-time", ms(total)),
        ("x-tokenization-time", ms(tokenization)),
        ("x-queue-time", ms(queue)),
        ("x-inference-time", ms(compute)),
        ("x-tokenization-time-us", us(tokenization)),
        ("x-queue-time-us", us(queue)),
        ("x-inference-time-us", us(compute)),
        (exit_name, exit),
        ("x-policy-level", format!("{level:.3}")),
        (
            "server-timing",
            format!(
                "tok;dur={}, queue;dur={}, infer;dur={}",
                exact(tokenization),
                exact(queue),
                exact(compute)
            ),
        ),
    ];
    let header = |(name, value): (&'static str, String)| {
        let value = HeaderValue::from_str(&value).expect("numbers and names of our own");
        (HeaderName::from_static(name), value)
    };
    fields.map(header).into_iter().collect()
}

fn mean_depth(depths: impl ExactSizeIterator<Item = Depth>) -> String {
    let count = depths.len().max(1);
    let sum: usize = depths.map(|depth| depth.0).sum();
    format!("{:.3}", sum as f64 / count as f64)
}

/// What the answers have cost, as services count it.
pub(crate) fn usage(outcomes: &[Outcome]) -> Value {
    let tokens: usize = outcomes.iter().map(|outcome| outcome.tokens).sum();
    json!({"prompt_tokens": tokens, "total_tokens": tokens})
}

/// An id for an answer whose request brought none.
pub(crate) fn new_id() -> String {
    format!("{:016x}", super::observation::random())
}

/// The clock of the machine.
pub(crate) fn seconds_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
