//! Backbone and exits together.

use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::ModelConfig;
use badge_core::exit::Depth;

use super::block::Block;
use super::embeddings::Embeddings;
use super::exit::Exit;
use super::input::ModelInput;
use crate::error::Result;
use crate::framework::{Device, Tensor};
use crate::ops::DropoutStream;
use crate::parameters::Parameters;

/// A multi-exit encoder with its variables.
#[derive(Debug)]
pub struct MultiExitModel {
    config: ModelConfig,
    parameters: Parameters,
    embeddings: Embeddings,
    blocks: Vec<Block>,
    /// One entry per block; `None` where the plan has no exit.
    exits: Vec<Option<Exit>>,
    device: Device,
}

/// Whether dropout is drawn.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// No dropout.
    Evaluation,
    /// The dropout masks of this forward pass.
    Training {
        /// Seed of the run.
        seed: u64,
        /// Number of the forward pass, counted over the whole run.
        pass: u64,
    },
}

impl MultiExitModel {
    /// Builds the model that `config` describes from a checkpoint that fits it exactly.
    ///
    /// # Errors
    /// Names the first tensor that is missing, extra or misshapen.
    pub fn new(config: ModelConfig, weights: &Checkpoint, device: &Device) -> Result<Self> {
        let layout = layout::of_model(&config);
        let parameters = Parameters::from_checkpoint(weights, &layout, device)?;
        let early_exit = config.exits();
        let blocks: Vec<_> = (0..config.backbone.blocks)
            .map(|block| Block::new(&parameters, &config.backbone, block))
            .collect();
        let exits = blocks
            .iter()
            .enumerate()
            .map(|(index, block)| {
                early_exit
                    .exits
                    .has(index)
                    .then(|| Exit::new(&parameters, &config, &early_exit, (index, block)))
            })
            .collect();
        let embeddings = Embeddings::new(&parameters, &config.backbone);
        Ok(Self {
            config,
            embeddings,
            blocks,
            exits,
            device: device.clone(),
            parameters,
        })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its variables.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Where it is computed.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Starts a forward pass that runs block by block and may stop at any of them.
    ///
    /// # Errors
    /// When the input does not fit the embedding tables.
    pub fn start(&self, input: &ModelInput, mode: Mode) -> Result<Forward<'_>> {
        input.check(&self.config.backbone)?;
        let stream = match mode {
            Mode::Evaluation => None,
            Mode::Training { seed, pass } => Some(DropoutStream::new(seed, pass)),
        };
        let hidden = self.embeddings.forward(input, stream.as_ref())?;
        Ok(Forward {
            model: self,
            lengths: input.lengths.clone(),
            hidden,
            stream,
            blocks_run: 0,
        })
    }

    /// The logits of every exit, in the order of the plan: E tensors `[B, C]`.
    ///
    /// # Errors
    /// When the input does not fit the embedding tables.
    pub fn forward_all_exits(&self, input: &ModelInput, mode: Mode) -> Result<Vec<Tensor>> {
        let mut forward = self.start(input, mode)?;
        let mut logits = Vec::with_capacity(self.config.exits().exits.count());
        while let Some((_, exit)) = forward.next_exit()? {
            logits.push(exit);
        }
        Ok(logits)
    }
}

/// A forward pass under way: nothing beyond the last block asked for has been computed.
#[derive(Debug)]
pub struct Forward<'a> {
    model: &'a MultiExitModel,
    lengths: std::sync::Arc<[usize]>,
    /// `H_m` of the last block run: `[B, T, D]`.
    hidden: Tensor,
    stream: Option<DropoutStream>,
    blocks_run: usize,
}

impl Forward<'_> {
    /// Runs blocks up to the next exit and returns its depth and logits `[B, C]`; `None` after
    /// the deepest.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn next_exit(&mut self) -> Result<Option<(Depth, Tensor)>> {
        self.next_wanted_exit(|_| true)
    }

    /// The same, passing over exits that are not wanted without computing them.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn next_wanted_exit(
        &mut self,
        wanted: impl Fn(Depth) -> bool,
    ) -> Result<Option<(Depth, Tensor)>> {
        while self.blocks_run < self.model.blocks.len() {
            if let Some(logits) = self.next_block(&wanted)? {
                return Ok(Some((Depth(self.blocks_run), logits)));
            }
        }
        Ok(None)
    }

    /// Runs one block; logits if it carries a wanted exit.
    fn next_block(&mut self, wanted: impl Fn(Depth) -> bool) -> Result<Option<Tensor>> {
        let index = self.blocks_run;
        let stream = self.stream.as_ref();
        let output = self.model.blocks[index].forward(&self.hidden, &self.lengths, stream)?;
        let logits = match &self.model.exits[index] {
            Some(exit) if wanted(Depth(index + 1)) => {
                Some(exit.forward(&self.hidden, &output, stream)?)
            }
            _ => None,
        };
        self.hidden = output.hidden;
        self.blocks_run += 1;
        Ok(logits)
    }

    /// The hidden states after the last block run, or the embeddings before the first:
    /// `[B, T, D]`.
    pub fn hidden(&self) -> &Tensor {
        &self.hidden
    }
}

#[cfg(test)]
mod tests {
    use badge_core::checkpoint::Checkpoint;
    use badge_core::config::EarlyExitConfig;
    use badge_core::exit::{ExitPlan, Pooler};

    use super::*;
    use crate::ops::{DropoutSite, LayerIndex};
    use crate::parameters::initialise;

    /// Sites that one training pass draws masks for, all rates being positive.
    fn masks(family: &str) -> Vec<DropoutSite> {
        let json = serde_json::json!({
            "model_type": family, "vocab_size": 9, "embedding_size": 5, "hidden_size": 8,
            "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 7,
            "max_position_embeddings": 6, "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1
        });
        let plain = ModelConfig::from_json(json.to_string().as_bytes()).unwrap();
        let exits = EarlyExitConfig::new(ExitPlan::every_block(3), Pooler::Shared, None, 0.1);
        let config = plain.with_exits(plain.head.clone(), exits);
        let layout = layout::of_model(&config);
        let weights = initialise(Checkpoint::default(), &layout, 1).unwrap();
        let model = MultiExitModel::new(config, &weights, &Device::Cpu).unwrap();
        let input = ModelInput::new(&[1, 2, 3], &[0; 3], &[3], &Device::Cpu).unwrap();
        let mut forward = model
            .start(&input, Mode::Training { seed: 1, pass: 0 })
            .unwrap();
        while forward.next_exit().unwrap().is_some() {}
        forward.stream.unwrap().drawn()
    }

    #[test]
    fn each_family_drops_where_its_authors_do() {
        // ALBERT drops nothing behind its feed-forward network.
        for (family, behind_feed_forward) in [("bert", true), ("albert", false)] {
            let mut expected = vec![DropoutSite::Embeddings];
            for block in 0..3 {
                let layer = LayerIndex { block, inner: 0 };
                expected.push(DropoutSite::Probabilities(layer));
                expected.push(DropoutSite::AttentionOutput(layer));
                if behind_feed_forward {
                    expected.push(DropoutSite::FeedForwardOutput(layer));
                }
                expected.push(DropoutSite::Exit(block));
            }
            assert_eq!(masks(family), expected);
        }
    }
}
