//! The engine: rows packed without padding, leaving a batch as their answers settle.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use badge_core::checkpoint::Checkpoint;
use badge_core::config::ModelConfig;
use badge_core::policy::Policy;
use badge_engine::{Engine, EngineOptions, TokenIds};
use badge_tasks::Encoding;
use badge_train::data::EncodedSplit;
use badge_train::evaluate::ExitLogits;
use badge_train::weights::{SAFETENSORS_FILE, read_checkpoint, read_config};

use super::{Answer, Code, Inference, InferenceOptions, OnRow, Provenance};

/// A model packed for the engine.
#[derive(Debug)]
pub struct PackedInference {
    engine: Engine,
}

impl PackedInference {
    /// Reads and packs a model directory.
    ///
    /// # Errors
    /// Names the file, key or tensor that is wrong.
    pub fn load(directory: &Path, options: &InferenceOptions) -> Result<Self> {
        let options = EngineOptions {
            threads: options.threads,
            ..EngineOptions::new(options.precision)
        };
        Self::with_options(directory, options)
    }

    /// The same with all the options that the engine has. Room is made for inputs of any length
    /// that the model takes.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn with_options(directory: &Path, mut options: EngineOptions) -> Result<Self> {
        let config = read_config(directory)?;
        options.tokens_max = options.tokens_max.max(config.backbone.positions);
        // Shards and PyTorch's own format are read by the trainer's reader, whole.
        if !directory.join(SAFETENSORS_FILE).exists() {
            return Self::pack(config, read_checkpoint(directory)?, options);
        }
        Ok(Self {
            engine: Engine::load(directory, options)?,
        })
    }

    /// Packs weights that are in memory; each tensor is freed when it has been packed.
    ///
    /// # Errors
    /// Names the first tensor that is missing, extra or misshapen.
    pub fn pack(
        config: ModelConfig,
        weights: Checkpoint,
        mut options: EngineOptions,
    ) -> Result<Self> {
        options.tokens_max = options.tokens_max.max(config.backbone.positions);
        Ok(Self {
            engine: Engine::new(config, weights, options)?,
        })
    }
}

impl Inference for PackedInference {
    fn config(&self) -> &ModelConfig {
        self.engine.config()
    }

    fn provenance(&self) -> Provenance {
        Provenance {
            name: Code::Engine.name().to_owned(),
            precision: self.engine.options().precision.to_string(),
            instruction_set: self.engine.isa().name().to_owned(),
        }
    }

    fn all_exits(&mut self, rows: &EncodedSplit, on_row: OnRow) -> Result<ExitLogits> {
        let config = self.engine.config();
        let plan = config.exits().exits;
        let (exits, outputs) = (plan.count(), config.head.outputs());
        let mut values = vec![0.0; rows.len() * exits * outputs];
        let inputs: Vec<_> = rows.encodings().iter().map(token_ids).collect();
        let mut continue_probabilities = Vec::new();
        if config.exits().lte {
            continue_probabilities.resize(rows.len() * exits, 0.0);
        }
        self.engine.all_exits(&inputs, |row, depth, output| {
            let exit = plan.depths().binary_search(&depth);
            let exit = exit.expect("the engine gives logits of the model's exits");
            values[(row * exits + exit) * outputs..][..outputs].copy_from_slice(output.logits);
            if let Some(u) = output.continue_probability {
                continue_probabilities[row * exits + exit] = u.value();
            }
            if depth == plan.deepest() {
                on_row(1);
            }
        })?;
        Ok(ExitLogits {
            exits,
            outputs,
            values,
            continue_probabilities,
        })
    }

    fn classify(&mut self, rows: &[Encoding], policy: &Arc<Policy>) -> Result<Vec<Answer>> {
        let inputs: Vec<_> = rows.iter().map(token_ids).collect();
        let answers = self.engine.classify(&inputs, policy)?;
        Ok(answers.into_iter().map(Answer::from).collect())
    }

    fn classify_one(&mut self, row: &Encoding, policy: &Arc<Policy>) -> Result<(Answer, f64)> {
        let start = Instant::now();
        let mut answers = self.engine.classify(&[token_ids(row)], policy)?;
        let seconds = start.elapsed().as_secs_f64();
        let answer = answers.pop().expect("one answer per row");
        Ok((answer.into(), seconds))
    }
}

fn token_ids(encoding: &Encoding) -> TokenIds<'_> {
    TokenIds {
        ids: &encoding.ids,
        type_ids: &encoding.type_ids,
    }
}

impl From<badge_engine::Answer> for Answer {
    fn from(answer: badge_engine::Answer) -> Self {
        Self {
            depth: answer.depth,
            reason: answer.reason(),
            prediction: answer.prediction,
        }
    }
}
