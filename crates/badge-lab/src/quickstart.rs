//! The quickstart: a task that needs no download, and the model trained on it.

pub mod corpus;
pub mod tokenizer;
