//! What an exit says: a distribution over classes, one yes-or-no per label, or a number.
//!
//! Every type here can be overwritten in place from fresh logits, so that a loop over blocks keeps
//! one [`Prediction`] and allocates nothing.

mod confidence;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use confidence::ContinueProbability;

use crate::error::{Error, Result};

/// Normalised class probabilities together with their natural logarithms.
///
/// The logarithms come from the logits (`log p_k = z_k - ln Σ_j exp z_j`), not from the
/// probabilities: they stay finite where a probability is too small for `f32`, and no divergence
/// ever takes the logarithm of 0. The class that the logits put first is kept as well, since
/// rounding can make the two best probabilities equal.
#[derive(Debug, PartialEq)]
pub struct Distribution {
    probabilities: Vec<f32>,
    log_probabilities: Vec<f32>,
    argmax: usize,
}

impl Distribution {
    /// The softmax of `logits`, stable for logits of any size.
    ///
    /// # Errors
    /// [`Error::NoLogits`] when there are none, [`Error::LogitNotFinite`] when one is NaN or
    /// infinite.
    ///
    /// # Example
    /// ```
    /// use badge_core::distribution::Distribution;
    ///
    /// let p = Distribution::from_logits(&[1000.0, 1000.0, -1000.0])?;
    /// assert_eq!(p.probabilities(), [0.5, 0.5, 0.0]);
    /// assert_eq!(p.argmax(), 0);
    /// # Ok::<(), badge_core::Error>(())
    /// ```
    pub fn from_logits(logits: &[f32]) -> Result<Self> {
        let mut distribution = Self {
            probabilities: Vec::new(),
            log_probabilities: Vec::new(),
            argmax: 0,
        };
        distribution.set_from_logits(logits)?;
        Ok(distribution)
    }

    /// Probabilities as another program wrote them; they are normalised once more.
    ///
    /// A class of probability 0 has the logarithm `-∞`; divergences count its terms as
    /// `0 ln 0 = 0`.
    ///
    /// # Errors
    /// [`Error::NoLogits`] when there are none, [`Error::NotADistribution`] when one is NaN,
    /// infinite or negative or when their sum is further than 0.001 from 1.
    pub fn from_probabilities(probabilities: &[f32]) -> Result<Self> {
        if probabilities.is_empty() {
            return Err(Error::NoLogits);
        }
        for (class, p) in probabilities.iter().enumerate() {
            if !p.is_finite() || *p < 0.0 {
                let problem = format!("class {class} has probability {p}");
                return Err(Error::NotADistribution { problem });
            }
        }
        let sum: f64 = probabilities.iter().map(|p| f64::from(*p)).sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            let problem = format!("the probabilities sum to {sum}, not to 1");
            return Err(Error::NotADistribution { problem });
        }
        let normalised = || probabilities.iter().map(|p| f64::from(*p) / sum);
        Ok(Self {
            probabilities: normalised().map(|p| p as f32).collect(),
            log_probabilities: normalised().map(|p| p.ln() as f32).collect(),
            argmax: first_maximum(probabilities),
        })
    }

    /// The distribution that knows nothing, `1/K` for each of `classes` classes.
    ///
    /// # Errors
    /// [`Error::NoLogits`] when there are no classes.
    pub fn uniform(classes: usize) -> Result<Self> {
        Self::from_logits(&vec![0.0; classes])
    }

    /// Overwrites this distribution with the softmax of `logits`, in place when the number of
    /// classes stays the same.
    ///
    /// # Errors
    /// As [`Self::from_logits`]; the distribution is then what it was before.
    pub fn set_from_logits(&mut self, logits: &[f32]) -> Result<()> {
        check_finite(logits)?;
        self.argmax = first_maximum(logits);
        let maximum = f64::from(logits[self.argmax]);
        let partition: f64 = logits.iter().map(|z| (f64::from(*z) - maximum).exp()).sum();
        let shift = maximum + partition.ln();
        self.log_probabilities.clear();
        self.log_probabilities
            .extend(logits.iter().map(|z| (f64::from(*z) - shift) as f32));
        self.probabilities.clear();
        self.probabilities.extend(
            logits
                .iter()
                .map(|z| ((f64::from(*z) - maximum).exp() / partition) as f32),
        );
        Ok(())
    }

    /// Number of classes `K`.
    pub fn classes(&self) -> usize {
        self.probabilities.len()
    }

    /// The probability of each class; they sum to 1 within rounding.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// The natural logarithm of each probability.
    pub fn log_probabilities(&self) -> &[f32] {
        &self.log_probabilities
    }

    /// The most probable class; of several, the one with the lowest index.
    pub fn argmax(&self) -> usize {
        self.argmax
    }

    /// The probability of [`Self::argmax`], in `1/K ..= 1`.
    pub fn max_probability(&self) -> f32 {
        self.probabilities[self.argmax]
    }

    /// By how much the most probable class leads the next one; 1 where there is just one class.
    pub fn margin(&self) -> f32 {
        let others = self
            .probabilities
            .iter()
            .enumerate()
            .filter(|(k, _)| *k != self.argmax);
        self.max_probability() - others.map(|(_, p)| *p).fold(0.0, f32::max)
    }

    /// Entropy in nats.
    ///
    /// `H(p) = - Σ_k p(k) ln p(k)`, in `0 ..= ln K`.
    pub fn entropy(&self) -> f64 {
        self.terms().cross_entropy(self.terms())
    }

    /// Entropy as a share of its greatest value.
    ///
    /// `H(p) / ln K`, in `0 ..= 1`; 0 where there is just one class.
    pub fn normalised_entropy(&self) -> f64 {
        match self.classes() {
            1 => 0.0,
            classes => (self.entropy() / (classes as f64).ln()).clamp(0.0, 1.0),
        }
    }

    pub(crate) fn terms(&self) -> Terms<'_> {
        Terms {
            p: &self.probabilities,
            log_p: &self.log_probabilities,
            argmax: self.argmax,
        }
    }
}

