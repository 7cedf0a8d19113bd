//! The network on packed weights, file by file as the trainer has it.

pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod bypass;
pub(crate) mod embeddings;
pub(crate) mod exit;
pub(crate) mod feed_forward;
