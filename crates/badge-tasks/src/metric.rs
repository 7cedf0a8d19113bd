//! The scores that tasks are judged by.
//!
//! Every metric follows scikit-learn (or SciPy for the correlations) where a value is defined, and
//! gives 0 where theirs is not: no samples, no positives, a constant vector.

mod accuracy;
mod correlation;
mod f1;
mod matthews;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use accuracy::accuracy;
pub use correlation::{pearson, spearman};
pub use f1::{binary_f1, macro_f1, multi_label_macro_f1, multi_label_micro_f1};
pub use matthews::matthews;

use crate::error::{Error, Result};
use crate::task::{LabelSpace, Target};

/// A metric by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum MetricKind {
    /// `acc`: share of right answers; for multi-label targets all labels must be right.
    Accuracy,
    /// `f1`: F1 of label 1 of two; for multi-label targets micro-averaged over all labels.
    F1,
    /// `macro-f1`: plain mean of every label's F1.
    MacroF1,
    /// `acc-f1`: mean of `acc` and `f1`, the GLUE score of MRPC and QQP.
    AccuracyF1,
    /// `mcc`: Matthews correlation coefficient, the GLUE score of CoLA.
    Matthews,
    /// `pearson`: linear correlation.
    Pearson,
    /// `spearman`: rank correlation.
    Spearman,
    /// `pearson-spearman`: mean of the two correlations, the GLUE score of STS-B.
    PearsonSpearman,
}

impl MetricKind {
    /// Every metric there is.
    pub const ALL: [Self; 8] = [
        Self::Accuracy,
        Self::F1,
        Self::MacroF1,
        Self::AccuracyF1,
        Self::Matthews,
        Self::Pearson,
        Self::Spearman,
        Self::PearsonSpearman,
    ];

    /// The name used on the command line, in task files and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "acc",
            Self::F1 => "f1",
            Self::MacroF1 => "macro-f1",
            Self::AccuracyF1 => "acc-f1",
            Self::Matthews => "mcc",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::PearsonSpearman => "pearson-spearman",
        }
    }

    /// Whether targets of this space can be scored by this metric.
    pub fn fits(self, space: &LabelSpace) -> bool {
        match space {
            LabelSpace::SingleLabel { labels } => match self {
                Self::Accuracy | Self::MacroF1 | Self::Matthews => true,
                Self::F1 | Self::AccuracyF1 => labels.len() == 2,
                Self::Pearson | Self::Spearman | Self::PearsonSpearman => false,
            },
            LabelSpace::MultiLabel { .. } => {
                matches!(
                    self,
                    Self::Accuracy | Self::F1 | Self::MacroF1 | Self::AccuracyF1
                )
            }
            LabelSpace::Regression => {
                matches!(self, Self::Pearson | Self::Spearman | Self::PearsonSpearman)
            }
        }
    }

    /// Refuses a metric that makes no sense for the targets.
    ///
    /// # Errors
    ///
    /// [`Error::MetricMismatch`], listing the metrics that fit.
    pub fn check(self, space: &LabelSpace) -> Result<()> {
        if self.fits(space) {
            return Ok(());
        }
        let fitting: Vec<_> = Self::ALL
            .into_iter()
            .filter(|kind| kind.fits(space))
            .collect();
        Err(Error::MetricMismatch {
            metric: self.name(),
            problem: space.to_string(),
            allowed: fitting
                .iter()
                .map(|kind| kind.name())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for MetricKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::UnknownName {
                what: "metric",
                found: name.to_owned(),
                allowed: Self::ALL.map(Self::name).join(", "),
            })
    }
}

impl From<MetricKind> for String {
    fn from(kind: MetricKind) -> Self {
        kind.name().to_owned()
    }
}

