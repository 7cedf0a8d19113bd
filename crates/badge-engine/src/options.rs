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
    /// When \[CLS\] is computed before the other rows of a block.
    pub cls_first: ClsFirst,
    /// Whether times are taken, operation by operation.
    pub profiling: Profiling,
}

/// Whether a block whose exit may end a sequence is computed for \[CLS\] alone first.
///
/// Answers are the same bit for bit; only time differs. Where the exit certainly ends the sequence,
/// the rows that nobody reads are never computed, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClsFirst {
    /// As the engine's own measurements of both ways advise.
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
            cls_first: ClsFirst::default(),
            profiling: Profiling::default(),
        }
    }
}