impl Clone for Distribution {
    fn clone(&self) -> Self {
        Self {
            probabilities: self.probabilities.clone(),
            log_probabilities: self.log_probabilities.clone(),
            argmax: self.argmax,
        }
    }

    /// Written out because the derived one would allocate anew.
    fn clone_from(&mut self, source: &Self) {
        self.probabilities.clone_from(&source.probabilities);
        self.log_probabilities.clone_from(&source.log_probabilities);
        self.argmax = source.argmax;
    }
}

/// Whether one label of a multi-label task applies: a distribution over no and yes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BinaryDistribution {
    probabilities: [f32; 2],
    log_probabilities: [f32; 2],
}

impl BinaryDistribution {
    /// `P(yes) = σ(logit)`.
    ///
    /// # Errors
    /// [`Error::LogitNotFinite`] when the logit is NaN or infinite.
    pub fn from_logit(logit: f32) -> Result<Self> {
        check_finite(&[logit])?;
        Ok(Self::from_finite_logit(logit))
    }

    fn from_finite_logit(logit: f32) -> Self {
        let z = f64::from(logit);
        Self {
            probabilities: [sigmoid(-z) as f32, sigmoid(z) as f32],
            log_probabilities: [-softplus(z) as f32, -softplus(-z) as f32],
        }
    }

    /// The probability that the label applies.
    pub fn probability(&self) -> f32 {
        self.probabilities[1]
    }

    /// Whether the label applies: its probability is above ½.
    pub fn applies(&self) -> bool {
        // The logarithms tell apart what rounding may have made equal.
        self.log_probabilities[1] > self.log_probabilities[0]
    }

    pub(crate) fn terms(&self) -> Terms<'_> {
        Terms {
            p: &self.probabilities,
            log_p: &self.log_probabilities,
            argmax: usize::from(self.applies()),
        }
    }
}

/// What kind of answer an exit gives, and how many logits it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionKind {
    /// One class out of several.
    SingleLabel {
        /// Number of classes `K`.
        classes: usize,
    },
    /// Any number of labels, each decided by itself.
    MultiLabel {
        /// Number of labels.
        labels: usize,
    },
    /// One real number.
    Regression,
}

impl PredictionKind {
    /// Number of logits that an exit of this kind has.
    pub fn logits(self) -> usize {
        match self {
            Self::SingleLabel { classes } => classes,
            Self::MultiLabel { labels } => labels,
            Self::Regression => 1,
        }
    }
}

impl fmt::Display for PredictionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SingleLabel { classes } => write!(f, "single-label over {classes} classes"),
            Self::MultiLabel { labels } => write!(f, "multi-label over {labels} labels"),
            Self::Regression => f.write_str("regression"),
        }
    }
}

/// What one exit said about one sample.
#[derive(Debug, PartialEq)]
pub enum Prediction {
    /// A distribution over classes that exclude each other.
    SingleLabel(Distribution),
    /// For each label whether it applies.
    MultiLabel(Vec<BinaryDistribution>),
    /// The number itself.
    Regression(f32),
}

