//! Single exits: a backbone cut off at one depth, fine-tuned for its one exit.

use badge_core::config::EarlyExitConfig;

use super::{Judge, Loss, Method, Moment, Stage};
use crate::error::Result;
use crate::loss::Targets;
use crate::model::ExitOutput;

/// Ordinary fine-tuning of a model with one exit, its deepest: `L_M`. The paper's column
/// "Single-exits" is M such runs, each of the first m blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Single;

impl Method for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn loss(&self, outputs: &[ExitOutput], targets: &Targets, _moment: &Moment) -> Result<Loss> {
        Loss::weighted(outputs, targets, &[1.0])
    }

    fn stages(&self) -> Vec<Stage> {
        vec![Stage {
            name: self.name(),
            judge: Judge::Deepest,
        }]
    }

    fn check(&self, exits: &EarlyExitConfig) -> Result<(), String> {
        let count = exits.exits.count();
        if count == 1 {
            return Ok(());
        }
        Err(format!(
            "trains models of one exit, not {count}; --depth says how many blocks the model has"
        ))
    }
}
