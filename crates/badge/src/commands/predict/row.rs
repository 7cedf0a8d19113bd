//! One row's answer in the words of the task.

use badge_core::distribution::{BinaryDistribution, Prediction};
use badge_core::exit::Depth;
use badge_lab::inference::Answer;
use badge_tasks::LabelSpace;
use badge_tasks::task::Example;
use serde::{Serialize, Serializer};

/// A row as JSON holds it; the other forms are made from it.
#[derive(Debug, Serialize)]
pub(super) struct PredictionRow {
    pub(super) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text_pair: Option<String>,
    #[serde(flatten)]
    pub(super) answer: RowAnswer,
    /// The depth at which the row left, and the deepest it could have.
    pub(super) exit: usize,
    pub(super) exits: usize,
    pub(super) reason: String,
    /// The logits of every exit, in the order of the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_logits: Option<Vec<Vec<f32>>>,
}

/// What was answered.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum RowAnswer {
    /// One label and its probability.
    Label {
        label: String,
        score: f32,
        probabilities: Probabilities,
    },
    /// All labels that are more likely than not.
    Labels {
        label: Vec<String>,
        probabilities: Probabilities,
    },
    /// A number.
    Value { value: f32 },
}

/// Labels with their probabilities, in the order of the logits.
#[derive(Debug)]
pub(super) struct Probabilities(pub(super) Vec<(String, f32)>);

impl Serialize for Probabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(label, p)| (label, p)))
    }
}

impl PredictionRow {
    pub(super) fn new(
        example: &Example,
        answer: &Answer,
        deepest: Depth,
        labels: &LabelSpace,
    ) -> Self {
        Self {
            text: example.text.clone(),
            text_pair: example.pair.clone(),
            answer: RowAnswer::new(answer, labels),
            exit: answer.depth.0,
            exits: deepest.0,
            reason: answer.reason.to_string(),
            exit_logits: None,
        }
    }
}

impl RowAnswer {
    fn new(answer: &Answer, labels: &LabelSpace) -> Self {
        let named = |probabilities: Vec<f32>| {
            Probabilities(labels.labels().iter().cloned().zip(probabilities).collect())
        };
        match &answer.prediction {
            Prediction::SingleLabel(distribution) => Self::Label {
                label: labels.labels()[distribution.argmax()].clone(),
                score: distribution.max_probability(),
                probabilities: named(distribution.probabilities().to_vec()),
            },
            Prediction::MultiLabel(each) => {
                let probabilities = each.iter().map(BinaryDistribution::probability).collect();
                let all = labels.labels().iter().zip(each);
                Self::Labels {
                    label: all
                        .filter(|(_, answer)| answer.applies())
                        .map(|(label, _)| label.clone())
                        .collect(),
                    probabilities: named(probabilities),
                }
            }
            Prediction::Regression(value) => Self::Value { value: *value },
        }
    }

    /// The label, the labels joined by commas, or the value.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Label { label, .. } => label.clone(),
            Self::Labels { label, .. } => label.join(","),
            Self::Value { value } => value.to_string(),
        }
    }
}