impl Prediction {
    /// A prediction that says nothing yet, with the memory that its kind needs.
    ///
    /// # Errors
    /// [`Error::NoLogits`] for a kind without classes or labels.
    pub fn blank(kind: PredictionKind) -> Result<Self> {
        match kind {
            PredictionKind::SingleLabel { classes } => {
                Distribution::uniform(classes).map(Self::SingleLabel)
            }
            PredictionKind::MultiLabel { labels: 0 } => Err(Error::NoLogits),
            PredictionKind::MultiLabel { labels } => {
                let undecided = BinaryDistribution::from_finite_logit(0.0);
                Ok(Self::MultiLabel(vec![undecided; labels]))
            }
            PredictionKind::Regression => Ok(Self::Regression(0.0)),
        }
    }

    /// Reads an exit's logits as an answer of `kind`.
    ///
    /// # Errors
    /// [`Error::NoLogits`] and [`Error::LogitNotFinite`] as in [`Distribution::from_logits`];
    /// [`Error::LogitCount`] when `kind` asks for another number of logits.
    pub fn from_logits(kind: PredictionKind, logits: &[f32]) -> Result<Self> {
        let mut prediction = Self::blank(kind)?;
        prediction.set_from_logits(logits)?;
        Ok(prediction)
    }

    /// Overwrites this prediction with another one of the same kind, without allocating.
    ///
    /// # Errors
    /// As [`Self::from_logits`]; the prediction is then what it was before.
    pub fn set_from_logits(&mut self, logits: &[f32]) -> Result<()> {
        let kind = self.kind();
        if logits.len() != kind.logits() {
            let (expected, found) = (kind.logits(), logits.len());
            return Err(Error::LogitCount { expected, found });
        }
        check_finite(logits)?;
        match self {
            Self::SingleLabel(distribution) => distribution.set_from_logits(logits)?,
            Self::MultiLabel(labels) => {
                for (label, logit) in labels.iter_mut().zip(logits) {
                    *label = BinaryDistribution::from_finite_logit(*logit);
                }
            }
            Self::Regression(value) => *value = logits[0],
        }
        Ok(())
    }

    /// The kind of this answer.
    pub fn kind(&self) -> PredictionKind {
        match self {
            Self::SingleLabel(p) => PredictionKind::SingleLabel {
                classes: p.classes(),
            },
            Self::MultiLabel(labels) => PredictionKind::MultiLabel {
                labels: labels.len(),
            },
            Self::Regression(_) => PredictionKind::Regression,
        }
    }
}

impl Clone for Prediction {
    fn clone(&self) -> Self {
        match self {
            Self::SingleLabel(distribution) => Self::SingleLabel(distribution.clone()),
            Self::MultiLabel(labels) => Self::MultiLabel(labels.clone()),
            Self::Regression(value) => Self::Regression(*value),
        }
    }

    /// Written out because the derived one would allocate anew.
    fn clone_from(&mut self, source: &Self) {
        match (self, source) {
            (Self::SingleLabel(to), Self::SingleLabel(from)) => to.clone_from(from),
            (Self::MultiLabel(to), Self::MultiLabel(from)) => to.clone_from(from),
            (to, from) => *to = from.clone(),
        }
    }
}

/// The arrays that a divergence sums over, whatever type they belong to.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) p: &'a [f32],
    pub(crate) log_p: &'a [f32],
    pub(crate) argmax: usize,
}

impl Terms<'_> {
    /// `- Σ_k p(k) ln q(k)` with `0 ln 0 = 0`, never below 0.
    pub(crate) fn cross_entropy(self, q: Terms<'_>) -> f64 {
        let terms = self.p.iter().zip(q.log_p).filter(|(p, _)| **p > 0.0);
        let sum: f64 = terms
            .map(|(p, log_q)| f64::from(*p) * f64::from(*log_q))
            .sum();
        (-sum).max(0.0)
    }
}

/// How far the sum of given probabilities may be from 1: three decimals are a common way to print.
const SUM_TOLERANCE: f64 = 1e-3;

fn check_finite(logits: &[f32]) -> Result<()> {
    if logits.is_empty() {
        return Err(Error::NoLogits);
    }
    match logits.iter().position(|z| !z.is_finite()) {
        Some(position) => Err(Error::LogitNotFinite {
            position,
            value: logits[position],
        }),
        None => Ok(()),
    }
}

