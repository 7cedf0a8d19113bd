//! Learning to exit: a head that says beside every exit whether its answer can be trusted.

use badge_core::checkpoint::layout::Part;
use badge_core::config::EarlyExitConfig;
use badge_core::exit::ExitPlan;
use serde::{Deserialize, Serialize};

use super::{Judge, Loss, Method, Moment, Stage, sum};
use crate::error::Result;
use crate::framework::Tensor;
use crate::loss::Targets;
use crate::model::{ExitOutput, Junction};

/// LTE (BERxiT; Xin et al., 2021), added to any method: `u_m = σ(w c_m + b)`, the probability to
/// go on, learns from `1 - [argmax z_m = y]`, for numbers from `|tanh(z_m - y)|`. Its loss, the
/// mean of squares over all exits and rows, is added with weight 1.
///
/// Unlike BERxiT's code, alternating training keeps the deepest exit's loss in every step when
/// this head is there.
#[derive(Debug)]
pub struct LearningToExit {
    /// What trains the exits.
    pub method: Box<dyn Method>,
    /// When the head learns.
    pub training: LteTraining,
}

/// When the learning-to-exit head learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LteTraining {
    /// In the method's last stage, with everything that learns there: as BERxiT does it.
    Joint,
    /// In a stage of its own behind the method's, on the frozen model.
    Frozen,
}

impl LearningToExit {
    /// The stage in which the head learns.
    fn stage(&self) -> usize {
        let stages = self.method.stages().len();
        match self.training {
            LteTraining::Joint => stages - 1,
            LteTraining::Frozen => stages,
        }
    }
}

impl Method for LearningToExit {
    fn name(&self) -> &'static str {
        self.method.name()
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, moment: &Moment) -> Result<Loss> {
        if moment.stage < self.stage() {
            return self.method.loss(outputs, targets, moment);
        }
        let head = uncertainty_loss(outputs, targets)?;
        match self.training {
            LteTraining::Joint => self
                .method
                .loss(outputs, targets, moment)?
                .plus("lte", head),
            LteTraining::Frozen => {
                let weights = vec![1.0; outputs.len()];
                let mut loss = Loss::weighted(outputs, targets, &weights)?;
                loss.total = head;
                Ok(loss)
            }
        }
    }

    fn stages(&self) -> Vec<Stage> {
        let mut stages = self.method.stages();
        if self.training == LteTraining::Frozen {
            stages.push(Stage {
                name: "learning-to-exit",
                judge: Judge::Loss,
            });
        }
        stages
    }

    fn trains(&self, stage: usize, part: Part, plan: &ExitPlan) -> bool {
        if part == Part::LearningToExit {
            return stage == self.stage();
        }
        stage < self.method.stages().len() && self.method.trains(stage, part, plan)
    }

    fn junctions(&self, plan: &ExitPlan, moment: &Moment) -> Vec<Junction> {
        self.method.junctions(plan, moment)
    }

    fn heads(&self, exits: EarlyExitConfig) -> EarlyExitConfig {
        let mut exits = self.method.heads(exits);
        exits.lte = true;
        exits
    }

    fn check(&self, exits: &EarlyExitConfig) -> Result<(), String> {
        if exits.exits.count() < 2 {
            return Err("--lte: a model of one exit has nothing to leave early".to_owned());
        }
        self.method.check(exits)
    }
}

fn uncertainty_loss(outputs: &[ExitOutput], targets: &Targets) -> Result<Tensor> {
    let squares = outputs.iter().map(|output| {
        let uncertainty = output.uncertainty.as_ref();
        let uncertainty = uncertainty.expect("the method's heads give uncertainties");
        let wrong = targets.wrongness(&output.logits)?; // [B]
        Ok((uncertainty - wrong)?.sqr()?.mean_all()?)
    });
    Ok((sum(squares)? / outputs.len() as f64)?)
}
