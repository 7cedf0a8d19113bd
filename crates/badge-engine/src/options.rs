//! How an engine is built.

use badge_kernels::gemm::Precision;
use badge_kernels::isa::Isa;
use badge_kernels::threads::available_threads;

/// Sizes and choices that are fixed when an engine is made.
///
/// # Example
/// ```
/// use badge_engine::{EngineOptions, Precision};
///
/// let options = EngineOptions { threads: 1, ..EngineOptions::new(Precision::Bf16) };
/// assert_eq!(options.tokens_max, EngineOptions::default().tokens_max);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Numbers that the backbone's products multiply.
    pub precision: Precision,
    /// Threads that share each operation.
    pub threads: usize,
    /// Rows of tokens that are alive at a time, over all sequences. It sizes the workspace.
    pub tokens_max: usize,
    /// Sequences that are alive at a time.
    pub sequences_max: usize,
    /// The instruction set; `None` for what [`Isa::choose`] gives.
    pub isa: Option<Isa>,
    /// When a block whose exit may end a sequence is computed for \[CLS\] alone first. Where the exit
    /// certainly ends it, the rows that nobody reads are never computed, whatever this says.
    pub cls_first: When,
    /// When the exits of a sequence that is alone wait for its next ones, up to four of them, to be
    /// computed together: the weights of a pooler that exits share are then read once, not once an exit.
    /// A sequence that turns out to have left at an exit that waited has run the blocks behind it in
    /// vain. `Auto`: where the policy cannot leave yet, and where hardly a sequence has left so far.
    pub exits_wait: When,
    /// Whether times are taken, operation by operation.
    pub profiling: Profiling,
}

/// When one of two ways is taken that give the same answers, bit for bit; only time differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum When {
    /// Where the engine's own measurements advise it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether an engine keeps a [`crate::Profile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profiling {
    /// It takes no times of single operations.
    #[default]
    Off,
    /// It reads the clock twice an operation.
    On,
}

impl EngineOptions {
    /// The defaults in this precision.
    pub fn new(precision: Precision) -> Self {
        Self {
            precision,
            ..Self::default()
        }
    }
}

impl Default for EngineOptions {
    /// f32 on all cores, room for 2048 tokens of up to 64 sequences.
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            threads: available_threads(),
            tokens_max: 2048,
            sequences_max: 64,
            isa: None,
            cls_first: When::default(),
            exits_wait: When::default(),
            profiling: Profiling::default(),
        }
    }
}
