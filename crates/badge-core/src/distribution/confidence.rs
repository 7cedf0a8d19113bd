//! How sure an answer is, and the probability that going on would pay.

use super::{BinaryDistribution, Distribution, Prediction, check_finite, sigmoid};
use crate::error::{Error, Result};

impl Prediction {
    /// Entropy in nats; none for a number, which says nothing of how sure it is.
    ///
    /// `H(p) = - Σ_k p(k) ln p(k)`, in `0 ..= ln K`. Labels that are decided each by itself are
    /// independent, so that their entropies add up.
    pub fn entropy(&self) -> Option<f64> {
        match self {
            Self::SingleLabel(p) => Some(p.entropy()),
            Self::MultiLabel(labels) => Some(labels.iter().map(BinaryDistribution::entropy).sum()),
            Self::Regression(_) => None,
        }
    }

    /// Entropy as a share of its greatest value, in `0 ..= 1`; none for a number.
    ///
    /// `H(p) / ln K`; with labels decided each by itself, `H / (labels · ln 2)`.
    pub fn normalised_entropy(&self) -> Option<f64> {
        match self {
            Self::SingleLabel(p) => Some(p.normalised_entropy()),
            Self::MultiLabel(labels) => {
                let greatest = labels.len() as f64 * std::f64::consts::LN_2;
                self.entropy().map(|h| (h / greatest).clamp(0.0, 1.0))
            }
            Self::Regression(_) => None,
        }
    }

    /// Probability of the answer, its logits divided by `temperature`; none for a number.
    ///
    /// `max_k softmax(z / T)_k`; with labels decided each by itself, the product over them. In
    /// `0 ..= 1`; a temperature above 1 makes every answer less sure.
    ///
    /// # Panics
    /// When the temperature is not a positive number.
    ///
    /// # Example
    /// ```
    /// use badge_core::distribution::{Prediction, PredictionKind};
    ///
    /// let kind = PredictionKind::SingleLabel { classes: 2 };
    /// let answer = Prediction::from_logits(kind, &[0.0, 3f32.ln()])?;
    /// assert!((answer.max_probability(1.0).unwrap() - 0.75).abs() < 1e-6);
    /// assert!((answer.max_probability(0.5).unwrap() - 0.9).abs() < 1e-6);
    /// # Ok::<(), badge_core::Error>(())
    /// ```
    pub fn max_probability(&self, temperature: f64) -> Option<f64> {
        assert!(temperature > 0.0, "temperature {temperature}");
        match self {
            Self::SingleLabel(p) => Some(p.max_probability_at(temperature)),
            Self::MultiLabel(labels) => {
                let each = labels
                    .iter()
                    .map(|label| label.max_probability_at(temperature));
                Some(each.product())
            }
            Self::Regression(_) => None,
        }
    }
}

impl Distribution {
    /// Logarithms of probabilities are logits less a constant, which the quotient cancels.
    fn max_probability_at(&self, temperature: f64) -> f64 {
        let log_p = self.log_probabilities();
        let greatest = f64::from(log_p[self.argmax()]);
        let relative = log_p
            .iter()
            .map(|z| ((f64::from(*z) - greatest) / temperature).exp());
        1.0 / relative.sum::<f64>()
    }
}

impl BinaryDistribution {
    fn entropy(&self) -> f64 {
        self.terms().cross_entropy(self.terms())
    }

    fn max_probability_at(&self, temperature: f64) -> f64 {
        let [no, yes] = self.log_probabilities.map(f64::from);
        sigmoid((yes - no).abs() / temperature)
    }
}

/// What a learning-to-exit head says at an exit: the probability `u_m` that its answer is wrong and
/// going on would pay.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ContinueProbability(f32);

impl ContinueProbability {
    /// A probability that another program wrote.
    ///
    /// # Errors
    /// [`Error::NotADistribution`] when it is NaN or lies outside `0 ..= 1`.
    pub fn new(probability: f32) -> Result<Self> {
        if (0.0..=1.0).contains(&probability) {
            return Ok(Self(probability));
        }
        let problem = format!("the probability to continue is {probability}");
        Err(Error::NotADistribution { problem })
    }

    /// `u = σ(logit)`, as the head computes it.
    ///
    /// # Errors
    /// [`Error::LogitNotFinite`] when the logit is NaN or infinite.
    pub fn from_logit(logit: f32) -> Result<Self> {
        check_finite(&[logit])?;
        Ok(Self(sigmoid(f64::from(logit)) as f32))
    }

    /// The number, in `0 ..= 1`.
    pub fn value(self) -> f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::PredictionKind;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
    }

    #[test]
    fn labels_are_independent() {
        // Labels that apply with probability 0.9 and 0.2.
        let logit = |p: f32| (p / (1.0 - p)).ln();
        let kind = PredictionKind::MultiLabel { labels: 2 };
        let answer = Prediction::from_logits(kind, &[logit(0.9), logit(0.2)]).unwrap();
        let binary = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        let entropy = binary(0.9) + binary(0.2);
        close(answer.entropy(), entropy);
        close(answer.normalised_entropy(), entropy / 4f64.ln());
        close(answer.max_probability(1.0), 0.9 * 0.8);
        // The same over the four sets of labels, of which one is the answer.
        let sets = [0.18f32, 0.72, 0.02, 0.08];
        let joint = Prediction::SingleLabel(Distribution::from_probabilities(&sets).unwrap());
        close(joint.entropy(), entropy);
        close(joint.max_probability(3.0), {
            let at = |p: f64| 1.0 / (1.0 + ((1.0 - p) / p).powf(1.0 / 3.0));
            at(0.9) * at(0.8)
        });
        close(
            answer.max_probability(3.0),
            joint.max_probability(3.0).unwrap(),
        );
    }

    #[test]
    fn a_temperature_moves_every_answer_towards_or_away_from_chance() {
        let kind = PredictionKind::SingleLabel { classes: 3 };
        let answer = Prediction::from_logits(kind, &[2.0, 0.0, 0.0]).unwrap();
        let by_hand = |t: f64| 1.0 / (1.0 + 2.0 * (-2.0 / t).exp());
        for temperature in [0.1, 0.5, 1.0, 2.0, 100.0] {
            close(answer.max_probability(temperature), by_hand(temperature));
        }
        // Far beyond what a probability in f32 can tell from 1.
        let sure = Prediction::from_logits(kind, &[400.0, 0.0, 0.0]).unwrap();
        close(sure.max_probability(100.0), by_hand(0.5));
    }

    #[test]
    fn a_number_is_never_sure() {
        let number = Prediction::Regression(2.5);
        assert_eq!(number.entropy(), None);
        assert_eq!(number.normalised_entropy(), None);
        assert_eq!(number.max_probability(1.0), None);
    }

    #[test]
    fn a_probability_to_continue_is_a_probability() {
        assert_eq!(ContinueProbability::from_logit(0.0).unwrap().value(), 0.5);
        assert_eq!(
            ContinueProbability::from_logit(-200.0).unwrap().value(),
            0.0
        );
        assert_eq!(ContinueProbability::new(1.0).unwrap().value(), 1.0);
        for bad in [f32::NAN, f32::INFINITY, -0.01, 1.01] {
            let told = ContinueProbability::new(bad).unwrap_err().to_string();
            assert!(told.contains("probability to continue"), "{told}");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(ContinueProbability::from_logit(bad).is_err(), "{bad}");
        }
    }
}
