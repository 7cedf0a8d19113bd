//! From logits to scores.

use badge_core::config::ProblemType;
use badge_core::distribution::{BinaryDistribution, Distribution, Prediction};
use serde::Deserialize;

/// What becomes of logits before a caller sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Activation {
    /// Probabilities of classes that exclude each other.
    Softmax,
    /// A probability for each label.
    Sigmoid,
    /// The logits themselves.
    #[serde(alias = "identity")]
    None,
}

impl Activation {
    /// The one that belongs to a model, by its `problem_type` if it names one.
    pub(crate) fn of(problem: ProblemType, is_named: bool) -> Self {
        match problem {
            ProblemType::SingleLabel => Self::Softmax,
            ProblemType::Regression if is_named => Self::None,
            // One output of which nothing is said is a ranker's, whose probability is wanted.
            ProblemType::MultiLabel | ProblemType::Regression => Self::Sigmoid,
        }
    }

    /// The scores of finite logits.
    pub(crate) fn scores(self, logits: &[f32]) -> Vec<f32> {
        const FINITE: &str = "the engine answers with finite logits";
        match self {
            Self::Softmax => {
                let distribution = Distribution::from_logits(logits).expect(FINITE);
                distribution.probabilities().to_vec()
            }
            Self::Sigmoid => {
                let of = |z: &f32| BinaryDistribution::from_logit(*z).expect(FINITE);
                logits.iter().map(|z| of(z).probability()).collect()
            }
            Self::None => logits.to_vec(),
        }
    }

    /// The scores of an exit's answer, whose kind says what became of its logits.
    pub(crate) fn scores_of(self, prediction: &Prediction) -> Vec<f32> {
        match prediction {
            Prediction::SingleLabel(distribution) => distribution.probabilities().to_vec(),
            Prediction::MultiLabel(labels) => {
                labels.iter().map(BinaryDistribution::probability).collect()
            }
            Prediction::Regression(value) => self.scores(&[*value]),
        }
    }
}

/// Indices of the greatest scores, in descending order; of equal ones the lower index first.
pub(crate) fn descending(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<_> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_far_apart_do_not_overflow() {
        assert_eq!(Activation::Softmax.scores(&[-300.0, 0.0]), [0.0, 1.0]);
        assert_eq!(Activation::Sigmoid.scores(&[-300.0, 300.0]), [0.0, 1.0]);
        assert_eq!(Activation::None.scores(&[-300.0, 2.5]), [-300.0, 2.5]);
    }

    #[test]
    fn the_activation_follows_from_the_problem() {
        for (problem, is_named, activation) in [
            (ProblemType::SingleLabel, true, Activation::Softmax),
            (ProblemType::SingleLabel, false, Activation::Softmax),
            (ProblemType::MultiLabel, true, Activation::Sigmoid),
            (ProblemType::Regression, true, Activation::None),
            (ProblemType::Regression, false, Activation::Sigmoid),
        ] {
            assert_eq!(Activation::of(problem, is_named), activation);
        }
    }

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(descending(&[0.1, 0.7, 0.1, 0.7]), [1, 3, 0, 2]);
    }
}
