//! What comes out of an engine.

use std::sync::Arc;

use badge_core::distribution::{ContinueProbability, Prediction};
use badge_core::exit::Depth;
use badge_core::policy::{ExitReason, Policy, PolicyState};

use crate::error::Result;

/// What an exit says about one sequence.
#[derive(Debug, Clone, Copy)]
pub struct ExitOutput<'a> {
    /// One logit per output.
    pub logits: &'a [f32],
    /// What the learning-to-exit head says, where the model has one.
    pub continue_probability: Option<ContinueProbability>,
}

/// A sequence that has left the network.
#[derive(Debug)]
pub struct Finished {
    /// The number it was admitted under.
    pub request: u64,
    /// What it answered; an error where a logit was NaN or infinite.
    pub answer: Result<Answer>,
}

/// One sequence's answer.
#[derive(Debug)]
pub struct Answer {
    /// Where the sequence left the network.
    pub depth: Depth,
    /// What that exit said.
    pub prediction: Prediction,
    /// The logits of that exit.
    pub logits: Vec<f32>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) state: PolicyState,
}

impl Answer {
    /// Why the sequence left there.
    pub fn reason(&self) -> ExitReason {
        self.policy.reason(&self.state)
    }

    /// The policy that decided.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}
