//! Sequences on their way through the network.

use std::ops::Range;
use std::sync::Arc;

use badge_core::config::BackboneConfig;
use badge_core::distribution::Prediction;
use badge_core::exit::Depth;
use badge_core::policy::{Decision, Observation, Outlook, Policy, PolicyState};
use badge_kernels::embedding::Token;

use crate::answer::{Answer, ExitOutput, Finished};
use crate::error::{Error, Result};

/// One input as the tokeniser gives it.
#[derive(Debug, Clone, Copy)]
pub struct TokenIds<'a> {
    /// Token ids, \[CLS\] first.
    pub ids: &'a [u32],
    /// Segment ids, as many.
    pub type_ids: &'a [u32],
}

impl TokenIds<'_> {
    /// Refuses what the tables do not hold.
    pub(crate) fn check(&self, config: &BackboneConfig) -> Result<()> {
        let (tokens, type_ids) = (self.ids.len(), self.type_ids.len());
        if tokens == 0 {
            return Err(Error::NoTokens);
        }
        if tokens != type_ids {
            let ids = tokens;
            return Err(Error::Segments { ids, type_ids });
        }
        let positions = config.positions;
        if tokens > positions {
            return Err(Error::TooLong { tokens, positions });
        }
        let vocabulary = config.vocabulary;
        if let Some(id) = outside(self.ids, vocabulary) {
            return Err(Error::TokenId { id, vocabulary });
        }
        let token_types = config.token_types;
        match outside(self.type_ids, token_types) {
            Some(id) => Err(Error::SegmentId { id, token_types }),
            None => Ok(()),
        }
    }

    /// What each token looks up.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> {
        let ids = self.ids.iter().zip(self.type_ids).enumerate();
        ids.map(|(position, (word, token_type))| Token {
            word: *word,
            position: position as u32,
            token_type: *token_type,
        })
    }
}

/// The first id that is no row of a table.
fn outside(ids: &[u32], entries: usize) -> Option<u32> {
    ids.iter().copied().find(|id| *id as usize >= entries)
}

/// A sequence that is alive. Its memory is allocated when it is admitted, none later.
#[derive(Debug)]
pub(crate) struct Sequence {
    request: u64,
    policy: Arc<Policy>,
    state: PolicyState,
    prediction: Prediction,
    logits: Vec<f32>,
    watch: Watch,
    /// Its rows among those of all live sequences.
    pub(crate) rows: Range<usize>,
    /// Blocks that have run.
    pub(crate) blocks_run: usize,
    end: Option<End>,
}

/// Which exits are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Those that the policy looks at, until it decides to leave.
    Policy,
    /// All of them, to the deepest, whatever the policy says.
    EveryExit,
}

/// How a sequence left.
#[derive(Debug)]
enum End {
    Answered(Depth),
    Failed(badge_core::Error),
}

impl Sequence {
    /// A sequence before its first block; `rows` is its place.
    pub(crate) fn new(
        request: u64,
        policy: &Arc<Policy>,
        watch: Watch,
        rows: Range<usize>,
    ) -> Result<Self> {
        Ok(Self {
            request,
            state: policy.start(),
            prediction: Prediction::blank(policy.kind())?,
            logits: vec![0.0; policy.kind().logits()],
            policy: Arc::clone(policy),
            watch,
            rows,
            blocks_run: 0,
            end: None,
        })
    }

    pub(crate) fn request(&self) -> u64 {
        self.request
    }

    /// The depth of the block that runs next.
    pub(crate) fn next_depth(&self) -> Depth {
        Depth(self.blocks_run + 1)
    }

    /// Whether the exit of the next block is computed.
    pub(crate) fn needs_next_exit(&self) -> bool {
        match self.watch {
            Watch::Policy => self.policy.needs(self.next_depth()),
            Watch::EveryExit => self.policy.plan().has(self.blocks_run),
        }
    }

    /// What may happen at the exit of the next block.
    pub(crate) fn outlook(&self) -> Outlook {
        self.outlook_at(self.next_depth())
    }

    /// What may happen at an exit.
    pub(crate) fn outlook_at(&self, depth: Depth) -> Outlook {
        match self.watch {
            Watch::Policy => self.policy.outlook(depth),
            Watch::EveryExit if depth == self.policy.plan().deepest() => Outlook::Certain,
            Watch::EveryExit => Outlook::Never,
        }
    }

    /// Takes note of what an exit says; exits come by ascending depth.
    pub(crate) fn hear(&mut self, depth: Depth, output: ExitOutput<'_>) {
        self.logits.copy_from_slice(output.logits);
        if let Err(error) = self.prediction.set_from_logits(output.logits) {
            self.fail(error);
            return;
        }
        let observation = Observation {
            prediction: &self.prediction,
            continue_probability: output.continue_probability,
        };
        let decision = match self.watch {
            Watch::Policy => self.policy.observe(&mut self.state, depth, observation),
            Watch::EveryExit if depth == self.policy.plan().deepest() => Decision::Exit,
            Watch::EveryExit => Decision::Continue,
        };
        if decision == Decision::Exit {
            self.end = Some(End::Answered(depth));
        }
    }

    /// Ends without an answer.
    pub(crate) fn fail(&mut self, error: badge_core::Error) {
        self.end = Some(End::Failed(error));
    }

    /// Whether an exit that was heard was its end.
    pub(crate) fn has_left(&self) -> bool {
        self.end.is_some()
    }

    /// The answer of a sequence that has left.
    pub(crate) fn finish(self) -> Finished {
        let answer = match self
            .end
            .expect("only sequences that have left are finished")
        {
            End::Failed(error) => Err(error.into()),
            End::Answered(depth) => Ok(Answer {
                depth,
                prediction: self.prediction,
                logits: self.logits,
                policy: self.policy,
                state: self.state,
            }),
        };
        Finished {
            request: self.request,
            answer,
        }
    }
}
