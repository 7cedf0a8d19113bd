//! What a policy is shown at an exit.

use crate::distribution::{ContinueProbability, Prediction};

/// What one exit gives a policy to go by.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The exit's answer.
    pub prediction: &'a Prediction,
    /// What the learning-to-exit head says, where the model has one.
    pub continue_probability: Option<ContinueProbability>,
}

impl<'a> From<&'a Prediction> for Observation<'a> {
    /// An answer alone, which is all that most policies look at.
    fn from(prediction: &'a Prediction) -> Self {
        Self {
            prediction,
            continue_probability: None,
        }
    }
}