impl TryFrom<String> for MetricKind {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

/// The score of `predictions` against `targets`: 0 to 1, for the correlations and `mcc` -1 to 1.
///
/// # Panics
///
/// When the two differ in length or in kind, or `kind` does not fit the targets
/// ([`MetricKind::check`] tells beforehand).
///
/// # Example
///
/// ```
/// use badge_tasks::{MetricKind, Target, score};
///
/// let predictions = [Target::Class(1), Target::Class(0), Target::Class(1)];
/// let targets = [Target::Class(1), Target::Class(0), Target::Class(0)];
/// assert!((score(MetricKind::Accuracy, &predictions, &targets) - 2.0 / 3.0).abs() < 1e-12);
/// ```
pub fn score(kind: MetricKind, predictions: &[Target], targets: &[Target]) -> f64 {
    assert_eq!(
        predictions.len(),
        targets.len(),
        "as many predictions as targets"
    );
    match targets.first() {
        None => 0.0,
        Some(Target::Class(_)) => score_classes(kind, &classes(predictions), &classes(targets)),
        Some(Target::Classes(_)) => {
            score_label_sets(kind, &label_sets(predictions), &label_sets(targets))
        }
        Some(Target::Value(_)) => score_values(kind, &values(predictions), &values(targets)),
    }
}

fn score_classes(kind: MetricKind, predictions: &[usize], targets: &[usize]) -> f64 {
    match kind {
        MetricKind::Accuracy => accuracy(predictions, targets),
        MetricKind::F1 => binary_f1(predictions, targets),
        MetricKind::MacroF1 => macro_f1(predictions, targets),
        MetricKind::AccuracyF1 => mean([
            accuracy(predictions, targets),
            binary_f1(predictions, targets),
        ]),
        MetricKind::Matthews => matthews(predictions, targets),
        MetricKind::Pearson | MetricKind::Spearman | MetricKind::PearsonSpearman => {
            panic!("metric `{kind}` does not fit classes")
        }
    }
}

fn score_label_sets(kind: MetricKind, predictions: &[&[bool]], targets: &[&[bool]]) -> f64 {
    match kind {
        MetricKind::Accuracy => accuracy(predictions, targets),
        MetricKind::F1 => multi_label_micro_f1(predictions, targets),
        MetricKind::MacroF1 => multi_label_macro_f1(predictions, targets),
        MetricKind::AccuracyF1 => mean([
            accuracy(predictions, targets),
            multi_label_micro_f1(predictions, targets),
        ]),
        MetricKind::Matthews
        | MetricKind::Pearson
        | MetricKind::Spearman
        | MetricKind::PearsonSpearman => panic!("metric `{kind}` does not fit sets of labels"),
    }
}

fn score_values(kind: MetricKind, predictions: &[f32], targets: &[f32]) -> f64 {
    match kind {
        MetricKind::Pearson => pearson(predictions, targets),
        MetricKind::Spearman => spearman(predictions, targets),
        MetricKind::PearsonSpearman => mean([
            pearson(predictions, targets),
            spearman(predictions, targets),
        ]),
        MetricKind::Accuracy
        | MetricKind::F1
        | MetricKind::MacroF1
        | MetricKind::AccuracyF1
        | MetricKind::Matthews => panic!("metric `{kind}` does not fit values"),
    }
}

fn mean(scores: [f64; 2]) -> f64 {
    f64::midpoint(scores[0], scores[1])
}

/// A ratio that is 0 where it is not defined.
fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator == 0.0 {
        0.0
    } else {
        numerator / denominator
    }
}

fn classes(targets: &[Target]) -> Vec<usize> {
    targets
        .iter()
        .map(|target| match target {
            Target::Class(class) => *class,
            other => panic!("all targets must be classes, found {other:?}"),
        })
        .collect()
}

fn label_sets(targets: &[Target]) -> Vec<&[bool]> {
    targets
        .iter()
        .map(|target| match target {
            Target::Classes(set) => set.as_slice(),
            other => panic!("all targets must be sets of labels, found {other:?}"),
        })
        .collect()
}