/// Index of the first of the greatest values; `values` holds at least one.
fn first_maximum(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// `1 / (1 + e⁻ˣ)`.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + eˣ)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_keeps_logarithms_that_probabilities_cannot_hold() {
        let p = Distribution::from_logits(&[300.0, 0.0]).unwrap();
        assert_eq!(p.probabilities(), [1.0, 0.0]);
        assert_eq!(p.log_probabilities(), [0.0, -300.0]);
        assert_eq!(p.entropy(), 0.0);
    }

    #[test]
    fn logits_without_meaning_are_refused_and_change_nothing() {
        let mut p = Distribution::from_logits(&[0.0, 1.0]).unwrap();
        let before = p.clone();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let message = p.set_from_logits(&[0.0, bad]).unwrap_err().to_string();
            assert!(message.contains("logit 2"), "{message}");
        }
        assert!(matches!(p.set_from_logits(&[]), Err(Error::NoLogits)));
        assert_eq!(p, before);
    }

    #[test]
    fn probabilities_are_checked_and_normalised() {
        let p = Distribution::from_probabilities(&[0.333, 0.333, 0.333]).unwrap();
        assert!((p.entropy() - 3f64.ln()).abs() < 1e-6);
        for bad in [&[0.5, 0.6][..], &[1.5, -0.5], &[f32::NAN, 1.0], &[]] {
            assert!(Distribution::from_probabilities(bad).is_err(), "{bad:?}");
        }
        let sure = Distribution::from_probabilities(&[0.0, 1.0]).unwrap();
        assert_eq!(
            (sure.entropy(), sure.argmax(), sure.margin()),
            (0.0, 1, 1.0)
        );
        assert_eq!(sure.log_probabilities()[0], f32::NEG_INFINITY);
    }

    #[test]
    fn argmax_is_the_lowest_of_equals_and_follows_the_logits() {
        assert_eq!(
            Distribution::from_logits(&[1.0, 2.0, 2.0])
                .unwrap()
                .argmax(),
            1
        );
        let close = Distribution::from_logits(&[0.0, 1e-9]).unwrap();
        assert_eq!(close.probabilities()[0], close.probabilities()[1]);
        assert_eq!(close.argmax(), 1);
    }

    #[test]
    fn margin_and_normalised_entropy_have_their_bounds() {
        let one = Distribution::from_logits(&[-3.0]).unwrap();
        assert_eq!(
            (
                one.margin(),
                one.normalised_entropy(),
                one.max_probability()
            ),
            (1.0, 0.0, 1.0)
        );
        let flat = Distribution::uniform(7).unwrap();
        assert_eq!(flat.margin(), 0.0);
        assert!((flat.normalised_entropy() - 1.0).abs() < 1e-6);
        let p = Distribution::from_probabilities(&[0.2, 0.7, 0.1]).unwrap();
        assert!((p.margin() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn a_label_applies_when_its_logit_is_positive() {
        for (logit, applies) in [(0.0, false), (1e-6, true), (-1e-6, false), (90.0, true)] {
            let label = BinaryDistribution::from_logit(logit).unwrap();
            assert_eq!(label.applies(), applies, "{logit}");
        }
        let label = BinaryDistribution::from_logit(-200.0).unwrap();
        assert_eq!(label.probability(), 0.0);
        assert_eq!(label.terms().log_p, [0.0, -200.0]);
    }

    #[test]
    fn a_prediction_takes_exactly_its_number_of_logits() {
        let kinds = [
            PredictionKind::SingleLabel { classes: 3 },
            PredictionKind::MultiLabel { labels: 4 },
            PredictionKind::Regression,
        ];
        for kind in kinds {
            let logits = vec![0.5; kind.logits()];
            let prediction = Prediction::from_logits(kind, &logits).unwrap();
            assert_eq!(prediction.kind(), kind);
            let more = vec![0.5; kind.logits() + 1];
            assert!(matches!(
                Prediction::from_logits(kind, &more),
                Err(Error::LogitCount { expected, found }) if (expected, found) == (logits.len(), more.len())
            ));
            let nan = vec![f32::NAN; kind.logits()];
            assert!(matches!(
                Prediction::from_logits(kind, &nan),
                Err(Error::LogitNotFinite { position: 0, .. })
            ));
        }
    }

    #[test]
    fn a_kind_without_outputs_is_refused() {
        for kind in [
            PredictionKind::SingleLabel { classes: 0 },
            PredictionKind::MultiLabel { labels: 0 },
        ] {
            assert!(
                matches!(Prediction::blank(kind), Err(Error::NoLogits)),
                "{kind}"
            );
        }
    }

    #[test]
    fn cloning_onto_a_prediction_of_the_same_kind_keeps_its_memory() {
        let kind = PredictionKind::SingleLabel { classes: 5 };
        let mut to = Prediction::blank(kind).unwrap();
        let address = |p: &Prediction| match p {
            Prediction::SingleLabel(d) => d.probabilities().as_ptr(),
            _ => unreachable!("the kind is single-label"),
        };
        let before = address(&to);
        let from = Prediction::from_logits(kind, &[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        to.clone_from(&from);
        assert_eq!(to, from);
        assert_eq!(address(&to), before);
    }
}
