//! How far apart two exits' answers are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::distribution::{Distribution, Prediction, Terms};

/// A measure `S(p, q)` of how far apart two predictions are, in nats.
///
/// The first argument is the current exit's distribution `p_m`, the second that of an earlier
/// exit, `p_i`. Terms whose weight is 0 contribute nothing (`0 ln 0 = 0`); a class that only the
/// reference rules out makes the logarithmic measures `+∞`, never NaN. Sums are taken in `f64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Divergence {
    /// The knowledge distillation objective, the paper's own choice.
    ///
    /// `S(p, q) = - Σ_k p(k) ln q(k)` — paper, Eq. (4)
    ///
    /// `S(p, q) = H(p) + KL(p ‖ q) ≥ 0`, and `S(p, p) = H(p)`: unlike the others it is small only
    /// when the current exit is also sure. `S(p, uniform) = ln K` for every `p`, and `S < ln 2`
    /// implies that both have the same most probable class.
    #[default]
    CrossEntropy,
    /// Kullback–Leibler divergence of the current exit from the earlier one.
    ///
    /// `KL(p ‖ q) = Σ_k p(k) (ln p(k) - ln q(k)) ≥ 0`, zero only for `p = q`.
    Kl,
    /// Kullback–Leibler divergence the other way round, `KL(q ‖ p)`.
    ReverseKl,
    /// `KL(p ‖ q) + KL(q ‖ p)`, Jeffreys' divergence.
    SymmetricKl,
    /// Jensen–Shannon divergence.
    ///
    /// `JS(p, q) = ½ KL(p ‖ m) + ½ KL(q ‖ m)` with `m = ½ (p + q)`.
    ///
    /// Symmetric, `0 ≤ JS ≤ ln 2`, zero only for `p = q`.
    JensenShannon,
    /// 1 where the two most probable classes differ, else 0: PABEE's measure. Any `tau` in
    /// `0 < tau ≤ 1` means the same.
    LabelMismatch,
}

impl Divergence {
    const ALL: [Self; 6] = [
        Self::CrossEntropy,
        Self::Kl,
        Self::ReverseKl,
        Self::SymmetricKl,
        Self::JensenShannon,
        Self::LabelMismatch,
    ];

    /// Every divergence, the paper's first.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// The name in a policy specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::CrossEntropy => "ce",
            Self::Kl => "kl",
            Self::ReverseKl => "rkl",
            Self::SymmetricKl => "symkl",
            Self::JensenShannon => "js",
            Self::LabelMismatch => "mismatch",
        }
    }

    /// `S(p, q)` of two distributions, `p` being the current exit's.
    ///
    /// # Panics
    /// When the two have different numbers of classes.
    ///
    /// # Example
    /// ```
    /// use badge_core::{distribution::Distribution, divergence::Divergence};
    ///
    /// let p = Distribution::from_probabilities(&[0.75, 0.25])?;
    /// let q = Distribution::from_probabilities(&[0.5, 0.5])?;
    /// assert!((Divergence::CrossEntropy.between(&p, &q) - 2f64.ln()).abs() < 1e-6);
    /// # Ok::<(), badge_core::Error>(())
    /// ```
    pub fn between(self, p: &Distribution, q: &Distribution) -> f64 {
        assert_eq!(
            p.classes(),
            q.classes(),
            "distributions over different classes"
        );
        self.between_terms(p.terms(), q.terms())
    }

    /// `S` of two exits' answers, `current` being the deeper one.
    ///
    /// - single-label: [`Self::between`];
    /// - multi-label: the sum over labels of the divergence of their yes-or-no distributions;
    /// - regression: `|y_m - y_i|`, whichever divergence is chosen.
    ///
    /// # Panics
    /// When the answers are of different kinds.
    pub fn between_predictions(self, current: &Prediction, earlier: &Prediction) -> f64 {
        match (current, earlier) {
            (Prediction::SingleLabel(p), Prediction::SingleLabel(q)) => self.between(p, q),
            (Prediction::MultiLabel(p), Prediction::MultiLabel(q)) => {
                assert_eq!(p.len(), q.len(), "predictions over different labels");
                p.iter()
                    .zip(q)
                    .map(|(p, q)| self.between_terms(p.terms(), q.terms()))
                    .sum()
            }
            (Prediction::Regression(y), Prediction::Regression(x)) => {
                (f64::from(*y) - f64::from(*x)).abs()
            }
            (p, q) => panic!("a {} prediction compared with a {} one", p.kind(), q.kind()),
        }
    }

    fn between_terms(self, p: Terms<'_>, q: Terms<'_>) -> f64 {
        match self {
            Self::CrossEntropy => p.cross_entropy(q),
            Self::Kl => kullback_leibler(p, q),
            Self::ReverseKl => kullback_leibler(q, p),
            Self::SymmetricKl => kullback_leibler(p, q) + kullback_leibler(q, p),
            Self::JensenShannon => jensen_shannon(p, q),
            Self::LabelMismatch => f64::from(p.argmax != q.argmax),
        }
    }
}

/// Rounding may leave a sum a hair below 0, which the true value never is: hence `max`.
fn kullback_leibler(p: Terms<'_>, q: Terms<'_>) -> f64 {
    let mut sum = 0.0;
    for ((weight, log_p), log_q) in p.p.iter().zip(p.log_p).zip(q.log_p) {
        if *weight > 0.0 {
            sum += f64::from(*weight) * (f64::from(*log_p) - f64::from(*log_q));
        }
    }
    sum.max(0.0)
}

