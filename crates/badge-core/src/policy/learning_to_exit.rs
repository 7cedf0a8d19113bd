//! `lte:0.1`: leave when a learnt head says that going on would not pay (BERxiT).

use std::fmt;

use super::grammar::{Fields, check_positive, refused, threshold};
use super::score::{LastScore, Threshold};
use super::{Evidence, ExitPoint, ModelExits, Observation, Rule, Side};
use crate::error::Result;

/// Exit as soon as the learning-to-exit head's probability to continue is low.
///
/// ```text
/// u_m < th
/// ```
///
/// `u_m` estimates the probability that exit m is wrong. The text of BERxiT speaks of a certainty
/// above a threshold, `1 - u_m`; its code tests `u_m` below one, and so do we. A model without the
/// head is refused when the policy is built. Regression works as classification does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningToExit {
    threshold: f64,
}

impl LearningToExit {
    /// The rule.
    ///
    /// # Errors
    /// [`crate::Error::Policy`] when the threshold does not lie above 0 and up to 1.
    pub fn new(threshold: f64) -> Result<Self> {
        Self::checked(threshold).map_err(refused(format!("lte:{threshold}")))
    }

    fn checked(threshold: f64) -> Result<Self, String> {
        check_positive("threshold", threshold)?;
        if threshold > 1.0 {
            return Err(format!(
                "key `threshold`: {threshold} is above 1, which no probability is"
            ));
        }
        Ok(Self { threshold })
    }

    /// The threshold on the probability to continue.
    pub fn threshold(self) -> f64 {
        self.threshold
    }

    pub(super) fn parse(mut fields: Fields<'_>) -> Result<Self, String> {
        let value = threshold("threshold", fields.value("threshold", "lte:0.1")?)?;
        fields.finish(&[])?;
        Self::checked(value)
    }

    fn test(self) -> Threshold {
        Threshold {
            quantity: "probability to continue",
            side: Side::Below,
            value: self.threshold,
        }
    }
}

impl Rule for LearningToExit {
    type Memory = LastScore;

    fn start(&self, _: &ModelExits) -> LastScore {
        LastScore::default()
    }

    /// # Panics
    /// When the observation has no probability to continue, though the model has the head.
    fn observe(&self, memory: &mut LastScore, _: ExitPoint, observation: Observation<'_>) -> bool {
        let probability = observation.continue_probability;
        let probability = probability.expect("the exit's probability to continue is observed");
        self.test().observe(memory, f64::from(probability.value()))
    }

    fn evidence(&self, memory: &LastScore) -> Option<Evidence> {
        self.test().evidence(memory)
    }

    fn check(&self, exits: &ModelExits) -> Result<(), String> {
        if exits.learns_to_exit() {
            return Ok(());
        }
        Err(
            "the model has no learning-to-exit head; train one with `badge train --lte`, or \
             choose another policy"
                .to_owned(),
        )
    }
}

impl fmt::Display for LearningToExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lte:{}", self.threshold)
    }
}
