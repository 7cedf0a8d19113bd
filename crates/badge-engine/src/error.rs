//! What can be wrong with a model directory, an option or an input.

use std::path::PathBuf;

use badge_kernels::isa::IsaError;
use thiserror::Error;

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a model directory, an option or an input.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The contents of a file, or a logit that is not finite.
    #[error(transparent)]
    Core(#[from] badge_core::Error),
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The instruction set that the environment asks for.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// An option of which nothing can be made.
    #[error("{option}: must be at least 1")]
    Option {
        /// Its name.
        option: &'static str,
    },
    /// A sequence without tokens.
    #[error("a sequence needs at least one token")]
    NoTokens,
    /// Ids and segment ids that do not pair up.
    #[error("{ids} token ids, but {type_ids} segment ids")]
    Segments {
        /// Number of token ids.
        ids: usize,
        /// Number of segment ids.
        type_ids: usize,
    },
    /// A sequence longer than the position table.
    #[error("input of {tokens} tokens, but the backbone has positions for {positions}")]
    TooLong {
        /// Its length.
        tokens: usize,
        /// Rows of the position table.
        positions: usize,
    },
    /// A sequence that the workspace could not hold if it were alone.
    #[error("input of {tokens} tokens, but the engine has room for {tokens_max} (tokens_max)")]
    NoRoom {
        /// Its length.
        tokens: usize,
        /// Rows of the workspace.
        tokens_max: usize,
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
    /// A segment id that the backbone does not know.
    #[error(
        "the tokeniser gave segment id {id}, but the backbone has {token_types}; \
         this backbone takes single texts only"
    )]
    SegmentId {
        /// The offending id.
        id: u32,
        /// Number of segments.
        token_types: usize,
    },
    /// Exits of a form that the engine has no code for.
    #[error(
        "config.json: key `early_exit`: the engine does not compute {form}; the trainer's model \
         does (--engine trainer)"
    )]
    ExitForm {
        /// What it would have to compute.
        form: &'static str,
    },
    /// A policy that was built for another model.
    #[error("policy `{policy}` was built for another model's exits or answers")]
    Policy {
        /// The policy.
        policy: String,
    },
}
