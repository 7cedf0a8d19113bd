//! Global Past-Future (Liao et al., 2021): an exit weighs what the blocks before it say against
//! what it expects the blocks behind it to say.

use badge_core::checkpoint::names;
use badge_core::config::ModelConfig;

use super::linear::Linear;
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutSite, DropoutStream, activate, dropout};
use crate::parameters::Parameters;

/// With `c_k` the pooled state of exit k and `ĉ_{m,j} = tanh(W_j c_m + b_j)` its imitation by exit
/// m:
///
/// ```text
/// past = Σ_{k≤m} z_k(c_k)      future = Σ_{k>m} z_k(ĉ_{m,k})
/// g = σ(G tanh(mean_{k≤m} q_k(c_k)) + b_G)
/// logits_m = 2 g past + (2 - 2 g) future
/// ```
///
/// States before m are constants for exit m; `c_m` is not.
#[derive(Debug)]
pub(crate) struct PastFuture {
    exits: Vec<ExitParts>,
    gate: Linear,
    dropout: f64,
}

/// What one exit of the plan brings.
#[derive(Debug)]
struct ExitParts {
    block: usize,
    /// z: logits.
    classifier: Linear,
    /// q: what the gate reads.
    gate_features: Linear,
    /// `W_j`, by which exits before this one imitate it; none at the first.
    imitation: Option<Linear>,
}

/// What the exits so far have left for the next ones; all states in it are constants.
#[derive(Debug, Default)]
pub(crate) struct Past {
    exits: usize,
    /// Sums over the exits so far, `[B, C]`: z and q.
    sums: Option<(Tensor, Tensor)>,
}

/// An exit's pooled state, and what it takes the states of all deeper exits to be.
#[derive(Debug, Clone)]
pub struct ImitatedStates {
    /// `c_m`: `[B, D]`.
    pub own: Tensor,
    /// `ĉ_{m,j}` for every deeper exit j: `[B, D]` each.
    pub deeper: Vec<Tensor>,
}

impl PastFuture {
    pub(crate) fn new(parameters: &Parameters, config: &ModelConfig) -> Self {
        let exits = config.exits();
        let parts = |(position, block): (usize, usize)| ExitParts {
            block,
            classifier: Linear::new(parameters, &names::exit_classifier(&config.backbone, block)),
            gate_features: Linear::new(parameters, &names::gate_features(block)),
            imitation: (position > 0).then(|| Linear::new(parameters, &names::future_state(block))),
        };
        let blocks = exits.exits.depths().iter().map(|depth| depth.index().0);
        Self {
            exits: blocks.enumerate().map(parts).collect(),
            gate: Linear::new(parameters, &names::past_future_gate()),
            dropout: exits.exit_dropout,
        }
    }

    /// Adds an exit to the past and, where it is wanted, computes its logits.
    ///
    /// # Shapes
    /// `c_m: [B, D]` and the same after dropout, to logits `[B, C]`.
    pub(crate) fn forward(
        &self,
        (state, read): (&Tensor, &Tensor),
        past: &mut Past,
        stream: Option<&DropoutStream>,
        is_wanted: bool,
    ) -> Result<Option<(Tensor, ImitatedStates)>> {
        let exit = &self.exits[past.exits];
        let answer = if is_wanted {
            Some(self.answer((state, read), past, stream)?)
        } else {
            None
        };
        let constant = read.detach();
        let z = exit.classifier.forward(&constant)?;
        let q = exit.gate_features.forward(&constant)?;
        past.sums = Some(match past.sums.take() {
            None => (z, q),
            Some((past_z, past_q)) => ((past_z + z)?, (past_q + q)?),
        });
        past.exits += 1;
        Ok(answer)
    }

    fn answer(
        &self,
        (state, read): (&Tensor, &Tensor),
        past: &Past,
        stream: Option<&DropoutStream>,
    ) -> Result<(Tensor, ImitatedStates)> {
        let exit = &self.exits[past.exits];
        let mut past_z = exit.classifier.forward(read)?;
        let mut past_q = exit.gate_features.forward(read)?;
        if let Some((z, q)) = &past.sums {
            past_z = (past_z + z)?;
            past_q = (past_q + q)?;
        }
        let mean = (past_q / (past.exits + 1) as f64)?;
        let gate = self.gate.forward(&mean.tanh()?)?;
        let gate = activate(&gate, badge_core::activation::Activation::Sigmoid)?; // [B, C]
        let mut logits = (&gate * past_z)?;
        let mut deeper = Vec::new();
        let mut future: Option<Tensor> = None;
        for target in &self.exits[past.exits + 1..] {
            let imitation = target
                .imitation
                .as_ref()
                .expect("an exit behind another is imitated by it");
            let imitated = imitation.forward(state)?.tanh()?; // [B, D]
            let site = DropoutSite::Imitation {
                from: exit.block,
                of: target.block,
            };
            let z = dropout(&imitated, self.dropout, (stream, site))?;
            let z = target.classifier.forward(&z)?;
            future = Some(match future {
                None => z,
                Some(sum) => (sum + z)?,
            });
            deeper.push(imitated);
        }
        if let Some(future) = future {
            logits = (logits + ((1.0 - gate)? * future)?)?;
        }
        let states = ImitatedStates {
            own: state.clone(),
            deeper,
        };
        Ok(((logits * 2.0)?, states))
    }
}
