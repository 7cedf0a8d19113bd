//! What can go wrong while a model is built, trained or saved.

use std::path::PathBuf;

use thiserror::Error;

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while a model is built, trained or saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration, checkpoint or policy that cannot be meant.
    #[error(transparent)]
    Core(#[from] badge_core::Error),
    /// A file, data set or tokeniser that cannot be used.
    #[error(transparent)]
    Tasks(#[from] badge_tasks::Error),
    /// The autodiff framework refused an operation.
    #[error("tensor operation failed: {0}")]
    Framework(#[from] crate::framework::FrameworkError),
    /// A model directory without weights.
    #[error(
        "{directory}: holds no weights; expected model.safetensors, model.safetensors.index.json \
         or pytorch_model.bin"
    )]
    NoWeights {
        /// The directory that was searched.
        directory: PathBuf,
    },
    /// A `pytorch_model.bin` that cannot be read.
    #[error("{file}: not a readable PyTorch checkpoint: {problem}")]
    PyTorch {
        /// The file.
        file: PathBuf,
        /// The reader's own message.
        problem: String,
    },
    /// A sharded checkpoint whose index is wrong.
    #[error("{file}: {problem}")]
    ShardIndex {
        /// The index file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An input longer than the position table.
    #[error("input of {tokens} tokens, but the backbone has positions for {positions}")]
    TooLong {
        /// Tokens of the longest row.
        tokens: usize,
        /// Rows of the position table.
        positions: usize,
    },
    /// A token id that the embedding table does not hold: tokeniser and backbone do not match.
    #[error(
        "the tokeniser gave token id {id}, but the backbone's vocabulary ends at {vocabulary}; \
         tokenizer.json and config.json do not belong together"
    )]
    TokenId {
        /// The offending id.
        id: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The loss became NaN or infinite.
    #[error("the loss became {loss} at step {step}; a lower --lr or a longer warm-up helps")]
    LossNotFinite {
        /// Its value.
        loss: f32,
        /// The optimiser step, counted from 1.
        step: u64,
    },
    /// A gradient became NaN or infinite.
    #[error("a gradient is not finite at step {step}; a lower --lr or a longer warm-up helps")]
    GradientNotFinite {
        /// The optimiser step, counted from 1.
        step: u64,
    },
    /// A setting that cannot be meant.
    #[error("{setting}: {problem}")]
    Setting {
        /// The flag or key.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The evaluator that the run was given failed.
    #[error("the dev split cannot be evaluated: {0}")]
    Evaluator(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A checkpoint of another run.
    #[error(
        "{file}: belongs to a run with other settings ({what}); \
         resume with the same ones or choose another --out"
    )]
    OtherRun {
        /// The checkpoint.
        file: PathBuf,
        /// What differs.
        what: String,
    },
    /// A checkpoint that cannot be read.
    #[error("{file}: not a readable training checkpoint: {problem}; remove it to start again")]
    Checkpoint {
        /// The checkpoint.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
}
