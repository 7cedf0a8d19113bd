//! Two-stage training: the backbone with its deepest exit first, then the other exits on it.

use badge_core::checkpoint::layout::Part;
use badge_core::config::EarlyExitConfig;
use badge_core::exit::ExitPlan;
use serde::{Deserialize, Serialize};

use super::{Judge, Loss, Method, Moment, Stage, sum};
use crate::error::Result;
use crate::loss::{KlDirection, Targets};
use crate::model::ExitOutput;

/// 2ST: stage 1 minimises `L_M` — paper, Eq. 5 — over the backbone and the deepest exit; stage 2
/// the sum of the other exits' losses — paper, Eq. 6 — over those exits alone.
///
/// In stage 2 the backbone, its pooler (a shared one too) and the deepest exit are frozen bit by
/// bit, and nothing in them is dropped. It goes with bypasses and attention exits, which belong to
/// their exits, but not with Global Past-Future, whose exits read one another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoStage {
    /// The loss of stage 2.
    pub second: SecondStage,
}

/// What the exits before the deepest learn from.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "loss", rename_all = "kebab-case")]
pub enum SecondStage {
    /// The labels, as in `DeeBERT` (Xin et al., 2020) and the paper's Eq. 6.
    #[default]
    CrossEntropy,
    /// The deepest exit's answers and no labels, as in `FastBERT` (Liu et al., 2020) and the paper's
    /// words: `Σ_{m<M} T² KL` between `softmax(z / T)` of both.
    Distillation {
        /// Which of the two is the first argument.
        direction: KlDirection,
        /// T.
        temperature: f64,
    },
}

impl Method for TwoStage {
    fn name(&self) -> &'static str {
        "two-stage"
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, moment: &Moment) -> Result<Loss> {
        let deepest = outputs.len() - 1;
        let is_first = moment.stage == 0;
        let weights: Vec<_> = (0..outputs.len())
            .map(|exit| f64::from(u8::from((exit == deepest) == is_first)))
            .collect();
        let mut loss = Loss::weighted(outputs, targets, &weights)?;
        if let (
            false,
            SecondStage::Distillation {
                direction,
                temperature,
            },
        ) = (is_first, self.second)
        {
            let teacher = outputs[deepest].logits.detach();
            let terms = outputs[..deepest].iter().map(|student| {
                targets.divergence((&teacher, &student.logits), direction, temperature)
            });
            loss.total = sum(terms)?;
        }
        Ok(loss)
    }

    fn stages(&self) -> Vec<Stage> {
        let stage = |name, judge| Stage { name, judge };
        vec![
            stage("backbone", Judge::Deepest),
            stage("exits", Judge::Average),
        ]
    }

    fn trains(&self, stage: usize, part: Part, plan: &ExitPlan) -> bool {
        let is_of_first = match part {
            Part::Exit(exit) | Part::Bypass(exit) => exit == plan.deepest().index(),
            Part::Backbone | Part::PastFuture | Part::LearningToExit => true,
        };
        is_of_first == (stage == 0)
    }

    fn check(&self, exits: &EarlyExitConfig) -> Result<(), String> {
        if exits.exits.count() < 2 {
            return Err("needs an exit before the deepest one".to_owned());
        }
        if exits.global_past_future {
            return Err(
                "trains exits on a frozen model, but global past-future's exits read one \
                        another and share their gate"
                    .to_owned(),
            );
        }
        if let SecondStage::Distillation { temperature, .. } = self.second
            && !(temperature.is_finite() && temperature > 0.0)
        {
            return Err(format!("--temperature: must be above 0, not {temperature}"));
        }
        Ok(())
    }
}
