//! What all exits say about one sample, for the tests of policies.

use badge_core::distribution::{ContinueProbability, Prediction, PredictionKind};
use badge_core::exit::ExitPlan;
use badge_core::policy::{ModelExits, Observation, PolicySpec};

/// Two classes.
pub(crate) const BINARY: PredictionKind = PredictionKind::SingleLabel { classes: 2 };

/// What all exits of a model with a learning-to-exit head say about one sample.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The kind of the answers.
    pub(crate) kind: PredictionKind,
    /// The logits of every exit.
    pub(crate) logits: Vec<Vec<f32>>,
    /// The head's probability to continue at every exit.
    pub(crate) doubts: Vec<f32>,
}

/// What the exits say, read.
pub(crate) struct Outputs {
    /// The answers.
    pub(crate) predictions: Vec<Prediction>,
    doubts: Vec<ContinueProbability>,
}

impl Sample {
    /// A sample without anything worth learning from.
    pub(crate) fn new(kind: PredictionKind, logits: Vec<Vec<f32>>) -> Self {
        let doubts = vec![0.5; logits.len()];
        Self {
            kind,
            logits,
            doubts,
        }
    }

    /// A model with an exit after every block.
    pub(crate) fn exits(&self) -> ModelExits {
        ModelExits::new(ExitPlan::every_block(self.count()), self.kind).with_learning_to_exit()
    }

    /// Number of exits.
    pub(crate) fn count(&self) -> usize {
        self.logits.len()
    }

    /// What the exits say.
    pub(crate) fn outputs(&self) -> Outputs {
        let read = |z: &Vec<f32>| Prediction::from_logits(self.kind, z).unwrap();
        let doubt = |u: &f32| ContinueProbability::new(*u).unwrap();
        Outputs {
            predictions: self.logits.iter().map(read).collect(),
            doubts: self.doubts.iter().map(doubt).collect(),
        }
    }

    /// Where the sample leaves.
    pub(crate) fn depth(&self, spec: impl Into<PolicySpec>) -> usize {
        let policy = spec.into().build_for(&self.exits()).unwrap();
        let outputs = self.outputs();
        let point = policy.replay(&mut policy.start(), outputs.observations());
        assert_eq!(point.position + 1, point.depth.0);
        point.depth.0
    }
}

impl Outputs {
    /// What a policy is shown, exit by exit.
    pub(crate) fn observations(&self) -> impl ExactSizeIterator<Item = Observation<'_>> {
        let both = self.predictions.iter().zip(&self.doubts);
        both.map(|(prediction, doubt)| Observation {
            prediction,
            continue_probability: Some(*doubt),
        })
    }
}
