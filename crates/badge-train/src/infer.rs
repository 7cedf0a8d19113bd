//! Inference row by row: blocks run one after the other and stop at the exit that the policy
//! chooses, so that the time saved is real.

use std::time::Instant;

use badge_core::distribution::{ContinueProbability, Prediction};
use badge_core::exit::Depth;
use badge_core::policy::{Decision, ExitReason, Observation, Policy};
use badge_tasks::Encoding;

use crate::error::Result;
use crate::model::{Mode, ModelInput, MultiExitModel};

/// One row's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Where the row left the network.
    pub depth: Depth,
    /// The logits of that exit.
    pub logits: Vec<f32>,
    /// The same as a prediction.
    pub prediction: Prediction,
    /// Why it left there.
    pub reason: ExitReason,
    /// Wall-clock seconds from token ids to answer.
    pub seconds: f64,
}

/// Classifies one row under a policy.
///
/// Only the exits that the policy looks at are computed: with `full` this is the plain backbone
/// with one exit.
///
/// # Errors
/// When the row does not fit the model, or a logit is not finite.
pub fn classify(model: &MultiExitModel, encoding: &Encoding, policy: &Policy) -> Result<Answer> {
    let start = Instant::now();
    let lengths = [encoding.len()];
    let input = ModelInput::new(&encoding.ids, &encoding.type_ids, &lengths, model.device())?;
    let mut forward = model.start(&input, Mode::Evaluation)?;
    let mut state = policy.start();
    loop {
        let next = forward.next_wanted_exit(|depth| policy.needs(depth))?;
        let output = next.expect("every policy leaves at the deepest exit");
        let depth = output.depth;
        let logits = output.logits.squeeze(0)?.to_vec1::<f32>()?;
        let prediction = Prediction::from_logits(policy.kind(), &logits)?;
        let continue_probability = match &output.uncertainty {
            None => None,
            Some(u) => Some(ContinueProbability::new(u.squeeze(0)?.to_scalar::<f32>()?)?),
        };
        let observation = Observation {
            prediction: &prediction,
            continue_probability,
        };
        if policy.observe(&mut state, depth, observation) == Decision::Exit {
            let seconds = start.elapsed().as_secs_f64();
            let reason = policy.reason(&state);
            return Ok(Answer {
                depth,
                logits,
                prediction,
                reason,
                seconds,
            });
        }
    }
}
