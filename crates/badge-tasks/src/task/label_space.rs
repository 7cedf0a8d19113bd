//! The answers a task allows, and their form in a Hugging Face `config.json`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Target;
use crate::error::{Error, Result};

/// The answers a task allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSpace {
    /// Exactly one of several labels.
    SingleLabel {
        /// The labels in the order of the logits.
        labels: Vec<String>,
    },
    /// Any number of several labels.
    MultiLabel {
        /// The labels in the order of the logits.
        labels: Vec<String>,
    },
    /// A number.
    Regression,
}

/// The kind of a label space, as `problem_type` of `config.json` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// `single_label_classification`
    SingleLabelClassification,
    /// `multi_label_classification`
    MultiLabelClassification,
    /// `regression`
    Regression,
}

impl ProblemType {
    /// Every kind there is.
    pub const ALL: [Self; 3] = [
        Self::SingleLabelClassification,
        Self::MultiLabelClassification,
        Self::Regression,
    ];

    /// The word in `config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SingleLabelClassification => "single_label_classification",
            Self::MultiLabelClassification => "multi_label_classification",
            Self::Regression => "regression",
        }
    }
}

impl fmt::Display for ProblemType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for ProblemType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::UnknownName {
                what: "problem type",
                found: name.to_owned(),
                allowed: Self::ALL.map(Self::name).join(", "),
            })
    }
}

impl LabelSpace {
    /// A label space of a kind; `labels` is ignored for regression.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidLabels`] for fewer than two labels (one for multi-label), a label twice, or
    /// an empty one.
    pub fn new(kind: ProblemType, labels: Vec<String>) -> Result<Self> {
        let (space, least) = match kind {
            ProblemType::Regression => return Ok(Self::Regression),
            ProblemType::SingleLabelClassification => (Self::SingleLabel { labels }, 2),
            ProblemType::MultiLabelClassification => (Self::MultiLabel { labels }, 1),
        };
        check_labels(space.labels(), least)?;
        Ok(space)
    }

    /// The label space that a model's `config.json` describes.
    ///
    /// Without a `problem_type` one output means regression and several a single label, as in
    /// transformers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidLabels`] when the numbers are not 0, 1, 2, ... or the labels are unusable.
    pub fn from_id2label(
        kind: Option<ProblemType>,
        id2label: impl IntoIterator<Item = (usize, String)>,
    ) -> Result<Self> {
        let id2label: BTreeMap<usize, String> = id2label.into_iter().collect();
        if let Some((expected, found)) = (0..).zip(id2label.keys()).find(|(e, f)| e != *f) {
            return Err(Error::InvalidLabels {
                problem: format!("`id2label` has number {found} where {expected} should be"),
            });
        }
        let kind = kind.unwrap_or(if id2label.len() == 1 {
            ProblemType::Regression
        } else {
            ProblemType::SingleLabelClassification
        });
        Self::new(kind, id2label.into_values().collect())
    }

    /// The labels by number, as `id2label` of `config.json` holds them.
    pub fn id2label(&self) -> BTreeMap<usize, String> {
        match self {
            Self::Regression => BTreeMap::from([(0, "LABEL_0".to_owned())]),
            _ => self.labels().iter().cloned().enumerate().collect(),
        }
    }

    /// Its kind.
    pub const fn problem_type(&self) -> ProblemType {
        match self {
            Self::SingleLabel { .. } => ProblemType::SingleLabelClassification,
            Self::MultiLabel { .. } => ProblemType::MultiLabelClassification,
            Self::Regression => ProblemType::Regression,
        }
    }

    /// The number of logits of a model for it.
    pub fn outputs(&self) -> usize {
        match self {
            Self::SingleLabel { labels } | Self::MultiLabel { labels } => labels.len(),
            Self::Regression => 1,
        }
    }

