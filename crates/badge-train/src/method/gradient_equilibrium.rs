//! Gradient equilibrium: joint training in which every block learns from the mean of the exits it
//! feeds.

use badge_core::exit::ExitPlan;

use super::{ExitWeights, Loss, Method, Moment};
use crate::error::Result;
use crate::loss::Targets;
use crate::model::{ExitOutput, Junction};

/// `GradEquil` (Li et al., 2019): the loss is the plain sum of the exits', and gradients are scaled
/// where exits leave the stack. Of E exits, exit e (from 1) reads `GR(h, 1 / (E - e + 1))` and the
/// next block `GR` of that with the factor `E - e`, where GR scales gradients alone.
///
/// What arrives at a block's output is then `1 / (E - e + 1) Σ_{j≥e} dL_j`: the mean over the
/// exits that the block feeds, where joint training has their sum. The exits' own parameters get
/// the gradients of joint training. It goes with any head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GradientEquilibrium;

impl Method for GradientEquilibrium {
    fn name(&self) -> &'static str {
        "gradient-equilibrium"
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, _moment: &Moment) -> Result<Loss> {
        let weights = ExitWeights::Uniform.values(outputs.len());
        Loss::weighted(outputs, targets, &weights)
    }

    fn junctions(&self, plan: &ExitPlan, _moment: &Moment) -> Vec<Junction> {
        let mut exits_fed = plan.count();
        (0..plan.deepest().0)
            .map(|block| {
                if !plan.has(block) {
                    return Junction::PLAIN;
                }
                let junction = Junction {
                    exit_and_onward: 1.0 / exits_fed as f64,
                    onward: (exits_fed - 1) as f64,
                };
                exits_fed -= 1;
                junction
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_from_the_exits_behind() {
        let plan = ExitPlan::new(vec![1, 3, 4], 4).unwrap();
        let junctions = GradientEquilibrium.junctions(&plan, &Moment::first(1, 0));
        let factors: Vec<_> = junctions
            .iter()
            .map(|junction| (junction.exit_and_onward, junction.onward))
            .collect();
        assert_eq!(
            factors,
            [(1.0 / 3.0, 2.0), (1.0, 1.0), (0.5, 1.0), (1.0, 0.0)]
        );
    }
}
