//! The heads: everything that hangs on the blocks and reads their taps.

use std::rc::Rc;
use std::sync::Arc;

use badge_core::activation::Activation;
use badge_core::checkpoint::names;
use badge_core::config::ModelConfig;
use badge_core::exit::{Depth, ExitIndex};

use super::exit::Exit;
use super::linear::Linear;
use super::past_future::{ImitatedStates, Past, PastFuture};
use super::taps::{BlockTaps, Tap};
use crate::framework::{Result, Tensor};
use crate::ops::{DropoutStream, activate};
use crate::parameters::Parameters;

/// All exits of a model with what they share. Runs on taps alone, wherever these come from.
#[derive(Debug)]
pub(crate) struct Heads {
    /// One entry per block; `None` where the plan has no exit.
    exits: Vec<Option<Exit>>,
    past_future: Option<PastFuture>,
    learning_to_exit: Option<Linear>,
    taps: Vec<Tap>,
}

/// What one exit says about a batch.
#[derive(Debug, Clone)]
pub struct ExitOutput {
    /// Where the exit is.
    pub depth: Depth,
    /// Its answers: `[B, C]`.
    pub logits: Tensor,
    /// `u_m`, the learning-to-exit head's probability to go on: `[B]`; none without that head.
    pub uncertainty: Option<Tensor>,
    /// States for Global Past-Future's imitation loss; none without it.
    pub states: Option<ImitatedStates>,
}

/// The heads' side of one forward pass, exit after exit.
#[derive(Debug)]
pub(crate) struct HeadPass {
    lengths: Arc<[usize]>,
    stream: Option<Rc<DropoutStream>>,
    past: Past,
}

impl HeadPass {
    /// A pass over rows of these lengths; without a stream nothing is dropped.
    pub(crate) fn new(lengths: Arc<[usize]>, stream: Option<Rc<DropoutStream>>) -> Self {
        Self {
            lengths,
            stream,
            past: Past::default(),
        }
    }
}

impl Heads {
    pub(crate) fn new(parameters: &Parameters, config: &ModelConfig) -> Self {
        let early_exit = config.exits();
        let exit = |block| {
            early_exit
                .exits
                .has(block)
                .then(|| Exit::new(parameters, config, &early_exit, block))
        };
        Self {
            exits: (0..config.backbone.blocks).map(exit).collect(),
            past_future: early_exit
                .global_past_future
                .then(|| PastFuture::new(parameters, config)),
            learning_to_exit: early_exit
                .lte
                .then(|| Linear::new(parameters, &names::learning_to_exit())),
            taps: Exit::taps(&early_exit),
        }
    }

    /// What must be handed over of every block that carries an exit.
    pub(crate) fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// Whether the block carries an exit.
    pub(crate) fn has_exit(&self, block: usize) -> bool {
        self.exits[block].is_some()
    }

    /// What the exit after `block` says. Blocks come in ascending order; exits that are not wanted
    /// say nothing, but those behind may still read them.
    pub(crate) fn forward(
        &self,
        block: usize,
        taps: &BlockTaps,
        pass: &mut HeadPass,
        is_wanted: bool,
    ) -> Result<Option<ExitOutput>> {
        let Some(exit) = &self.exits[block] else {
            return Ok(None);
        };
        if !is_wanted && self.past_future.is_none() {
            return Ok(None);
        }
        let stream = pass.stream.as_deref();
        let state = exit.state(taps, &pass.lengths, stream)?; // [B, W]
        let read = exit.drop(&state, stream)?;
        let (logits, states) = match &self.past_future {
            None => (exit.classify(&read)?, None),
            Some(past_future) => {
                let both = (&state, &read);
                match past_future.forward(both, &mut pass.past, stream, is_wanted)? {
                    None => return Ok(None),
                    Some((logits, states)) => (logits, Some(states)),
                }
            }
        };
        let uncertainty = match &self.learning_to_exit {
            None => None,
            Some(head) => {
                let u = activate(&head.forward(&read)?, Activation::Sigmoid)?; // [B, 1]
                Some(u.squeeze(1)?)
            }
        };
        Ok(Some(ExitOutput {
            depth: ExitIndex(block).depth(),
            logits,
            uncertainty,
            states,
        }))
    }

    /// What every exit says, from the taps of the blocks that carry one, in ascending order.
    pub(crate) fn forward_all(
        &self,
        taps: &[(usize, BlockTaps)],
        mut pass: HeadPass,
    ) -> Result<Vec<ExitOutput>> {
        let mut outputs = Vec::with_capacity(taps.len());
        for (block, taps) in taps {
            outputs.extend(self.forward(*block, taps, &mut pass, true)?);
        }
        Ok(outputs)
    }
}