fn jensen_shannon(p: Terms<'_>, q: Terms<'_>) -> f64 {
    let mut sum = 0.0;
    for (p, q) in p.p.iter().zip(q.p) {
        let (p, q) = (f64::from(*p), f64::from(*q));
        let log_mean = (0.5 * (p + q)).ln();
        // Taking ln p from p, as the mean's, makes equal distributions cancel exactly.
        for weight in [p, q] {
            if weight > 0.0 {
                sum += 0.5 * weight * (weight.ln() - log_mean);
            }
        }
    }
    sum.clamp(0.0, std::f64::consts::LN_2)
}

impl FromStr for Divergence {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all()
            .find(|divergence| divergence.name() == name)
            .ok_or_else(|| {
                let known: Vec<_> = Self::all().map(Self::name).collect();
                format!("`{name}` is no divergence; known are {}", known.join(", "))
            })
    }
}

impl TryFrom<String> for Divergence {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Divergence> for String {
    fn from(divergence: Divergence) -> Self {
        divergence.name().to_owned()
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::PredictionKind;

    fn distribution(probabilities: &[f32]) -> Distribution {
        Distribution::from_probabilities(probabilities).unwrap()
    }

    #[test]
    fn values_agree_with_sums_done_by_hand() {
        let (p, q) = (
            distribution(&[0.5, 0.25, 0.25]),
            distribution(&[0.25, 0.5, 0.25]),
        );
        let ln2 = 2f64.ln();
        for (divergence, by_hand) in [
            // ½ ln 4 + ¼ ln 2 + ¼ ln 4
            (Divergence::CrossEntropy, 1.75 * ln2),
            // ½ ln 2 - ¼ ln 2
            (Divergence::Kl, 0.25 * ln2),
            (Divergence::ReverseKl, 0.25 * ln2),
            (Divergence::SymmetricKl, 0.5 * ln2),
            // Both halves are ½ ln(4/3) + ¼ ln(2/3).
            (
                Divergence::JensenShannon,
                0.5 * (4f64 / 3.0).ln() + 0.25 * (2f64 / 3.0).ln(),
            ),
            (Divergence::LabelMismatch, 1.0),
        ] {
            let value = divergence.between(&p, &q);
            assert!(
                (value - by_hand).abs() < 1e-6,
                "{divergence}: {value} for {by_hand}"
            );
        }
    }

    #[test]
    fn the_current_exit_is_the_weight_and_the_earlier_one_the_reference() {
        let (p, q) = (distribution(&[0.9, 0.1]), distribution(&[0.6, 0.4]));
        let kl = |a: f64, b: f64| a * (a / b).ln() + (1.0 - a) * ((1.0 - a) / (1.0 - b)).ln();
        let cross_entropy = -(0.9 * 0.6f64.ln() + 0.1 * 0.4f64.ln());
        assert!((Divergence::CrossEntropy.between(&p, &q) - cross_entropy).abs() < 1e-6);
        assert!((Divergence::Kl.between(&p, &q) - kl(0.9, 0.6)).abs() < 1e-6);
        assert!((Divergence::ReverseKl.between(&p, &q) - kl(0.6, 0.9)).abs() < 1e-6);
    }

    #[test]
    fn certain_classes_give_infinity_or_zero_but_never_nan() {
        let (a, b) = (distribution(&[1.0, 0.0]), distribution(&[0.0, 1.0]));
        for divergence in Divergence::all() {
            assert_eq!(divergence.between(&a, &a), 0.0, "{divergence}");
        }
        for divergence in [
            Divergence::CrossEntropy,
            Divergence::Kl,
            Divergence::ReverseKl,
            Divergence::SymmetricKl,
        ] {
            assert_eq!(divergence.between(&a, &b), f64::INFINITY, "{divergence}");
        }
        assert_eq!(
            Divergence::JensenShannon.between(&a, &b),
            std::f64::consts::LN_2
        );
    }

    #[test]
    fn a_multi_label_divergence_is_the_sum_over_its_labels() {
        let kind = PredictionKind::MultiLabel { labels: 3 };
        let (p, q) = ([0.3, -2.0, 1.5], [-0.4, -1.0, 4.0]);
        let whole = |d: Divergence| {
            let p = Prediction::from_logits(kind, &p).unwrap();
            let q = Prediction::from_logits(kind, &q).unwrap();
            d.between_predictions(&p, &q)
        };
        for divergence in Divergence::all() {
            // A yes-or-no distribution is a softmax over the logits 0 and z.
            let by_label: f64 = (0..3)
                .map(|label| {
                    let p = Distribution::from_logits(&[0.0, p[label]]).unwrap();
                    let q = Distribution::from_logits(&[0.0, q[label]]).unwrap();
                    divergence.between(&p, &q)
                })
                .sum();
            let value = whole(divergence);
            assert!(
                (value - by_label).abs() < 1e-6,
                "{divergence}: {value} for {by_label}"
            );
        }
        assert_eq!(whole(Divergence::LabelMismatch), 1.0);
    }

    #[test]
    fn regression_compares_numbers_whatever_the_divergence() {
        for divergence in Divergence::all() {
            let (y, x) = (Prediction::Regression(3.25), Prediction::Regression(4.0));
            assert_eq!(divergence.between_predictions(&y, &x), 0.75, "{divergence}");
        }
    }

    #[test]
    fn every_name_round_trips_and_others_are_refused() {
        for (name, divergence) in ["ce", "kl", "rkl", "symkl", "js", "mismatch"]
            .iter()
            .zip(Divergence::all())
        {
            assert_eq!(name.parse(), Ok(divergence));
            assert_eq!(divergence.to_string(), *name);
        }
        let message = "hellinger".parse::<Divergence>().unwrap_err();
        assert!(
            message.contains("`hellinger`") && message.contains("symkl"),
            "{message}"
        );
    }
}
