//! The one error type of this crate: what can be wrong with bytes that a caller hands in.

use thiserror::Error;

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a configuration, a checkpoint or a policy specification.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is not valid JSON, or a key has the wrong type.
    #[error("{file}: not valid JSON: {source}")]
    Json {
        /// The file the bytes came from.
        file: String,
        /// The parser's own message, with line and column.
        source: serde_json::Error,
    },
    /// A configuration key is missing or holds an impossible value.
    #[error("{file}: key `{key}`: {problem}")]
    ConfigKey {
        /// The file the key belongs to.
        file: String,
        /// Dotted path of the key.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A safetensors file whose header or offsets lie.
    #[error("{file}: not a valid safetensors file: {source}")]
    Safetensors {
        /// The file the bytes came from.
        file: String,
        /// The parser's own message.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the model needs is not there.
    #[error("{file}: tensor `{tensor}` is missing")]
    MissingTensor {
        /// The file, or set of files, that was searched.
        file: String,
        /// The name that was looked for.
        tensor: String,
    },
    /// The same tensor twice, in two files or under two spellings.
    #[error("tensor `{tensor}` is in {first} and again in {second}; remove one of them")]
    DuplicateTensor {
        /// Its name.
        tensor: String,
        /// The file that was read first.
        first: String,
        /// The file that was read later.
        second: String,
    },
    /// A tensor that the model has no place for.
    #[error("{file}: tensor `{tensor}` is not part of the model that config.json describes")]
    UnexpectedTensor {
        /// The file that holds it.
        file: String,
        /// Its name.
        tensor: String,
    },
    /// A tensor of another shape than the configuration implies.
    #[error("{file}: tensor `{tensor}` has shape {found:?}, but the model needs {expected:?}")]
    TensorShape {
        /// The file that holds it.
        file: String,
        /// Its name.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor of a type that holds no weights.
    #[error("{file}: tensor `{tensor}` has type {dtype}; weights must be F32, F16 or BF16")]
    TensorType {
        /// The file that holds it.
        file: String,
        /// Its name.
        tensor: String,
        /// The type in the file.
        dtype: String,
    },
    /// A weight that is NaN or infinite.
    #[error("{file}: tensor `{tensor}` holds {value} at element {element}; weights must be finite")]
    NotFinite {
        /// The file that holds it.
        file: String,
        /// Its name.
        tensor: String,
        /// The offending value.
        value: f32,
        /// Its index in row-major order.
        element: usize,
    },
    /// An exit answered with no values at all.
    #[error("an exit needs at least one class or label, but there is none")]
    NoLogits,
    /// An exit answered with a number that no probability can be made of.
    #[error("logit {} of an exit is {value}; the model's weights or its input are damaged", position + 1)]
    LogitNotFinite {
        /// Index of the first such logit, from 0.
        position: usize,
        /// The logit.
        value: f32,
    },
    /// An exit answered with more or fewer values than its task has classes or labels.
    #[error("an exit gave {found} logits where the task asks for {expected}")]
    LogitCount {
        /// Number of classes or labels of the task; 1 for regression.
        expected: usize,
        /// Number of values given.
        found: usize,
    },
    /// Numbers that were given as probabilities and are not.
    #[error("not a probability distribution: {problem}")]
    NotADistribution {
        /// Which number, or their sum, is impossible.
        problem: String,
    },
    /// A policy specification that cannot be meant.
    #[error("policy `{spec}`: {problem}")]
    Policy {
        /// The text as it was given.
        spec: String,
        /// What is wrong, naming the key, and what would be right.
        problem: String,
    },
    /// A setting of the controller that cannot be meant.
    #[error("{name}: {problem}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}
