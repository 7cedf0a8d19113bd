//! Methods by name, as the command line, configurations and records have them.

use badge_core::config::Family;
use badge_core::exit::Pooler;
use serde::{Deserialize, Serialize};

use super::{
    Alternating, ExitWeights, GlobalPastFuture, GradientEquilibrium, Joint, LearningToExit,
    LteTraining, Method, SecondStage, Single, TwoStage,
};

/// A method with its settings, as text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum MethodSpec {
    /// One exit, the deepest of the model.
    Single,
    /// All exits together; with bypasses this is BADGE.
    Joint {
        /// The weights of the exits' losses.
        #[serde(default)]
        exit_weights: ExitWeights,
    },
    /// The backbone first, then the exits.
    TwoStage {
        /// The loss of the second stage.
        second: SecondStage,
    },
    /// The deepest exit and all exits in turns.
    Alternating,
    /// Joint training with rescaled gradients.
    GradientEquilibrium,
    /// Exits that look back and ahead.
    GlobalPastFuture {
        /// Blocks that start frozen and thaw.
        thawing_blocks: usize,
    },
}

impl MethodSpec {
    /// The pooler of its exits where nothing else is asked for: ElasticBERT was pre-trained with one for
    /// every exit, all others share one, as Global Past-Future's exits must.
    pub fn usual_pooler(&self, family: Family) -> Pooler {
        let shares = matches!(self, Self::GlobalPastFuture { .. });
        match family {
            Family::ElasticBert if !shares => Pooler::Own,
            Family::ElasticBert | Family::Albert | Family::Bert => Pooler::Shared,
        }
    }

    /// The method, with the learning-to-exit head if it is to be trained.
    pub fn build(self, lte: Option<LteTraining>) -> Box<dyn Method> {
        let method: Box<dyn Method> = match self {
            Self::Single => Box::new(Single),
            Self::Joint { exit_weights } => Box::new(Joint {
                weights: exit_weights,
            }),
            Self::TwoStage { second } => Box::new(TwoStage { second }),
            Self::Alternating => Box::new(Alternating),
            Self::GradientEquilibrium => Box::new(GradientEquilibrium),
            Self::GlobalPastFuture { thawing_blocks } => {
                Box::new(GlobalPastFuture { thawing_blocks })
            }
        };
        match lte {
            None => method,
            Some(training) => Box::new(LearningToExit { method, training }),
        }
    }
}
