//! Where the time goes, operation by operation and depth by depth.

use std::time::{Duration, Instant};

use badge_core::exit::Depth;

use crate::options::Profiling;

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Embedding sum, layer norm and ALBERT's mapping.
    Embeddings,
    /// Keys and values of all rows.
    KeysValues,
    /// Copies of the rows whose output is needed, where that is not all.
    Gather,
    /// Queries of the rows whose output is needed.
    Queries,
    /// Scores, softmax and context.
    Attention,
    /// The attention's output projection with its residual sum.
    AttentionOutput,
    /// Both layer norms.
    LayerNorm,
    /// The first feed-forward product with its activation.
    Intermediate,
    /// The second feed-forward product with its residual sum.
    FeedForward,
    /// Bypasses with their layer norms.
    Bypass,
    /// Poolers.
    Pooler,
    /// Classifiers.
    Classifier,
    /// What the policies make of the logits.
    Policy,
}

impl Operation {
    /// All of them, in the order in which a step runs them.
    pub const ALL: [Self; 13] = [
        Self::Embeddings,
        Self::KeysValues,
        Self::Gather,
        Self::Queries,
        Self::Attention,
        Self::AttentionOutput,
        Self::LayerNorm,
        Self::Intermediate,
        Self::FeedForward,
        Self::Bypass,
        Self::Pooler,
        Self::Classifier,
        Self::Policy,
    ];

    /// Its name in tables and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::KeysValues => "keys and values",
            Self::Gather => "gather",
            Self::Queries => "queries",
            Self::Attention => "attention",
            Self::AttentionOutput => "attention output",
            Self::LayerNorm => "layer norm",
            Self::Intermediate => "intermediate",
            Self::FeedForward => "feed-forward",
            Self::Bypass => "bypass",
            Self::Pooler => "pooler",
            Self::Classifier => "classifier",
            Self::Policy => "policy",
        }
    }
}

/// Time by operation and by depth, summed since the engine was built or the profile reset.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    profiling: Profiling,
    operations: [Duration; Operation::ALL.len()],
    depths: Vec<Duration>,
}

impl Profile {
    pub(crate) fn new(profiling: Profiling, blocks: usize) -> Self {
        Self {
            profiling,
            operations: [Duration::ZERO; Operation::ALL.len()],
            depths: vec![Duration::ZERO; blocks],
        }
    }

    /// Time spent in an operation.
    pub fn operation(&self, operation: Operation) -> Duration {
        self.operations[operation as usize]
    }

    /// Time spent in the block that leads to a depth, its exit included.
    ///
    /// A pass over sequences of several depths counts to each in proportion to its rows.
    ///
    /// # Panics
    /// On a depth that the model does not have.
    pub fn depth(&self, depth: Depth) -> Duration {
        self.depths[depth.index().0]
    }

    pub(crate) fn is_on(&self) -> bool {
        self.profiling == Profiling::On
    }

    pub(crate) fn reset(&mut self) {
        self.operations.fill(Duration::ZERO);
        self.depths.fill(Duration::ZERO);
    }

    /// Runs `work`, and counts its time if the profile is on.
    pub(crate) fn time<R>(&mut self, operation: Operation, work: impl FnOnce() -> R) -> R {
        if !self.is_on() {
            return work();
        }
        let start = Instant::now();
        let result = work();
        self.operations[operation as usize] += start.elapsed();
        result
    }

    /// Counts `share` of a pass's time to the block with this index.
    pub(crate) fn add_block(&mut self, block: usize, time: Duration, share: f64) {
        self.depths[block] += time.mul_f64(share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_listed_in_the_order_of_their_numbers() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index, "{}", operation.name());
        }
    }

    #[test]
    fn a_profile_that_is_off_counts_nothing() {
        for (profiling, counts) in [(Profiling::Off, false), (Profiling::On, true)] {
            let mut profile = Profile::new(profiling, 2);
            let work = || std::thread::sleep(Duration::from_micros(10));
            profile.time(Operation::Pooler, work);
            assert_eq!(
                profile.operation(Operation::Pooler) > Duration::ZERO,
                counts
            );
            assert_eq!(profile.operation(Operation::Policy), Duration::ZERO);
            profile.reset();
            assert_eq!(profile, Profile::new(profiling, 2));
        }
    }
}