fn values(targets: &[Target]) -> Vec<f32> {
    targets
        .iter()
        .map(|target| match target {
            Target::Value(value) => *value,
            other => panic!("all targets must be values, found {other:?}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(labels: &[&str]) -> LabelSpace {
        LabelSpace::SingleLabel {
            labels: labels.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn names_round_trip() {
        for kind in MetricKind::ALL {
            assert_eq!(kind.to_string().parse::<MetricKind>().unwrap(), kind);
        }
        let error = "accuracy".parse::<MetricKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "metric `accuracy` is unknown; use one of acc, f1, macro-f1, acc-f1, mcc, pearson, \
             spearman, pearson-spearman"
        );
    }

    #[test]
    fn metric_must_fit_the_targets() {
        let cases: [(&str, LabelSpace, bool); 8] = [
            ("acc", space(&["a", "b", "c"]), true),
            ("f1", space(&["a", "b"]), true),
            ("f1", space(&["a", "b", "c"]), false),
            ("acc-f1", space(&["a", "b", "c"]), false),
            (
                "mcc",
                LabelSpace::MultiLabel {
                    labels: vec!["a".into()],
                },
                false,
            ),
            (
                "f1",
                LabelSpace::MultiLabel {
                    labels: vec!["a".into()],
                },
                true,
            ),
            ("acc", LabelSpace::Regression, false),
            ("spearman", LabelSpace::Regression, true),
        ];
        for (name, space, fits) in cases {
            let kind: MetricKind = name.parse().unwrap();
            assert_eq!(kind.check(&space).is_ok(), fits, "{name} on {space}");
        }
        let error = MetricKind::Accuracy
            .check(&LabelSpace::Regression)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "metric `acc` does not fit regression; use one of pearson, spearman, pearson-spearman"
        );
    }

    #[test]
    fn scores_of_two_classes_match_scikit_learn() {
        // y_true = [1, 1, 1, 0, 0, 1, 0, 1], y_pred = [1, 0, 1, 0, 1, 1, 0, 1]: tp 4, fp 1, fn 1,
        // tn 2; accuracy 6/8, f1 8/10, matthews (4*2 - 1*1) / sqrt(5*5*3*3) = 7/15,
        // f1 of label 0 = 4/6.
        let targets = [1, 1, 1, 0, 0, 1, 0, 1].map(Target::Class);
        let predictions = [1, 0, 1, 0, 1, 1, 0, 1].map(Target::Class);
        let cases = [
            (MetricKind::Accuracy, 0.75),
            (MetricKind::F1, 0.8),
            (MetricKind::AccuracyF1, 0.775),
            (MetricKind::MacroF1, f64::midpoint(0.8, 2.0 / 3.0)),
            (MetricKind::Matthews, 7.0 / 15.0),
        ];
        for (kind, expected) in cases {
            let found = score(kind, &predictions, &targets);
            assert!(
                (found - expected).abs() < 1e-12,
                "{kind}: {found} is not {expected}"
            );
        }
    }

    #[test]
    fn scores_of_label_sets_match_scikit_learn() {
        let set = |bits: [u8; 3]| Target::Classes(bits.iter().map(|bit| *bit == 1).collect());
        let targets = [
            set([1, 0, 1]),
            set([0, 1, 0]),
            set([1, 1, 0]),
            set([0, 0, 0]),
        ];
        let predictions = [
            set([1, 0, 0]),
            set([0, 1, 0]),
            set([1, 0, 1]),
            set([0, 0, 0]),
        ];
        // Label 0: tp 2 -> 1; label 1: tp 1, fn 1 -> 2/3; label 2: fp 1, fn 1 -> 0.
        // Together tp 3, fp 1, fn 2 -> 6/9; two of four sets are exact.
        let cases = [
            (MetricKind::Accuracy, 0.5),
            (MetricKind::F1, 2.0 / 3.0),
            (MetricKind::MacroF1, (1.0 + 2.0 / 3.0) / 3.0),
            (MetricKind::AccuracyF1, f64::midpoint(0.5, 2.0 / 3.0)),
        ];
        for (kind, expected) in cases {
            let found = score(kind, &predictions, &targets);
            assert!(
                (found - expected).abs() < 1e-12,
                "{kind}: {found} is not {expected}"
            );
        }
    }

    #[test]
    fn no_samples_score_zero() {
        for kind in MetricKind::ALL {
            assert_eq!(score(kind, &[], &[]), 0.0, "{kind}");
        }
    }

    #[test]
    #[should_panic(expected = "as many predictions as targets")]
    fn lengths_must_agree() {
        score(MetricKind::Accuracy, &[Target::Class(0)], &[]);
    }
}
