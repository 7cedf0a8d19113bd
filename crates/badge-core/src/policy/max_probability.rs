//! `maxprob:0.9`: leave when the exit gives its answer a high probability (Schwartz et al., 2020).

use std::fmt;

use super::grammar::{Fields, check_positive, refused, threshold};
use super::score::{LastScore, Threshold};
use super::{Evidence, ExitPoint, ModelExits, Observation, Outlook, Rule, Side, Temperatures};
use crate::error::Result;

/// Exit as soon as an exit is sure by the probability of its answer.
///
/// ```text
/// max_k softmax(z_m / T_m)_k ≥ θ
/// ```
///
/// `T_m` is the temperature of exit m, 1 unless the key `temperatures` says otherwise. With labels
/// decided each by itself the probability is that of all of them together, the product.
/// Regression has no probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxProbability {
    threshold: f64,
    temperatures: Temperatures,
}

impl MaxProbability {
    /// The rule with temperature 1 at every exit; above 1 lies a threshold that no exit reaches.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when the threshold is not a positive finite number.
    pub fn new(threshold: f64) -> Result<Self> {
        Self::checked(threshold).map_err(refused(format!("maxprob:{threshold}")))
    }

    fn checked(threshold: f64) -> Result<Self, String> {
        check_positive("threshold", threshold)?;
        Ok(Self {
            threshold,
            temperatures: Temperatures::One,
        })
    }

    /// The same with temperatures, one per exit of the model.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when there are none, or one is not a positive finite number.
    pub fn with_temperatures(self, temperatures: &[f64]) -> Result<Self> {
        let rule = Self {
            temperatures: Temperatures::PerExit(temperatures.to_vec()),
            ..self
        };
        let text = rule.temperatures.to_string();
        match text.parse::<Temperatures>() {
            Ok(_) => Ok(rule),
            Err(problem) => Err(refused(rule.to_string())(format!(
                "key `temperatures`: {problem}"
            ))),
        }
    }

    /// The threshold `θ`.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The temperatures `T_m`.
    pub fn temperatures(&self) -> &Temperatures {
        &self.temperatures
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let value = fields.value("threshold", "maxprob:0.9")?;
        let mut rule = Self::checked(threshold("threshold", value)?)?;
        if let Some(text) = fields.take("temperatures") {
            let parsed = text.parse();
            rule.temperatures = parsed.map_err(|e| format!("key `temperatures`: {e}"))?;
        }
        fields.finish(&["temperatures"])?;
        Ok(rule)
    }

    /// The same with the calibrated temperatures in numbers.
    pub(super) fn resolved(&self, exits: &ModelExits) -> Result<Self, String> {
        Ok(Self {
            temperatures: self.temperatures.resolved(exits)?,
            ..self.clone()
        })
    }

    fn test(&self) -> Threshold {
        Threshold {
            quantity: "probability",
            side: Side::AtLeast,
            value: self.threshold,
        }
    }
}

impl Rule for MaxProbability {
    type Memory = LastScore;

    fn start(&self, _: &ModelExits) -> LastScore {
        LastScore::default()
    }

    fn observe(&self, memory: &mut LastScore, at: ExitPoint, observation: Observation<'_>) -> bool {
        let temperature = self.temperatures.at(at.position);
        let probability = observation.prediction.max_probability(temperature);
        let probability = probability.expect("no policy of probability is built for regression");
        self.test().observe(memory, probability)
    }

    fn evidence(&self, memory: &LastScore) -> Option<Evidence> {
        self.test().evidence(memory)
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        exits.check_has_distributions()?;
        self.temperatures.check(exits.plan())
    }

    fn outlook(&self, _: ExitPoint) -> Outlook {
        if self.threshold > 1.0 {
            Outlook::Never
        } else {
            Outlook::Possible
        }
    }

    fn caveats(&self, _: &ModelExits) -> Vec<String> {
        if self.threshold > 1.0 {
            return vec![
                "no probability is above 1: every sample runs to the deepest exit".to_owned(),
            ];
        }
        Vec::new()
    }
}

impl fmt::Display for MaxProbability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "maxprob:{}", self.threshold)?;
        if self.temperatures != Temperatures::One {
            write!(f, ",temperatures={}", self.temperatures)?;
        }
        Ok(())
    }
}
