//! The answers a task allows, and their form in a Hugging Face `config.json`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use badge_core::config::ProblemType;

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
            ProblemType::SingleLabel => (Self::SingleLabel { labels }, 2),
            ProblemType::MultiLabel => (Self::MultiLabel { labels }, 1),
        };
        check_labels(space.labels(), least)?;
        Ok(space)
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
            Self::SingleLabel { .. } => ProblemType::SingleLabel,
            Self::MultiLabel { .. } => ProblemType::MultiLabel,
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
    fn every_output_has_a_label() {
        let spaces = [
            LabelSpace::new(ProblemType::SingleLabel, strings(&["a", "b", "c"])).unwrap(),
            LabelSpace::new(ProblemType::MultiLabel, strings(&["a"])).unwrap(),
            LabelSpace::new(ProblemType::Regression, Vec::new()).unwrap(),
        ];
        for space in spaces {
            assert_eq!(space.id2label().len(), space.outputs(), "{space}");
        }
    }

    #[test]
    fn unusable_labels_are_refused() {
        let cases = [
            (
                vec!["a"],
                "the labels are invalid: at least 2 are needed, found 1",
            ),
            (
                vec!["a", "a"],
                "the labels are invalid: `a` stands there twice",
            ),
            (vec!["a", " "], "the labels are invalid: a label is empty"),
        ];
        for (labels, message) in cases {
            let error = LabelSpace::new(ProblemType::SingleLabel, strings(&labels)).unwrap_err();
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
}
