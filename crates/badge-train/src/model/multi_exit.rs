//! Backbone and exits together.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use badge_core::checkpoint::layout::Part;
use badge_core::checkpoint::{Checkpoint, layout};
use badge_core::config::ModelConfig;
use badge_core::exit::Depth;

use super::block::{Block, BlockOutput};
use super::embeddings::Embeddings;
use super::heads::{ExitOutput, HeadPass, Heads};
use super::input::ModelInput;
use super::junction::Junction;
use super::taps::BlockTaps;
use crate::error::Result;
use crate::framework::{Device, Tensor};
use crate::ops::DropoutStream;
use crate::parameters::Parameters;

/// A multi-exit encoder with its variables.
#[derive(Debug)]
pub struct MultiExitModel {
    config: ModelConfig,
    parameters: Parameters,
    /// What each parameter belongs to.
    parts: BTreeMap<String, Part>,
    embeddings: Embeddings,
    blocks: Vec<Block>,
    heads: Heads,
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

impl Mode {
    pub(crate) fn stream(self) -> Option<Rc<DropoutStream>> {
        match self {
            Self::Evaluation => None,
            Self::Training { seed, pass } => Some(Rc::new(DropoutStream::new(seed, pass))),
        }
    }
}

impl MultiExitModel {
    /// Builds the model that `config` describes from a checkpoint that fits it exactly.
    ///
    /// # Errors
    /// Names the first tensor that is missing, extra or misshapen.
    pub fn new(config: ModelConfig, weights: &Checkpoint, device: &Device) -> Result<Self> {
        let layout = layout::of_model(&config);
        let parameters = Parameters::from_checkpoint(weights, &layout, device)?;
        let parts = layout.into_iter().map(|spec| (spec.name, spec.part));
        let block = |block| Block::new(&parameters, &config.backbone, block);
        Ok(Self {
            embeddings: Embeddings::new(&parameters, &config.backbone),
            blocks: (0..config.backbone.blocks).map(block).collect(),
            heads: Heads::new(&parameters, &config),
            parts: parts.collect(),
            device: device.clone(),
            config,
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

    /// What a parameter belongs to.
    pub(crate) fn part(&self, name: &str) -> Part {
        self.parts[name]
    }

    /// What hangs on the blocks.
    pub(crate) fn heads(&self) -> &Heads {
        &self.heads
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
        let stream = mode.stream();
        let hidden = self.embeddings.forward(input, stream.as_deref())?;
        Ok(Forward {
            model: self,
            lengths: input.lengths.clone(),
            hidden,
            pass: HeadPass::new(input.lengths.clone(), stream.clone()),
            stream,
            blocks_run: 0,
        })
    }

    /// What every exit says, in the order of the plan, with gradients that pass `junctions`, one
    /// per block.
    ///
    /// # Errors
    /// When the input does not fit the embedding tables.
    ///
    /// # Panics
    /// When there are not as many junctions as blocks.
    pub fn outputs(
        &self,
        input: &ModelInput,
        junctions: &[Junction],
        mode: Mode,
    ) -> Result<Vec<ExitOutput>> {
        assert_eq!(junctions.len(), self.blocks.len(), "one junction per block");
        let mut forward = self.start(input, mode)?;
        let mut outputs = Vec::with_capacity(self.config.exits().exits.count());
        for junction in junctions {
            outputs.extend(forward.next_block(|_| true, *junction)?);
        }
        Ok(outputs)
    }

    /// The logits of every exit, in the order of the plan: E tensors `[B, C]`.
    ///
    /// # Errors
    /// When the input does not fit the embedding tables.
    pub fn forward_all_exits(&self, input: &ModelInput, mode: Mode) -> Result<Vec<Tensor>> {
        let plain = vec![Junction::PLAIN; self.blocks.len()];
        let outputs = self.outputs(input, &plain, mode)?;
        Ok(outputs.into_iter().map(|output| output.logits).collect())
    }

    /// The taps of every block that carries an exit, as constants, without dropout: all that heads
    /// on a frozen backbone read.
    ///
    /// # Errors
    /// When the input does not fit the embedding tables.
    pub(crate) fn constant_taps(&self, input: &ModelInput) -> Result<Vec<(usize, BlockTaps)>> {
        let mut forward = self.start(input, Mode::Evaluation)?;
        let mut taps = Vec::new();
        for block in 0..self.blocks.len() {
            let output = forward.run_block()?;
            if self.heads.has_exit(block) {
                let of_block = output.taps(self.heads.taps())?;
                taps.push((block, of_block.map(|tap| Ok(tap.detach()))?));
            }
            // A constant, so that no graph is kept.
            forward.hidden = output.hidden.detach();
        }
        Ok(taps)
    }
}

/// A forward pass under way: nothing beyond the last block asked for has been computed.
#[derive(Debug)]
pub struct Forward<'a> {
    model: &'a MultiExitModel,
    lengths: Arc<[usize]>,
    /// `H_m` of the last block run: `[B, T, D]`.
    hidden: Tensor,
    stream: Option<Rc<DropoutStream>>,
    pass: HeadPass,
    blocks_run: usize,
}

impl Forward<'_> {
    /// Runs blocks up to the next exit and returns what it says; `None` after the deepest.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn next_exit(&mut self) -> Result<Option<ExitOutput>> {
        self.next_wanted_exit(|_| true)
    }