    /// The labels in the order of the logits; none for regression.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::SingleLabel { labels } | Self::MultiLabel { labels } => labels,
            Self::Regression => &[],
        }
    }

    /// The answer that logits give: the largest (the first of equals), all above zero (more
    /// likely than not), or the value itself.
    ///
    /// # Panics
    ///
    /// When there are not [`Self::outputs`] logits.
    ///
    /// # Example
    ///
    /// ```
    /// use badge_tasks::{LabelSpace, Target};
    ///
    /// let labels = vec!["no".to_owned(), "yes".to_owned()];
    /// let space = LabelSpace::SingleLabel { labels };
    /// assert_eq!(space.decide(&[-0.3, 1.2]), Target::Class(1));
    /// ```
    pub fn decide(&self, logits: &[f32]) -> Target {
        assert_eq!(logits.len(), self.outputs(), "one logit per output");
        match self {
            Self::SingleLabel { .. } => {
                let mut best = 0;
                for (class, logit) in logits.iter().enumerate() {
                    if *logit > logits[best] {
                        best = class;
                    }
                }
                Target::Class(best)
            }
            Self::MultiLabel { .. } => {
                Target::Classes(logits.iter().map(|logit| *logit > 0.0).collect())
            }
            Self::Regression => Target::Value(logits[0]),
        }
    }

    /// An answer in words: the label, the labels joined by commas, or the value.
    ///
    /// # Panics
    ///
    /// When the answer is not one of this space.
    pub fn describe(&self, target: &Target) -> String {
        match target {
            Target::Class(class) => self.labels()[*class].clone(),
            Target::Classes(set) => {
                let chosen = self.labels().iter().zip(set).filter(|(_, holds)| **holds);
                chosen
                    .map(|(label, _)| label.as_str())
                    .collect::<Vec<_>>()
                    .join(",")
            }
            Target::Value(value) => value.to_string(),
        }
    }
}

impl fmt::Display for LabelSpace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SingleLabel { labels } => write!(formatter, "one of {} labels", labels.len()),
            Self::MultiLabel { labels } => write!(formatter, "any of {} labels", labels.len()),
            Self::Regression => formatter.write_str("regression"),
        }
    }
}

fn check_labels(labels: &[String], least: usize) -> Result<()> {
    let problem = |problem: String| Err(Error::InvalidLabels { problem });
    if labels.len() < least {
        return problem(format!(
            "at least {least} are needed, found {}",
            labels.len()
        ));
    }
    let mut seen = HashSet::new();
    for label in labels {
        if label.trim().is_empty() {
            return problem("a label is empty".to_owned());
        }
        if !seen.insert(label) {
            return problem(format!("`{label}` stands there twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(labels: &[&str]) -> Vec<String> {
        labels.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn id2label_round_trips() {
        let spaces = [
            LabelSpace::SingleLabel {
                labels: strings(&["a", "b", "c"]),
            },
            LabelSpace::MultiLabel {
                labels: strings(&["a"]),
            },
            LabelSpace::Regression,
        ];
        for space in spaces {
            let kind = Some(space.problem_type());
            assert_eq!(
                LabelSpace::from_id2label(kind, space.id2label()).unwrap(),
                space
            );
            assert_eq!(space.id2label().len(), space.outputs());
        }
    }

    #[test]
    fn kind_follows_the_number_of_outputs_when_not_given() {
        let one = LabelSpace::from_id2label(None, [(0, "LABEL_0".to_owned())]).unwrap();
        assert_eq!(one, LabelSpace::Regression);
        let two = [(1, "b".to_owned()), (0, "a".to_owned())];
        let two = LabelSpace::from_id2label(None, two).unwrap();
        assert_eq!(
            two,
            LabelSpace::SingleLabel {
                labels: strings(&["a", "b"])
            }
        );
    }

    #[test]
    fn unusable_labels_are_refused() {
        let single = Some(ProblemType::SingleLabelClassification);
        let cases: [(&[(usize, &str)], &str); 4] = [
            (
                &[(0, "a"), (2, "b")],
                "the labels are invalid: `id2label` has number 2 where 1 should be",
            ),
            (
                &[(0, "a")],
                "the labels are invalid: at least 2 are needed, found 1",
            ),
            (
                &[(0, "a"), (1, "a")],
                "the labels are invalid: `a` stands there twice",
            ),
            (
                &[(0, "a"), (1, " ")],
                "the labels are invalid: a label is empty",
            ),
        ];
        for (labels, message) in cases {
            let labels = labels.iter().map(|(id, label)| (*id, (*label).to_owned()));
            let error = LabelSpace::from_id2label(single, labels).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn logits_become_answers() {
        let labels = strings(&["a", "b", "c"]);
        let single = LabelSpace::SingleLabel {
            labels: labels.clone(),
        };
        let multi = LabelSpace::MultiLabel { labels };
        let cases = [
            (&single, vec![0.5, 2.0, 1.0], "b"),
            (&single, vec![1.0, 1.0, 1.0], "a"),
            (&multi, vec![0.5, -2.0, 1.0], "a,c"),
            (&multi, vec![0.0, -2.0, -1.0], ""),
            (&LabelSpace::Regression, vec![2.5], "2.5"),
        ];
        for (space, logits, answer) in cases {
            assert_eq!(space.describe(&space.decide(&logits)), answer, "{logits:?}");
        }
    }

    #[test]
    fn problem_type_is_spelled_as_in_a_config() {
        for kind in ProblemType::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(kind.name().parse::<ProblemType>().unwrap(), kind);
        }
    }
}
