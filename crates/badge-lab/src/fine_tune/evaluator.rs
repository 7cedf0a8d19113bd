//! The dev split on the engine: the trainer's weights as they are after an epoch, packed.

use badge_engine::kernels::isa::Isa;
use badge_engine::{EngineOptions, Precision};
use badge_train::Error;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::{Evaluator, ExitLogits};
use badge_train::model::MultiExitModel;

use crate::inference::{Code, Inference, PackedInference, Provenance};

/// Computes all exits on the engine in f32, whatever precision the training multiplies in: what
/// is scored is what the written weights will answer.
///
/// The packed copy lives only as long as an evaluation, when the step's activations are gone.
#[derive(Debug)]
pub struct PackedEvaluator {
    options: EngineOptions,
}

impl PackedEvaluator {
    /// An evaluator on so many threads.
    ///
    /// # Errors
    /// When the environment asks for an instruction set that is not there.
    pub fn new(threads: usize) -> anyhow::Result<Self> {
        let options = EngineOptions {
            threads,
            isa: Some(Isa::choose()?),
            ..EngineOptions::new(Precision::F32)
        };
        Ok(Self { options })
    }

    /// What computes, for records.
    pub fn provenance(&self) -> Provenance {
        let isa = self.options.isa.expect("`new` has chosen one");
        Provenance {
            name: Code::Engine.name().to_owned(),
            precision: self.options.precision.to_string(),
            instruction_set: isa.name().to_owned(),
        }
    }

    fn all_exits(
        &self,
        model: &MultiExitModel,
        split: &EncodedSplit,
    ) -> anyhow::Result<ExitLogits> {
        let weights = model.parameters().to_checkpoint()?;
        let options = self.options.clone();
        let mut packed = PackedInference::pack(model.config().clone(), weights, options)?;
        packed.all_exits(split, &mut |_| {})
    }
}

impl Evaluator for PackedEvaluator {
    fn evaluate(
        &mut self,
        model: &MultiExitModel,
        split: &EncodedSplit,
    ) -> badge_train::Result<ExitLogits> {
        let logits = self.all_exits(model, split);
        logits.map_err(|error| Error::Evaluator(error.into()))
    }
}
