//! Everything between a file of text and a batch of token ids: tasks, data sets, the splits the
//! paper evaluates on, metrics, tokenisers, batches, and the Hugging Face hub.
//!
//! The way of an example through this crate:
//!
//! ```text
//! Task ──► split::load ──► Split ──► Tokenizer::encode_all ──► batch::Batch ──► a model
//! (rte, task.toml)  (TSV, CSV, JSONL, Parquet)                                    │
//!                                  metric::score ◄── LabelSpace::decide ◄── logits┘
//! ```
//!
//! Nothing here knows what a model is. A task is a value ([`Task`]); the nine GLUE tasks are built
//! in, others are described by a `task.toml` ([`task_file`]). Every file read is named in the
//! error that refuses it, with the line and the column.

pub mod batch;
pub mod dataset;
mod error;
pub mod file;
pub mod hash;
pub mod hub;
pub mod metric;
mod shuffle;
pub mod split;
pub mod task;
pub mod task_file;
pub mod tokenizer;

pub use batch::{Batch, BatchOrder};
pub use error::{Error, Result};
pub use hub::{Hub, HubEnvironment, HubId};
pub use metric::{MetricKind, score};
pub use split::{Split, TaskData, load};
pub use task::{Example, LabelSpace, Target, Task};
pub use tokenizer::cache::TokenCache;
pub use tokenizer::{Encoding, Overlong, Tokenizer};
