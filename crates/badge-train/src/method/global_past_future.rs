//! Global Past-Future: exits that use earlier states and imitate deeper ones.

use badge_core::config::EarlyExitConfig;
use badge_core::exit::ExitPlan;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{ExitWeights, Loss, Method, Moment, sum};
use crate::error::Result;
use crate::framework::{D, Tensor};
use crate::loss::Targets;
use crate::model::{ExitOutput, ImitatedStates, Junction};

/// GPF (Liao et al., 2021), as its released code has it: half the mean of the exits' losses with
/// weight m of exit m, and half the imitation loss
/// `mean_{m<M} mean_{j>m} (1 - cos(c_j, ĉ_{m,j}))` with `c_j` a constant.
///
/// The first F blocks thaw: at a step each one's output is a constant for its own exit and the
/// blocks behind, with a probability that falls from 1 to 0 over the run. The heads get the gate
/// and the imitations. It goes with bypasses, but not with attention exits or poolers other than
/// the shared one, as it compares what one pooler makes of every block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalPastFuture {
    /// F.
    pub thawing_blocks: usize,
}

impl Method for GlobalPastFuture {
    fn name(&self) -> &'static str {
        "global-past-future"
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, _moment: &Moment) -> Result<Loss> {
        let weights = ExitWeights::Linear.values(outputs.len());
        let halves: Vec<_> = weights.iter().map(|weight| 0.5 * weight).collect();
        let loss = Loss::weighted(outputs, targets, &halves)?;
        if outputs.len() < 2 {
            return Ok(loss);
        }
        loss.plus("imitation", (imitation(outputs)? * 0.5)?)
    }

    fn junctions(&self, plan: &ExitPlan, moment: &Moment) -> Vec<Junction> {
        let frozen = 1.0 - moment.step as f64 / moment.steps.max(1) as f64;
        let mut generator = ChaCha8Rng::seed_from_u64(moment.seed);
        // A stream per step, so that a resumed run throws the same coins.
        generator.set_stream(moment.step);
        (0..plan.deepest().0)
            .map(|block| {
                if block < self.thawing_blocks && generator.random::<f64>() < frozen {
                    Junction::STOP
                } else {
                    Junction::PLAIN
                }
            })
            .collect()
    }

    fn heads(&self, mut exits: EarlyExitConfig) -> EarlyExitConfig {
        exits.global_past_future = true;
        exits
    }
}

fn imitation(outputs: &[ExitOutput]) -> Result<Tensor> {
    let states: Vec<&ImitatedStates> = outputs
        .iter()
        .map(|output| output.states.as_ref())
        .collect::<Option<_>>()
        .expect("the method's heads give states");
    let last = states.len() - 1;
    let of_exit = |m: usize| -> Result<Tensor> {
        let distances = states[m].deeper.iter().zip(&states[m + 1..]);
        let distances =
            distances.map(|(imitated, deeper)| cosine_distance(&deeper.own.detach(), imitated));
        Ok((sum(distances)? / (last - m) as f64)?)
    };
    Ok((sum((0..last).map(of_exit))? / last as f64)?)
}

/// The mean of `1 - cos(a, b)` over rows, with PyTorch's guard against vectors of length 0.
fn cosine_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let squares = |x: &Tensor| x.sqr()?.sum(D::Minus1);
    let products = (a * b)?.sum(D::Minus1)?;
    let lengths = (squares(a)? * squares(b)?)?.maximum(1e-16)?.sqrt()?;
    Ok((1.0 - (products / lengths)?)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_blocks_thaw_over_the_run() {
        let method = GlobalPastFuture { thawing_blocks: 2 };
        let plan = ExitPlan::every_block(4);
        let stops = |step| {
            let moment = Moment {
                step,
                ..Moment::first(1000, 3)
            };
            let junctions = method.junctions(&plan, &moment);
            assert_eq!(
                junctions,
                method.junctions(&plan, &moment),
                "coins are fixed"
            );
            assert_eq!(junctions[2..], [Junction::PLAIN; 2]);
            let is_stop = |junction: &&Junction| **junction == Junction::STOP;
            junctions.iter().filter(is_stop).count()
        };
        assert_eq!(stops(0), 2, "nothing flows at the start");
        let of = |steps: std::ops::Range<u64>| steps.map(stops).sum::<usize>();
        let (early, late) = (of(0..500), of(500..1000));
        assert!((650..850).contains(&early), "{early} of 1000");
        assert!((150..350).contains(&late), "{late} of 1000");
    }
}
