//! Training methods: what learns when, from which loss, through which junctions.
//!
//! A method is a value behind the trait [`Method`]; each has a file of its own below. The trainer
//! knows nothing of any of them. `docs/adding-a-method.md` adds one.

mod alternating;
mod global_past_future;
mod gradient_equilibrium;
mod joint;
mod learning_to_exit;
mod single;
mod spec;
mod two_stage;

use std::fmt;

use badge_core::checkpoint::layout::Part;
use badge_core::config::EarlyExitConfig;
use badge_core::exit::ExitPlan;

pub use alternating::Alternating;
pub use global_past_future::GlobalPastFuture;
pub use gradient_equilibrium::GradientEquilibrium;
pub use joint::{ExitWeights, Joint};
pub use learning_to_exit::{LearningToExit, LteTraining};
pub use single::Single;
pub use spec::MethodSpec;
pub use two_stage::{SecondStage, TwoStage};

use crate::error::{Error, Result};
use crate::framework::Tensor;
use crate::loss::Targets;
use crate::model::{ExitOutput, Junction};

/// A way to train a multi-exit model.
///
/// Only [`name`](Self::name) and [`loss`](Self::loss) must be given; all else starts as joint
/// training has it: one stage in which everything learns and gradients flow freely.
pub trait Method: fmt::Debug {
    /// Its name on the command line and in records.
    fn name(&self) -> &'static str;

    /// What is minimised: a function of what every exit says, in the order of the plan.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, moment: &Moment) -> Result<Loss>;

    /// The stages of a run, one after the other; each has an optimiser and a schedule of its own.
    fn stages(&self) -> Vec<Stage> {
        vec![Stage {
            name: self.name(),
            judge: Judge::Average,
        }]
    }

    /// Whether the parameters of a part learn in a stage, counted from 0. Where the backbone does
    /// not, it also drops nothing, and its features are computed once.
    fn trains(&self, _stage: usize, _part: Part, _plan: &ExitPlan) -> bool {
        true
    }

    /// How gradients flow behind every block: one junction per block.
    fn junctions(&self, plan: &ExitPlan, _moment: &Moment) -> Vec<Junction> {
        vec![Junction::PLAIN; plan.deepest().0]
    }

    /// The heads with the modules that this method adds to them.
    fn heads(&self, exits: EarlyExitConfig) -> EarlyExitConfig {
        exits
    }

    /// Refuses heads that it does not go together with.
    ///
    /// # Errors
    /// A sentence that says why.
    fn check(&self, _exits: &EarlyExitConfig) -> Result<(), String> {
        Ok(())
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// What reports call it.
    pub name: &'static str,
    /// How its epochs are compared.
    pub judge: Judge,
}

/// How the epochs of a stage are compared on dev: the best one's weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// By S-avg.
    Average,
    /// By the score of the deepest exit.
    Deepest,
    /// By the stage's loss, for heads that change no exit's answer.
    Loss,
}

/// Where in a run a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The stage, from 0.
    pub stage: usize,
    /// The step, from 0 in each stage.
    pub step: u64,
    /// The step, from 0 in each epoch.
    pub step_in_epoch: u64,
    /// Steps of the stage, if it does not stop early.
    pub steps: u64,
    /// Seed of the run, for methods that throw coins.
    pub seed: u64,
}

impl Moment {
    /// The first step of a run with so many.
    pub fn first(steps: u64, seed: u64) -> Self {
        Self {
            stage: 0,
            step: 0,
            step_in_epoch: 0,
            steps,
            seed,
        }
    }
}

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// What is minimised: a scalar.
    pub total: Tensor,
    /// The unweighted loss of each exit: scalars.
    pub exits: Vec<Tensor>,
    /// What else the total is made of, by name: scalars.
    pub terms: Vec<(&'static str, Tensor)>,
}

impl Loss {
    /// The weighted sum of the exits' own losses; an exit of weight 0 gets no gradient.
    ///
    /// # Errors
    /// When every weight is 0, or the framework refuses an operation.
    ///
    /// # Panics
    /// When there are not as many weights as exits.
    pub fn weighted(outputs: &[ExitOutput], targets: &Targets, weights: &[f64]) -> Result<Self> {
        assert_eq!(outputs.len(), weights.len(), "one weight per exit");
        let exits = outputs
            .iter()
            .map(|output| targets.loss(&output.logits))
            .collect::<Result<Vec<_>>>()?;
        let weighted = exits
            .iter()
            .zip(weights)
            .filter(|(_, weight)| **weight != 0.0)
            .map(|(loss, weight)| Ok((loss * *weight)?));
        Ok(Self {
            total: sum(weighted)?,
            exits,
            terms: Vec::new(),
        })
    }

    /// This loss with another term added to what is minimised.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn plus(mut self, name: &'static str, term: Tensor) -> Result<Self> {
        self.total = (self.total + &term)?;
        self.terms.push((name, term));
        Ok(self)
    }
}

/// The sum of scalars, of which there must be one.
fn sum(terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for term in terms {
        let term = term?;
        total = Some(match total {
            None => term,
            Some(sum) => (sum + term)?,
        });
    }
    total.ok_or(Error::Setting {
        setting: "exits",
        problem: "a model without exits cannot be trained".to_owned(),
    })
}