    /// The same, passing over exits that are not wanted.
    ///
    /// # Errors
    /// When the framework refuses an operation.
    pub fn next_wanted_exit(
        &mut self,
        wanted: impl Fn(Depth) -> bool,
    ) -> Result<Option<ExitOutput>> {
        while self.blocks_run < self.model.blocks.len() {
            if let Some(output) = self.next_block(&wanted, Junction::PLAIN)? {
                return Ok(Some(output));
            }
        }
        Ok(None)
    }

    fn run_block(&mut self) -> Result<BlockOutput> {
        let block = &self.model.blocks[self.blocks_run];
        self.blocks_run += 1;
        Ok(block.forward(&self.hidden, &self.lengths, self.stream.as_deref())?)
    }

    /// Runs one block, and its exit if it carries one that is wanted.
    fn next_block(
        &mut self,
        wanted: impl Fn(Depth) -> bool,
        junction: Junction,
    ) -> Result<Option<ExitOutput>> {
        let (block, heads) = (self.blocks_run, &self.model.heads);
        let output = self.run_block()?;
        let answer = if heads.has_exit(block) {
            let taps = output.taps(heads.taps())?;
            let taps = taps.map(|tap| junction.to_exit(tap))?;
            let is_wanted = wanted(Depth(self.blocks_run));
            heads.forward(block, &taps, &mut self.pass, is_wanted)?
        } else {
            None
        };
        self.hidden = junction.to_next_block(&output.hidden)?;
        Ok(answer)
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
    use badge_core::exit_head::ExitHead;

    use super::*;
    use crate::ops::{DropoutSite, LayerIndex};
    use crate::parameters::initialise;

    /// Sites that one training pass draws masks for, all rates being positive.
    fn masks(family: &str, exit_head: Option<ExitHead>) -> Vec<DropoutSite> {
        let json = serde_json::json!({
            "model_type": family, "vocab_size": 9, "embedding_size": 5, "hidden_size": 8,
            "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 7,
            "max_position_embeddings": 6, "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1
        });
        let plain = ModelConfig::from_json(json.to_string().as_bytes()).unwrap();
        let mut exits = EarlyExitConfig::new(ExitPlan::every_block(3), Pooler::Shared, None, 0.1);
        exits.exit_head = exit_head;
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
            assert_eq!(masks(family, None), expected);
        }
    }

    #[test]
    fn attention_exits_drop_probabilities() {
        let head = ExitHead::MhaBottleneck { rank: 4, heads: 2 };
        let drawn = masks("bert", Some(head));
        for block in 0..3 {
            let of_attention = DropoutSite::ExitProbabilities(block);
            let place = drawn.iter().position(|site| *site == of_attention);
            let behind = drawn.get(place.expect("drawn once an exit") + 1);
            assert_eq!(behind, Some(&DropoutSite::Exit(block)));
        }
    }
}
