//! The trainer's model, row by row where it follows a policy.

use std::borrow::Borrow;
use std::sync::Arc;

use anyhow::Result;
use badge_core::config::ModelConfig;
use badge_core::policy::Policy;
use badge_tasks::Encoding;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::{ExitLogits, evaluate};
use badge_train::infer::classify;
use badge_train::model::MultiExitModel;

use super::{Answer, Inference, OnRow, Provenance};

/// The trainer's model, owned or borrowed: what the engine is held against.
#[derive(Debug)]
pub struct Reference<M> {
    model: M,
}

impl<M: Borrow<MultiExitModel>> Reference<M> {
    /// Answers with this model.
    pub fn new(model: M) -> Self {
        Self { model }
    }
}

impl<M: Borrow<MultiExitModel>> Inference for Reference<M> {
    fn config(&self) -> &ModelConfig {
        self.model.borrow().config()
    }

    fn provenance(&self) -> Provenance {
        Provenance::of_trainer(self.model.borrow().device())
    }

    fn all_exits(&mut self, rows: &EncodedSplit, on_row: OnRow) -> Result<ExitLogits> {
        Ok(evaluate(self.model.borrow(), rows, on_row)?)
    }

    fn classify(&mut self, rows: &[Encoding], policy: &Arc<Policy>) -> Result<Vec<Answer>> {
        let answer = |row| Ok(self.classify_one(row, policy)?.0);
        rows.iter().map(answer).collect()
    }

    fn classify_one(&mut self, row: &Encoding, policy: &Arc<Policy>) -> Result<(Answer, f64)> {
        let answer = classify(self.model.borrow(), row, policy)?;
        let ours = Answer {
            depth: answer.depth,
            prediction: answer.prediction,
            reason: answer.reason,
        };
        Ok((ours, answer.seconds))
    }
}
